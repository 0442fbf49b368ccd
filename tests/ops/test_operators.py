"""The operators of a network that are not linear in its activations are listed, with the module that asks for them."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from braincog_transformers.ops.operators import Operators


class Calls(nn.Module):
    """A module of one function, with a parameter."""

    def __init__(self, function):
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.rand(4, 4) + 0.5)

    def forward(self, x):
        return self.function(x, self.weight)


def found(network, *inputs, guard=torch.no_grad, **options):
    with guard(), Operators(**options).watching(network) as operators:
        network(*inputs)
    return {(operator.path, str(operator)): operator.count for operator in operators.found}


def names(function, x=None, **options):
    return [name for _path, name in found(Calls(function), torch.rand(2, 4, 4) if x is None else x, **options)]


LINEAR = {
    "sum": lambda x, w: x + x.flip(0) - 1,
    "scaling": lambda x, w: x * 3 / 2 + x * w / w.sum(),
    "layer": lambda x, w: functional.linear(x, w, w[0]) @ w,
    "einsum": lambda x, w: torch.einsum("bij,jk->bik", x, w),
    "mean": lambda x, w: x.mean(-1) - x.sum(1),
    "pooling": lambda x, w: functional.avg_pool2d(x[None], 2),
    "views": lambda x, w: torch.cat([x.transpose(1, 2), x.roll(1, 0).reshape(2, 4, 4)], 1).split(2, 1)[0],
    "written": lambda x, w: torch.zeros(2, 4, 4).copy_(x).add_(1),
    "padding": lambda x, w: functional.pad(x, (1, 1)),
    "casting": lambda x, w: x.double().float(),
    "of parameters": lambda x, w: x * w.softmax(-1).exp() / w.norm(),
    "of the shape": lambda x, w: x + torch.zeros_like(x).exp() + torch.arange(x.shape[-1]).sin(),
    "chosen by place": lambda x, w: x[:, [0, 1]] + x.masked_fill(w > 1, 0)[:, :2],
    "batch norm in evaluation": lambda x, w: functional.batch_norm(x, w[0], w[1], w[2], w[3]),
}


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_what_is_linear_in_the_activations_is_not_listed(name, guard):
    assert names(LINEAR[name], guard=guard) == []


NONLINEAR = {
    "relu": [lambda x, w: x.relu(), lambda x, w: functional.relu(x), lambda x, w: x.clone().relu_()],
    "gelu": [lambda x, w: functional.gelu(x)],
    "gelu (tanh)": [lambda x, w: functional.gelu(x, approximate="tanh")],
    "silu": [lambda x, w: functional.silu(x.clone(), inplace=True)],
    "clamp": [lambda x, w: x.clamp(min=0), lambda x, w: x.clamp_min_(0), lambda x, w: functional.relu6(x)],
    "softmax": [lambda x, w: x.softmax(-1), lambda x, w: functional.softmax(x @ w, -1)],
    "layer norm": [lambda x, w: functional.layer_norm(x, (4,), w[0], w[1])],
    "group norm": [lambda x, w: functional.group_norm(x, 2)],
    "batch norm with the batch's statistics": [lambda x, w: functional.batch_norm(x, None, None, training=True),
                                               lambda x, w: functional.instance_norm(x)],
    "max pooling": [lambda x, w: functional.max_pool2d(x, 2), lambda x, w: functional.adaptive_max_pool2d(x, 1)],
    "maximum": [lambda x, w: x.amax(-1), lambda x, w: x.max(1)[0], lambda x, w: torch.maximum(x, w)],
    "product of two activations": [
        lambda x, w: x * x,
        lambda x, w: x.mul_(x.sum()),
        lambda x, w: torch.addcmul(w, x, x),
        lambda x, w: torch.lerp(x, w, x),
    ],
    "matrix product of two activations": [
        lambda x, w: x @ x.mT,
        lambda x, w: torch.einsum("bij,bkj->bik", x, x + w),
        lambda x, w: functional.conv1d(x, x),
        lambda x, w: functional.bilinear(x, x, w[None]),
    ],
    "division by an activation": [lambda x, w: w / x, lambda x, w: x / x.sum(), lambda x, w: torch.addcdiv(w, w, x)],
    "fused attention": [lambda x, w: functional.scaled_dot_product_attention(*x.unsqueeze(1).expand(3, 2, 2, 4, 4))],
    "comparison": [lambda x, w: x > w, lambda x, w: x.isnan()],
    "data-dependent control": [lambda x, w: x.any(), lambda x, w: x if x.sum() else w, lambda x, w: x.equal(w)],
    "rounding": [lambda x, w: x.round(), lambda x, w: x.int(), lambda x, w: torch.div(x, 2, rounding_mode="floor")],
    "topk": [lambda x, w: x.topk(2)[0]],
    "norm": [lambda x, w: torch.linalg.vector_norm(x)],
    "exp": [lambda x, w: x.exp()], "sqrt": [lambda x, w: x.sqrt()], "power": [lambda x, w: x**2],
    "abs": [lambda x, w: x.abs()], "sigmoid": [lambda x, w: x.sigmoid()], "tanh": [lambda x, w: x.tanh_()],
    "variance": [lambda x, w: x.var(-1)], "hardswish": [lambda x, w: functional.hardswish(x)],
    "aten.digamma": [lambda x, w: x.digamma()],
}  # fmt: skip


@pytest.mark.parametrize("name", NONLINEAR)
@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
def test_what_is_not_linear_is_listed_by_name(name, guard):
    for function in NONLINEAR[name]:
        assert {name} == {*names(function, guard=guard)} - ({"comparison"} if name != "comparison" else set())


def test_a_choice_that_depends_on_the_input_is_listed():
    assert names(lambda x, w: x[:, (x[0, :, 0] > 0).nonzero()[:, 0]]) == [
        "comparison",
        "nonzero",
        "data-dependent selection",
    ]
    assert names(lambda x, w: torch.where(x > 0, x, w)) == ["comparison", "data-dependent selection"]
    assert names(lambda x, w: x.gather(-1, x.argmax(-1, keepdim=True))) == ["argmax", "data-dependent selection"]
    assert names(lambda x, w: x if x.sum() > 0 else w) == ["comparison", "data-dependent control"]


def test_what_an_operator_writes_to_without_returning_it_is_an_activation():
    def summed(x, w):
        total = torch.zeros_like(w)
        torch._foreach_add_([total], [x[0]])
        return total.exp()

    assert names(summed)[-1] == "exp"


def test_parts_of_fused_layers_are_seen():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            return self.inner(x, x, x)[0]

    assert {name for _path, name in found(Attention().eval(), torch.rand(2, 4, 4))} == {
        "matrix product of two activations",
        "softmax",
    }


class Inner(nn.Module):
    def forward(self, x):
        return x.relu().relu().exp()


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Sequential(nn.Linear(4, 4), Inner()), Inner()

    def forward(self, x):
        return self.second(self.first(x).softmax(-1)) + self.second(x)


def test_an_operator_has_the_path_of_the_module_whose_own_code_asks_for_it():
    counts = {("first.1", "relu"): 2, ("first.1", "exp"): 1, ("", "softmax"): 1}
    assert found(Outer(), torch.rand(2, 4)) == counts | {("second", "relu"): 2, ("second", "exp"): 1}


def test_the_calls_of_a_module_may_differ_and_fail():
    class Failing(nn.Module):
        def forward(self, x):
            if x.dim() == 1:
                raise RuntimeError
            return x.relu().relu() if x.dim() == 2 else x.relu()

    class Trying(Outer):
        def forward(self, x):
            try:
                self.first(x[0])
            except RuntimeError:
                return self.first(self.first(x)[None]).exp()

    network = Trying()
    network.first = Failing()
    assert found(network, torch.rand(2, 4)) == {("first", "relu"): 2, ("", "exp"): 1}


def test_nothing_is_listed_in_a_hidden_module_and_what_leaves_it_is_an_activation():
    class Source(Inner):
        def forward(self, x):
            return torch.ones(2, 4).exp()

    network = nn.Sequential(Source(), nn.Softmax(-1))
    assert found(network, torch.rand(2, 4)) == {}
    assert found(network, torch.rand(2, 4), hides=(Source,)) == {("1", "softmax"): 1}
    assert found(Outer(), torch.rand(2, 4), hides=(Inner,)) == {("", "softmax"): 1}


def test_a_module_gives_its_operators_a_note():
    network = Outer()
    network.first.operators_note = "of running sums"
    assert ("first.1", "exp of running sums") in found(network, torch.rand(2, 4))


def test_sums_chosen_by_spikes_are_not_listed_but_those_of_running_sums_are():
    def binary(x):
        return bool(((x == 0) | (x == 1)).all())

    spikes = torch.tensor([0.0, 1.0, 1.0, 0.0]).expand(2, 4, 4)
    for function in (lambda x, w: x @ x.mT, lambda x, w: x * (x + 1), lambda x, w: functional.max_pool2d(x, 2)):
        assert names(function, spikes, spikes=binary) == []
        assert len(names(function, spikes)) == len(names(function, spikes * 0.5, spikes=binary)) == 1
    network = Calls(lambda x, w: x @ x.mT)
    network.operators_note = "of running sums"
    assert [*found(network, spikes, spikes=binary)] == [("", "matrix product of two activations of running sums")]
    assert names(lambda x, w: x.softmax(-1), spikes, spikes=binary) == ["softmax"]


def test_an_error_in_the_network_leaves_no_hook_and_no_mode():
    network = Calls(lambda x, w: x @ x[0, 0, 0])
    fast = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(RuntimeError):
        found(network, torch.rand(2, 4, 4))
    assert not network._forward_hooks
    assert not network._forward_pre_hooks
    assert torch._C._len_torch_dispatch_stack() == 0
    assert torch.backends.mha.get_fastpath_enabled() == fast
