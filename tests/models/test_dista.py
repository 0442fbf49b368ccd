"""DISTA: at one lag and without denoising it is Spikformer; what the lags and the denoising do."""

import copy
import pickle

import pytest
import timm
import torch
from families import batch, tiny, wake
from families.dista import TINY
from torch.nn import BatchNorm1d, BatchNorm2d, Linear

from braincog_transformers import UserError
from braincog_transformers.layers import DenoisedProduct, SpikingProduct
from braincog_transformers.models.base import NodeOptions
from braincog_transformers.models.dista import LaggedLinearBNNode

NAME, T = "dista_4_384_cifar", 4


def trained_step(model, x):
    model.zero_grad()
    y = model(x)
    y.square().sum().backward()
    return y


@pytest.mark.parametrize("denoise", [0.0, -1.0])
def test_one_lag_without_denoising_is_spikformer_with_plif_bit_for_bit(denoise):
    ours = wake(tiny(NAME, lags=1, denoise=denoise, step=T))
    torch.manual_seed(0)
    theirs = timm.create_model("spikformer_4_384_cifar", **{**TINY, "step": T, "node_type": "PLIFNode"})
    theirs.load_state_dict(ours.state_dict())
    x = batch(ours)
    assert torch.equal(trained_step(ours, x), trained_step(theirs, x))
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad, msg=name)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_training_begins_at_one_lag_and_every_lag_learns():
    model = wake(tiny(NAME, step=T))
    one = wake(tiny(NAME, step=T, lags=1))
    one.load_state_dict({name: value for name, value in model.state_dict().items() if ".lagged." not in name})
    x = batch(model, events=True)
    assert torch.equal(trained_step(model, x), one(x))
    lagged = {name: p for name, p in model.named_parameters() if ".lagged." in name}
    assert len(lagged) == 2 * 3 * (T - 1)
    for name, parameter in lagged.items():
        assert not parameter.any(), name
        assert parameter.grad.any(), name


def lagged(lags, step=T, **options):
    torch.manual_seed(0)
    node = NodeOptions(node_type="IFNode", threshold=0.7).constructor(step)
    layer = LaggedLinearBNNode(3, lags, step, bias=True, node=node, **options).double()
    torch.nn.init.constant_(layer.bn.bias, 0.4)
    return layer


@pytest.mark.parametrize("lags", [1, 2, T, T + 2])
def test_a_step_reads_the_steps_before(lags):
    """The definition, written out: step t reads W_k x[t - k] for every k below L."""
    layer, x = lagged(lags), torch.randn(T * 2, 5, 3, dtype=torch.float64)
    frames, weights = x.chunk(T), [layer.linear.weight, *(one.weight for one in layer.lagged)]
    sums = [
        sum(frames[t - k] @ weight.T for k, weight in enumerate(weights) if k <= t) + layer.linear.bias
        for t in range(T)
    ]
    expected = layer.node(layer.bn(torch.cat(sums).flatten(0, 1)).view(x.shape))
    assert 0 < expected.mean() < 1
    assert torch.equal(layer(x), expected)


def randomised(model):
    """Give all matrices weights, those of the lags among them, and statistics with which neurons fire in evaluation."""
    for layer in model.modules():
        if isinstance(layer, Linear):
            torch.nn.init.normal_(layer.weight)
        if isinstance(layer, BatchNorm1d | BatchNorm2d):
            layer.momentum = 1.0
    model.double()(batch(model, events=True).double())
    return model.eval()


def test_step_by_step_and_streaming_give_the_same_logits():
    model = randomised(wake(tiny(NAME, step=T)))
    x = batch(model, events=True).double()
    expected = model(x)
    other = tiny(NAME, step=T, lags=1).double().eval()
    other.load_state_dict({name: value for name, value in model.state_dict().items() if ".lagged." not in name})
    assert not torch.allclose(other(x), expected)
    model.set_attr("layer_by_layer", False)
    torch.testing.assert_close(model(x), expected)
    model.set_streaming()
    for _ in range(2):
        model.reset()
        frames = list(x.unbind(1))
        first = [model(frame) for frame in frames[:2]]
        going_on = pickle.loads(pickle.dumps(model))  # what was read before travels
        rest = [going_on(frame) for frame in frames[2:]]
        torch.testing.assert_close(torch.stack(first + rest).mean(0), expected)


def test_fused_matrices_of_every_lag_give_the_same_logits():
    model = randomised(wake(tiny(NAME, step=T)))
    x = batch(model, events=True).double()
    expected = model(x)
    fused = copy.deepcopy(model).fuse().fuse()
    torch.testing.assert_close(fused(x), expected, rtol=0, atol=1e-9)
    assert not any(isinstance(module, BatchNorm1d) for module in fused.modules())
    assert sum(isinstance(m, Linear) for m in fused.modules()) == sum(isinstance(m, Linear) for m in model.modules())


def test_denoising_removes_small_entries_with_their_gradient():
    q, k = torch.tensor([[1.0, 1, 0], [0, 1, 0]]), torch.tensor([[1.0, 1, 1], [0, 0, 1]])
    v = torch.tensor([[1.0, 0, 1], [0, 1, 1]])
    q.requires_grad_()
    out = DenoisedProduct(0.5, 2)(q, k, v)  # the map is ((2, 0), (1, 0)), of which the 2 stays
    assert out.tolist() == [[1, 0, 1], [0, 0, 0]]
    out.sum().backward()
    assert q.grad[0].any()
    assert not q.grad[1].any()
    for least in (0, -3):
        assert torch.equal(DenoisedProduct(0.5, least)(q, k, v), SpikingProduct(0.5)(q, k, v))


@pytest.mark.parametrize(("lags", "step"), [(0, 2), (-1, 2), (3, 2)])
def test_lags_beyond_the_steps_are_refused(lags, step):
    with pytest.raises(UserError, match=f"DISTA: lags must be 1 to step; got lags={lags}, step={step}"):
        tiny(NAME, lags=lags, step=step)


def test_fewer_steps_than_lags_read_what_there_is():
    model = randomised(wake(tiny(NAME, step=T)))
    x = batch(model, events=True).double()
    model.output_steps = True
    expected = model(x)[:2]
    model.set_attr("step", 2)
    torch.testing.assert_close(model(x[:, :2]), expected)
