"""The loop learns, limits itself, accumulates, measures and stops as it says."""

import csv
import os
import signal

import pytest
import torch
from tiny_run import CLASSES, MemoryLoader, TinyNet, assert_same, samples
from torch import nn

from braincog_transformers.errors import NonFiniteLoss
from braincog_transformers.training.distributed import Ranks
from braincog_transformers.training.learner import Learner, UpdateRules
from braincog_transformers.training.loaders import ToDevice
from braincog_transformers.training.loop import evaluate
from braincog_transformers.training.losses import build_loss
from braincog_transformers.training.meters import ClassMeter
from braincog_transformers.training.precision import Precision
from braincog_transformers.training.stopping import StopRequest
from braincog_transformers.training.update import update_weights

ALONE = Ranks(device=torch.device("cpu"))


def _step(network, batches, *, rules=None, loss=None, amp=None, lr=0.1):
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    learner = Learner(network=network, optimizer=optimizer, precision=Precision("cpu", amp))
    return update_weights(
        learner, batches, update=3, criterion=loss or build_loss("ce"), to_device=ToDevice(),
        rules=rules or UpdateRules(), ranks=ALONE,
    )  # fmt: skip


def test_overfits_eight_samples(run):
    one = run("one", count=8, epochs=40, mixup=False, drop=0.0, ema=False, loss=build_loss("ce")).fit()
    assert one.rows[-1]["train_top1"] == 100.0
    assert one.rows[-1]["test_top1"] == 100.0
    assert one.rows[-1]["test_loss"] < 0.1 < one.rows[0]["test_loss"]


@pytest.mark.parametrize("accumulated", [1, 2, 4])
def test_accumulation_equals_the_big_batch(accumulated):
    x, y = samples(16)
    torch.manual_seed(0)
    big, small = TinyNet(norm=False, drop=0.0), TinyNet(norm=False, drop=0.0)
    small.load_state_dict(big.state_dict())
    sums = _step(big, [(x, y)])
    pieces = list(zip(x.chunk(accumulated), y.chunk(accumulated), strict=True))
    torch.testing.assert_close(_step(small, pieces), sums)
    for one, other in zip(big.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_last_short_group_of_batches_is_a_step_too(run):
    assert run("one", grad_accum=4, epochs=2).fit().progress.updates == 4


def test_max_steps_ends_in_the_middle_and_at_the_end_of_an_epoch(run):
    middle = run("middle").fit(max_steps=8)
    assert (middle.progress.updates, middle.progress.epoch, middle.progress.batch) == (8, 1, 2)
    assert [row["epoch"] for row in middle.rows] == [0, 1]
    assert middle.checkpoints.last.exists()
    end = run("end").fit(max_steps=6)
    assert (end.progress.updates, end.progress.epoch, end.progress.batch) == (6, 1, 0)
    assert [row["epoch"] for row in end.rows] == [0]


def test_summary_holds_every_row(run):
    one = run("one").fit()
    with open(one.folder / "summary.csv", newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == one.rows
    assert {"train_loss", "train_top1", "test_loss", "test_top1", "test_top5", "ema_top1", "lr"} <= rows[0].keys()


def test_mixed_batches_count_against_the_dominating_label(run):
    learnt = run("mixed", count=12, epochs=40, drop=0.0, mixing_ends=0).fit()
    assert learnt.rows[-1]["train_top1"] > 60.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_finishes_the_step_saves_and_resumes(run, number):
    whole = run("whole").fit()
    parts = run("parts")
    plain = parts.learner.train_call
    calls = []

    def interrupted(x):
        calls.append(x)
        if len(calls) == 8:
            os.kill(os.getpid(), number)
        return plain(x)

    parts.learner.train_call = interrupted
    with parts.stop:
        parts.fit()
    assert (parts.progress.updates, parts.progress.epoch, parts.progress.batch) == (8, 1, 2)
    assert_same(run("parts").resume().fit(), whole)


def test_signal_during_evaluation_loses_nothing(run):
    whole = run("whole").fit()
    parts = run("parts")
    plain = parts.learner.test_call
    calls = []

    def interrupted(x):
        calls.append(x)
        if len(calls) == 4:  # two calls precede the training
            os.kill(os.getpid(), signal.SIGINT)
        return plain(x)

    parts.learner.test_call = interrupted
    with parts.stop:
        parts.fit()
    assert (parts.progress.epoch, parts.progress.batch, parts.rows) == (0, 6, [])
    assert_same(run("parts").resume().fit(), whole)


def test_second_signal_stops_at_once_unless_patient():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with StopRequest(patient=True) as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested


class _Overflow(nn.Module):
    def forward(self, x):
        return x / 0.0


def test_non_finite_loss_names_step_rate_and_layer():
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), _Overflow(), nn.Linear(8, CLASSES))
    before = [parameter.clone() for parameter in network.parameters()]
    with pytest.raises(NonFiniteLoss, match=r"step 3, learning rate 0\.1: first layers .* not finite: 2\."):
        _step(network, [samples(4)])
    assert all(torch.equal(one, other) for one, other in zip(before, network.parameters(), strict=True))


def test_non_finite_data_and_weights_are_told_apart():
    x, y = samples(4)
    network = TinyNet()
    with pytest.raises(NonFiniteLoss, match="the batch itself"):
        _step(network, [(torch.full_like(x, torch.nan), y)])
    network.head.weight.data[0, 0] = torch.inf
    with pytest.raises(NonFiniteLoss, match=r"weights that are not finite: head\.weight"):
        _step(network, [(x, y)])


def test_non_finite_loss_keeps_the_state_of_before(run):
    one = run("one")
    x = one.loaders.train.x
    plain = one.learner.train_call
    calls = []

    def spoilt(batch):
        calls.append(batch)
        return plain(batch) * (torch.inf if len(calls) == 9 else 1.0)

    one.learner.train_call = spoilt
    with pytest.raises(NonFiniteLoss, match="arose in the loss itself"):
        one.fit()
    assert torch.isfinite(x).all()
    resumed = run("one").resume()
    assert resumed.progress.epoch == 1
    assert all(value.isfinite().all() for value in resumed.weights.values())


def test_evaluation_counts_each_sample_once_and_leaves_the_generators():
    x, y = samples(23)
    network = TinyNet().eval()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    loader = MemoryLoader(x, y, 5, train=False)

    def call(x):
        return network(x) + 0 * torch.rand(())  # as a random encoding draws

    found = evaluate(
        call, loader, meter=ClassMeter(build_loss("ce")), to_device=ToDevice(), ranks=ALONE,
        autocast=Precision("cpu").autocast,
    )  # fmt: skip
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        logits = network(x)
    assert found["loss"] == pytest.approx(nn.functional.cross_entropy(logits, y).item(), rel=1e-6)
    assert found["top1"] == pytest.approx(100 * (logits.argmax(1) == y).double().mean().item())
    five = (logits.topk(5).indices == y[:, None]).any(1)
    assert found["top5"] == pytest.approx(100 * five.double().mean().item())


def test_few_classes_have_no_top5():
    x, y = samples(8)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    found = evaluate(
        network, MemoryLoader(x, y % 4, 5, train=False), meter=ClassMeter(build_loss("ce")), to_device=ToDevice(),
        ranks=ALONE, autocast=Precision("cpu").autocast,
    )  # fmt: skip
    assert found.keys() == {"loss", "top1"}


def test_clipping_limits_the_gradient():
    x, y = samples(8)
    network = TinyNet(drop=0.0)
    before = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    _step(network, [(x, y)], rules=UpdateRules(clip_grad=0.01), lr=1.0)
    after = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_noise_has_the_wished_deviation():
    x, y = samples(8)
    plain, noisy = TinyNet(drop=0.0), TinyNet(drop=0.0)
    noisy.load_state_dict(plain.state_dict())
    _step(plain, [(x, y)], lr=1.0)
    _step(noisy, [(x, y)], lr=1.0, rules=UpdateRules(noisy_grad=0.5))
    difference = torch.cat([(a - b).flatten() for a, b in zip(plain.parameters(), noisy.parameters(), strict=True)])
    assert difference.std().item() == pytest.approx(0.5, rel=0.1)


def test_random_steps_vary_and_are_put_back(run):
    one = run("one", rules=UpdateRules(random_steps=4))
    seen = []
    plain = one.learner.train_call
    one.learner.train_call = lambda x: (seen.append(one.learner.network.step), plain(x))[1]
    one.fit()
    assert set(seen) == {1, 2, 3, 4}
    assert one.learner.network.step == 4


@pytest.mark.parametrize("amp", ["bfloat16", "float16"])
def test_lower_precision_still_learns(run, amp):
    one = run("one", amp=amp, epochs=30, count=8, mixup=False, drop=0.0, ema=False, loss=build_loss("ce")).fit()
    assert one.rows[-1]["test_top1"] == 100.0
