"""Picture sets: torchvision's file formats, folders of photos, transforms and their options."""

import pickle
import struct
from urllib.error import URLError

import numpy as np
import pytest
import torch
from picture_writers import write_cifar, write_mnist
from PIL import Image

from braincog_transformers.data.build import Augment, build_datasets
from braincog_transformers.data.pictures.stored import ArrayPictures
from braincog_transformers.errors import UserError

PLAIN = Augment(no_aug=True)


def write_photos(root, classes=("n01", "n02"), validation="val", side=40):
    rng = np.random.default_rng(0)
    for part in ("train", validation):
        for label, name in enumerate(classes):
            folder = root / part / name
            folder.mkdir(parents=True)
            for index in range(2):
                pixels = np.full((side, side + 10, 3), 60 * (label + 1), np.uint8)
                pixels[:4] = rng.integers(0, 256, (4, side + 10, 3))
                Image.fromarray(pixels).save(folder / f"{name}_{index}.JPEG")


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST/raw"), ("fashion", "fashion/FashionMNIST/raw")])
def test_mnist_files_are_read_to_the_bit(tmp_path, name, folder):
    pixels = write_mnist(tmp_path / folder)
    bundle = build_datasets(name, tmp_path, normalize=False, augment=PLAIN)
    assert (len(bundle.train), len(bundle.test), bundle.input_shape) == (6, 3, (1, 28, 28))
    picture, label = bundle.test[2]
    assert label == 2
    assert torch.equal((picture * 255).round().to(torch.uint8)[0], torch.from_numpy(pixels[2]))


@pytest.mark.parametrize(("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")])
def test_cifar_files_are_read_to_the_bit(tmp_path, name, folder, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    pixels = write_cifar(tmp_path / folder, fine=name == "cifar100")
    # The real files have known checksums, which made-up ones can't have.
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.CIFAR10, "_load_meta", lambda self: None)
    bundle = build_datasets(name, tmp_path, normalize=False, augment=PLAIN)
    picture, label = bundle.test[1]
    assert label == 4
    assert bundle.num_classes == len(bundle.classes) == int(name[5:])
    assert torch.equal((picture * 255).round().to(torch.uint8), torch.from_numpy(pixels[1].reshape(3, 32, 32)))


def test_damaged_torchvision_files_are_one_line(tmp_path):
    write_cifar(tmp_path / "cifar-10-batches-py", fine=False)
    write_mnist(tmp_path / "MNIST" / "raw")
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:100])
    for name in ("cifar10", "mnist"):
        with pytest.raises(UserError, match=f"data set {name} in .* is missing, incomplete or damaged") as caught:
            build_datasets(name, tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", [bytes([0, 1, 2, 3, 4, 77]), bytes(5)])
def test_labels_that_are_none_or_too_few_are_one_line(tmp_path, labels):
    write_mnist(tmp_path / "MNIST" / "raw")
    file = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    file.write_bytes(struct.pack(">2I", 0x801, len(labels)) + labels)
    for name in ("mnist", "smnist"):
        with pytest.raises(UserError, match=f"data set {name} in .* is damaged"):
            build_datasets(name, tmp_path)


def test_nothing_is_fetched_unasked_and_what_torchvision_prints_is_kept_away(tmp_path, monkeypatch, capsys):
    asked = []

    def chatty(root, train, download):
        asked.append((root, train, download))
        print("Files already downloaded and verified")  # noqa: T201
        return type("Stored", (), {"data": np.zeros((1, 28, 28), np.uint8), "targets": [0]})

    monkeypatch.setattr("torchvision.datasets.MNIST", chatty)
    with pytest.raises(UserError, match="add --download to fetch it"):
        build_datasets("mnist", tmp_path)
    assert asked == []
    build_datasets("mnist", tmp_path, download=True)
    assert asked == [(tmp_path, True, True), (tmp_path, False, True)]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["mnist", "fashion", "cifar10", "cifar100", "smnist", "psmnist", "scifar10"])
def test_a_download_without_a_network_is_one_line(tmp_path, monkeypatch, capfd, name):
    def offline(*_, **__):
        raise URLError("no\nnetwork")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(UserError, match=f"data set {name} in .*; check the network") as caught:
        build_datasets(name, tmp_path, download=True)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("place", [".", "ILSVRC2012", "imnet"])
@pytest.mark.parametrize("validation", ["val", "validation"])
def test_photos_are_found_in_every_layout(tmp_path, place, validation):
    write_photos(tmp_path / place, validation=validation)
    bundle = build_datasets("imnet", tmp_path, size=(32, 32), augment=PLAIN, normalize=False)
    assert (len(bundle.train), len(bundle.test), bundle.num_classes) == (4, 4, 2)
    assert bundle.classes == ("n01", "n02")
    picture, label = bundle.test[3]
    assert (picture.shape, label) == ((3, 32, 32), 1)
    assert picture[:, 20, 16].tolist() == pytest.approx([120 / 255] * 3, abs=0.02)


def test_validation_classes_are_numbered_as_the_training_folders(tmp_path):
    write_photos(tmp_path, classes=("n01", "n02", "n03"))
    for photo in (tmp_path / "val" / "n01").iterdir():
        photo.unlink()
    assert build_datasets("imnet", tmp_path, size=(8, 8)).test.targets == [1, 1, 2, 2]


def test_photos_of_an_unknown_class_are_refused(tmp_path):
    write_photos(tmp_path)
    (tmp_path / "val" / "n02").rename(tmp_path / "val" / "n99")
    with pytest.raises(UserError, match=r"1 of its class folders are not in .*train \(n99\)"):
        build_datasets("imnet", tmp_path)


def test_folders_without_photos_are_refused(tmp_path):
    for name in ("train", "val"):
        (tmp_path / name / "n01").mkdir(parents=True)
    with pytest.raises(UserError, match="Found 0 images"):
        build_datasets("imnet", tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a picture", None])
def test_a_damaged_photo_is_named_and_not_replaced(tmp_path, content):
    write_photos(tmp_path)
    photo = tmp_path / "train" / "n01" / "n01_0.JPEG"
    photo.write_bytes(photo.read_bytes()[:300] if content is None else content)
    bundle = build_datasets("imnet", tmp_path, size=(32, 32))
    with pytest.raises(UserError, match=r"n01_0\.JPEG: not a complete picture") as caught:
        bundle.train[0]
    assert "\n" not in str(caught.value)


def test_digits_are_normalised_alike_in_training_and_test():
    bundle = build_datasets("digits", "nowhere")
    for side in (bundle.train, bundle.test):
        pixels = torch.stack([side[index][0] for index in range(len(side))])
        assert pixels.mean().abs() < 0.05
        assert pixels.std() == pytest.approx(1, abs=0.05)


def test_raw_values_stay_from_0_to_1_whatever_is_erased():
    augment = Augment(reprob=1.0, remode="pixel", recount=3)
    bundle = build_datasets("digits", "nowhere", normalize=False, augment=augment)
    pixels = torch.stack([bundle.train[index][0] for index in range(50)])
    assert (pixels.min(), pixels.max()) == (0, 1)


def test_grey_becomes_colour_and_another_size_when_asked():
    bundle = build_datasets("digits", "nowhere", in_chans=3, size=(16, 12), augment=PLAIN)
    picture, _ = bundle.train[0]
    assert picture.shape == bundle.input_shape == (3, 16, 12)
    assert torch.equal(picture[0], picture[2])


def test_given_mean_and_deviation_are_used():
    raw = build_datasets("digits", "nowhere", normalize=False, augment=PLAIN).test[0][0]
    given = build_datasets("digits", "nowhere", mean=(0.5,), std=(0.25,), augment=PLAIN).test[0][0]
    assert torch.allclose(given, (raw - 0.5) / 0.25)


def test_digits_are_never_flipped_by_default_and_flip_when_asked():
    plain = build_datasets("digits", "nowhere", augment=PLAIN)
    default = build_datasets("digits", "nowhere")
    flipped = build_datasets("digits", "nowhere", augment=Augment(hflip=1.0))
    assert all(torch.equal(default.train[i][0], plain.train[i][0]) for i in range(20))
    assert torch.equal(flipped.train[0][0], plain.train[0][0].flip(2))
    assert torch.equal(flipped.test[0][0], plain.test[0][0])


def train_steps(augment, name="digits"):
    transform = build_datasets(name, "nowhere", augment=augment).train.transform
    return {type(step).__name__: step for step in transform.transforms}


def test_spikformers_policy_has_its_five_operations():
    policy = train_steps(Augment(aa="spikformer-m9-n1-mstd0.4-inc1"))["RandAugment"]
    assert policy.num_layers == 1
    assert {op.name for op in policy.ops} == {"Equalize", "Rotate", "ShearX", "TranslateXRel", "TranslateYRel"}
    assert {(op.magnitude, op.magnitude_std) for op in policy.ops} == {(9, 0.4)}


@pytest.mark.parametrize("aa", ["rand-m9-mstd0.5-inc1", "spikformer-m9-n2-mstd0.4-inc1", "augmix-m5-w2-d2", "original"])
def test_policies_run_on_grey_and_on_colour(aa):
    for chans in (1, 3):
        bundle = build_datasets("digits", "nowhere", in_chans=chans, augment=Augment(aa=aa))
        pixels = torch.stack([bundle.train[index][0] for index in range(60)])
        plain = build_datasets("digits", "nowhere", in_chans=chans, augment=PLAIN)
        assert torch.isfinite(pixels).all()
        assert not torch.equal(pixels, torch.stack([plain.train[index][0] for index in range(60)]))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_strongest_posterize_gives_black_where_pillow_refuses_it(mode):
    """At magnitude 10, which noise reaches from 9, timm asks for 0 bits."""
    policy = train_steps(Augment(aa="rand-m10-inc1"))["RandAugment"]
    posterize = next(op for op in policy.ops if op.name == "PosterizeIncreasing")
    posterize.prob = 1.0
    assert posterize(Image.new(mode, (4, 4), "white")).getextrema() in ((0, 0), ((0, 0),) * 3)
    assert posterize.aug_fn(Image.new(mode, (4, 4), "white"), 8).getextrema() in ((255, 255), ((255, 255),) * 3)
    assert posterize.aug_fn(Image.new(mode, (4, 4), "white"), 1).getextrema() in ((128, 128), ((128, 128),) * 3)


def test_colour_jitter_gives_way_to_a_policy_as_in_timm():
    assert "ColorJitter" in train_steps(Augment(color_jitter=0.4))
    assert "ColorJitter" not in train_steps(Augment(color_jitter=0.4, aa="rand-m9"))


def test_every_picture_option_reaches_its_transform():
    erasing = {"reprob": 0.2, "remode": "rand", "recount": 2}
    steps = train_steps(
        Augment(scale=(0.5, 0.9), ratio=(0.8, 1.2), vflip=0.3, train_interpolation="bilinear", **erasing)
    )
    crop, erase = steps["RandomResizedCropAndInterpolation"], steps["RandomErasing"]
    assert (crop.scale, crop.ratio) == ((0.5, 0.9), (0.8, 1.2))
    assert "bilinear" in str(crop.interpolation).lower()
    assert (erase.probability, erase.max_count, erase.rand_color) == (0.2, 2, True)
    assert steps["RandomVerticalFlip"].p == 0.3


def test_crop_pct_and_interpolation_reach_the_test_transform():
    augment = Augment(crop_pct=0.5, interpolation="nearest")
    resize, crop = build_datasets("digits", "nowhere", augment=augment).test.transform.transforms[:2]
    assert (resize.size, crop.size) in ((16, (8, 8)), ((16, 16), (8, 8)))
    assert "nearest" in str(resize.interpolation).lower()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digits", {"in_chans": 2}, "gives 1 channel, or 3 .*; got in_chans=2"),
        ("digits", {"mean": (0.1, 0.2)}, "--mean needs one number, or one for each of 1 channels; got 2"),
        ("digits", {"std": (0.0,)}, "--std must be above 0"),
        ("digits", {"split": "random"}, "has its own test split"),
        ("digits", {"augment": {"aa": "randd"}}, "is no augmentation policy"),
        ("digits", {"augment": {"aa": "spikformer-mx"}}, "is no augmentation policy"),
        ("digits", {"augment": {"interpolation": "cubic"}}, "--interpolation must be one of .*'cubic'"),
        ("digits", {"augment": {"remode": "x"}}, "--remode must be one of"),
        ("digits", {"augment": {"resplit": True}}, "--resplit needs"),
    ],
)
def test_wrong_options_are_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        build_datasets(name, "nowhere", **{**options, "augment": Augment(**options.get("augment", {}))})


def test_pictures_travel_to_spawned_workers():
    bundle = build_datasets("digits", "nowhere", augment=Augment(aa="rand-m9", reprob=0.5))
    assert len(pickle.loads(pickle.dumps(bundle)).train) == 1437


def test_sources_know_their_targets():
    source = ArrayPictures(np.zeros((2, 8, 8), np.uint8), np.array([1, 2]))
    assert source.targets == [1, 2]
    assert type(source.targets[0]) is int
