"""Two processes on the CPU give what one gives with the doubled batch."""

import os
import socket

import pytest
import torch
from tiny_run import Oracle, Run, TwoHeads, assert_same
from torch import distributed, multiprocessing

from braincog_transformers.errors import UserError
from braincog_transformers.training.distributed import Ranks, set_up, wrap
from braincog_transformers.training.learner import UpdateRules
from braincog_transformers.training.losses import Distillation, build_loss

OPTIONS = {"norm": False, "drop": 0.0, "mixup": False, "ema": True, "opt": "sgd", "lr": 0.1, "count": 22}


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _fit(folder, ranks, *, stop_after=None, resume=False, **more) -> dict:
    one = Run(folder, batch_size=2, grad_accum=2, ranks=ranks, **OPTIONS, **more)
    network, one.learner.train_call, one.learner.test_call = wrap(one.learner.network, ranks)
    assert network is one.learner.network
    if resume:
        one.resume()
    one.fit(max_steps=stop_after)
    return {"weights": one.weights, "rows": one.rows}


def _taught() -> dict:
    return {"network": TwoHeads, "teacher": Oracle(3), "loss": Distillation(build_loss("ce"), alpha=0.5)}


def _work(rank: int, port: int, folder) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    ranks = set_up("cpu")
    whole = _fit(folder / "whole", ranks)
    _fit(folder / "parts", ranks, stop_after=4)
    parts = _fit(folder / "parts", ranks, resume=True)
    noisy = _fit(folder / "noisy", ranks, stop_after=3, rules=UpdateRules(noisy_grad=0.5))
    noisy = ranks.gather(noisy["weights"])
    taught = _fit(folder / "taught", ranks, **_taught())
    if ranks.first:
        torch.save({"noisy": noisy, "whole": whole, "parts": parts, "taught": taught}, folder / "ends.pt")
    ranks.close()


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Train on two processes: at one go, and stopped and resumed."""
    folder = tmp_path_factory.mktemp("two")
    multiprocessing.spawn(_work, args=(_port(), folder), nprocs=2)
    return torch.load(folder / "ends.pt", weights_only=True)


def test_two_ranks_equal_one_with_the_doubled_batch(ends, tmp_path):
    two = ends["whole"]
    one = Run(tmp_path / "one", batch_size=4, grad_accum=2, **OPTIONS).fit()
    assert len(two["rows"]) == 3
    for row, other in zip(two["rows"], one.rows, strict=True):
        assert row == pytest.approx(other, rel=1e-5)  # accuracies too: each of the 22 test samples counts once
    for name, value in one.weights.items():
        torch.testing.assert_close(two["weights"][name], value, rtol=0, atol=1e-6)


def test_two_ranks_learn_from_a_teacher_as_one_does(ends, tmp_path):
    one = Run(tmp_path / "one", batch_size=4, grad_accum=2, **OPTIONS, **_taught()).fit()
    for name, value in one.weights.items():
        torch.testing.assert_close(ends["taught"]["weights"][name], value, rtol=0, atol=1e-6)


def test_two_ranks_resume_exactly(ends):
    whole, parts = ends["whole"], ends["parts"]
    assert parts["rows"] == whole["rows"]
    assert all(torch.equal(value, parts["weights"][name]) for name, value in whole["weights"].items())


def test_noise_on_gradients_is_the_same_on_every_rank(ends):
    first, second = ends["noisy"]
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_alone_every_call_is_the_identity():
    ranks = Ranks(device=torch.device("cpu"))
    values = torch.ones(2)
    assert ranks.first
    assert ranks.sum(values) is values
    assert ranks.gather({"a": 1}) == [{"a": 1}]
    assert ranks.share("x") == "x"
    assert ranks.any(True)
    assert not ranks.any(False)
    assert ranks.first_alone(lambda: 5) == 5
    ranks.close()
    assert not distributed.is_initialized()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_missing_cuda_device_is_named():
    with pytest.raises(UserError, match="--device cuda:1: no CUDA device"):
        set_up("cuda:1")


def test_foreign_devices_are_named():
    with pytest.raises(UserError, match="'gpu' is not a device"):
        set_up("gpu")
    with pytest.raises(UserError, match="only cpu and cuda"):
        set_up("mps")


def test_runs_here_do_not_depend_on_each_other(tmp_path):
    first, second = (Run(tmp_path / name, epochs=1).fit() for name in ("first", "second"))
    assert_same(first, second)
