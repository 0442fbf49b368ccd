"""Spiking inference: products read binary planes, and what comes out is what whole numbers give."""

import copy
import io
import json
from pathlib import Path

import pytest
import timm
import torch
from einops import einsum
from families import FAMILIES, builder_of
from safetensors import safe_open
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from braincog_transformers import ILIFNode, UserError
from braincog_transformers.checkpoints import load_state
from braincog_transformers.layers import SpikingMLP, SpikingPatchSplitting
from braincog_transformers.models.flat import FlatTransformer
from braincog_transformers.ops import planes

aten = torch.ops.aten
GOLDEN = Path(__file__).parents[1] / "golden"
PRODUCTS = {aten.mm: slice(0, 2), aten.bmm: slice(0, 2), aten.addmm: slice(1, 3), aten.convolution: slice(0, 1)}


def trained(name, **options):
    """Build a network whose neurons fire at every level, and a batch for it, in float64."""
    torch.manual_seed(0)
    model = timm.create_model(name, node_type="ILIFNode", **options).double()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 1, 2.5)
    nn.init.normal_(model.head.weight)
    x = torch.rand(2, model.in_chans, *model.img_size, dtype=torch.float64)
    for _ in range(5):
        model(x)
    return model.eval(), x


class Products(TorchDispatchMode):
    """Note of each product whether a factor is made of zeros and ones."""

    def __init__(self):
        super().__init__()
        self.binary = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._overloadpacket in PRODUCTS:
            factors = args[PRODUCTS[func._overloadpacket]]
            self.binary.append(any(bool(((x == 0) | (x == 1)).all()) for x in factors))
        return func(*args, **(kwargs or {}))


ONE_STEP, TWO_STEPS = {"step": 1, "levels": 4}, {"step": 2, "levels": 4, "norm": 1.0}
UP = {"step": 2, "levels": 3, "rounding": "up", "tau": 1.0}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("spikformer_digits", {**options, "depth": 1}) for options in (ONE_STEP, TWO_STEPS, UP)),
        *(("sdt_digits", {**options, "depth": 1}) for options in (ONE_STEP, TWO_STEPS, UP)),
        ("sdt_v2_digits", ONE_STEP),
        ("qkformer_digits", TWO_STEPS),
        ("attention_free_spikformer_digits", {**TWO_STEPS, "mixing": "dwt_c"}),
        ("dista_digits", {**TWO_STEPS, "denoise": 4}),
        ("dynamic_spikformer_digits", UP),
    ],
    ids=str,
)
@torch.no_grad()
def test_outputs_are_those_of_whole_numbers(name, options):
    model, x = trained(name, **options)
    expected = model(x)
    model.set_spiking_inference()
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)
    with torch.inference_mode():
        torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)
    model.set_spiking_inference(False)
    assert torch.equal(model(x), expected)


@torch.no_grad()
def test_products_are_computed_once_for_each_plane():
    model, x = trained("spikingformer_digits", step=2, levels=3)
    with FlopCounterMode(display=False) as whole:
        model(x)
    stem = model.patch_embed
    first = (
        2 * 2 * next(m for m in stem.modules() if isinstance(m, nn.Conv2d)).weight.numel() * 64
    )  # 8 x 8, two samples
    head = 2 * 2 * model.head.weight.numel()  # reads averages
    model.set_spiking_inference()
    with Products() as products, FlopCounterMode(display=False) as spiking:
        model(x)
    assert products.binary.count(False) == 2
    inner = whole.get_total_flops() - first - head
    assert spiking.get_total_flops() == first + head + 3 * inner


@torch.no_grad()
def test_streams_too():
    model, x = trained("spikformer_digits", step=3)
    expected = model(x)
    model.set_spiking_inference()
    model.set_streaming()
    torch.testing.assert_close(sum(model(x) for _ in range(3)) / 3, expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_features_and_the_head_by_itself():
    model, x = trained("spikformer_digits", global_pool="", num_classes=7)
    features, logits = model.forward_features(x), model(x)
    middle = model.forward_intermediates(x, intermediates_only=True)
    model.set_spiking_inference()
    torch.testing.assert_close(model.forward_features(x), features, rtol=1e-9, atol=1e-9)
    with Products() as products:
        torch.testing.assert_close(model.forward_head(features), logits, rtol=1e-9, atol=1e-9)
    assert products.binary == [True] * len(products.binary) != []
    for one, other in zip(model.forward_intermediates(x, intermediates_only=True), middle, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


class Own(nn.Module):
    """A user's mixer: layers of PyTorch, functions, a gate, products of its own, a spectrum."""

    def __init__(self, dim, node):
        super().__init__()
        self.node, self.last, self.linear, self.conv = (
            node(),
            node(),
            nn.Linear(dim, dim),
            nn.Conv1d(dim, dim, 3, padding=1),
        )
        self.weight = nn.Parameter(torch.randn(dim, dim) / 8)

    def forward(self, x):
        s = self.node(3 * x)
        pooled = nn.functional.max_pool1d(s.transpose(1, 2), 3, 1, 1).transpose(1, 2)
        mixed = self.linear(pooled) + self.conv(s.transpose(1, 2)).transpose(1, 2)
        gate = self.last(mixed)
        mixed = (
            mixed
            + einsum(gate * s, self.weight, "b n c, d c -> b n d")
            + torch.cat([gate, s], -1)[..., ::2] @ self.weight
        )
        mixed = mixed + torch.baddbmm(mixed, s @ s.transpose(1, 2), s, beta=0.5, alpha=0.1)
        return mixed + torch.fft.fft2(s).real / 8


class Mine(FlatTransformer):
    mixer = Own

    def _stem(self):
        return self._build_stem(SpikingPatchSplitting, pool="after")

    def _block(self, index, drop_path):
        return nn.Sequential(
            self.mixer(self.embed_dim, self._neuron()), SpikingMLP(self.embed_dim, 1.0, node=self._neuron())
        )


def own(cls=Mine):
    torch.manual_seed(1)
    sizes = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "img_size": 16, "num_classes": 5}
    model = cls(node_type="ILIFNode", step=2, tau=1.5, **sizes).double()
    x = 3 * torch.rand(2, 3, 16, 16, dtype=torch.float64)
    for _ in range(3):
        model(x)
    return model.eval(), x


@torch.no_grad()
def test_a_users_own_products_are_unrolled():
    model, x = own()
    expected = model(x)
    model.set_spiking_inference()
    with Products() as products:
        torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)
    assert products.binary.count(False) == 2  # what reads the image, and the classifier, which reads averages


class Bilinear(Own):
    def forward(self, x):
        s = self.node(3 * x)
        return nn.functional.bilinear(s, s, self.weight[:, None] + self.weight)


@torch.no_grad()
def test_or_refused_by_name():
    model, x = own(type("Theirs", (Mine,), {"mixer": Bilinear}))
    model.set_spiking_inference()
    with pytest.raises(UserError, match=r"spiking inference: \S*trilinear of whole numbers of spikes can't be"):
        model(x)


def test_what_it_is_not_for_is_refused():
    with pytest.raises(UserError, match="Spikformer: its neurons fire no whole numbers"):
        timm.create_model("spikformer_digits").eval().set_spiking_inference()
    model = timm.create_model("spikformer_digits", node_type=ILIFNode)
    with pytest.raises(UserError, match="Spikformer: spiking inference is for a trained network"):
        model.set_spiking_inference()
    model.eval().set_spiking_inference()
    x = torch.rand(1, 1, 8, 8)
    with pytest.raises(UserError, match="in spiking inference only the whole network can be called"):
        model.blocks[0](model.patch_embed(x, copies=4))
    with pytest.raises(UserError, match="Spikformer: spiking inference is for a trained network"):
        model.train()(x)


@torch.no_grad()
def test_a_copy_goes_on_in_planes():
    model, x = trained("spikformer_digits", step=1)
    model.set_spiking_inference()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        with Products() as products:
            assert torch.equal(twin(x), model(x))
        assert products.binary.count(True) > 60


def test_what_is_known_of_whole_numbers_follows_them():
    with planes.Planes(unrolls=False) as mode:
        fired = torch.tensor([[0.0, 0.25, 0.75, 1.0]])
        mode.note(fired, {0.25: 4})
        for x, unit, most, counts in [
            (fired.t().reshape(2, 2), 0.25, 4, [0, 1, 3, 4]),
            (fired + fired, 0.25, 8, [0, 2, 6, 8]),
            (fired * 0.5, 0.125, 4, [0, 1, 3, 4]),
            (fired / 2, 0.125, 4, [0, 1, 3, 4]),
            (fired * fired, 0.0625, 16, [0, 1, 9, 16]),
            (fired.sum(1), 0.25, 8, [8]),
        ]:
            found = planes.unrolled(x)
            assert (found.unit, found.planes, found.counts.flatten().tolist()) == (unit, most, counts)
            assert torch.equal(sum(found.plane(j) for j in range(found.planes)), found.counts)
        assert planes.unrolled(fired.mean(1, keepdim=True) / 3 + 0.1) is None
        assert planes.unrolled(fired - 1).counts.flatten().tolist() == [-4, -3, -1, 0]
        assert planes.unrolled(torch.ones(3)) is None
        assert planes.unrolled(fired @ torch.ones(4, 2)) is None  # a potential
    with planes.Planes(unrolls=True) as mode:  # planes hold no numbers below 0
        mode.note(fired, {0.25: 4})
        assert planes.unrolled(fired - 1) is None
    assert planes.unrolled(fired) is None
    assert planes.active() is None


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.EXAMPLE)
def test_every_family_trains_with_integer_neurons_and_runs_in_planes(family):
    torch.manual_seed(0)
    model = timm.create_model(family.EXAMPLE, **family.TINY, node_type="ILIFNode", levels=4, threshold=0.5).double()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 1, 2)
    steps = (model.step,) if model.in_chans == 2 else ()
    x = torch.rand(2, *steps, model.in_chans, *model.img_size, dtype=torch.float64)
    out = model(x)
    out.square().sum().backward()
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)
    assert sum(bool(grad.any()) for grad in grads) > len(grads) / 2
    model.eval()
    with torch.no_grad():
        expected = model(x)
        model.set_spiking_inference()
        torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "path", sorted(GOLDEN.glob("spike_driven_transformer_v3_*_small.safetensors")), ids=lambda path: path.stem
)
@torch.no_grad()
def test_planes_give_what_the_official_networks_do(path):
    with safe_open(path, "pt") as file:
        meta, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    x, logits = tensors["input"].double(), tensors["logits_eval"]
    shapes = {"input_shape": tuple(x.shape), "classes": logits.shape[-1]}
    model = builder_of(meta)(json.loads(meta["kwargs"]), {**meta, **shapes})
    load_state(model, {name[6:]: value for name, value in tensors.items() if name.startswith("state.")})
    model.double().eval().set_spiking_inference()
    torch.testing.assert_close(model(x), logits, rtol=0, atol=1e-9)
