"""Photos in tar files, in each layout that timm reads, and Tiny ImageNet in its official layout."""

import pickle
import shutil

import pytest
from picture_writers import WNIDS, photo, write_tar, write_tiny

from braincog_transformers.data.build import Augment, build_datasets
from braincog_transformers.errors import UserError

PLAIN = {"augment": Augment(no_aug=True), "normalize": False, "size": (8, 8)}


def photos(part, folders=True):
    """Return two photos for each of two classes; the grey value tells part, class and number."""
    base = {"train": 0, "val": 100}[part]
    named = {name: {f"{name}_{i}.png": photo(base + 20 * c + i) for i in range(2)} for c, name in enumerate(("a", "b"))}
    return {f"{name}/{file}": one for name, files in named.items() for file, one in files.items()} if folders else named


def write_single(root):
    for part in ("train", "val"):
        write_tar(root / f"{part}.tar", photos(part))


def write_one_for_each_class(root):
    for part in ("train", "val"):
        for name, files in photos(part, folders=False).items():
            write_tar(root / part / f"{name}.tar", files)


def write_tars_in_a_tar(root):
    for part in ("train", "val"):
        inner = {}
        for name, files in photos(part, folders=False).items():
            write_tar(root / "inner.tar", files)
            inner[f"{name}.tar"] = (root / "inner.tar").read_bytes()
        write_tar(root / f"{part}.tar", inner)


def values(dataset):
    return [(round(float(x.mean() * 255)), y) for x, y in dataset]


@pytest.mark.parametrize("write", [write_single, write_one_for_each_class, write_tars_in_a_tar])
def test_photos_in_tars(tmp_path, write):
    write(tmp_path / "imnet")
    bundle = build_datasets("imnet", tmp_path, **PLAIN)
    assert bundle.classes == ("a", "b")
    for side, base in ((bundle.train, 0), (bundle.test, 100)):
        assert sorted(values(side)) == [(base, 0), (base + 1, 0), (base + 20, 1), (base + 21, 1)]
        assert values(pickle.loads(pickle.dumps(side))) == values(side)


def test_folders_and_tars_go_together(tmp_path):
    write_single(tmp_path)
    (tmp_path / "val.tar").unlink()
    (tmp_path / "validation" / "b").mkdir(parents=True)
    (tmp_path / "validation" / "b" / "x.png").write_bytes(photo(7))
    assert values(build_datasets("imnet", tmp_path, **PLAIN).test) == [(7, 1)]


@pytest.mark.parametrize("content", [b"", b"no tar", None])
def test_a_damaged_tar_is_one_line(tmp_path, content):
    write_single(tmp_path)
    path = tmp_path / "train.tar"
    path.write_bytes(path.read_bytes()[:700] if content is None else content)
    with pytest.raises(UserError, match=r"train\.tar: not a complete tar file of photos") as caught:
        build_datasets("imnet", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_photo_in_a_tar_is_named(tmp_path):
    write_single(tmp_path)
    write_tar(tmp_path / "train.tar", {"a/x.png": photo(1), "b/y.png": photo(1)[:40]})
    with pytest.raises(UserError, match=r"train\.tar: b/y\.png: not a complete picture"):
        build_datasets("imnet", tmp_path, **PLAIN).train[1]


@pytest.mark.parametrize("place", [".", "tinyimagenet", "TinyImageNet"])
def test_tiny_imagenet_in_its_official_layout(tmp_path, place):
    assert (len(WNIDS), list(WNIDS)) == (200, sorted(WNIDS))
    write_tiny(tmp_path / place)
    bundle = build_datasets("tinyimagenet", tmp_path, **PLAIN)
    assert (bundle.num_classes, bundle.classes, bundle.input_shape) == (200, WNIDS, (3, 8, 8))
    assert values(bundle.train) == [(label, label) for label in range(200)]
    assert values(bundle.test) == [(199, 199), (0, 0), (7, 7)]


def test_tiny_imagenet_that_is_incomplete_is_named(tmp_path):
    folder = write_tiny(tmp_path, leave_out=WNIDS[3:5])
    with pytest.raises(UserError, match=f"no photos of 2 of 200 classes .*{WNIDS[3]}, {WNIDS[4]}"):
        build_datasets("tinyimagenet", tmp_path)
    for wnid in WNIDS[3:5]:
        (folder / "train" / wnid / "images" / "x.JPEG").write_bytes(photo(0, "JPEG"))
    for text, message in (("val_0.JPEG\tn99", "n99"), ("val_0.JPEG", "not a list"), ("", "lists no photos")):
        (folder / "val" / "val_annotations.txt").write_text(text)
        with pytest.raises(UserError, match=message) as caught:
            build_datasets("tinyimagenet", tmp_path)
        assert "\n" not in str(caught.value)


def test_tiny_imagenet_reads_photos_of_any_ending_and_a_list_of_any_editor(tmp_path):
    folder = write_tiny(tmp_path)
    first = folder / "train" / WNIDS[0] / "images"
    (first / f"{WNIDS[0]}_0.JPEG").rename(first / "0.jpg")
    (first / "._0.jpg").write_bytes(b"\0\5\26\7")
    (folder / "val" / "images" / ".DS_Store").write_bytes(b"x")
    notes = folder / "val" / "val_annotations.txt"
    rows = notes.read_text().splitlines()
    notes.write_bytes(("\r\n".join(rows) + "\r\n\r\n").encode("utf-8-sig"))
    bundle = build_datasets("tinyimagenet", tmp_path, **PLAIN)
    assert (len(bundle.train), values(bundle.test)) == (200, [(199, 199), (0, 0), (7, 7)])
    shutil.rmtree(folder / "train")
    assert values(build_datasets("tinyimagenet", tmp_path, needs_train=False, **PLAIN).test)[0] == (199, 199)


def add_photo(folder):
    (folder / "val" / "images" / "val_9.JPEG").write_bytes(photo(1, "JPEG"))


def lose_photo(folder):
    (folder / "val" / "images" / "val_1.JPEG").unlink()


def list_twice(folder):
    notes = folder / "val" / "val_annotations.txt"
    notes.write_text(notes.read_text() + notes.read_text())


def lead_outside(folder):
    notes = folder / "val" / "val_annotations.txt"
    notes.write_text(notes.read_text() + f"../../../x.JPEG\t{WNIDS[0]}\n")


def add_class(folder):
    (folder / "train" / "n99").mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (add_photo, r"lists 3 photos, and 4 lie in images \(.*val_9\.JPEG\)"),
        (lose_photo, r"lists 3 photos, and 2 lie in images \(.*val_1\.JPEG\)"),
        (list_twice, r"lists 6 photos, and 3 lie in images \(one of them twice\)"),
        (lead_outside, r"lists 4 photos, and 3 lie in images \(.*x\.JPEG\)"),
        (add_class, r"train/n99: is no class of tinyimagenet"),
    ],
)
def test_photos_that_tiny_imagenets_list_does_not_know_are_named(tmp_path, spoil, message):
    spoil(write_tiny(tmp_path))
    with pytest.raises(UserError, match=message):
        build_datasets("tinyimagenet", tmp_path)
