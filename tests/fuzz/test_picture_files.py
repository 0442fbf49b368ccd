"""Pictures and tars with mutated bytes: each is read, or refused in one line."""

import io
import random
import tarfile

import numpy as np
import pytest
from PIL import Image

from braincog_transformers.data.pictures.decoding import decoded
from braincog_transformers.data.pictures.tars import read_tars
from braincog_transformers.errors import UserError

MOST = 1 << 22
"""Pixels, so that a case whose size was mutated stays quick."""


def picture(kind, mode="RGB"):
    values = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(values).convert(mode).save(content, kind)
    return content.getvalue()


def tar(form):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=form) as stored:
        for name in ("a/0.png", "a/" + "n" * 60 + "/" + "n" * 60 + ".png", "b/é.png"):
            entry = tarfile.TarInfo(name)
            entry.size = len(PNG)
            stored.addfile(entry, io.BytesIO(PNG))
    return content.getvalue()


PNG = picture("PNG")
PICTURES = {kind: picture(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")}
PICTURES |= {"grey": picture("TIFF", "L"), "palette": picture("PNG", "P")}
TARS = {"gnu": tar(tarfile.GNU_FORMAT), "pax": tar(tarfile.PAX_FORMAT), "ustar": tar(tarfile.USTAR_FORMAT)}
SPECIAL = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"7" * 11, b"\x80" + b"\0" * 10)


def mutated(content, rng):
    """Change some bytes, near the beginning more often than elsewhere, cut, double or insert a stretch."""
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(min(len(found), rng.choice((64, 600, len(found)))) or 1)
        how = rng.randrange(6)
        if how < 3:
            found[place : place + 1] = bytes([rng.randrange(256)])
        elif how == 3:
            value = rng.choice(SPECIAL)
            found[place : place + len(value)] = value
        elif how == 4:
            del found[place : place + rng.randrange(1, 40)]
        else:
            found[place:place] = found[: rng.randrange(40)]
        if not found:
            break
    return bytes(found)


def read_or_refused(read, case):
    told = ""
    try:
        read()
    except UserError as error:
        told = str(error)
    assert "\n" not in told, case
    assert len(told) < 600, case


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", PICTURES)
def test_a_mutated_picture_is_read_or_refused_in_one_line(kind, fuzz_cases):
    for case in range(fuzz_cases):
        content = mutated(PICTURES[kind], random.Random(f"{kind} {case}"))
        read_or_refused(lambda content=content: decoded(io.BytesIO(content), "x", MOST), (kind, case))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", TARS)
def test_a_mutated_tar_is_read_or_refused_in_one_line(kind, fuzz_cases, tmp_path):
    path = tmp_path / "train.tar"
    for case in range(fuzz_cases):
        rng = random.Random(f"{kind} {case}")
        content = bytearray(TARS[kind])
        for _ in range(rng.choice((1, 1, 3))):
            # the heads of members, with their sums made right again, so that the bytes behind a sum count, too
            head = rng.randrange(len(content) // 512) * 512
            content[head : head + 512] = mutated(bytes(content[head : head + 512]), rng)[:512].ljust(512, b"\0")
            if rng.random() < 0.7:
                total = sum(content[head : head + 148]) + 8 * 32 + sum(content[head + 156 : head + 512])
                content[head + 148 : head + 156] = b"%06o\0 " % total
        path.write_bytes(bytes(content))

        def read():
            pictures, _ = read_tars(path, MOST)
            for index in range(len(pictures)):
                read_or_refused(lambda: pictures[index], (kind, case))  # noqa: B023 - called at once

        read_or_refused(read, (kind, case))
