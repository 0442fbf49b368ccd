"""Every dense product of a network is counted, whoever wrote it: against PyTorch's counter, and by its name."""

import warnings

import pytest
import timm
import torch
from families import FAMILIES, family_of
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from braincog_transformers import LIFNode, UserError
from braincog_transformers.analysis.audit import audit
from braincog_transformers.analysis.energy import METHODS, analyze
from braincog_transformers.analysis.operations import count_operations
from braincog_transformers.layers import FourierTransform
from braincog_transformers.layers.linear import LinearBNNode
from braincog_transformers.layers.products import SpikeMatmul, SpikingProduct

HEADS, TOKENS, DIM = 4, 64, 64


class Attention(nn.Module):
    """Spiking attention as the model files write it, its product left to a function of q, k and v in heads."""

    def __init__(self, node, product):
        super().__init__()
        self.q, self.k, self.v, self.proj = (LinearBNNode(DIM, DIM, node=node) for _ in range(4))
        self.attn_node, self.product = node(), product
        self.register_buffer("mask", torch.ones(TOKENS, TOKENS).tril())

    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.proj(self.attn_node(self.product(q, k, v, self.mask).transpose(1, 2).flatten(2)))


def masked(q, k, v, mask):
    return (q @ k.transpose(-2, -1) * mask) @ v * 0.25


def with_softmax(q, k, v, mask):
    return F.scaled_dot_product_attention(q, k, v)


def einsum(q, k, v, mask):
    return torch.einsum("bhnm,bhmd->bhnd", torch.einsum("bhnd,bhmd->bhnm", q, k), v) * 0.25


class MaskedProduct(SpikingProduct):
    """A mask lies between the two products, so that they can't be taken in the other order."""

    def forward(self, q, k, v, mask):
        return (q @ k.transpose(-2, -1) * mask) @ v * self.scale


class Unmasked(SpikingProduct):
    def forward(self, q, k, v, mask):
        return super().forward(q, k, v)


def _with(product):
    """Return a Spikformer for 64 tokens with another attention in its first block."""
    torch.manual_seed(0)
    model = timm.create_model("spikformer_digits", step=2)
    model.blocks[0].attn = Attention(model.neurons.constructor(step=2), product)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.constant_(module.weight, 3.0)
            nn.init.constant_(module.bias, 1.5)
    return model.eval()


def _torch_macs(model, x):
    with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(x)
    return counter.get_total_flops() / 2 / len(x)


@pytest.mark.parametrize("product", [masked, with_softmax, einsum, MaskedProduct(0.25), Unmasked(0.25)],
                         ids=lambda p: getattr(p, "__name__", type(p).__name__))  # fmt: skip
def test_a_new_attention_is_counted_as_pytorch_counts_it(product):
    model, x = _with(product), torch.rand(3, 1, 8, 8)
    analysis = analyze(model, [x[:2], x[2:]], first_layer_times_steps=False)
    first = next(row for row in analysis.rows if row.name == "patch_embed.stages.0.conv")
    counted = sum(row.macs for row in analysis.rows) - first.macs / 2  # one image, whose steps are equal
    # the second block's product is charged in the order that is linear in tokens; PyTorch took the same
    assert counted == _torch_macs(model, x)
    rows = {row.name: row for row in analysis.rows if row.name.startswith("blocks.0.attn.")}
    owner = "blocks.0.attn.product" if isinstance(product, nn.Module) else "blocks.0.attn"
    own = [rows[f"{owner}.matmul"], rows[f"{owner}.matmul1"]]
    assert not set(rows) & {"blocks.0.attn.product"}
    keys = DIM // HEADS if isinstance(product, Unmasked) else TOKENS  # its order is linear in tokens
    macs = 2 * TOKENS * DIM * keys
    assert [row.macs for row in own] == [macs, macs]
    assert [(row.type, row.inputs, row.mac) for row in own] == [("matmul", "binary", 0.0)] * 2
    assert [row.ac for row in own] == pytest.approx([row.macs * row.rate for row in own])
    assert all(0 < row.rate < 1 for row in own)


@pytest.mark.parametrize("method", METHODS)
def test_own_products_do_not_depend_on_how_the_samples_are_batched(method):
    model, x = _with(masked), torch.rand(5, 1, 8, 8)
    whole, apart = analyze(model, [x], method=method), analyze(model, [x[:1], x[1:]], method=method)
    assert [row.name for row in whole.rows] == [row.name for row in apart.rows]
    assert whole.energy == pytest.approx(apart.energy, rel=1e-9)
    assert whole.ann_energy == pytest.approx(apart.ann_energy, rel=1e-9)
    assert "not spike-driven" not in str(audit(model, [x]).inner("real"))


class _Functional(nn.Module):
    """Its layers are functions, its parameters its own; two products of numbers, one with a vector."""

    step = 2

    def __init__(self):
        super().__init__()
        self.kernel, self.weight = nn.Parameter(torch.rand(2, 1, 3, 3)), nn.Parameter(torch.rand(5, 32))
        self.bias, self.node = nn.Parameter(torch.zeros(5)), LIFNode(step=2, layer_by_layer=True)

    def forward(self, x):
        spikes = self.node(F.conv2d(x, self.kernel, padding=1).repeat(2, 1, 1, 1).flatten(1))
        logits = F.linear(spikes, self.weight, self.bias)
        return logits @ torch.full((5, 5), 0.5) + (logits @ torch.full((5,), -0.5)).unsqueeze(1)


def test_functional_layers_are_layers_with_their_parameters():
    rows = {row.name: row for row in analyze(_Functional(), [torch.rand(3, 1, 4, 4)]).rows}
    assert [(name, row.type, row.parameters, row.inputs) for name, row in rows.items()] == [
        ("conv", "conv", 18, "real"), ("linear", "linear", 165, "binary"), ("matmul", "matmul", 0, "real"),
        ("matmul1", "matmul", 0, "real"),
    ]  # fmt: skip
    assert [row.macs for row in rows.values()] == [2 * 2 * 16 * 9, 2 * 32 * 5, 2 * 25, 2 * 5]
    assert rows["linear"].ac == pytest.approx(rows["linear"].rate * 2 * (32 * 5 + 5))
    assert rows["matmul"].mac == 50


class _Masked(nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight * 0.5, self.bias)


class _LowRank(nn.Linear):
    def __init__(self, *args):
        super().__init__(*args)
        self.down, self.up = nn.Parameter(torch.rand(2, args[0])), nn.Parameter(torch.rand(args[1], 2))

    def forward(self, x):
        return super().forward(x) + x @ self.down.T @ self.up.T


@pytest.mark.parametrize(
    ("cls", "macs"),
    [(_Masked, {"1": 4 * 8}), (_LowRank, {"1.linear": 4 * 8, "1.linear1": 4 * 2, "1.linear2": 2 * 8})],
)
def test_a_linear_layer_of_the_users_counts_what_it_multiplies(cls, macs):
    toy = nn.Sequential(LIFNode(step=1, layer_by_layer=True), cls(4, 8))
    rows = count_operations(toy, [torch.rand(2, 4)]).rows
    assert {row.name: row.total("macs") / 2 for row in rows} == macs
    assert {row.type for row in rows} == {"linear"}


def test_a_linear_layer_of_the_users_is_called_so_in_every_table():
    model = timm.create_model("spikformer_digits", step=2, depth=1)
    mlp = model.blocks[0].mlp.fc1
    mlp.linear = _Masked(mlp.linear.in_features, mlp.linear.out_features, bias=mlp.linear.bias is not None)
    x = torch.rand(2, 1, 8, 8)
    tables = [analyze(model, [x], method=method).rows for method in METHODS]
    for rows in (*tables, audit(model, [x]).findings):
        # the `sdt` method counts a fused network, whose layers keep their names
        types = {row.name: row.type for row in rows}
        assert types["blocks.0.mlp.fc1.linear"] == types["blocks.0.attn.q.linear"] == types["head"] == "linear"
        assert types["patch_embed.stages.0.conv"] == "conv"


class _OwnProjections(nn.Module):
    """Attention by a function of PyTorch's, its projections parameters."""

    step = 2

    def __init__(self):
        super().__init__()
        self.node, self.weight = LIFNode(step=2, layer_by_layer=True), nn.Parameter(torch.rand(24, 8))
        self.proj = nn.Linear(8, 8)

    def forward(self, x):
        spikes = self.node(x.repeat(2, 1, 1)).transpose(0, 1)
        return F.multi_head_attention_forward(
            spikes, spikes, spikes, 8, 2, self.weight, None, None, None, False, 0.0, self.proj.weight, self.proj.bias,
            training=False,
        )[0]  # fmt: skip


def test_attention_by_a_function_is_counted_whole():
    model, x = _OwnProjections(), torch.rand(3, 6, 8)
    rows = count_operations(model, [x[:2], x[2:]]).rows
    assert [(row.name, row.type, row.parameters) for row in rows] == [
        ("linear", "linear", 192), ("matmul", "matmul", 0), ("matmul1", "matmul", 0), ("linear1", "linear", 72)
    ]  # fmt: skip
    assert sum(row.total("macs") for row in rows) / 3 == _torch_macs(model, x)


class _Lazy(nn.Module):
    """Passes a layer by where there are more than two samples, and calls another one past its hooks."""

    def __init__(self):
        super().__init__()
        self.node, self.fc, self.past = LIFNode(step=1), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        x = self.past.forward(self.node(x))
        return x if len(x) > 2 else self.fc(x)


def test_a_layer_whose_call_nobody_sees_is_counted_for_the_module_that_calls_it():
    rows = count_operations(_Lazy(), [torch.rand(2, 4)]).rows
    assert {row.name: row.total("macs") for row in rows} == {"linear": 32, "fc": 32}


def test_a_total_that_is_not_that_of_pytorchs_counter_is_said_with_the_layer():
    with pytest.warns(UserWarning, match=r"counter found in two samples: fc 0\.00 M, not 0\.00 M; the total is not"):
        count_operations(_Lazy(), [torch.rand(3, 4)])


def test_what_pytorchs_counter_finds_and_we_do_not_is_said_with_the_module(monkeypatch):
    from braincog_transformers.analysis import dispatch

    known = {packet: formula for packet, formula in dispatch.flop_registry.items() if packet is not torch.ops.aten.bmm}
    monkeypatch.setattr(dispatch, "flop_registry", known)
    with pytest.warns(UserWarning, match=r"two samples: blocks\.0\.attn 2\.10 M, not 3\.15 M; ") as said:
        count_operations(_with(masked), [torch.rand(2, 1, 8, 8)])
    assert len(said) == 1


class _Elementwise(nn.Linear):
    def forward(self, x):
        return x * self.weight.sum(0)


def test_a_layer_that_does_not_multiply_as_its_class_is_named():
    toy = nn.Sequential(LIFNode(step=1, layer_by_layer=True), _Elementwise(1000, 1000))
    with pytest.warns(UserWarning, match=r"two samples: 1 1\.00 M, not 0\.00 M; the total"):
        count_operations(toy, [torch.rand(2, 1000)])


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.EXAMPLE)
def test_the_type_of_each_row_is_that_of_its_layer_and_the_total_pytorchs(family):
    model = timm.create_model(family.EXAMPLE, **family_of(family.EXAMPLE).TINY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = count_operations(model, [torch.rand(2, model.in_chans, *model.img_size)]).rows
    modules = dict(model.named_modules())
    for row in rows:
        layer = modules.get(row.name)  # none for a product that a module's own code asks for
        kinds = {"conv": (nn.Conv1d, nn.Conv2d), "linear": nn.Linear}
        assert [kind for kind, classes in kinds.items() if isinstance(layer, classes)] == (
            [row.type] if row.type in kinds else []
        )


class _Recurrent(nn.Module):
    """Keeps a state with a graph, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.fc, self.node, self.calls, self.state = nn.Linear(4, 4), LIFNode(step=1), 0, 0.0

    def forward(self, x):
        self.calls += 1
        self.state = self.fc(x) + self.state
        return self.node(self.state) @ torch.ones(4, 4)


def test_the_network_is_called_once_a_batch_and_nobody_else_sees_it_run():
    model, seen = _Recurrent(), []
    model(torch.rand(3, 4))
    assert model.state.grad_fn is not None
    model.fc.register_forward_hook(lambda *_: seen.append(1))
    assert [row.name for row in count_operations(model, [torch.rand(3, 4)]).rows] == ["fc", "matmul"]
    assert (model.calls, len(seen), len(model.state)) == (2, 1, 3)
    assert not model._forward_hooks
    assert not model.node._forward_hooks
    assert torch._C._len_torch_dispatch_stack() == 0


def test_a_network_that_fails_leaves_no_hook_and_no_mode():
    model = _Recurrent()
    model.fc.register_forward_hook(lambda _module, inputs, _output: 1 / (len(inputs[0]) - 3))
    with pytest.raises(ZeroDivisionError):
        count_operations(model, [torch.rand(3, 4)])
    assert not model._forward_hooks
    assert torch._C._len_torch_dispatch_stack() == 0


@pytest.mark.parametrize("swapped", [False, True])
def test_tensors_with_an_axis_for_steps_hold_as_many_steps_as_folded_ones(swapped):
    toy = nn.Sequential()
    toy.step, toy.fc, toy.node = 3, nn.Linear(4, 4), LIFNode(step=3, layer_by_layer=True)
    axes = (lambda x: x.transpose(0, 1)) if swapped else (lambda x: x.transpose(0, 1).flatten(0, 1))
    toy.forward = lambda x: toy.node(toy.fc(axes(x)).reshape(-1, 4))
    assert analyze(toy, [torch.rand(5, 3, 4)]).ann_energy == pytest.approx(16 * 4.6e-9)


def test_a_product_of_spikes_with_numbers_is_charged_by_the_spikes():
    toy = nn.Sequential()
    toy.fc, toy.node = nn.Linear(4, 4), LIFNode(step=1)
    spikes = torch.eye(4).repeat(2, 1, 1)
    toy.forward = lambda x: toy.fc(x) @ spikes
    toy.matmul = SpikeMatmul()
    row = analyze(toy, [torch.rand(2, 4, 4)]).rows[-1]
    assert (row.name, row.inputs, row.rate, row.mac, row.ac) == ("matmul_", "binary", 0.25, 0.0, 16.0)


def test_an_uncounted_layer_is_refused_before_anything_is_measured():
    toy = nn.Sequential(LIFNode(step=1, layer_by_layer=True), nn.GRU(4, 4))
    with pytest.raises(UserError, match="1 is a GRU"):
        count_operations(toy, [torch.rand(2, 3, 4)])


@pytest.mark.parametrize("method", METHODS)
def test_a_transform_of_a_single_token_costs_nothing(method):
    toy = nn.Sequential(nn.Linear(4, 4), LIFNode(step=1, layer_by_layer=True), FourierTransform(), nn.Linear(4, 4))
    toy.step = 1
    (row,) = (row for row in analyze(toy, [torch.rand(2, 1, 4)], method=method).rows if row.name == "2")
    assert (row.mac, row.ac) == (0.0, 0.0)
