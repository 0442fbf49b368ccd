"""Photos through timm's dataset factory: torchvision and Hugging Face by index, WebDataset shards as streams."""

import importlib.util
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_writers import photo, write_tar
from PIL import Image

from braincog_transformers.cli import resolve
from braincog_transformers.data.build import Augment, build_datasets
from braincog_transformers.data.loading.loader import make_loader
from braincog_transformers.data.pictures import sources
from braincog_transformers.data.pictures.sources import PictureStream, Source
from braincog_transformers.errors import UserError
from braincog_transformers.recipe import Options
from braincog_transformers.training.run import run

PLAIN = {"augment": Augment(no_aug=True), "normalize": False, "size": (8, 8)}
SHARDS = {"train": [6, 6, 6, 6], "validation": [4, 4, 1]}
pytestmark = pytest.mark.filterwarnings("ignore:.*is a stream", "ignore:This DataLoader will create")
needs_webdataset = pytest.mark.skipif(
    importlib.util.find_spec("webdataset") is None, reason="webdataset, which is optional, is not installed"
)


def write_shards(root, *, info=True, label=lambda index: index % 3):
    """Write shards whose photos have their number as grey value."""
    splits = {}
    for split, lengths in SHARDS.items():
        names, index = [f"x-{split}-{number:04d}.tar" for number in range(len(lengths))], 0
        for name, length in zip(names, lengths, strict=True):
            members = {}
            for _ in range(length):
                members |= {f"{index:05d}.png": photo(index), f"{index:05d}.cls": str(label(index)).encode()}
                index += 1
            write_tar(root / name, members)
        splits[split] = {"name": split, "num_samples": index, "filenames": names, "shard_lengths": lengths}
    if info:
        (root / "_info.json").write_text(json.dumps({"splits": splits}))


def shown(picture):
    """Return a photo's number, and a draw that stands for its augmentation."""
    return torch.tensor([float(np.asarray(picture)[0, 0, 0]), torch.rand(()).item()])


def stream(root, *, train=True, epoch=0, skip=0, batch_size=3, workers=2, seed=5, rank=0, world_size=1, **source):
    data = PictureStream(Source(name="wds/x", root=str(root), **source), train=train, transform=shown, num_classes=3)
    loader = make_loader(
        data, batch_size=batch_size, train=train, seed=seed, workers=workers, rank=rank, world_size=world_size
    )
    loader.set_epoch(epoch, skip)
    return len(loader), [x.tolist() for x, _ in loader]


def numbers(batches):
    return [int(number) for batch in batches for number, _ in batch]


@needs_webdataset
def test_an_epoch_of_shards_is_a_function_of_seed_and_epoch(tmp_path):
    write_shards(tmp_path)
    count, first = stream(tmp_path)
    assert (count, [len(batch) for batch in first]) == (8, [3] * 8)
    assert sorted(numbers(first)) == list(range(24))
    assert stream(tmp_path)[1] == first
    assert stream(tmp_path, skip=5)[1] == first[5:]
    assert numbers(stream(tmp_path, epoch=1)[1]) != numbers(first) != numbers(stream(tmp_path, seed=6)[1])


@needs_webdataset
def test_what_a_stream_does_not_guarantee_is_said(tmp_path):
    write_shards(tmp_path)
    with pytest.warns(UserWarning, match="its order depends on 2 workers and 1 processes, so resume with as many"):
        stream(tmp_path)


@needs_webdataset
def test_evaluation_gives_each_sample_of_the_shards_once(tmp_path):
    write_shards(tmp_path)
    assert sorted(numbers(stream(tmp_path, train=False)[1])) == list(range(9))
    ranks = [numbers(stream(tmp_path, train=False, rank=rank, world_size=2, workers=1)[1]) for rank in range(2)]
    assert [sorted(rank) for rank in ranks] == [[0, 1, 2, 3, 8], [4, 5, 6, 7]]


@needs_webdataset
def test_training_gives_every_rank_the_same_number_of_batches_of_other_samples(tmp_path):
    write_shards(tmp_path)
    (count, first), (same, second) = (stream(tmp_path, rank=rank, world_size=2, workers=1) for rank in range(2))
    assert count == same == len(first) == len(second) == 4
    assert not set(numbers(first)) & set(numbers(second))


@needs_webdataset
def test_a_rank_reads_other_shards_in_other_epochs(tmp_path):
    write_shards(tmp_path)
    epochs = [numbers(stream(tmp_path, epoch=epoch, rank=0, world_size=2, workers=1)[1]) for epoch in range(4)]
    assert len({frozenset(seen) for seen in epochs}) > 1


@needs_webdataset
def test_there_are_no_more_workers_than_shards(tmp_path):
    write_shards(tmp_path)
    assert sorted(numbers(stream(tmp_path, train=False, workers=3)[1])) == list(range(9))
    with pytest.raises(UserError, match="3 shards can't be shared among 4 processes"):
        stream(tmp_path, train=False, world_size=4)


@needs_webdataset
def test_shards_may_be_named_by_the_split(tmp_path):
    write_shards(tmp_path, info=False)
    split = {"train_split": "x-train-{0000..0003}.tar|24", "val_split": "x-validation-{0000..0002}.tar"}
    assert sorted(numbers(stream(tmp_path, **split)[1])) == list(range(24))
    with pytest.raises(UserError, match="give --val-num-samples, which the shards don't say"):
        stream(tmp_path, train=False, **split)
    assert sorted(numbers(stream(tmp_path, train=False, **split, val_num_samples=9)[1])) == list(range(9))


@needs_webdataset
def test_a_wrong_split_and_a_wrong_label_are_one_line(tmp_path):
    write_shards(tmp_path, label=lambda index: index)
    with pytest.raises(UserError, match=r"split 'nope' can't be opened in .* check --data-dir and --train-split"):
        stream(tmp_path, train_split="nope")
    with pytest.raises(UserError, match="is none of 0 to 2; set --num-classes") as caught:
        stream(tmp_path)
    assert "\n" not in str(caught.value)


@needs_webdataset
def test_a_run_on_shards(tmp_path):
    write_shards(tmp_path)
    argv = ["--dataset", "imnet", "--dataset-source", "wds/x", "--num-classes", "3", "--data-dir", str(tmp_path)]
    argv += ["--model", "spikformer_4_384_cifar", "--model-kwargs", "depth=1", "embed_dim=16", "num_heads=2"]
    argv += ["--img-size", "16", "--step", "1", "-b", "4", "--workers", "1", "--epochs", "1", "--warmup-epochs", "0"]
    argv += ["--cooldown-epochs", "0", "--output", str(tmp_path / "runs"), "--tensorboard-dir", "", "--device", "cpu"]
    found = run(resolve([*argv, "--save-images"]))
    assert found["steps"] == 6
    assert (Path(found["folder"]) / "first_batch.png").is_file()


RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n{} loop\n"


def grey16():
    content = io.BytesIO()
    Image.fromarray(RAMP).save(content, "PNG")
    return content.getvalue()


def spoiled(root, content):
    """Write shards with another third photo for training."""
    write_shards(root)
    members = {}
    for index in range(6):
        members |= {f"{index:05d}.png": content if index == 2 else photo(index), f"{index:05d}.cls": b"0"}
    write_tar(root / "x-train-0000.tar", members)


@needs_webdataset
@pytest.mark.parametrize("content", [EPS, b"", photo(0)[:40], b"no photo"], ids=["eps", "nothing", "cut", "text"])
def test_shards_open_photos_only_and_stop_at_what_is_none(tmp_path, content):
    spoiled(tmp_path, content)
    with pytest.raises(UserError, match=r"x-train-0000\.tar: 00002: not a complete picture") as caught:
        stream(tmp_path)
    assert "\n" not in str(caught.value)


@needs_webdataset
def test_shards_keep_the_range_of_16_bits_and_have_a_limit_of_pixels(tmp_path):
    spoiled(tmp_path, grey16())
    source = Source(name="wds/x", root=str(tmp_path))
    seen = {}
    for limit in (65536, 65535):
        data = PictureStream(source, train=True, transform=mean, num_classes=3, max_pixels=limit)
        loader = make_loader(data, batch_size=3, train=True, seed=0, workers=1)
        try:
            seen[limit] = sorted(float(value) for batch, _ in loader for value in batch)
        except UserError as error:
            seen[limit] = str(error)
    assert seen[65536][-1] == pytest.approx(127.5)
    assert "00002: 256 x 256 pixels, more than 65,535" in seen[65535]


def mean(picture):
    return torch.tensor(float(np.asarray(picture).mean()))


@needs_webdataset
@pytest.mark.parametrize("spoil", ["cut", "huge", "no_label"])
def test_a_damaged_shard_is_one_line(tmp_path, spoil):
    write_shards(tmp_path)
    path = tmp_path / "x-train-0000.tar"
    if spoil == "cut":
        path.write_bytes(path.read_bytes()[:1900])
    elif spoil == "huge":
        write_tar(path, {"00000.png": photo(0), "00000.cls": b"0"})
        size = b"%011o" % len(photo(0))
        block = path.read_bytes().replace(size, b"7" * 11, 1)
        total = sum(block[:148]) + 8 * 32 + sum(block[156:512])
        path.write_bytes(block[:148] + b"%06o\0 " % total + block[156:])
    else:
        write_tar(path, {"00000.png": photo(0)})
    with pytest.raises(UserError, match=r"--dataset-source wds/x|x-train-0000") as caught:
        stream(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["wds/x", "hfds/x", "hfids/x", "tfds/x"])
def test_a_missing_package_is_one_line(tmp_path, name, monkeypatch):
    monkeypatch.setattr(sources, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=rf"--dataset-source {name} needs the package (\S+): pip install \1$"):
        build_datasets("imnet", tmp_path, source=Source(name=name, root=str(tmp_path)))


def test_hugging_face_without_a_network_is_one_line(tmp_path, monkeypatch):
    def offline(name, **given):
        raise ConnectionError("Couldn't reach the Hub\n(offline)")

    monkeypatch.setattr(sources, "find_spec", lambda package: package)
    monkeypatch.setattr("timm.data.create_dataset", offline)
    with pytest.raises(UserError, match=r"'train' can't be opened in .* \(Couldn't reach the Hub \(offline\)\)"):
        build_datasets("imnet", tmp_path, source=Source(name="hfds/x/y", root=str(tmp_path)))


class Reader(list):
    """Files and labels with names, as timm's reader of Hugging Face sets gives them."""

    def __init__(self, *samples):
        super().__init__(*samples)
        self.class_to_idx = {"dog": 1, "cat": 0}


def test_sets_by_index_are_shuffled_by_our_loader_and_name_what_is_damaged(tmp_path, monkeypatch):
    rows = [(photo(number), number % 2) for number in range(5)] + [(photo(0)[:30], 0)]

    class Stored:
        reader = Reader((io.BytesIO(content), label) for content, label in rows)

        def __len__(self):
            return len(self.reader)

    monkeypatch.setattr(sources, "find_spec", lambda package: package)
    monkeypatch.setattr("timm.data.create_dataset", lambda name, **given: Stored())
    bundle = build_datasets("imnet", tmp_path, source=Source(name="hfds/x", root=""), num_classes=7, **PLAIN)
    assert (bundle.num_classes, bundle.classes, len(bundle.train)) == (2, ("cat", "dog"), 6)
    assert [(round(float(x.mean() * 255)), y) for x, y in (bundle.train[i] for i in range(5))] == [
        (number, number % 2) for number in range(5)
    ]
    with pytest.raises(UserError, match="hfds/x, sample 5: not a complete picture"):
        bundle.test[5]


def test_torchvisions_folders(tmp_path):
    for part in ("train", "validation"):
        for number, name in enumerate(("a", "b")):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("L", (8, 8), 50 * number).save(tmp_path / part / name / "x.png")
    source = Source(name="torch/image_folder", root=str(tmp_path))
    bundle = build_datasets("imnet", tmp_path, source=source, **PLAIN)
    assert (bundle.classes, [y for _, y in (bundle.test[0], bundle.test[1])]) == (("a", "b"), [0, 1])
    assert round(float(bundle.train[1][0].mean() * 255)) == 50
    with pytest.raises(UserError, match="Unknown torchvision dataset nope"):
        build_datasets("imnet", tmp_path, source=Source(name="torch/nope", root=str(tmp_path)))


@pytest.mark.parametrize("error", [KeyError(7), FileNotFoundError(2, "No such file", "x.png"), AssertionError()])
def test_a_sample_that_a_set_by_index_cannot_give_is_one_line(tmp_path, monkeypatch, error):
    class Broken(Reader):
        def __getitem__(self, index):
            raise error

    stored = type("Stored", (), {"reader": Broken([0, 1])})()
    monkeypatch.setattr(sources, "find_spec", lambda package: package)
    monkeypatch.setattr("timm.data.create_dataset", lambda name, **given: stored)
    bundle = build_datasets("imnet", tmp_path, source=Source(name="hfds/x", root=""), **PLAIN)
    with pytest.raises(UserError, match=rf"^hfds/x, sample 1: can't be read \({type(error).__name__}"):
        bundle.train[1]


def write_image_folder(root):
    for part in ("train", "validation"):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            (root / part / name / "x.png").write_bytes(photo(1))
    return Source(name="torch/image_folder", root=str(root))


@pytest.mark.parametrize(("content", "message"), [(EPS, "none of JPEG"), (photo(0)[:40], "not a complete picture")])
def test_torchvision_opens_photos_only(tmp_path, content, message):
    source = write_image_folder(tmp_path)
    (tmp_path / "train" / "a" / "x.png").write_bytes(content)
    with pytest.raises(UserError, match=rf"train/a/x\.png: .*{message}"):
        build_datasets("imnet", tmp_path, source=source, **PLAIN).train[0]


def test_torchvisions_photos_of_16_bits_keep_their_range(tmp_path):
    source = write_image_folder(tmp_path)
    (tmp_path / "train" / "a" / "x.png").write_bytes(grey16())
    bundle = build_datasets("imnet", tmp_path, source=source, **PLAIN)
    assert 0.4 < float(bundle.train[0][0].mean()) < 0.6
    with pytest.raises(UserError, match="256 x 256 pixels, more than 9"):
        build_datasets("imnet", tmp_path, source=source, max_pixels=9, **PLAIN).train[0]


def test_folders_that_torchvision_reads_otherwise_are_one_line(tmp_path):
    source = write_image_folder(tmp_path)
    (tmp_path / "train" / "a" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / "a" / ".ipynb_checkpoints" / "x.png").write_bytes(photo(1))
    with pytest.raises(UserError, match=r"torchvision reads 3 photos of 2 classes, and .* holds 2 of 2 \(.*\.ipynb"):
        build_datasets("imnet", tmp_path, source=source, **PLAIN)
    (tmp_path / "train" / "a" / ".ipynb_checkpoints" / "x.png").unlink()
    (tmp_path / "train" / "a" / "up").symlink_to("..", target_is_directory=True)
    with pytest.raises(UserError, match=r"train/a/up: is .*train once more"):
        build_datasets("imnet", tmp_path, source=source, **PLAIN)


def test_an_evaluation_needs_no_training_split(tmp_path):
    source = write_image_folder(tmp_path)
    (tmp_path / "train").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="there is no folder of the split train"):
        build_datasets("imnet", tmp_path, source=source, **PLAIN)
    bundle = build_datasets("imnet", tmp_path, source=source, needs_train=False, **PLAIN)
    assert (bundle.classes, len(bundle.train), len(bundle.test)) == (("a", "b"), 0, 2)


MAPS = {
    "windows": ("m.txt", "b\r\na\r\n\r\n".encode("utf-8-sig"), {"b": 0, "a": 1}),
    "plain_pickle": ("m.pkl", pickle.dumps({"b": 0, "a": 1}), {"b": 0, "a": 1}),
    "twice": ("m.txt", b"a\na\n", "needs one class on each line, and no class twice"),
    "blank": ("m.txt", b"a\n\nb\n", "needs one class on each line"),
    "nothing": ("m.txt", b"", "needs one class on each line"),
    "latin1": ("m.txt", b"caf\xe9\n", "is no UTF-8 text"),
    "code": ("m.pkl", pickle.dumps(Path("x")), "no plain pickle"),
    "cut_pickle": ("m.pkl", pickle.dumps({"a": 1})[:5], "no plain pickle"),
    "list": ("m.pkl", pickle.dumps(["a"]), "needs a dictionary from class to label"),
    "texts": ("m.pkl", pickle.dumps({"a": "b"}), "needs a dictionary from class to label"),
}


@pytest.mark.parametrize(("name", "content", "right"), MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("beside", [True, False])
def test_a_class_map_is_data_from_any_editor_or_one_line(tmp_path, monkeypatch, name, content, right, beside):
    (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(sources, "find_spec", lambda package: package)
    monkeypatch.setattr("timm.data.create_dataset", lambda name, **given: given["class_map"])
    source = Source(name="hfds/x", root=str(tmp_path), class_map=name if beside else str(tmp_path / name))
    if isinstance(right, dict):
        assert source.open(train=True) == right
    else:
        with pytest.raises(UserError, match=rf"{name}.*{right}"):
            source.open(train=True)


IMNET = ["--dataset", "imnet", "--dataset-source"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--dataset", "imnet", "--train-split", "a", "--target-key", "b"],
            "--train-split, --target-key: without effect",
        ),
        (["--dataset", "cifar10", "--dataset-source", "wds/x"], "under --dataset imnet, not cifar10"),
        (
            [*IMNET, "wsd/x"],
            "--dataset-source takes wds/NAME, hfids/NAME, tfds/NAME, hfds/NAME, torch/NAME; got 'wsd/x'",
        ),
        ([*IMNET, "wds"], "--dataset-source takes"),
        ([*IMNET, "torch/imagenet", "--class-map", "x"], "--class-map: sets of torchvision have their own labels"),
        ([*IMNET, "hfds/x", "--val-num-samples", "3"], "--val-num-samples: for streams (wds, hfids, tfds) only"),
        ([*IMNET, "wds/x", "--aug-repeats", "3"], "--aug-repeats: a stream is read once in an epoch"),
        ([*IMNET, "hfids/x", "--use-multi-epochs-loader"], "--use-multi-epochs-loader: a stream is read once"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_of_sources_are_refused_where_they_do_not_apply(argv, message):
    with pytest.raises(UserError) as caught:
        resolve(argv)
    assert message in str(caught.value)


def test_options_of_sources_reach_timm(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(sources, "find_spec", lambda package: package)
    monkeypatch.setattr("timm.data.create_dataset", lambda name, **given: seen.append((name, given)) or Reader([()]))
    source = Source(
        name="hfids/x", root="cache", train_split="a", val_split="b", train_num_samples=7, val_num_samples=3,
        class_map="c", input_key="i", target_key="t", download=True,
    )  # fmt: skip
    for train in (True, False):
        source.open(train=train, batch_size=4, seed=9)
    shared = {"root": "cache", "class_map": "c", "input_key": "i", "target_key": "t", "download": True}
    shared |= {"batch_size": 4, "seed": 9}
    assert seen == [
        ("hfids/x", shared | {"split": "a", "num_samples": 7, "is_training": True}),
        ("hfids/x", shared | {"split": "b", "num_samples": 3, "is_training": False}),
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset": "digits", "dataset_source": "torch/mnist"}, "under --dataset imnet, not digits"),
        ({"dataset": "imnet", "dataset_source": "nope/x"}, "--dataset-source takes"),
        ({"dataset": "imnet", "dataset_source": "wds/x", "aug_repeats": 3}, "a stream is read once in an epoch"),
    ],
)
def test_options_of_a_program_are_refused_as_well(values, message, tmp_path):
    options = Options.from_dict(
        {**values, "model": "spikformer_digits", "output": str(tmp_path), "workers": 0, "device": "cpu"}
    )
    with pytest.raises(UserError, match=message):
        run(options)
