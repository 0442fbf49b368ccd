"""The neuron whose threshold is set for every call."""

import copy

import pytest
import torch

from braincog_transformers.errors import UserError
from braincog_transformers.nodes import DynamicThresholdNode


class _Rectangle(torch.autograd.Function):
    @staticmethod
    def forward(ctx, over):
        ctx.save_for_backward(over)
        return (over > 0).to(over.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad * (ctx.saved_tensors[0].abs() < 0.5)


def _written_out(x, threshold):
    """Return potentials and spikes of all steps, `(T, B, ...)`."""
    m = s = torch.zeros_like(x[0])
    potentials, spikes = [], []
    for current in x:
        m = 0.2 * m * (1 - s) + current
        s = _Rectangle.apply(m - threshold)
        potentials.append(m)
        spikes.append(s)
    return torch.stack(potentials), torch.stack(spikes)


@pytest.mark.parametrize("threshold", [None, 0.1, 0.6])
def test_steps_are_those_of_the_paper_in_value_and_gradient(threshold):
    torch.manual_seed(0)
    x = torch.randn(6, 4, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 6, 4, 3, dtype=torch.float64)
    node = DynamicThresholdNode(step=6).double()
    node.set_n_threshold(0.3)
    if threshold is not None:
        node.dynamic = torch.tensor(threshold, dtype=torch.float64)
    expected = _written_out(x, 0.3 if threshold is None else threshold)
    spikes, potentials = [], []
    for current in x:
        spikes.append(node(current))
        potentials.append(node.mem)
    found = torch.stack(potentials), torch.stack(spikes)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-15)
    grads = [torch.autograd.grad(sum((w * part).sum() for w, part in zip(weights, parts, strict=True)), x)[0]
             for parts in (found, expected)]  # fmt: skip
    assert torch.allclose(*grads, rtol=0, atol=1e-14)
    node.n_reset()
    node.dynamic = None if threshold is None else torch.tensor(threshold, dtype=torch.float64)
    node.layer_by_layer = True
    assert torch.equal(node(x.flatten(0, 1)).unflatten(0, (6, 4)), found[1])


def test_it_fires_above_the_threshold_only():
    node = DynamicThresholdNode()
    node.dynamic = torch.tensor(0.25)
    assert node(torch.tensor([0.25, 0.2500001])).tolist() == [0, 1]
    assert node.spike.tolist() == [0, 1]


def test_the_threshold_that_is_set_gets_no_gradient_and_a_reset_forgets_it():
    node, x = DynamicThresholdNode(), torch.zeros(3, requires_grad=True)
    node.dynamic = torch.tensor(0.1, requires_grad=True) * 2
    assert node.get_thres().item() == pytest.approx(0.2)
    (gradient,) = torch.autograd.grad(node(x).sum(), x)
    assert gradient.tolist() == [1, 1, 1]
    assert not node.get_thres().requires_grad
    assert copy.deepcopy(node).get_thres() == node.get_thres()
    node.n_reset()
    assert node.get_thres().item() == pytest.approx(0.3)
    assert node.mem is None


@pytest.mark.parametrize("decay", [-0.1, 1.1])
def test_a_decay_that_is_no_share_is_refused(decay):
    with pytest.raises(UserError, match="decay must be a share from 0 to 1"):
        DynamicThresholdNode(decay=decay)
