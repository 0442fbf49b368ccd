"""Class folders as users really have them: the top folders are the classes, and nothing is lost or moved unseen."""

import os
import re
import unicodedata
import warnings

import numpy as np
import pytest
from event_writers import write_bullying10k
from PIL import Image

from braincog_transformers import cli
from braincog_transformers.cli.data_info import data_info
from braincog_transformers.data.build import build_datasets
from braincog_transformers.data.pictures.folders import natural_key, number_classes
from braincog_transformers.errors import UserError

CLASSES = ("cat", "dog", "owl")


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)


def plain(root, below=""):
    """Write 3 + 2 photos of each class, in a folder below the class's own if one is named."""
    for half, count in (("train", 3), ("val", 2)):
        for name in CLASSES:
            for number in range(count):
                picture(root / half / name / below / f"{number}.png")
    return root / "train"


def read(root, **options):
    return build_datasets("imnet", root, size=(4, 4), **options)


def counts(bundle):
    return (
        bundle.classes,
        [bundle.train.targets.count(n) for n in range(3)],
        [bundle.test.targets.count(n) for n in range(3)],
    )


def add_hidden(train):
    picture(train / "cat" / ".ipynb_checkpoints" / "0-checkpoint.png")
    picture(train / ".ipynb_checkpoints" / "0.png")
    picture(train / ".hidden.png")


def add_apple_double(train):
    for name in ("._0.png", ".DS_Store"):
        (train / "cat" / name).write_bytes(b"\0\5\26\7" + bytes(100))
    picture(train / "__MACOSX" / "cat" / "0.png")
    picture(train / "cat" / "__MACOSX" / "0.png")
    picture(train / "cat" / "@eaDir" / "0.png" / "SYNOPHOTO_THUMB_M.png")


def add_lists(train):
    (train / "classes.txt").write_text("cat\n")


def change_endings(train):
    for half in ("train", "val"):
        for number, ending in enumerate((".bmp", ".WEBP", ".tiff")):
            for path in (train.parent / half / CLASSES[number]).iterdir():
                Image.open(path).save(path.with_suffix(ending))
                path.unlink()


@pytest.mark.parametrize("add", [None, add_hidden, add_apple_double, add_lists, change_endings])
def test_what_belongs_to_no_set_is_passed_over_and_every_kind_of_photo_is_read(tmp_path, add):
    train = plain(tmp_path)
    if add:
        add(train)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert counts(read(tmp_path)) == (CLASSES, [3] * 3, [2] * 3)


def test_photos_count_for_their_top_folder(tmp_path):
    plain(tmp_path, below="images")
    assert counts(read(tmp_path)) == (CLASSES, [3] * 3, [2] * 3)


def test_photos_deeper_than_the_others_of_their_class_count_for_it_and_are_named(tmp_path):
    picture(plain(tmp_path) / "cat" / "session2" / "s0.png")
    with pytest.warns(UserWarning, match=r"1 photos, such as .*cat/session2/s0\.png, lie in other folders"):
        assert counts(read(tmp_path)) == (CLASSES, [4, 3, 3], [2] * 3)


def flat(train):
    for half in ("train", "val"):
        for name in CLASSES:
            for path in (train.parent / half / name).iterdir():
                path.rename(train.parent / half / f"{name}{path.name}")
            (train.parent / half / name).rmdir()


def flat_validation(train):
    flat(train)
    plain(train.parent / "other")
    for path in train.iterdir():
        path.unlink()
    train.rmdir()
    (train.parent / "other" / "train").rename(train)


def wrapped(train):
    for half in ("train", "val"):
        (train.parent / half).rename(train.parent / "moved")
        (train.parent / half).mkdir()
        (train.parent / "moved").rename(train.parent / half / "images")


def other_ending(train):
    for path in (train / "owl").iterdir():
        path.rename(path.with_suffix(".heic"))


def empty(train):
    (train / "ant").mkdir()


def link_up(train):
    (train / "cat" / "up").symlink_to("..", target_is_directory=True)


def linked_class(train):
    (train / "feline").symlink_to("cat", target_is_directory=True)


def dead_class(train):
    (train / "ant").symlink_to("/nowhere/ant", target_is_directory=True)


def dead_photo(train):
    (train / "cat" / "9.png").symlink_to("/nowhere/9.png")


def link_to_itself(train):
    (train / "ant").symlink_to("ant", target_is_directory=True)


def pipe(train):
    os.mkfifo(train / "cat" / "9.png")


def capitals(train):
    picture(train / "Cat" / "0.png")


def accents(train):
    for form in ("NFC", "NFD"):
        picture(train / unicodedata.normalize(form, "zoë") / "0.png")


def more_in_validation(train):
    picture(train.parent / "val" / "ant" / "0.png")


def tar_beside(train):
    (train / "all.tar").write_bytes(bytes(1024))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (flat, r"train: 9 photos lie in no class folder \(.*cat0\.png\); sort them into .*train/<class>/"),
        (flat_validation, r"val: 6 photos lie in no class folder"),
        (wrapped, r"train: all of its photos lie in one folder, images; its top folders are the classes"),
        (lambda train: picture(train / "overview.png"), r"1 photos lie beside the class folders \(.*overview\.png\)"),
        (other_ending, r"train/owl: Found 0 images, but files as .*0\.heic"),
        (empty, r"train: Found 0 images in 1 of its class folders \(ant\)"),
        (link_up, r"train/cat/up: is .*train once more, through a link"),
        (linked_class, r"train/feline: is .*train/cat once more"),
        (dead_class, r"train/ant: is a link that leads nowhere"),
        (link_to_itself, r"train/ant: is a link that leads nowhere"),
        (dead_photo, r"9\.png: is a link that leads nowhere"),
        (pipe, r"9\.png: is a link that leads nowhere, or no ordinary file"),
        (capitals, r"its classes '[Cc]at' and '[Cc]at' differ in writing only"),
        (accents, r"differ in writing only"),
        (more_in_validation, r"val: 1 of its class folders are not in .*train \(ant\)"),
        (tar_beside, r"train: holds cat beside tars such as all\.tar"),
    ],
)  # fmt: skip
def test_what_would_be_lost_doubled_or_moved_is_one_line(tmp_path, spoil, message):
    spoil(plain(tmp_path))
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_photos_are_counted(tmp_path):
    train = plain(tmp_path)
    for name in ("a.heic", "b.HEIC", "c.txt", "d"):
        (train / "cat" / name).write_bytes(b"x")
    with pytest.warns(
        UserWarning, match=r"4 files are not read .*\(2 \.heic, 1 \.txt, 1 without an ending\): .*a\.heic"
    ):
        assert counts(read(tmp_path)) == (CLASSES, [3] * 3, [2] * 3)


def test_photos_that_are_links_to_others_are_counted(tmp_path):
    train = plain(tmp_path)
    (train / "cat" / "9.png").symlink_to("0.png")
    (train / "dog" / "away.png").symlink_to(tmp_path / "val" / "dog" / "0.png")
    with pytest.warns(UserWarning, match=r"1 photos of imnet are links to others: .*cat/9\.png") as told:
        assert counts(read(tmp_path)) == (CLASSES, [4, 4, 3], [2] * 3)
    assert len(told) == 1


def test_a_test_of_the_training_photos_or_without_a_class_is_told(tmp_path):
    train = plain(tmp_path)
    (tmp_path / "val").rename(tmp_path / "other")
    (tmp_path / "val").symlink_to("train", target_is_directory=True)
    with pytest.warns(UserWarning, match="is tested on what was trained on"):
        read(tmp_path)
    (tmp_path / "val").unlink()
    (tmp_path / "other").rename(tmp_path / "val")
    picture(train / "ant" / "0.png")
    with pytest.warns(UserWarning, match=r"no photos of 1 of the 4 classes of imnet \(ant\)"):
        assert read(tmp_path).test.targets == [1, 1, 2, 2, 3, 3]


def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path, monkeypatch):
    plain(tmp_path)
    look = os.scandir

    def scandir(path):
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied")
        return look(path)

    monkeypatch.setattr("braincog_transformers.data.pictures.folders.os.scandir", scandir)
    with pytest.raises(UserError, match=r"train/cat: can't be looked into \(Permission denied\)"):
        read(tmp_path)


def test_labels_follow_the_natural_order_and_never_the_order_of_the_disk(tmp_path):
    names = ["n10", "n2", "n02", "N1", "²"]
    assert list(number_classes(names, tmp_path)) == ["N1", "n02", "n2", "n10", "²"]
    assert list(number_classes(reversed(names), tmp_path)) == ["N1", "n02", "n2", "n10", "²"]
    assert natural_key("a9") < natural_key("a10")


def test_an_evaluation_needs_no_training_photos(tmp_path):
    plain(tmp_path)
    (tmp_path / "train").rename(tmp_path / "elsewhere")
    (tmp_path / "val" / "ant").mkdir()
    with pytest.raises(UserError, match="data set imnet not found"):
        read(tmp_path)
    bundle = read(tmp_path, needs_train=False)
    assert (bundle.classes, len(bundle.train), bundle.test.targets) == (("ant", *CLASSES), 0, [1, 1, 2, 2, 3, 3])
    shown = "\n".join(data_info("imnet", str(tmp_path)))
    assert f"0 training and 6 test samples in {tmp_path}" in shown


def test_the_command_line_evaluates_with_val_alone(tmp_path, capsys):
    plain(tmp_path)
    tiny = ["--model", "spikformer_4_384_cifar", "--model-kwargs", "depth=1", "embed_dim=16", "num_heads=2"]
    common = ["--dataset", "imnet", "--data-dir", str(tmp_path), *tiny, "--img-size", "16", "--step", "1", "-b", "2"]
    common += ["--workers", "0", "--device", "cpu", "--output", str(tmp_path / "runs"), "--tensorboard-dir", ""]
    short = ["--epochs", "1", "--warmup-epochs", "0", "--cooldown-epochs", "0"]
    assert cli.main([*common, *short, "--experiment", "a"]) == 0
    weights = ["--eval_checkpoint", str(tmp_path / "runs" / "a" / "last.pth.tar")]
    (tmp_path / "train").rename(tmp_path / "elsewhere")
    assert cli.main([*common, *weights, "--experiment", "b"]) == 0
    capsys.readouterr()
    (tmp_path / "val" / "dog").rename(tmp_path / "val" / "zebra")
    assert cli.main([*common, *weights, "--experiment", "c"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert "last.pth.tar: label 1 was 'dog' and is 'owl' in the data; name and sort the classes as there" in error[0]
    (tmp_path / "elsewhere").rename(tmp_path / "train")
    (tmp_path / "train" / "dog").rename(tmp_path / "train" / "zebra")
    finetune = ["--initial-checkpoint", weights[1], *short, "--experiment", "d"]
    assert cli.main([*common, *finetune]) == 0
    assert "label 1 was 'dog' and is 'owl' in the data; its classifier learnt the former" in capsys.readouterr().out
    assert cli.main([*common, *short, "--resume", str(tmp_path / "runs" / "a")]) == 2
    assert "label 1 was 'dog' and is 'owl' in the data; bring the classes back" in capsys.readouterr().err


@pytest.mark.parametrize("left", ["._clip_0.npy", "__MACOSX/clip_9.npy", ".trash/clip_9.npy"])
def test_what_belongs_to_no_set_moves_no_recording_to_the_other_side(tmp_path, left):
    write_bullying10k(tmp_path, 5)
    options = {"step": 1, "use_cache": False, "size": (8, 8)}
    before = build_datasets("bullying10k", tmp_path, **options)
    path = tmp_path / "fingerguess" / left
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\0\5\26\7")
    after = build_datasets("bullying10k", tmp_path, **options)
    assert (after.train.targets, after.test.targets) == (before.train.targets, before.test.targets)
    assert len(after.test) == 10


def test_no_cache_is_not_advised_where_it_does_not_help(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't be written .*; name another with --cache-dir$"):
        build_datasets("ndigits", tmp_path, cache_dir=tmp_path / "file", use_cache=False)


def both_validations(train):
    for path in (train.parent / "val").glob("*/*"):
        picture(train.parent / "validation" / path.parent.name / f"more{path.name}")


def tar_of_the_half(train):
    (train.parent / "train.tar").write_bytes(bytes(10240))


def archived_class(train):
    (train / "zebra.ZIP").write_bytes(b"PK")


def link_to_another_class(train):
    (train / "dog" / "9.png").symlink_to("../cat/0.png")


def class_in_both_halves(train):
    (train.parent / "val" / "cat").rename(train.parent / "away")
    (train.parent / "val" / "cat").symlink_to(train / "cat", target_is_directory=True)


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (both_validations, r"validation: is not read as photos of imnet, since .*val is there, too"),
        (tar_of_the_half, r"train\.tar: is not read as photos of imnet, since .*train is there, too"),
        (archived_class, r"1 files are not read as photos of imnet \(1 \.zip\): .*zebra\.ZIP"),
        (link_to_another_class, r"1 photos of imnet are links to others: .*dog/9\.png"),
        (class_in_both_halves, r"val/cat: is .*train/cat once more; imnet is tested on what was trained on"),
    ],
)
def test_what_is_left_out_or_counts_for_two_is_told(tmp_path, add, message):
    add(plain(tmp_path))
    with pytest.warns(UserWarning, match=message):
        assert read(tmp_path).classes == CLASSES
    assert re.search(message, "\n".join(data_info("imnet", str(tmp_path))))


def test_a_test_without_photos_and_classes_that_differ_in_blanks_are_refused(tmp_path):
    train = plain(tmp_path)
    for path in (tmp_path / "val").glob("*/*"):
        path.unlink()
    with pytest.raises(UserError, match=r"val: Found 0 images in its class folders; complete it"):
        read(tmp_path)
    picture(train / "cat " / "0.png")
    with pytest.raises(UserError, match=r"its classes 'cat' and 'cat ' differ in writing only"):
        read(tmp_path)
