"""Tars of photos as archive programs write them, and as damaged or hostile ones declare them: one line, at once."""

import struct
import tarfile

import pytest
from picture_writers import CLASSES, classes, member, packed, photo

from braincog_transformers.data.build import Augment, build_datasets
from braincog_transformers.errors import UserError

PLAIN = {"augment": Augment(no_aug=True), "normalize": False, "size": (8, 8)}
PHOTO = photo(7)


def read(root, content=None):
    """Read a tar of each half, or the halves as they are."""
    if content is not None:
        for half in ("train", "val"):
            (root / f"{half}.tar").write_bytes(content)
    return build_datasets("imnet", root, **PLAIN)


def folder(name, kind=tarfile.DIRTYPE):
    return member(name, b"", type=kind)


@pytest.mark.parametrize(
    "content",
    [
        packed([folder("./"), *[folder(f"./{name}/") for name in CLASSES], *classes("./{name}/{number}.png")]),
        packed(classes("{name}/images/{number}.png")),
        packed(classes("/{name}/{number}.png")),
        packed([*classes(), *classes("{name}/._{number}.png", content=b"\0\5\26\7"), member("__MACOSX/cat/0.png")]),
        packed([*classes(), *classes("{name}/PaxHeaders.12/{number}.png"), member("README"), member("._0.png")]),
        packed(classes("{name}/" + "long" * 60 + "{number}.png"), format=tarfile.GNU_FORMAT),
        packed(classes("{name}/é" + "long" * 60 + "{number}.png"), format=tarfile.PAX_FORMAT),
        packed(classes("{name}/{number}.WEBP")),
    ],
    ids=["dots", "below", "root", "apple_double", "pax_headers", "gnu_names", "pax_names", "endings"],
)
@pytest.mark.filterwarnings("ignore:.*files are not read")
def test_a_tar_is_read_as_the_folder_that_it_unpacks_to(tmp_path, content):
    bundle = read(tmp_path, content)
    assert (bundle.classes, bundle.train.targets) == (CLASSES, [0, 0, 1, 1, 2, 2])
    assert bundle.test[5][1] == 2


@pytest.mark.parametrize("around", ["{half}/", "imnet/{half}/", "./{half}/"])
def test_folders_around_all_photos_that_end_in_the_halfs_name_are_no_class(tmp_path, around):
    for half in ("train", "val"):
        inside = around.format(half=half) + "{name}/{number}.png"
        (tmp_path / f"{half}.tar").write_bytes(packed(classes(inside)))
    assert read(tmp_path).classes == CLASSES


@pytest.mark.parametrize("inside", ["{number}.png", "{name}/{number}.png"])
def test_one_tar_for_each_class_gives_it_its_name(tmp_path, inside):
    for half in ("train", "val"):
        (tmp_path / half).mkdir()
        for name in CLASSES:
            members = [member(inside.format(name=name, number=number)) for number in range(2)]
            (tmp_path / half / f"{name}.tar").write_bytes(packed(members))
        (tmp_path / half / "._cat.tar").write_bytes(b"\0\5\26\7")
    bundle = read(tmp_path)
    assert (bundle.classes, sorted(bundle.train.targets)) == (CLASSES, [0, 0, 1, 1, 2, 2])


def test_a_class_whose_tar_holds_no_photo_is_named(tmp_path):
    for half in ("train", "val"):
        (tmp_path / half).mkdir()
        for name in CLASSES:
            (tmp_path / half / f"{name}.tar").write_bytes(packed([member("0.png")]))
    (tmp_path / "train" / "owl.tar").write_bytes(packed([]))
    with pytest.raises(UserError, match=r"train: Found 0 images in 1 of its class folders \(owl\)"):
        read(tmp_path)


def test_parts_of_one_set_share_the_classes_inside(tmp_path):
    for half in ("train", "val"):
        (tmp_path / half).mkdir()
        for part in range(2):
            (tmp_path / half / f"part{part}.tar").write_bytes(packed(classes("{name}/" + f"{part}" + "{number}.png")))
    bundle = read(tmp_path)
    assert (bundle.classes, len(bundle.train)) == (CLASSES, 12)


LINK = member("cat/9.png", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
HARD = member("cat/9.png", b"", type=tarfile.LNKTYPE, linkname="cat/0.png")
INNER = packed(classes("{number}{name}.png"))
REFUSED = {
    "flat": ([member(f"{n}.png") for n in range(3)], r"train\.tar: 0\.png lies in no class folder; put all"),
    "stray": ([*classes(), member("overview.png")], r"train\.tar: overview\.png lies in no class folder"),
    "one_class": (classes("images/{name}{number}.png"), "all of its photos lie in one folder, images"),
    "symbolic_link": ([*classes(), LINK], r"cat/9\.png is or has a link; unpack"),
    "hard_link": ([*classes(), HARD], r"cat/9\.png is or has a link"),
    "pipe": ([*classes(), folder("cat/9.png", tarfile.FIFOTYPE)], r"cat/9\.png is or has a device"),
    "leads_outside": ([*classes(), member("cat/../../x.png")], r"x\.png is or has a name that leads outside"),
    "twice": ([*classes(), member("./cat/0.png")], r"cat/0\.png is or has a name for the second time"),
    "long_name": ([*classes(), member("cat/" + "9" * 5000 + ".png")], r"9\.\.\.9+ is or has a name of 5008 characters"),
    "capitals": ([*classes(), member("CAT/0.png")], "'CAT' and 'cat' differ in writing only"),
    "tars_and_photos": ([*classes(), member("ant.tar", INNER)], r"\(cat/0\.png\) beside tars \(ant\.tar\)"),
    "tar_in_tar_in_tar": ([member("a.tar", packed([member("b.tar", INNER)]))], r"a\.tar holds tars in its turn"),
    "shards": ([member("0.png"), member("0.cls", b"3")], r"WebDataset's labels \(0\.cls\); read it with --da"),
    "nothing": ([member("README")], "it holds no photos"),
}  # fmt: skip


@pytest.mark.parametrize(("members", "message"), REFUSED.values(), ids=REFUSED)
def test_what_would_be_lost_doubled_or_moved_is_one_line(tmp_path, members, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, packed(members))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_photos_beside_tars_in_a_folder_and_mixtures_are_one_line(tmp_path):
    for half in ("train", "val"):
        (tmp_path / half).mkdir()
        for name in CLASSES:
            (tmp_path / half / f"{name}.tar").write_bytes(packed([member("0.png")]))
    (tmp_path / "train" / "cat.tar").write_bytes(packed([member("0.png"), member("session2/1.png")]))
    with pytest.raises(UserError, match=r"cat\.tar: 0\.png lies in no class folder"):
        read(tmp_path)
    (tmp_path / "train" / "x.png").write_bytes(PHOTO)
    with pytest.raises(UserError, match=r"train: holds x\.png beside tars such as cat\.tar"):
        read(tmp_path)


def head(name, size, kind=b"0"):
    """Return the head of a member that declares any size, in the octal form or in base 256."""
    stored = (
        b"%011o\0" % size
        if 0 <= size < 8**11
        else (b"\x80" if size >= 0 else b"\xff") + (size % 2**88).to_bytes(11, "big")
    )
    fields = (name.encode(), b"0000644\0", b"0000000\0", b"0000000\0", stored, b"00000000000\0", b" " * 8, kind)
    block = struct.pack("100s8s8s8s12s12s8s1s", *fields) + b"\0" * 100 + b"ustar\0" + b"00" + b"\0" * 247
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


SMALL = packed(classes()).rstrip(b"\0")
SMALL += bytes(-len(SMALL) % 512)
END = bytes(1024)
DAMAGED = {
    "huge": (head("cat/0.png", 2**62) + END, "declares 4,611,686,018,427,387,904 bytes"),
    "huge_behind_others": (SMALL + head("cat/9.png", 2**62) + END, "declares 4,611"),
    "huge_other_file": (SMALL + head("cat/notes", 2**62) + END, "declares 4,611"),
    "beyond_the_end": (SMALL + head("cat/9.png", 5000) + END, "declares 5,000 bytes"),
    "huge_gnu_name": (head("././@LongLink", 2**62, b"L") + END, "a head of"),
    "huge_pax_head": (head("pax", 2**40, b"x") + END, "a head of"),
    "negative": (SMALL + head("cat/9.png", -1024) + END, "one of less than no bytes|declares -1,024"),
    "negative_head": (head("pax", -512, b"x") + END, "a head of"),
    "endless_heads": (head("pax", 0, b"x") * 3000 + END, r"not a complete tar file"),
    "without_an_end": (SMALL, "it is cut short"),
    "cut_between_members": (SMALL[: SMALL.index(b"owl/1") // 512 * 512], "it is cut short"),
    "flipped_bit_in_a_head": (SMALL.replace(b"dog/0.png", b"dog/1.png", 1) + END, "something lies behind its end"),
    "joined_tars": (SMALL + END + SMALL + END, "something lies behind its end"),
    "gzip": (b"\x1f\x8b" + bytes(600), "not a complete tar file"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_tar_is_one_line_at_once(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, content)
    assert "train.tar: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_member_of_an_inner_tar_ends_within_it(tmp_path):
    inner = packed([member("0.png")]).rstrip(b"\0")
    inner += bytes(-len(inner) % 512)
    content = packed([member(f"{name}.tar", inner + END) for name in CLASSES])
    assert read(tmp_path, content).classes == CLASSES
    content = packed([member(f"{name}.tar", inner) for name in CLASSES])
    with pytest.raises(UserError, match=r"train\.tar: cat\.tar: .*it is cut short"):
        read(tmp_path, content)


def test_a_sparse_member_is_refused(tmp_path):
    entry = member("cat/9.png", bytes(512), pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})
    sparse = packed([*classes(), (entry[0], b"1\n0\n512\n".ljust(512, b"\0"))], format=tarfile.PAX_FORMAT)
    with pytest.raises(UserError, match=r"cat/9\.png is or has a device, a sparse file"):
        read(tmp_path, sparse)


def test_a_class_without_photos_is_refused_in_a_tar_as_in_folders(tmp_path):
    with pytest.raises(UserError, match=r"train\.tar: Found 0 images in 1 of its class folders \(ant\)"):
        read(tmp_path, packed([*classes(), folder("ant/")]))
    with pytest.raises(UserError, match=r"train\.tar: Found 0 images in ant, but files as ant/old/0\.heic; convert"):
        read(tmp_path, packed([*classes(), member("ant/old/0.heic")]))


def test_photos_in_two_tars_are_told_and_a_tar_that_is_there_twice_is_refused(tmp_path):
    for half in ("train", "val"):
        (tmp_path / half).mkdir()
        (tmp_path / half / "a.tar").write_bytes(packed(classes()))
    (tmp_path / "train" / "b.TAR").write_bytes(packed(classes()))
    with pytest.warns(UserWarning, match=r"train: 6 photos of imnet lie in more than one tar, each counts: cat/0\.png"):
        assert len(read(tmp_path).train) == 12
    (tmp_path / "train" / "b.TAR").unlink()
    (tmp_path / "train" / "b.tar").symlink_to("a.tar")
    with pytest.raises(UserError, match=r"b\.tar: is .*a\.tar once more, through a link"):
        read(tmp_path)
    (tmp_path / "train" / "b.tar").rename(tmp_path / "train" / "b.tar.gz")
    with pytest.raises(UserError, match=r"train: holds b\.tar\.gz beside tars such as a\.tar"):
        read(tmp_path)
