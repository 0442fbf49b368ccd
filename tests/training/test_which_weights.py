"""Which weights of a checkpoint are read: the same in evaluation, export, fine-tuning, and by timm."""

import pytest
import timm
import torch
from tiny_run import DIGITS, Run

from braincog_transformers.checkpoints import read_checkpoint
from braincog_transformers.cli import resolve
from braincog_transformers.errors import UserError
from braincog_transformers.training import exporting
from braincog_transformers.training import network as networks
from braincog_transformers.training.distributed import Ranks
from braincog_transformers.training.saving import find_state, load_weights
from braincog_transformers.training.state import restore

EMA = ["--model-ema", "--model-ema-decay", "0.5", "--lr", "0.05", "--lr-base-size", "0", "--max-steps", "3"]


def _apart(state):
    """Tell whether the average of a state differs from its weights."""
    average = state.get("state_dict_ema") or state.get("state_dict_ema_unranked")
    return not torch.equal(average["head.weight"], state["state_dict"]["head.weight"])


def test_the_best_epoch_is_evaluated_with_the_average_that_chose_it(small_digits, go, capsys):
    run = go(*EMA, "--experiment", "ema")
    best = run["best_checkpoint"]
    assert _apart(read_checkpoint(best))
    capsys.readouterr()
    averaged = go("--eval_checkpoint", best, "--experiment", "a")
    assert "model_best.pth.tar: the moving average (state_dict_ema; --no-use-ema" in capsys.readouterr().out
    itself = go("--eval_checkpoint", best, "--experiment", "b", "--no-use-ema")
    assert "the weights themselves (state_dict), not their moving average" in capsys.readouterr().out
    assert (averaged["test_loss"], itself["test_loss"]) == (run["ema_loss"], run["test_loss"])
    assert run["ema_loss"] != run["test_loss"]
    by_initial = go("--eval", "--initial-checkpoint", best, "--experiment", "c")
    assert by_initial["test_loss"] == run["ema_loss"]
    assert "the moving average" in capsys.readouterr().out


def test_an_average_that_was_never_evaluated_is_read_on_demand_alone(small_digits, go, capsys):
    run = go(*EMA, "--model-ema-force-cpu", "--experiment", "cpu")
    best = run["best_checkpoint"]
    assert _apart(read_checkpoint(best))
    assert go("--eval_checkpoint", best, "--experiment", "a")["test_loss"] == run["test_loss"]
    assert "the weights themselves (state_dict), not their moving average" in capsys.readouterr().out
    assert go("--eval_checkpoint", best, "--experiment", "b", "--use-ema")["test_loss"] != run["test_loss"]
    network = timm.create_model("spikformer_digits", step=2, checkpoint_path=best)
    assert torch.equal(network.head.weight, read_checkpoint(best)["state_dict"]["head.weight"])


def _state(**weights):
    network = timm.create_model("spikformer_digits", step=2)
    return {
        name: {key: torch.full_like(tensor, value) if key == "head.bias" else tensor for key, tensor in own.items()}
        for name, value in weights.items()
        for own in [network.state_dict()]
    }


@pytest.mark.parametrize(("given", "value"), [([], 2.0), (["--no-use-ema"], 1.0), (["--use-ema"], 2.0)])
def test_fine_tuning_and_export_read_the_weights_that_evaluation_reads(tmp_path, monkeypatch, given, value):
    path = str(tmp_path / "run.pth.tar")
    torch.save(_state(state_dict=1.0, state_dict_ema=2.0), path)
    options = resolve([*DIGITS, "--initial-checkpoint", path, *given])
    network = networks.build_network(
        options, networks.find_shape(options), Ranks(device=torch.device("cpu")), say=lambda _: None
    )
    assert set(network.head.bias.tolist()) == {value}
    seen = []
    biases = lambda network, *_, **__: seen.extend(network.head.bias.tolist()) or tmp_path  # noqa: E731
    monkeypatch.setattr(exporting, "export", biases)
    monkeypatch.setattr(exporting, "load_exported", lambda _: None)
    monkeypatch.setattr(exporting, "agreement", lambda *_: "")
    lines = exporting.export_trained(resolve([*DIGITS, "--eval_checkpoint", path, *given]), str(tmp_path / "x.onnx"))
    assert set(seen) == {value}
    assert ("the moving average" in lines[0]) == (value == 2.0)


def test_timm_reads_the_weights_that_we_read(tmp_path):
    path = tmp_path / "run.pth.tar"
    torch.save(_state(state_dict=1.0, state_dict_ema=2.0), path)
    network = timm.create_model("spikformer_digits", step=2)
    load_weights(network, str(path), lambda _: None)
    assert torch.equal(network.head.bias, timm.create_model("spikformer_digits", checkpoint_path=str(path)).head.bias)


def test_a_resumed_run_has_its_own_average_wherever_it_was_kept(run, tmp_path):
    whole = run("whole").fit()
    run("parts").fit(max_steps=7)
    path = run("parts").folder / "last.pth.tar"
    state = torch.load(path, weights_only=True)
    state["state_dict_ema_unranked"] = state.pop("state_dict_ema")
    torch.save(state, path)
    resumed = Run(path.parent).resume(path).fit()
    assert all(
        torch.equal(one, other) for one, other in zip(whole.weights.values(), resumed.weights.values(), strict=True)
    )


def test_a_run_with_an_average_does_not_resume_without_one(run):
    run("parts", ema=False).fit(max_steps=7)
    resumed = run("parts")
    path, state = find_state(resumed.folder, print)
    with pytest.raises(UserError, match=r"last\.pth\.tar: the state holds no moving average"):
        restore(state, resumed.learner, resumed.progress, resumed.ranks, path=path)
