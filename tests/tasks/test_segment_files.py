"""Pictures with masks in VOC's and ADE20K's folders: what is read, and what is refused in one line with the file."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from braincog_transformers.cli import main, resolve
from braincog_transformers.data import DATASETS
from braincog_transformers.errors import UserError
from braincog_transformers.tasks.segmentation import Segmentation
from braincog_transformers.tasks.segmentation.masks import mask_picture, palette
from braincog_transformers.tasks.segmentation.scene import scene_folder

SIZE = (40, 30)


def write_mask(path, numbers):
    path.parent.mkdir(parents=True, exist_ok=True)
    mask_picture(np.asarray(numbers)).save(path)


def write_picture(path, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    shade = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size[1], size[0], 3)
    Image.fromarray(shade.astype(np.uint8)).save(path)


def numbers(first=0, void=255):
    mask = np.full((SIZE[1], SIZE[0]), first, np.uint8)
    mask[5:20, 10:30] = first + 3
    mask[0] = void
    return mask


def voc(folder, train=("a", "b"), val=("c",)):
    root = folder / "VOCdevkit" / "VOC2012"
    for name in (*train, *val):
        write_picture(root / "JPEGImages" / f"{name}.jpg")
        write_mask(root / "SegmentationClass" / f"{name}.png", numbers())
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for part, names in (("train", train), ("val", val)):
        (lists / f"{part}.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def ade20k(folder):
    root = folder / "ADEChallengeData2016"
    for part, names in (("training", "ab"), ("validation", "c")):
        for name in names:
            write_picture(root / "images" / part / f"{name}.jpg")
            write_mask(root / "annotations" / part / f"{name}.png", numbers(1, 0))
    return root


def build(folder, dataset="voc", *more, kwargs=()):
    given = [
        "--task",
        "segment",
        "--dataset",
        dataset,
        "--model",
        "sdt_v3_digits",
        "--img-size",
        "32",
        "--workers",
        "0",
    ]
    options = resolve([*given, *more, *(("--task-kwargs", *kwargs) if kwargs else ())])
    return Segmentation(options).build_data(DATASETS[dataset], folder)


@pytest.mark.parametrize(("make", "dataset", "classes"), [(voc, "voc", 21), (ade20k, "ade20k", 150)])
def test_a_set_is_read(tmp_path, make, dataset, classes):
    make(tmp_path)
    bundle = build(tmp_path, dataset)
    assert (len(bundle.train), len(bundle.test), bundle.num_classes) == (2, 1, classes)
    x, target = bundle.test[0]
    # the short side is 32, the mask is as it was, numbered from 0 on
    assert x.shape == (3, 32, 43)
    expected = numbers().astype(int)
    assert torch.equal(target.labels.int(), torch.from_numpy(expected).int())
    assert bundle.watched[0][0].shape == (3, 32, 32)
    x, labels = bundle.train[0]
    assert (x.shape, labels.shape, labels.dtype) == ((3, 32, 32), (32, 32), torch.uint8)


def test_the_picture_is_normalised(tmp_path):
    root = voc(tmp_path)
    Image.new("RGB", SIZE, (255, 0, 51)).save(root / "JPEGImages" / "c.png")
    (root / "JPEGImages" / "c.jpg").unlink()
    x, _ = build(tmp_path).test[0]
    expected = (torch.tensor([1, 0, 0.2]) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(x[:, 3, 5], expected)


def test_picture_and_mask_are_cut_alike_and_padded_with_void(tmp_path):
    root = voc(tmp_path)
    mask = numbers(void=0)
    write_mask(root / "SegmentationClass" / "a.png", mask)
    Image.fromarray(np.repeat(mask[..., None] * 80, 3, 2)).save(root / "JPEGImages" / "a.png")
    (root / "JPEGImages" / "a.jpg").unlink()
    train = build(tmp_path, "voc", "--hflip", "0.5", "--mean", "0", "--std", "1").train
    padded = 0
    for seed in range(40):
        torch.manual_seed(seed)
        x, labels = train[0]
        inside = labels != 255
        assert (x[:, ~inside] == 0).all()
        # bright where the class is 3, except where both mix at the edge
        agree = (x[0] > 0.47) == (labels == 3)
        assert agree[inside].float().mean() > 0.9
        assert set(labels.unique().tolist()) <= {0, 3, 255}
        padded += bool((~inside).any())
    torch.manual_seed(0)
    first = train[0]
    torch.manual_seed(0)
    assert torch.equal(first[0], train[0][0])
    assert 5 < padded < 35


def test_a_crop_of_one_class_is_drawn_anew(tmp_path):
    root = voc(tmp_path)
    mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    mask[:, 30:] = 1
    write_mask(root / "SegmentationClass" / "a.png", mask)
    shares = []
    for share in (1.0, 0.9):
        train = build(tmp_path, kwargs=(f"class_share={share}", "resize=(2, 2)")).train
        found = []
        for seed in range(30):
            torch.manual_seed(seed)
            found.append((train[0][1] == 0).float().mean().item())
        shares.append(sum(one > 0.9 for one in found))
    assert shares[0] > 5
    assert shares[1] < shares[0] / 3


def test_your_own_set_in_a_known_layout(tmp_path):
    root = voc(tmp_path)
    root.rename(tmp_path / "mine")
    names = tmp_path / "names.txt"
    names.write_text("ground\n\nroad\ncar\nsky\n")
    bundle = build(tmp_path / "mine", kwargs=(f"class_names={names}",))
    assert bundle.classes == ("ground", "road", "car", "sky")
    assert build(tmp_path / "mine", kwargs=("num_classes=4",)).classes[3] == "class 3"


def test_the_scene_is_small_and_the_same_each_time(tmp_path):
    info = DATASETS["segment_scene"]
    folders = [scene_folder(info, tmp_path / name) for name in "ab" if (tmp_path / name).mkdir() is None]
    files = [sorted(path.relative_to(folder) for path in folder.rglob("*.*")) for folder in folders]
    assert files[0] == files[1]
    assert all((folders[0] / name).read_bytes() == (folders[1] / name).read_bytes() for name in files[0])
    assert sum(path.stat().st_size for path in folders[0].rglob("*.*")) < 2e6
    bundle = build(tmp_path / "a", "segment_scene")
    assert (len(bundle.train), len(bundle.test)) == info.samples
    found = {int(label) for i in range(20) for label in bundle.test[i][1].labels.unique()}
    assert found == {0, 1, 2, 3, 255}
    assert not list(tmp_path.glob("a/.*"))


def test_the_palette_is_vocs():
    assert palette()[[0, 1, 2, 3, 15, 20, 255]].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192],
    ]  # fmt: skip


def grey(bits):
    def spoil(root):
        values = np.zeros((SIZE[1], SIZE[0]), np.uint16 if bits == 16 else np.uint8)
        picture = Image.fromarray(values)
        picture = picture.convert("1") if bits == 1 else picture
        picture.save(root / "SegmentationClass" / "c.png")

    return spoil


def cut(part):
    def spoil(root):
        path = root / "SegmentationClass" / "c.png"
        path.write_bytes(path.read_bytes()[:part])

    return spoil


def written(name, make):
    return lambda root: make(root / "SegmentationClass" / name)


SPOILT = {
    "size": (
        written("c.png", lambda path: write_mask(path, numbers()[:, :39])),
        "39 x 30 pixels, and its picture has 40 x 30; they must be the same",
    ),
    "beyond": (
        written("c.png", lambda path: write_mask(path, np.where(numbers() == 3, 21, numbers()))),
        "holds the number 21, but classes are 0 to 20, and 255 is void; mend the mask, or give --task-kwargs num_c",
    ),
    "rgb": (written("c.png", lambda path: Image.new("RGB", SIZE).save(path)), "RGB; a mask holds numbers"),
    "rgba": (written("c.png", lambda path: Image.new("RGBA", SIZE).save(path)), "RGB with transparency; a mask"),
    "void": (written("c.png", lambda path: write_mask(path, np.full(SIZE[::-1], 255))), "all void"),
    "16 bits": (grey(16), "grey of 16 bits; a mask holds numbers"),
    "1 bit": (grey(1), "grey of 1 bits; a mask holds numbers"),
    "cut": (cut(80), "not a complete picture"),
    "head": (cut(20), "no PNG, which masks are"),
    "empty": (cut(0), "no PNG, which masks are"),
    "folder": (
        written("c.png", lambda path: path.unlink() or path.mkdir()), "can't be read (Is a directory)"
    ),
    "text": (written("c.png", lambda path: path.write_text("a mask" * 20)), "no PNG, which masks are"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT)
def test_a_mask_that_can_not_be_used_is_named(tmp_path, case):
    spoil, message = SPOILT[case]
    spoil(voc(tmp_path))
    bundle = build(tmp_path)
    with pytest.raises(UserError) as caught:
        bundle.test[0]
    assert str(caught.value).startswith(str(tmp_path / "VOCdevkit/VOC2012/SegmentationClass/c.png: "))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_samples_that_can_not_be_used_are_left_out_where_that_is_asked(tmp_path):
    root = voc(tmp_path, train="abd")
    write_mask(root / "SegmentationClass" / "b.png", np.full(SIZE[::-1], 255))
    (root / "JPEGImages" / "d.jpg").write_bytes(b"no picture")
    bundle = build(tmp_path, kwargs=("skip_bad=True",))
    assert [pair[0].stem for pair in bundle.train.pairs] == ["a"]
    assert ["b.png: all void" in bundle.left_out[0], "d.jpg: not a" in bundle.left_out[1]] == [True, True]
    write_mask(root / "SegmentationClass" / "c.png", np.full(SIZE[::-1], 255))
    with pytest.raises(UserError, match=r"no sample of its test part can be used; first, .*c.png: all void"):
        build(tmp_path, kwargs=("skip_bad=True",))


def test_a_class_beyond_ade20ks_is_named(tmp_path):
    write_mask(ade20k(tmp_path) / "annotations/validation/c.png", np.full(SIZE[::-1], 151))
    with pytest.raises(
        UserError, match=r"c.png: holds the number 151, but classes are 1 to 150, and 255 is void, as is 0"
    ):
        build(tmp_path, "ade20k").test[0]


def listing(text):
    def spoil(root):
        (root / "ImageSets/Segmentation/train.txt").write_bytes(
            text.encode("utf-16") if text == "utf" else text.encode()
        )

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (listing(""), r"train.txt: the list of names is empty; write one name on each line"),
        (listing(" \n\n"), r"train.txt: the list of names is empty"),
        (listing("utf"), r"train.txt: the list of names is no text in UTF-8"),
        (listing("a\n../../x\n"), r"train.txt: '../../x' is no name of a picture in JPEGImages; correct the line"),
        (listing("a\n/etc/passwd\n"), r"train.txt: '/etc/passwd' is no name"),
        (listing("a\n..\n"), r"train.txt: '..' is no name"),
        (listing("a\n..\\x\n"), r"is no name"),
        (listing("a\nb\na\n"), r"train.txt: names a twice"),
        (
            listing("a\nzebra\n"),
            r"train.txt names zebra, of which there is no picture in .*JPEGImages; complete the data",
        ),
        (lambda root: (root / "SegmentationClass/b.png").unlink(), r"train.txt names b, of which there is no mask in"),
        (lambda root: (root / "JPEGImages/b.jpg").unlink(), r"train.txt names b, of which there is no picture in"),
        (lambda root: (root / "ImageSets/Segmentation/val.txt").unlink(), r"val.txt: the list of names can't be read"),
        (lambda root: shutil.rmtree(root / "JPEGImages"), r"JPEGImages: no such folder"),
        (
            lambda root: write_picture(root / "JPEGImages/a.png"),
            r"a.png: beside a.jpg, so it isn't clear which is meant",
        ),
    ],
    ids=lambda value: None if callable(value) else value[:30],
)
def test_a_list_that_can_not_be_followed_is_named(tmp_path, spoil, message):
    spoil(voc(tmp_path))
    with pytest.raises(UserError, match=message) as caught:
        build(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "annotations/training/a.png").unlink(), "has a, of which there is no mask"),
        (lambda root: (root / "images/validation/c.jpg").unlink(), "has c, of which there is no picture"),
        (lambda root: shutil.rmtree(root / "images/training"), "images/training: no such folder"),
        (lambda root: [one.unlink() for one in root.glob("*/validation/*")], "images/validation: holds no pictures"),
    ],
    ids=["mask", "picture", "folder", "empty"],
)  # fmt: skip
def test_one_side_that_is_missing_in_ade20k_is_named(tmp_path, spoil, message):
    spoil(ade20k(tmp_path))
    with pytest.raises(UserError, match=message):
        build(tmp_path, "ade20k")


def test_an_evaluation_needs_no_training_pictures(tmp_path):
    shutil.rmtree(ade20k(tmp_path) / "images/training")
    bundle = build(tmp_path, "ade20k", "--eval_checkpoint", "x.pth")
    assert (len(bundle.train), len(bundle.test)) == (0, 1)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ("head=unet", "--task-kwargs head: must be fpn or fcn; got 'unet'"),
        ("channels=0", "--task-kwargs channels: must be from 1 to 8192; got 0"),
        ("dropout=1", "dropout: must be 0 or more, and below 1; got 1"),
        ("auxiliary=-1", "auxiliary: must be from 0 to 100; got -1"),
        ("class_weights=(1, 2)", "class_weights: has 2 numbers for 21 classes"),
        ("class_weights=(0, 0)", "class_weights: must be numbers of 0 or more, below 1e6 and not all 0"),
        ("class_weights=(1, 1e999)", "class_weights: must be numbers"),
        ("resize=(2, 1)", "resize: must be the smaller and the larger factor, from 0.05 to 20"),
        ("resize=(0.5, 1e999)", "resize: must be"),
        ("size=(32, 64)", "--img-size 32 and --task-kwargs size=(32, 64) say the same"),
        ("num_classes=1", "--task-kwargs num_classes: 1 classes; masks of voc's layout tell 2 to 255 apart"),
        ("num_classes=256", "256 classes; masks of voc's layout tell 2 to 255 apart"),
        ("train_list=../val", "--task-kwargs train_list: takes the name of a list, as train; got '../val'"),
        ("test_list=test", "test.txt: the list of names can't be read"),
        ("class_names=nowhere.txt", "nowhere.txt: the list of classes can't be read"),
        ("save_masks=-1", "save_masks: must be 0 or more"),
        ("crop=3", "--task-kwargs crop: segment has no such option; it has head, channels"),
    ],
    ids=lambda text: text[:20],
)
def test_options_are_checked(tmp_path, kwargs, message):
    voc(tmp_path)
    with pytest.raises(UserError) as caught:
        build(tmp_path, kwargs=(kwargs,))
    assert message in str(caught.value)


def test_a_damaged_mask_ends_a_run_in_one_line(tmp_path, capsys):
    root = voc(tmp_path)
    Image.new("RGB", SIZE).save(root / "SegmentationClass" / "b.png")
    given = ("--task", "segment", "--dataset", "voc", "--data-dir", str(tmp_path), "--model", "sdt_v3_digits")
    more = ("--img-size", "32", "-b", "2", "--epochs", "1", "--workers", "0", "--output", str(tmp_path / "out"))
    assert main([*given, *more]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert "b.png: RGB; a mask holds numbers" in said[-1]
