"""What a network itself adds to the loss and to the results."""

import csv
import json
from pathlib import Path

import pytest
import timm
import torch
from tiny_run import samples

from braincog_transformers.models import Spikformer
from braincog_transformers.training.distributed import Ranks
from braincog_transformers.training.learner import Learner, UpdateRules
from braincog_transformers.training.loaders import ToDevice
from braincog_transformers.training.losses import build_loss
from braincog_transformers.training.precision import Precision
from braincog_transformers.training.update import update_weights


@pytest.mark.usefixtures("small_digits")
def test_time_steps_are_logged_written_and_evaluated(go, capsys):
    found = go("--model", "dynamic_spikformer_digits", "--step", "3")
    assert found["time_steps"] == 3
    folder = Path(found["folder"])
    assert "| time steps 3.00 |" in capsys.readouterr().out
    assert float(next(csv.DictReader((folder / "summary.csv").read_text().splitlines()))["time_steps"]) == 3
    assert json.loads((folder / "results.json").read_text())["results"]["time_steps"] == 3
    again = go("--model", "dynamic_spikformer_digits", "--step", "3", "--eval_checkpoint", found["checkpoint"])
    assert again["time_steps"] == 3
    assert "time_steps 3.0000" in capsys.readouterr().out
    assert "time_steps" not in go()


@pytest.mark.usefixtures("small_digits")
def test_figures_of_any_name_are_logged(go, capsys, monkeypatch):
    monkeypatch.setattr(Spikformer, "figures", lambda self: {"open_share": 0.25, "lr_of_mine": 3})
    found = go()
    assert "| open share 0.2500 | lr of mine 3.00 |" in capsys.readouterr().out
    assert (found["open_share"], found["lr_of_mine"]) == (0.25, 3)


def test_the_networks_own_term_is_in_the_loss_and_in_the_gradient():
    losses = []
    for penalty in (0.0, 100.0):
        torch.manual_seed(0)
        kwargs = {"embed_dim": 16, "depth": 1, "img_size": 4, "num_classes": 5, "step": 2, "penalty": penalty}
        network = timm.create_model("dynamic_spikformer_digits", **kwargs)
        learner = Learner(network, torch.optim.SGD(network.parameters(), lr=1.0), Precision("cpu", None))
        x, y = samples(8)
        sums = update_weights(
            learner, [(x, y % 5)], update=0, criterion=build_loss("ce"), to_device=ToDevice(), rules=UpdateRules(),
            ranks=Ranks(device=torch.device("cpu")),
        )  # fmt: skip
        losses.append(sums[0].item() / 8)
    sigmoid = torch.tensor(1.0).sigmoid().item()
    assert losses[1] - losses[0] == pytest.approx(100 * sigmoid, rel=1e-5)
    scores = torch.cat([node.scores for node in network.nodes.values()])
    assert (scores < 1).all()
