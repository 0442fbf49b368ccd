"""Photos of every mode keep their range in 8 bits or are refused by name; nothing but a photo is opened."""

import io
import struct
import zlib

import numpy as np
import pytest
from picture_writers import classes, packed, write_tiny
from PIL import EpsImagePlugin, Image

from braincog_transformers import cli
from braincog_transformers.data.build import build_datasets
from braincog_transformers.data.pictures.decoding import decoded, photos_only
from braincog_transformers.errors import UserError

RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n{} loop\n"


def saved(picture, kind, **options):
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def png(values, colour, bits=16, size=None):
    """Write what Pillow does not: colours of 16 bits."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    high, wide = size or values.shape[:2]
    rows = b"" if values is None else b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", wide, high, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(values, *, photometric=1, bits=16, sample_format=1):
    """Write what Pillow does not: white as zero, 12 bits, numbers with a sign."""
    high, wide = values.shape[:2]
    data = values.tobytes()
    tags = [(256, wide), (257, high), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, high)]
    tags += [(279, len(data)), (339, sample_format)]
    entries = b"".join(struct.pack("<HHII", tag, 4 if value > 65535 else 3, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def mean_of(content):
    values = np.asarray(decoded(io.BytesIO(content), "x"))
    assert values.shape[2] == 3
    assert values.dtype == np.uint8
    return values.mean((0, 1)).round(1).tolist()


COLOURS = np.stack([RAMP, RAMP // 2, RAMP // 4], -1)
RAMPS = {
    "png": saved(Image.fromarray(RAMP), "PNG"),
    "tiff": saved(Image.fromarray(RAMP), "TIFF"),
    "tiff_big_endian": saved(Image.frombytes("I;16B", RAMP.shape, RAMP.astype(">u2").tobytes()), "TIFF"),
    "pgm": b"P5 256 256 65535\n" + RAMP.astype(">u2").tobytes(),
    "pgm_10_bits": b"P5 256 256 1023\n" + (RAMP >> 6).astype(">u2").tobytes(),
    "ppm": b"P6 256 256 65535\n" + np.repeat(RAMP[..., None], 3, 2).astype(">u2").tobytes(),
    "png_grey_alpha": png(np.stack([RAMP, RAMP], -1), 4),
    "png_rgb": png(np.repeat(RAMP[..., None], 3, 2), 2),
    "png_rgba": png(np.repeat(RAMP[..., None], 4, 2), 6),
    "png_8_bits": png((RAMP >> 8).astype(np.uint8), 0, bits=8),
}


@pytest.mark.parametrize("content", RAMPS.values(), ids=RAMPS)
def test_a_ramp_of_16_bits_keeps_its_range(content):
    values = np.asarray(decoded(io.BytesIO(content), "x"))
    assert values.mean() == pytest.approx(127.5, abs=0.6)
    assert abs(values[:, :, 0].astype(int) - (RAMP >> 8)).max() <= 1
    assert len(np.unique(values)) == 256


def test_colours_of_16_bits_keep_their_proportions():
    assert mean_of(png(COLOURS, 2)) == pytest.approx([127.5, 63.5, 31.5], abs=0.1)


def palette():
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    return picture


SECOND = {"save_all": True, "append_images": [Image.new("L", (8, 8))]}
MODES = {
    "bits": (saved(Image.new("1", (8, 8), 1), "PNG"), [255, 255, 255]),
    "grey": (saved(Image.new("L", (8, 8), 9), "PNG"), [9, 9, 9]),
    "grey_alpha": (saved(Image.new("LA", (8, 8), (100, 30)), "PNG"), [100, 100, 100]),
    "palette": (saved(palette(), "PNG"), [10, 20, 30]),
    "palette_transparent": (saved(palette(), "PNG", transparency=1), [10, 20, 30]),
    "gif": (saved(palette(), "GIF"), [10, 20, 30]),
    "cmyk": (saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"), [255, 0, 0]),
    "bmp": (saved(Image.new("RGB", (8, 8), (1, 2, 3)), "BMP"), [1, 2, 3]),
    "two_frames": (saved(Image.new("L", (8, 8), 9), "GIF", **SECOND), [9, 9, 9]),
    "two_pages": (saved(Image.new("L", (8, 8), 9), "TIFF", **SECOND), [9, 9, 9]),
}  # fmt: skip


@pytest.mark.parametrize(("content", "colour"), MODES.values(), ids=MODES)
def test_each_mode_has_its_colour_and_the_first_frame_counts(content, colour):
    assert mean_of(content) == colour


def test_a_note_that_a_picture_is_to_be_turned_is_left_alone():
    exif = Image.Exif()
    exif[274] = 6
    assert decoded(io.BytesIO(saved(Image.new("RGB", (8, 4)), "JPEG", exif=exif)), "x").size == (8, 4)


UNKNOWN = {
    "whole_32_bits": saved(Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
    "broken": saved(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
    "pfm": b"Pf\n256 256\n-1.0\n" + RAMP.astype("<f4").tobytes(),
    "signed_16_bits": tiff(RAMP.astype("<i2"), sample_format=2),
    "signed_8_bits": tiff((RAMP >> 8).astype("i1"), bits=8, sample_format=2),
    "white_as_zero": tiff(RAMP.astype("<u2"), photometric=0),
    "12_bits": tiff(np.zeros((4, 6), np.uint8), bits=12),
}


@pytest.mark.parametrize("content", UNKNOWN.values(), ids=UNKNOWN)
def test_values_without_a_known_range_are_refused_by_name(content):
    with pytest.raises(
        UserError, match=r"^x\.tif: its values \(mode .*\) are no numbers of 8 or 16 bits from black to"
    ):
        decoded(io.BytesIO(content), "x.tif")


@pytest.fixture
def no_ghostscript(monkeypatch):
    def started(*given, **further):
        raise AssertionError("Ghostscript would have been started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)


FOREIGN = {"eps": EPS, "ico": saved(Image.new("RGB", (16, 16)), "ICO"), "text": b"no picture", "nothing": b""}
HUGE = {
    "png": png(None, 2, 8, (30000, 30000)),
    "gif": b"GIF89a" + b"\xff" * 4 + bytes(3) + b"," + bytes(4) + b"\xff" * 4 + b"\0\x08\0",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_photo_is_not_opened_by_us_or_by_others(no_ghostscript, content, tmp_path):
    path = tmp_path / "x.JPEG"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.JPEG: not a complete picture \(none of JPEG, PNG, "):
        decoded(path, str(path))
    kept = Image.open
    with (
        photos_only("a stream"),
        pytest.raises(UserError, match=r"x\.JPEG: not a complete picture"),
        path.open("rb") as file,
    ):
        Image.open(file)
    with photos_only("a stream"), pytest.raises(UserError, match=r"^a stream: not a complete picture"):
        Image.open(io.BytesIO(content))
    assert Image.open is kept


@pytest.mark.parametrize("content", HUGE.values(), ids=HUGE)
def test_too_many_pixels_are_refused_before_they_are_decoded(content):
    with pytest.raises(UserError, match=r"^x: \d+ x \d+ pixels, more than 178,956,970; .* raise --max-pixels"):
        decoded(io.BytesIO(content), "x")


def test_the_limit_of_pixels_is_ours_and_pillows_stays(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    content = saved(Image.new("RGB", (8, 8), 7), "PNG")
    assert decoded(io.BytesIO(content), "x").size == (8, 8)
    assert Image.MAX_IMAGE_PIXELS == 10
    with pytest.raises(UserError, match="8 x 8 pixels, more than 63"):
        decoded(io.BytesIO(content), "x", max_pixels=63)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_a_picture_that_is_cut_short_is_named(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    content = saved(Image.fromarray(noise), kind)
    with pytest.raises(UserError, match=r"^x: not a complete picture \(.*\); fetch it anew") as caught:
        decoded(io.BytesIO(content[: len(content) // 2]), "x")
    assert len(str(caught.value)) < 300


def test_the_command_line_names_the_photo_and_takes_a_limit(tmp_path, capsys, no_ghostscript):
    for half in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / half / name).mkdir(parents=True)
            (tmp_path / half / name / "0.JPEG").write_bytes(saved(Image.new("RGB", (8, 8)), "JPEG"))
    argv = ["--dataset", "imnet", "--data-dir", str(tmp_path), "--model", "spikformer_4_384_cifar", "--model-kwargs"]
    argv += ["depth=1", "embed_dim=16", "num_heads=2", "--img-size", "16", "--step", "1", "--workers", "0", "-b", "2"]
    argv += ["--device", "cpu", "--output", str(tmp_path / "runs"), "--tensorboard-dir", ""]
    assert cli.main([*argv, "--max-pixels", "63"]) == 2
    assert "0.JPEG: 8 x 8 pixels, more than 63; make it smaller, or raise --max-pixels" in capsys.readouterr().err
    (tmp_path / "train" / "dog" / "0.JPEG").write_bytes(EPS)
    assert cli.main(argv) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert "dog/0.JPEG: not a complete picture (none of JPEG, PNG" in error[0]


def test_a_limit_of_pixels_reaches_tars_and_tiny_imagenet(tmp_path):
    write_tiny(tmp_path)
    for half in ("train", "val"):
        (tmp_path / f"{half}.tar").write_bytes(packed(classes()))
    for name in ("imnet", "tinyimagenet"):
        bundle = build_datasets(name, tmp_path, size=(8, 8), max_pixels=63)
        for side in (bundle.train, bundle.test):
            with pytest.raises(UserError, match="8 x 8 pixels, more than 63"):
                side[0]
