"""Starting from the weights of another run: other numbers of steps, classes, sizes, channels, heads."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from braincog_transformers.checkpoints import load_state, read_checkpoint
from braincog_transformers.cli import resolve
from braincog_transformers.errors import UserError
from braincog_transformers.training.run import run

SHORT = ["--epochs", "1", "--warmup-epochs", "0", "--cooldown-epochs", "0", "-b", "8", "--tensorboard-dir", ""]
DIGITS = ["--dataset", "digits", "--model", "spikformer_digits", "--device", "cpu", "--workers", "0"]


@pytest.fixture
def go(tmp_path, small_digits):
    """Return a function that runs the options given on 32 samples."""
    return lambda *more: run(resolve([*DIGITS, *SHORT, "--output", str(tmp_path), *more]))


def _state(path: str | Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(path)["state_dict"]


def test_a_run_of_four_steps_starts_from_a_run_of_one(go):
    one = go("--step", "1")
    four = go("--step", "4", "--initial-checkpoint", one["checkpoint"], "--max-steps", "1", "--lr", "1e-9")
    before, after = _state(one["checkpoint"]), _state(four["checkpoint"])
    assert before.keys() == after.keys()
    # the running statistics are those of the run of one step, moved on by a single batch
    counts = {name for name in before if name.endswith("num_batches_tracked")}
    assert counts
    assert all(after[name] == before[name] + 1 == 5 for name in counts)
    mean = next(name for name in before if name.endswith("running_mean"))
    assert not torch.equal(before[mean], after[mean])
    assert (after[mean] - before[mean]).norm() < before[mean].norm()
    weight = before["head.weight"]
    torch.testing.assert_close(after["head.weight"], weight, rtol=0, atol=1e-6)


def test_evaluation_at_another_number_of_steps_uses_the_weights_as_they_are(go):
    one = go("--step", "1", "--threshold", "0.2")
    again = go("--step", "1", "--threshold", "0.2", "--eval", "--initial-checkpoint", one["checkpoint"])
    assert again["test_loss"] == one["test_loss"]
    four = go("--step", "4", "--threshold", "0.2", "--eval", "--initial-checkpoint", one["checkpoint"])
    assert four["test_loss"] != one["test_loss"]


def _foreign(path: Path, **ends) -> tuple[str, dict[str, torch.Tensor]]:
    """Save a network with other ends; return the path and its weights."""
    torch.manual_seed(3)
    state = timm.create_model("spikformer_digits", **ends).state_dict()
    torch.save({"model": state}, path)
    return str(path), state


def test_images_of_other_size_and_classes_transfer_to_digits(go, tmp_path, capsys):
    path, state = _foreign(tmp_path / "big.pt", num_classes=33, img_size=32)
    found = go("--img-size", "16", "--initial-checkpoint", path, "--max-steps", "1", "--lr", "1e-9", "--step", "2")
    assert "new classifier for 10 classes, not 33" in capsys.readouterr().out
    after = _state(found["checkpoint"])
    assert len(after["head.weight"]) == 10
    weights = [name for name in state if name.endswith("weight") and not name.startswith("head.")]
    assert all(torch.allclose(after[name], state[name], rtol=0, atol=1e-6) for name in weights)


def test_images_transfer_to_events_with_the_sum_of_the_polarities(go, tmp_path, capsys):
    path, _ = _foreign(tmp_path / "colour.pt", num_classes=33, img_size=32, in_chans=3)
    events = ["--dataset", "ndigits", "--data-dir", str(tmp_path), "--event-size", "16", "--polarity-sum"]
    assert go(*events, "--step", "2", "--initial-checkpoint", path, "--max-steps", "1")["steps"] == 1
    assert "new classifier for 10 classes, not 33" in capsys.readouterr().out


def test_evaluation_refuses_weights_of_other_classes(go, tmp_path):
    path, _ = _foreign(tmp_path / "big.pt", num_classes=33)
    with pytest.raises(UserError, match=r"head\.weight \(33, \d+\) for \(10, \d+\)"):
        go("--eval", "--initial-checkpoint", path)


def _two_heads(num_classes: int) -> nn.Module:
    network = timm.create_model("spikformer_digits", num_classes=num_classes)
    network.head_dist = nn.Linear(network.embed_dim, num_classes)
    return network


def test_a_missing_distillation_head_starts_fresh_in_training_only():
    plain, network = timm.create_model("spikformer_digits"), _two_heads(10)
    before = network.head_dist.weight.clone()
    assert load_state(network, plain.state_dict(), replace_classifier=True).endswith("; new distillation head")
    assert torch.equal(network.head_dist.weight, before)
    assert torch.equal(network.head.weight, plain.head.weight)
    with pytest.raises(UserError, match=r"2 missing: head_dist\.bias, head_dist\.weight"):
        load_state(network, plain.state_dict())


def test_both_heads_are_replaced_for_other_classes():
    network = _two_heads(10)
    said = load_state(network, _two_heads(7).state_dict(), replace_classifier=True)
    assert said.endswith("; new classifier for 10 classes, not 7")
