"""Masked pre-training from options to results, and what a classifier makes of it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from braincog_transformers.checkpoints import read_checkpoint
from braincog_transformers.cli import resolve
from braincog_transformers.errors import UserError
from braincog_transformers.report import write_report
from braincog_transformers.training import loaders
from braincog_transformers.training.run import run

NETWORK = ["--model", "spikformer_v2_digits"]
MASKED = [*NETWORK, "--pretrain", "masked", "--decoder-dim", "16", "--decoder-depth", "1"]


@pytest.fixture
def pretrain(go, small_digits):
    """Return a function that pre-trains on 32 samples with the options given."""
    return lambda *more: go(*MASKED, "-b", "8", *more)


def _weights(found):
    return read_checkpoint(found["checkpoint"])["state_dict"]


def _same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


class _Unlabelled(Dataset):
    """The samples of a data set, each with the label 0."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index][0], 0


def test_the_loss_is_all_that_is_measured(pretrain, capsys):
    found = pretrain("--epochs", "2", "--lr", "0.05")
    said, folder = capsys.readouterr().out, Path(found["folder"])
    assert "top-1" not in said
    assert "final test loss" in said
    assert "best test_loss" in said
    header, *rows = (folder / "summary.csv").read_text().splitlines()
    assert header == "epoch,train_loss,lr,test_loss,firing_rate"
    assert found["best"] == min(float(row.split(",")[3]) for row in rows)
    results = json.loads((folder / "results.json").read_text())["results"]
    assert {"test_loss", "best", "firing_rate"} <= results.keys()
    assert "test_top1" not in results


def test_labels_are_not_used(pretrain, monkeypatch):
    labelled, build = pretrain("--experiment", "a"), loaders.build_datasets

    def without(*args, **kwargs):
        bundle = build(*args, **kwargs)
        return replace(bundle, train=_Unlabelled(bundle.train), test=_Unlabelled(bundle.test))

    monkeypatch.setattr(loaders, "build_datasets", without)
    other = pretrain("--experiment", "b")
    assert _same(_weights(labelled), _weights(other))
    assert labelled["test_loss"] == other["test_loss"]


@pytest.mark.parametrize("more", [(), ("--model-ema", "--grad-accum", "2", "--grad-checkpointing")])
def test_resumes_bit_for_bit(pretrain, more):
    whole = pretrain("--experiment", "whole", "--epochs", "2", *more)
    pretrain("--experiment", "part", "--epochs", "2", "--max-steps", "2", *more)
    folder = str(Path(whole["folder"]).with_name("part"))
    part = pretrain("--epochs", "2", "--resume", folder, *more)
    assert part["folder"] == folder
    assert _same(_weights(whole), _weights(part))
    assert Path(folder, "summary.csv").read_text() == Path(whole["folder"], "summary.csv").read_text()


def test_an_evaluation_draws_the_same_masks(pretrain):
    found = pretrain()
    again = pretrain("--eval_checkpoint", found["checkpoint"], "--experiment", "again")
    assert again["test_loss"] == found["test_loss"]
    assert "test_top1" not in again


def test_a_classifier_starts_from_the_encoder(pretrain, go, capsys):
    found = pretrain()
    tuned = go(*NETWORK, "-b", "8", "--initial-checkpoint", found["checkpoint"], "--max-steps", "1", "--lr", "1e-9")
    said = capsys.readouterr().out
    said = said.partition("from masked pre-training, ")[2]
    assert re.match(r"without the \d+ tensors beside its encoder; new head\.bias, head\.weight from", said)
    before, after = _weights(found), _weights(tuned)
    weights = [name for name in after if name.endswith("weight") and not name.startswith("head")]
    assert weights
    assert all(torch.allclose(after[name], before[f"encoder.{name}"], rtol=0, atol=1e-6) for name in weights)
    assert 0 <= tuned["test_top1"] <= 100


def test_the_encoder_of_one_pretraining_starts_another(pretrain, capsys):
    found = pretrain()
    again = pretrain("--initial-checkpoint", found["checkpoint"], "--experiment", "again", "--decoder-dim", "32")
    assert "tensors beside its encoder" in capsys.readouterr().out
    assert again["test_loss"] > 0


def test_an_encoder_is_no_classifier_to_evaluate(pretrain, go):
    found = pretrain()
    with pytest.raises(UserError, match="an encoder from masked pre-training"):
        go(*NETWORK, "--eval_checkpoint", found["checkpoint"])


def test_the_report_shows_the_loss(pretrain):
    page = Path(write_report([Path(pretrain()["folder"])])).read_text()
    assert "Test loss" in page
    assert "Test accuracy" not in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "sdt_digits"], "--pretrain masked: sdt_digits can't be pre-trained so; .*spikformer_v2_digits"),
        (["--model", "vit_tiny_patch16_224"], "--pretrain masked: vit_tiny_patch16_224 can't be pre-trained so"),
        (["--as-released"], "--as-released: no code that pre-trains spikformer_v2_digits was released"),
        (["--mask-ratio", "1e-17"], "shows 4 of 4 patches"),
    ],
)
def test_what_cannot_be_pretrained_is_refused(pretrain, options, message):
    with pytest.raises(UserError, match=message):
        pretrain("--img-size", "4", *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mask-ratio", "0.75"], "--mask-ratio: without effect without --pretrain"),
        (["--pretrain", "masked", "--mixup", "0.5", "--mixup-prob", "1"], "--mixup, --mixup-prob: without effect in"),
        (["--pretrain", "masked", "--tet-loss"], "--tet-loss: without effect in --pretrain masked"),
        (["--pretrain", "masked", "--sync-bn"], "--sync-bn: not for --pretrain"),
        (["--pretrain", "masked", "--eval-metric", "top5"], "--eval-metric top5 needs labels"),
        (["--pretrain", "masked", "--mask-ratio", "1"], "--mask-ratio must be at most 0.99"),
        (["--pretrain", "other"], "--pretrain must be one of"),
    ],
)
def test_options_that_contradict_it_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        resolve(["--dataset", "digits", *NETWORK, *options])


def test_events_are_refused():
    with pytest.raises(UserError, match="--pretrain: for image data only"):
        run(resolve(["--dataset", "ndigits", *NETWORK, "--pretrain", "masked"]))


@pytest.mark.slow
def test_pretraining_and_tuning_on_the_digits(go):
    given = [*NETWORK, "--threshold", "0.5", "-b", "64", "--lr-base-size", "0", "--weight-decay", "0.05"]
    first = go(*MASKED, *given, "--decoder-dim", "64", "--lr", "2e-3", "--epochs", "3")
    rows = (Path(first["folder"]) / "summary.csv").read_text().splitlines()[1:]
    losses = [float(row.split(",")[1]) for row in rows]
    assert losses[-1] < losses[0] - 0.01
    tuned = go(*given, "--lr", "4e-3", "--epochs", "5", "--initial-checkpoint", first["checkpoint"])
    assert tuned["test_top1"] > 90
