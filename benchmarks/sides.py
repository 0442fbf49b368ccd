"""The sides of a comparison: our network eager, compiled and fused, with other neurons, and SpikingJelly's own models.

Each is built by a function of a `Case`; one that can't be had raises `Unavailable` with the reason, which the tables
show. What is exchanged in the same network is its neurons and nothing else. SpikingJelly 2.0 takes its fastest neuron
kernel for the device and the input by itself.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import timm
import torch
from braincog.base.node import node as braincog_node
from braincog.base.node.node import BaseNode
from torch import Tensor, nn
from torch.nn import functional as F

from braincog_transformers.models import REGISTERED
from braincog_transformers.nodes import LIFNode, WrappedNode
from braincog_transformers.ops.kernels import integer_products
from braincog_transformers.runtime.compiler import compiler_works
from braincog_transformers.training.distributed import compile_for_batches

from .harness import OURS

__all__ = ["FLOOR", "JELLY_NEURONS", "SIDES", "Case", "Side", "Unavailable", "build_side", "difference"]

COMPILED, FUSED, UNPACKED = "ours, compiled", "ours, fused", "ours, spikes not packed"
FLOAT_PRODUCTS = "ours, products in floating point"
JELLY_NEURONS, JELLY_MODEL = "SpikingJelly's neurons", "SpikingJelly's model"
BRAINCOG, FLOOR = "BrainCog's neurons", "identity neurons (floor)"


class Unavailable(Exception):
    """A side that can't be had; the message says why."""


@dataclass(frozen=True)
class Case:
    """What is compared.

    Args:
        model: registered name.
        mode: "training" (forward and backward) or "evaluation".
        dtype: float32, or bfloat16 for autocast.
        batch: samples in a batch.
        device: "cpu" or "cuda".
        options: arguments of the model's constructor.
    """

    model: str
    mode: str = "training"
    dtype: torch.dtype = torch.float32
    batch: int = 8
    device: str = "cpu"
    options: Mapping[str, Any] = field(default_factory=dict)

    def network(self) -> nn.Module:
        """Build our network with the weights of seed 0."""
        torch.manual_seed(0)
        return timm.create_model(self.model, **self.options)

    def data(self) -> tuple[Tensor, Tensor]:
        """Return a batch of noise and its classes."""
        with torch.device("meta"):
            model = timm.create_model(self.model, **self.options)
        torch.manual_seed(1)
        steps = (model.step,) if model.in_chans == 2 or model.img_size[0] == 1 else ()  # events, or a sequence
        x = torch.rand(self.batch, *steps, model.in_chans, *model.img_size)
        return x.to(self.device), torch.arange(self.batch, device=self.device) % model.num_classes


class Side:
    """One network on one batch, which can be called again and again.

    Args:
        case: what is measured.
        network: the network as it is called.
        weights: the module that holds the parameters, where that is another.
    """

    def __init__(self, case: Case, network: Callable[[Tensor], Tensor], weights: nn.Module):
        self.case, self.network, self.weights = case, network, weights
        weights.to(case.device).train(case.mode == "training")
        self.x, self.y = case.data()

    @property
    def parameters(self) -> int:
        """Trainable parameters, neurons' excluded."""
        neurons = {id(p) for m in self.weights.modules() if hasattr(m, "threshold") for p in m.parameters()}
        return sum(p.numel() for p in self.weights.parameters() if p.requires_grad and id(p) not in neurons)

    def forward(self) -> Tensor:
        """Return the loss in training, the logits in evaluation."""
        if self.case.mode == "evaluation":
            with torch.inference_mode(), self._precision():
                return self.network(self.x)
        with self._precision():
            logits = self.network(self.x)
        return F.cross_entropy(logits.float(), self.y)

    def _precision(self) -> AbstractContextManager:
        if self.case.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.x.device.type, self.case.dtype)

    def forget(self) -> None:
        """Let go of gradients and of the neurons' state."""
        self.weights.zero_grad(set_to_none=True)
        for module in self.weights.modules():
            if isinstance(module, BaseNode):
                module.n_reset()
            elif hasattr(module, "v_threshold"):  # a neuron of SpikingJelly's
                module.reset()

    def __call__(self) -> None:
        """Run one step; gradients are dropped first, and neurons with a state start from rest."""
        self.forget()
        result = self.forward()
        if self.case.mode == "training":
            result.backward()


class StandIn(BaseNode):
    """Another neuron in the place of one of ours; TIM asks a BrainCog node for its number of steps.

    Args:
        node: the neuron whose place this takes.
        other: takes and returns `(T*B, ...)`.
    """

    def __init__(self, node: BaseNode, other: nn.Module):
        super().__init__(step=node.step, layer_by_layer=True)
        self.other = other

    def calc_spike(self) -> None:
        """Do not use: the other neuron fires."""
        raise NotImplementedError("StandIn: call the node.")

    def forward(self, x: Tensor) -> Tensor:
        return self.other(x)


class JellyNode(nn.Module):
    """SpikingJelly's LIF neuron with the dynamics of one of ours, reset before each call.

    Args:
        node: a LIF neuron of ours.
    """

    def __init__(self, node: BaseNode):
        super().__init__()
        from spikingjelly.activation_based import neuron, surrogate

        if node.mem_detach:
            raise Unavailable(
                "SpikingJelly's neuron has no cut of the gradient from step to step, which this network has"
            )
        surrogates = {"SigmoidGrad": surrogate.Sigmoid, "AtanGrad": surrogate.ATan}
        self.steps = node.step
        self.lif = neuron.LIFNode(
            tau=node.tau,
            v_threshold=node.threshold.item(),
            surrogate_function=surrogates[type(node.act_fun).__name__](alpha=node.act_fun.alpha.item()),
            detach_reset=True,
            step_mode="m",
        )

    def forward(self, x: Tensor) -> Tensor:
        self.lif.reset()
        return self.lif(x.unflatten(0, (self.steps, -1))).flatten(0, 1)


def _braincog_node(node: BaseNode) -> nn.Module:
    other = braincog_node.LIFNode(
        threshold=node.threshold.item(),
        tau=node.tau,
        act_fun=type(node.act_fun),
        step=node.step,
        layer_by_layer=True,
        mem_detach=node.mem_detach,
    )
    other.act_fun.alpha.data.copy_(node.act_fun.alpha)  # its constructor passes 2, whatever was asked for
    return WrappedNode(other)


def _exchanged(case: Case, build: Callable[[BaseNode], nn.Module]) -> Side:
    """Return our network with every neuron exchanged; packing and integer products are ours, so they go too."""
    network = case.network()
    network.pack_spikes = False
    network.set_attr("integer_products", False)
    for name, node in network.nodes.items():
        if type(node) is not LIFNode or type(node.act_fun).__name__ not in ("SigmoidGrad", "AtanGrad"):
            raise Unavailable(f"{name} is no LIF neuron with the gradient of a sigmoid or an arctangent")
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, StandIn(node, build(node)))
    return Side(case, network, network)


def _ours(case: Case) -> Side:
    network = case.network()
    return Side(case, network, network)


def _compiled(case: Case) -> Side:
    if not compiler_works(torch.device(case.device).type):
        raise Unavailable("torch.compile finds no working compiler here")
    network = case.network()
    return Side(case, compile_for_batches(network), network)


def _unpacked(case: Case) -> Side:
    if case.mode != "training":
        raise Unavailable("nothing is kept without a backward pass")
    network = case.network()
    network.pack_spikes = False
    return Side(case, network, network)


def _float_products(case: Case) -> Side:
    if case.dtype != torch.float32 or case.device != "cpu" or not integer_products.UNITS:
        raise Unavailable("integers multiply in float32 on a processor with AMX only")
    network = case.network()
    network.set_attr("integer_products", False)
    return Side(case, network, network)


def _fused(case: Case) -> Side:
    if case.mode == "training":
        raise Unavailable("fuse() folds running statistics, which training changes")
    network = case.network().eval().fuse()
    return Side(case, network, network)


def _jelly_neurons(case: Case) -> Side:
    _require_jelly()
    return _exchanged(case, JellyNode)


def _require_jelly() -> None:
    try:
        import spikingjelly.activation_based.neuron  # noqa: F401
    except ImportError as error:
        raise Unavailable(f"spikingjelly does not import: {error}") from error


def _jelly_model(case: Case) -> Side:
    """Return SpikingJelly's network of the same published size."""
    _require_jelly()
    with torch.device("meta"):
        ours = case.network()
    builders = dict(Spikformer=_jelly_spikformer, QKFormer=_jelly_qkformer, SpikeDrivenTransformer=_jelly_sdt)
    build = builders.get(type(ours).__name__)
    if build is None:
        raise Unavailable(f"SpikingJelly 2.0 has no {type(ours).__name__}")
    torch.manual_seed(0)
    network = build(case, ours)

    def call(x: Tensor) -> Tensor:
        logits = network(x.transpose(0, 1) if x.dim() == 5 else x)
        return logits.mean(0) if logits.dim() == 3 else logits

    return Side(case, call, network)


def _arguments(case: Case) -> dict[str, Any]:
    """Return the constructor's arguments: the variant's, then the case's."""
    return {**REGISTERED[case.model].variant.args, **case.options}


def _jelly_spikformer(case: Case, ours: nn.Module) -> nn.Module:
    from spikingjelly.activation_based.model.spikformer import Spikformer

    args = _arguments(case)
    if args.get("pool", "after") != "after":
        raise Unavailable("SpikingJelly 2.0 has no CML-Spikformer")
    if args.get("patch_size", 16) not in (4, 16):
        raise Unavailable("SpikingJelly 2.0 has Spikformer with patches of 4 and 16 pixels only")
    height, width = ours.img_size
    return Spikformer(
        T=ours.step, in_channels=ours.in_chans, img_size_h=height, img_size_w=width,
        patch_size=args.get("patch_size", 16), num_classes=ours.num_classes, embed_dims=ours.embed_dim,
        num_heads=args["num_heads"], depths=args["depth"], mlp_ratio=args.get("mlp_ratio", 4.0),
    )  # fmt: skip


def _jelly_qkformer(case: Case, ours: nn.Module) -> nn.Module:
    from spikingjelly.activation_based.model.qkformer import QKFormer

    if not case.model.startswith("qkformer_10_"):
        raise Unavailable("SpikingJelly 2.0 has the QKFormer for ImageNet only")
    return QKFormer(T=ours.step, in_channels=ours.in_chans, num_classes=ours.num_classes, embed_dims=ours.embed_dim)


def _jelly_sdt(case: Case, ours: nn.Module) -> nn.Module:
    from spikingjelly.activation_based.model.spike_driven_transformer import SpikeDrivenTransformer

    args = _arguments(case)
    if args.get("attn_pool"):
        raise Unavailable("SpikingJelly 2.0 has no attention that pools, as for CIFAR10-DVS")
    pooled = {16: "1111", 8: "0111", 4: "0011", 2: "0001", 1: "0000"}[args.get("patch_size", 16)]
    return SpikeDrivenTransformer(
        T=ours.step, in_channels=ours.in_chans, num_classes=ours.num_classes, embed_dims=ours.embed_dim,
        num_heads=args["num_heads"], depths=args["depth"], mlp_ratio=args.get("mlp_ratio", 4.0), pooling_stat=pooled,
    )  # fmt: skip


SIDES: dict[str, Callable[[Case], Side]] = {
    OURS: _ours,
    COMPILED: _compiled,
    UNPACKED: _unpacked,
    FLOAT_PRODUCTS: _float_products,
    FUSED: _fused,
    JELLY_NEURONS: _jelly_neurons,
    JELLY_MODEL: _jelly_model,
    BRAINCOG: partial(_exchanged, build=_braincog_node),
    FLOOR: partial(_exchanged, build=lambda _: nn.Identity()),
}
"""Every side by the name that the tables give it."""


def build_side(case: Case, name: str) -> Side:
    """Build a side; raises `Unavailable`, with the reason."""
    return SIDES[name](case)


def difference(a: Side, b: Side) -> float:
    """Return the largest difference of two sides' logits, or of a gradient of theirs over the largest norm of any.

    A bias in front of a normalisation has no gradient but rounding errors, so its own norm says nothing.
    """
    if a.case.mode == "evaluation":
        return (a.forward() - b.forward()).abs().max().item()
    gradients = []
    for side in (a, b):
        side()
        gradients.append([p.grad for p in side.weights.parameters() if p.grad is not None])
    largest = max(gradient.norm() for gradient in gradients[1])
    return max(((x - y).norm() / largest).item() for x, y in zip(*gradients, strict=True))
