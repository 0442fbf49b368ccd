"""A state that was changed, or comes from elsewhere, is refused in one line that names its file and the part."""

from copy import deepcopy

import pytest
import torch

from braincog_transformers.errors import UserError
from braincog_transformers.recipe import Options
from braincog_transformers.training.saving import find_state
from braincog_transformers.training.state import restore, saved_options
from braincog_transformers.training.state_check import check_optimizer, hyperparameters


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Return the state of a run that was stopped in its second epoch."""
    from tiny_run import Run

    path = Run(tmp_path_factory.mktemp("runs") / "run").fit(max_steps=7).checkpoints.last
    return torch.load(path, weights_only=True)


def _put(*way, value):
    def change(state):
        for name in way[:-1]:
            state = state[name]
        state[way[-1]] = value

    return change


def _drop(*way):
    def change(state):
        for name in way[:-1]:
            state = state[name]
        del state[way[-1]]

    return change


EXP = ("optimizer", "state", 0, "exp_avg")
GROUP = ("optimizer", "param_groups", 0)
CHANGES = {
    "no epoch": (_drop("epoch"), "the state has no 'epoch'"),
    "epoch is a text": (_put("epoch", value="2"), "'epoch' of the state is not what training writes there: '2'"),
    "epoch before the first": (_put("epoch", value=-3), "'epoch' of the state"),
    "step without end": (_put("step", value=2**80), "'step' of the state"),
    "rows are a number": (_put("rows", value=3), "'rows' of the state"),
    "a row without its column": (_drop("rows", 0, "test_top1"), "'rows' of the state"),
    "no ranks": (_put("ranks", value=[]), "the run had 0 processes"),
    "ranks of numbers": (_put("ranks", value=[1]), "'ranks' of the state"),
    "weights are a list": (_put("state_dict", value=[1, 2]), "'state_dict' of the state"),
    "a weight is cut": (_put("state_dict", "head.weight", value=torch.ones(2)), "the state does not fit this run"),
    "a weight is lost": (_drop("state_dict", "head.weight"), "the state does not fit this run"),
    "a weight is not finite": (
        _put("state_dict", "head.bias", value=torch.full((6,), float("nan"))),
        "head.bias holds values that are not finite",
    ),
    "an average's weight is not finite": (
        _put("state_dict_ema", "head.bias", value=torch.full((6,), float("inf"))),
        "head.bias holds values that are not finite",
    ),
    "a weight is sparse": (_put("state_dict", "head.bias", value=torch.ones(6).to_sparse()), "is a sparse tensor"),
    "no average": (_drop("state_dict_ema"), "the state holds no moving average"),
    "no memory": (_put("optimizer", "state", value={}), "holds no memory after 7 steps of AdamW"),
    "no groups": (_put("optimizer", "param_groups", value=[]), "the state does not fit this run"),
    "a rate is a text": (_put(*GROUP, "lr", value="fast"), "has 'fast' for lr"),
    "a rate is not finite": (_put(*GROUP, "lr", value=float("inf")), "has inf for lr"),
    "one beta": (_put(*GROUP, "betas", value=(0.9,)), "has (0.9,) for betas"),
    "a moment is cut": (_put(*EXP, value=torch.ones(2)), "'optimizer' of the state does not fit the weights: exp_avg"),
    "a moment is a number": (_put(*EXP, value=0.5), "remembers different things about different weights"),
    "a moment is lost": (_drop(*EXP), "remembers different things about different weights"),
    "a schedule is a text": (_put("scheduler", value="cosine"), "'scheduler' of the state"),
    "sums are cut": (_put("ranks", 0, "sums", value=torch.ones(2)), "'ranks' of the state holds no sums"),
    "a generator is lost": (_drop("ranks", 0, "own", "noise"), "the state does not fit this run (KeyError: 'noise')"),
    "a generator is cut": (
        _put("ranks", 0, "global", "torch", value=torch.zeros(3, dtype=torch.uint8)),
        "the state does not fit this run (RuntimeError: ",
    ),
    "NumPy would read beyond its words": (
        _put("ranks", 0, "global", "numpy", "position", value=10**6),
        "holds no state of NumPy's random numbers",
    ),
    "options are a list": (_put("options", value=["lr"]), "'options' of the state"),
    "an option is a tensor": (_put("options", value={"lr": torch.ones(2)}), "'options' of the state"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_changed_is_named(run, sound, name):
    change, told = CHANGES[name]
    state = deepcopy(sound)
    change(state)
    one = run("one")
    path = one.folder / "changed.pth.tar"
    torch.save(state, path)
    found, state = find_state(path, print)
    with pytest.raises(UserError) as caught:
        restore(state, one.learner, one.progress, one.ranks, path=found)
    line = str(caught.value)
    assert told in line
    assert "changed.pth.tar" in line
    assert "\n" not in line
    assert len(line) < 700


def test_options_of_a_state_from_elsewhere_are_not_taken_for_a_runs(sound):
    for odd in ({"options": ["lr"]}, {"options": {1: 2}}, {"format": 7}, {"format": torch.ones(2)}):
        with pytest.raises(UserError):
            saved_options(sound | odd, Options().to_dict())
    assert saved_options(sound | {"options": {"lr": 0.1}}, Options().to_dict())["lr"] == 0.1


def test_a_changed_newest_state_falls_back_to_the_one_before(run, sound):
    folder = run("parts").fit(max_steps=12).folder
    for name in ("last", "checkpoint-1"):
        path = folder / f"{name}.pth.tar"
        state = torch.load(path, weights_only=True)
        state["ranks"][0]["global"] = 3
        path.unlink()
        torch.save(state, path)
    resumed = run("parts").resume()
    assert resumed.progress.epoch == 1
    assert any("'ranks' of the state" in line for line in resumed.said)


def test_a_row_without_the_column_that_ranks_the_epochs_is_named(run, sound):
    with pytest.raises(UserError, match=r"--resume: the rows of the state have no column 'test_top9'"):
        run("one").checkpoints.continue_from(sound, metric="test_top9")


def test_a_number_and_a_vector_of_one_are_remembered_alike():
    weights = [torch.nn.Parameter(torch.ones(shape)) for shape in ((), (1,), (3,), (1, 1))]
    first, second = (torch.optim.AdamW(weights) for _ in range(2))
    sum(weight.sum() for weight in weights).backward()
    first.step()
    before = hyperparameters(second)
    second.load_state_dict(first.state_dict())
    check_optimizer(second, before)
