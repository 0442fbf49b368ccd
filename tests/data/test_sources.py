"""Photos through timm's dataset factory: torchvision and Hugging Face by index, WebDataset shards as streams."""

import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_photos import photo, write_tar

from braincog_transformers.data import sources
from braincog_transformers.data.build import Augment, build_datasets
from braincog_transformers.data.loader import make_loader
from braincog_transformers.data.sources import Source
from braincog_transformers.data.streams import PictureStream
from braincog_transformers.errors import UserError
from braincog_transformers.options import resolve
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
