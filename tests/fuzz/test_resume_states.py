"""Changed states of a run are resumed and trained on, or refused in one short line that names the file."""

import random
from copy import deepcopy

import numpy as np
import pytest
import torch
from tiny_run import Run

from braincog_transformers.errors import NonFiniteLoss, UserError
from braincog_transformers.recipe import Options
from braincog_transformers.training.saving import find_state
from braincog_transformers.training.state import difference, restore, saved_options

ODD = [
    None, 0, 1, -1, 10**6, 2**70, -1.5, float("nan"), float("inf"), "x", "", b"x", (), (1, 2), [], [None], {}, {"x": 1},
    True, torch.ones(2), torch.ones(0), torch.ones(()), torch.zeros(3, dtype=torch.uint8),
    torch.empty(3, device="meta"),
    torch.eye(3).to_sparse(), torch.full((8,), float("nan")), np.float64(2),
]  # fmt: skip


def _containers(value, found=None):
    """Return every dictionary and list within a state."""
    found = [] if found is None else found
    if isinstance(value, (dict, list)):
        found.append(value)
        for inner in value.values() if isinstance(value, dict) else value:
            _containers(inner, found)
    return found


def _like(draw: random.Random, value):
    """Return something that resembles a value."""
    if isinstance(value, torch.Tensor):
        changed = [value.flatten()[1:], value[None], value.double(), value * 0, value.to(torch.uint8), value.bool()]
        return draw.choice(changed)
    if isinstance(value, bool) or value is None:
        return draw.choice([1, "True", None])
    if isinstance(value, (int, float)):
        return draw.choice([-value, value + 1, str(value), value * 1e300, float(value), [value]])
    if isinstance(value, str):
        return draw.choice([value + "x", value[:-1], 1])
    return draw.choice([list(value), dict.fromkeys(range(2), 0), tuple(value)])


def _changed(draw: random.Random, state: dict) -> dict:
    state = deepcopy(state)
    for _ in range(draw.choice([1, 1, 1, 2])):
        inner = [one for one in _containers(state) if one]
        # the state itself as often as all of its parts
        where = draw.choice([state, draw.choice(inner)])
        key = draw.choice(list(where)) if isinstance(where, dict) else draw.randrange(len(where))
        kind = draw.randrange(4)
        if kind == 0:
            del where[key]
        elif kind == 1:
            where[key] = draw.choice(ODD)
        elif kind == 2:
            where[key] = _like(draw, where[key])
        elif isinstance(where, dict):
            where[draw.choice([1, "x", "state", None])] = where.pop(key)
        else:
            where.append(draw.choice(ODD))
    return state


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"opt": "sgd", "sched": "plateau", "ema": False}], ids=["adamw", "plateau"])
def test_a_changed_state_is_resumed_or_refused_in_one_short_line(fuzz_cases, tmp_path, options):
    draw, counts = random.Random(13), {"resumed": 0, "refused": 0}
    sound = torch.load(Run(tmp_path / "run", **options).fit(max_steps=7).checkpoints.last, weights_only=True)
    sound["options"] = Options().to_dict()
    for number in range(fuzz_cases):
        folder = tmp_path / str(number)
        run = Run(folder, **options)
        path = folder / "changed.pth.tar"
        torch.save(_changed(draw, sound), path)
        if draw.random() < 0.1:
            content = path.read_bytes()
            place = draw.randrange(len(content))
            path.write_bytes(
                content[:place] + bytes([content[place] ^ 1]) + content[place + draw.choice([1, 1, 1000]) :]
            )
        try:
            found, state = find_state(path, run.said.append)
            difference(saved_options(state, Options().to_dict()), Options().to_dict(), free=frozenset())
            restore(state, run.learner, run.progress, run.ranks, path=found)
            run.checkpoints.continue_from(state, metric=run.plan_arguments["metric"])
            run.fit(max_steps=run.progress.updates + 1)
            counts["resumed"] += 1
        except NonFiniteLoss:
            counts["resumed"] += 1
        except UserError as error:
            line = str(error)
            assert "\n" not in line
            assert len(line) < 900
            counts["refused"] += 1
        for one in folder.iterdir():
            one.unlink()
    assert min(counts.values()) > 0
