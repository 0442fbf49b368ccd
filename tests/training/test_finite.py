"""Numbers that are not finite are noticed although spikes hide them, and named; those that are right pass."""

import pytest
import torch
from tiny_run import Run, TinyNet, samples
from torch import nn
from torch.utils.data import TensorDataset

from braincog_transformers.data.loading.loader import make_loader
from braincog_transformers.errors import NonFiniteLoss, UserError
from braincog_transformers.nodes import LIFNode
from braincog_transformers.training.diagnose import has_sound_sum
from braincog_transformers.training.distributed import Ranks
from braincog_transformers.training.learner import UpdateRules


class Spiking(TinyNet):
    """A tiny network whose neurons answer NaN with silence, and pass no gradient to it either."""

    def __init__(self, **options):
        super().__init__(**options)
        self.node = LIFNode(step=1, layer_by_layer=True)

    def forward(self, x):
        return self.head(self.drop(self.node(self.norm(self.conv(x)))).flatten(1))


@pytest.fixture
def spiking(run):
    """Return a maker of runs of a spiking network without mixing, dropout and average."""

    def make(name: str = "one", **options) -> Run:
        return run(name, **{"network": Spiking, "mixup": False, "drop": 0.0, "ema": False, **options})

    return make


def test_the_loss_of_a_spiking_network_hides_what_is_not_finite(spiking):
    one = spiking(norm=False)
    x, y = samples(4)
    x[1, 0, 2, 3] = torch.nan
    assert one.plan_arguments["criterion"](one.learner.network(x), y).isfinite()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("mixup", [False, True], ids=["plain", "mixed"])
@pytest.mark.parametrize("norm", [False, True], ids=["without norm", "with norm"])
def test_a_pixel_that_is_not_finite_stops_the_training(spiking, value, mixup, norm):
    one = spiking(mixup=mixup, norm=norm)
    one.loaders.train.x[7, 0, 1, 1] = value
    one.loaders.test.x = samples()[0]
    with pytest.raises(NonFiniteLoss, match=r"the batch itself is at fault: samples? .*check the data"):
        one.fit()


def test_the_sample_of_a_batch_is_named(spiking):
    one = spiking(batch_size=24)
    one.loaders.test.x = samples()[0]
    one.loaders.train.x[7, 0, 1, 1] = torch.nan
    place = one.loaders.train._own().tolist().index(7)
    with pytest.raises(NonFiniteLoss, match=rf"sample {place} \(counted from 0\) holds values"):
        one.fit()


def test_a_test_sample_that_is_not_finite_stops_the_evaluation(spiking):
    one = spiking()
    one.loaders.train.x = samples()[0]
    one.loaders.test.x[13, 0, 1, 1] = torch.nan  # batches of 5
    with pytest.raises(NonFiniteLoss, match=r"evaluation: batch 3, counted from 1: sample 3 \(counted from 0\)"):
        one.fit()


def test_values_whose_sum_overflows_are_no_fault(spiking):
    one = spiking(epochs=1, norm=False)
    x = one.loaders.train.x
    x[3:6, 0] = torch.finfo(torch.float32).max / 4
    assert not has_sound_sum(x)
    assert one.fit().progress.updates == 6


@pytest.mark.parametrize("name", ["conv.weight", "head.bias", "norm.running_var", "node.threshold"])
def test_weights_that_are_not_finite_stop_before_the_first_step(spiking, name):
    one = spiking()
    one.learner.network.state_dict()[name].view(-1)[0] = torch.nan
    with pytest.raises(NonFiniteLoss, match=rf"before the first step these weights are not finite: {name}"):
        one.fit()
    assert not list(one.folder.iterdir())


def _spoil_gradients(network: nn.Module, *, at: int, value: float = torch.nan) -> None:
    """Make one value of the convolution's gradient not finite in one step."""
    calls = []

    def hook(gradient):
        calls.append(gradient)
        return gradient * (value if len(calls) == at else 1.0)

    network.conv.weight.register_hook(hook)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("rules", [UpdateRules(), UpdateRules(clip_grad=1.0)], ids=["plain", "clipped"])
@pytest.mark.parametrize("amp", [None, "bfloat16"])
def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(spiking, value, rules, amp):
    one = spiking(rules=rules, amp=amp)
    _spoil_gradients(one.learner.network, at=9, value=value)
    with pytest.raises(NonFiniteLoss, match=r"at step 8, .*gradients are not finite .*: conv\.weight\."):
        one.fit()
    assert all(value.isfinite().all() for value in one.weights.values())
    assert spiking().resume().progress.updates == 6


def test_gradients_whose_norm_overflows_are_no_fault(spiking):
    one = spiking(epochs=1, opt="sgd", norm=False)
    # the conv's gradient may be 0, that of the head isn't
    one.learner.network.head.weight.register_hook(lambda gradient: gradient.sign() * 1e25)
    assert one.fit().progress.updates == 6


def test_a_step_that_overflows_float16_is_left_out_and_not_the_end(spiking):
    one = spiking(amp="float16")
    _spoil_gradients(one.learner.network, at=2, value=torch.inf)
    assert one.fit().progress.updates == 18
    assert all(value.isfinite().all() for value in one.weights.values())


def test_steps_that_overflow_float16_without_end_are_named(spiking):
    one = spiking(amp="float16", epochs=9)
    one.learner.network.conv.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(NonFiniteLoss, match="overflow float16 however small they are scaled"):
        one.fit()
    assert one.progress.updates < 30


def test_weights_that_overflow_are_not_saved(spiking):
    one = spiking(opt="sgd", lr=1e30, sched="step")
    with pytest.raises(NonFiniteLoss, match="not finite"):
        one.fit()
    for path in one.folder.glob("*.pth.tar"):
        saved = torch.load(path, weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in saved.values())


def test_an_evaluation_without_a_finite_loss_is_named(run):
    one = run("one", ema=False)
    one.learner.test_call = lambda x: one.learner.network(x) * torch.inf
    with pytest.raises(NonFiniteLoss, match="the loss of the evaluation is not finite"):
        one.fit()


@pytest.mark.parametrize("train", [True, False], ids=["training", "test"])
@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_names_the_sample_of_the_set(train, workers):
    x, y = samples()
    x[17, 0, 0, 0] = torch.nan
    loader = make_loader(TensorDataset(x, y), batch_size=5, train=train, seed=1, workers=workers)
    part = "training" if train else "test"
    with pytest.raises(UserError, match=rf"{part} sample 17 \(counted from 0, label {y[17]}\) holds values"):
        list(loader)


def test_whole_numbers_and_large_values_pass_the_loader():
    large = torch.full((3, 1, 4, 4), torch.finfo(torch.float32).max / 2)
    for x in (large, torch.ones(3, 1, 4, 4, dtype=torch.uint8)):
        loader = make_loader(TensorDataset(x, torch.arange(3)), batch_size=3, train=False, seed=1)
        assert len(list(loader)) == 1


def test_a_fault_on_another_rank_stops_this_one_too(spiking, monkeypatch):
    one = spiking()
    monkeypatch.setattr(Ranks, "any", lambda self, flag: True)
    with pytest.raises(NonFiniteLoss, match="on another rank"):
        one.fit()
