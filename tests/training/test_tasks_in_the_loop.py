"""Tasks other than classification run through the one loop: trained, measured, resumed, drawn, refused."""

import json
from pathlib import Path

import pytest
import torch
from timm.models import register_model
from torch import nn
from torch.utils.data import Dataset

from braincog_transformers import tasks
from braincog_transformers.cli import main, resolve
from braincog_transformers.data import DATASETS
from braincog_transformers.data.build import DataBundle
from braincog_transformers.data.registry import TaskSet
from braincog_transformers.models.registry import Entry, Paper, Variant
from braincog_transformers.models.task_networks import TASK_NETWORKS, TaskNetwork
from braincog_transformers.runtime.batch import Batch

PAPER = Paper("Sums", "Nowhere 2026", "none", "")


class Sums(nn.Module):
    """Estimate the weighted sum of two vectors of different lengths."""

    def __init__(self, wide=False):
        super().__init__()
        self.left, self.right = nn.Linear(4, 1), nn.Linear(3, 1)

    def forward(self, x, target=None):
        assert (target is not None) == (self.training and Toy.takes_target)
        return Batch(sum=self.left(x.left) + self.right(x.right))


class Pairs(Dataset):
    def __init__(self, count, bad=None):
        generator = torch.Generator().manual_seed(count)
        self.left = torch.randn(count, 4, generator=generator)
        self.right = torch.randn(count, 3, generator=generator)
        if bad is not None:
            self.right[bad, 0] = float("nan")

    def __len__(self):
        return len(self.left)

    def __getitem__(self, index):
        left, right = self.left[index], self.right[index]
        return Batch(left=left, right=right), Batch(sum=(2 * left[:1] - right[2:]))


class Squares(nn.Module):
    def forward(self, output, target):
        return (output.sum - target.sum).square().mean()


class Errors(tasks.Meter):
    def __init__(self):
        self.errors = []

    def update(self, call, x, target):
        self.errors += (call(x).sum - target.sum).abs().flatten().tolist()

    def compute(self, gather):
        self.errors = [error for part in gather({"errors": self.errors}) for error in part["errors"]]
        return {"error": sum(self.errors) / len(self.errors), "count": float(len(self.errors))}

    def write(self, folder):
        (folder / "errors.json").write_text(json.dumps(self.errors))
        return [folder / "errors.json"]


class Toy(tasks.Task):
    name, metric, decreasing = "depth", "error", True
    bad = None

    def build_data(self, info, data_dir):
        return DataBundle(info, Pairs(64, self.bad), Pairs(10), 0, (4,), ())

    def criterion(self):
        return Squares()

    def meter(self, bundle):
        return Errors()

    def draw(self, call, bundle, folder, to_device):
        x, _ = to_device(Batch.stack([bundle.test[0][0]]), torch.zeros(1))
        path = folder / "toy.txt"
        path.write_text(str(call(x).sum.item()))
        yield path


@register_model
def toy_sums(pretrained=False, **kwargs):
    return Sums(**{name: value for name, value in kwargs.items() if name == "wide"})


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    monkeypatch.setitem(TASK_NETWORKS, "toy_sums", TaskNetwork("depth", PAPER, Entry(Sums, Variant({}, {}))))
    monkeypatch.setitem(
        DATASETS, "toy_pairs", TaskSet(name="toy_pairs", task="depth", layout="toy", size=(1, 4), tree="nothing")
    )
    for place in ("braincog_transformers.training.assembly", "braincog_transformers.tasks"):
        monkeypatch.setattr(f"{place}.find_task", lambda name: Toy)


COMMON = (
    *("--task", "depth", "--dataset", "toy_pairs", "--model", "toy_sums", "-b", "8", "--lr", "0.1"),
    *("--lr-base-size", "0", "--sched", "step", "--warmup-epochs", "0", "--cooldown-epochs", "0"),
    *("--workers", "0", "--weight-decay", "0", "--tensorboard-dir", ""),
)


def command(folder, *more):
    return [*COMMON, "--output", str(folder), *more]


@pytest.mark.parametrize("gives_target", [False, True])
def test_a_task_is_trained_measured_and_drawn(tmp_path, capsys, monkeypatch, gives_target):
    monkeypatch.setattr(Toy, "takes_target", gives_target)
    assert main(command(tmp_path, "--epochs", "12", "--experiment", "run")) == 0
    said, folder = capsys.readouterr().out, tmp_path / "run"
    results = json.loads((folder / "results.json").read_text())
    assert results["task"] == {"name": "depth", "metric": "error", "decreasing": True}
    assert results["results"]["test_error"] < 0.05
    assert results["results"]["test_count"] == 10
    assert results["results"]["best"] == min(row["test_error"] for row in rows(folder))
    assert "final test error" in said
    assert "best test_error" in said
    assert "test error" in said
    assert "top-1" not in said
    errors = json.loads((folder / "errors.json").read_text())
    assert sum(errors) / 10 == pytest.approx(results["results"]["test_error"], rel=1e-5)
    assert (folder / "toy.txt").exists()
    assert str(folder / "toy.txt") in said
    assert results["model"]["paper"] == "Nowhere 2026"
    assert "firing_rate" not in results["results"]


def rows(folder):
    lines = [line.split(",") for line in (folder / "summary.csv").read_text().splitlines()]
    return [dict(zip(lines[0], map(float, line), strict=True)) for line in lines[1:]]


def test_a_task_resumes_as_if_it_had_not_stopped(tmp_path):
    options = ("--recovery-interval", "3", "--epochs", "3")
    assert main(command(tmp_path, *options, "--experiment", "whole")) == 0
    assert main(command(tmp_path, *options, "--experiment", "parts", "--max-steps", "11")) == 0
    assert main(command(tmp_path, *options, "--resume", str(tmp_path / "parts"))) == 0
    whole, parts = (
        torch.load(tmp_path / name / "last.pth.tar", weights_only=False)["state_dict"] for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_task_is_evaluated_from_its_folder(tmp_path, capsys):
    assert main(command(tmp_path, "--epochs", "2", "--experiment", "run")) == 0
    trained = json.loads((tmp_path / "run" / "results.json").read_text())["results"]["test_error"]
    capsys.readouterr()
    file = str(tmp_path / "run" / "last.pth.tar")
    assert main(command(tmp_path, "--eval_checkpoint", file, "--experiment", "look")) == 0
    found = json.loads((tmp_path / "look" / "results.json").read_text())["results"]["test_error"]
    assert found == pytest.approx(trained, rel=1e-6)


def test_inputs_that_are_not_finite_are_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Toy, "bad", 5)
    assert main(command(tmp_path, "--epochs", "1")) == 2
    assert "training sample 5 (counted from 0) holds values that are not finite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--task-kwargs", "wide=2"], "--task-kwargs wide: depth has no such option; it has none"),
        (["--model-kwargs", "wide"], "--model-kwargs takes KEY=VALUE"),
        (["--mixup", "0.5"], "--mixup: without effect in --task depth; leave it out"),
        (["--conf-mat"], "--conf-mat: without effect in --task depth"),
        (["--detector", "fasterrcnn"], "--detector: without effect in --task depth"),
        (["--node-type", "IFNode"], "--node-type: without effect in --task depth"),
        (["--dataset", "digits"], "--dataset digits is not for --task depth; it reads"),
        (["--model", "spikformer"], "unknown network of --task depth 'spikformer'"),
        (["--eval-metric", "loss"], "--eval-metric: without effect in --task depth"),
        (["--convert", "qcfs"], "--convert: without effect in --task depth"),
        (["--export", "x.onnx", "--eval_checkpoint", "x"], "--export writes classifiers, not networks of --task depth"),
    ],
)
def test_what_does_not_belong_to_a_task_is_refused(tmp_path, capsys, more, message):
    assert main(command(tmp_path, *more)) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.parametrize(
    ("given", "model"),
    [
        (["--task", "track", "--dataset", "fe240hz"], "stnet"),
        (["--task", "track"], "stnet_small"),
        (["--task", "track", "--dataset", "fe240hz", "--model", "stnet_small"], "stnet_small"),
        (["--task", "detect", "--dataset", "coco", "--model", "sdt_v2_15m"], "sdt_v2_15m"),
    ],
)
def test_a_task_has_a_network_of_its_own(given, model):
    assert resolve(given).model.model == model


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--dataset", "toy_pairs"], "--dataset toy_pairs is for --task depth; give that too"),
        (["--dataset", "digits", "--model", "toy_sums"], "--model toy_sums is for --task depth; give that too"),
        (["--dataset", "digits", "--task-kwargs", "a=1"], "--task-kwargs: without effect as long as no --task"),
        (["--task", "drive"], "--task must be one of"),
    ],
)
def test_what_belongs_to_a_task_needs_it(capsys, given, message):
    assert main(given) == 2
    assert message in capsys.readouterr().err
