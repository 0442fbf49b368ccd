"""SpikeZIP-TF: a quantised transformer, and a spiking one that gives exactly its answer once its spikes have drained.

The quantised network is the source with LSQ quantisers (`lsq`), which is trained further. In the spiking one, each
quantiser is an ST-BIF neuron, whose spikes add up to what the quantiser gives. All that is not linear in between
(normalisation, softmax, products of activations) puts out by how much its result changed (`increments`). The picture
enters at the first step, as do biases, class token and position embedding; the following steps only drain. So the sum
of the outputs stops to change after some steps, at the quantised network's answer, and `forward` stops there.

Quantisers are behind the patch embedding, each normalisation, queries, keys, values, attention weights (unsigned) and
context, in front of ReLU (unsigned), and at the end of attention and MLP. Residual sums, normalisations and softmax
read real numbers, not spikes.

What the paper does not have: LayerScale, in front of the quantiser at the end of attention or MLP; normalised queries
and keys; GELU and the like, whose increments enter a signed neuron; other tokens in front of the patches, and other
poolings. Encoders of text (`text.RobertaEncoder`) are quantised as in the paper's code for them, where normalisations
have no quantiser; but the context keeps its sign, which that code clips off, and the mask of padding enters the sum of
the scores once.

Source: You et al., SpikeZIP-TF: Conversion is All You Need for Transformer-based SNN (ICML 2024, arXiv 2406.03470).
Official code: Intelligent-Computing-Research-Group/SpikeZIP-TF at 8effa72, whose converted normalisations have an
epsilon of 1e-5 whatever the source had; here they keep the source's.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.layers import GELU, DropPath, GELUTanh, PatchDropout, PatchEmbed, QuickGELU, RmsNorm
from timm.layers import LayerNorm as TimmLayerNorm
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Attention, Block, LayerScale, Mlp, VisionTransformer, global_pool_nlc
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UserError
from ..models.official import OfficialNames
from ..nodes.valued import STBIFNode
from . import text
from .attention import ExplicitAttention, Product
from .converted import Converted, Stateful, device_and_dtype, reset
from .increments import AddOnce, BiasOnceConv2d, BiasOnceLinear, Increment, IncrementalProduct, Once
from .lsq import QuantisedConv2d, QuantisedLinear, Quantiser, calibrate, quantise_weight, refuse_other_levels
from .method import Known, Method

__all__ = ["METHOD", "SpikeZip", "SpikeZipOptions"]

_NORMS = (nn.LayerNorm, TimmLayerNorm, RmsNorm)
_SMOOTH = (nn.GELU, GELU, GELUTanh, QuickGELU, nn.SiLU, nn.Tanh)
_LINEAR = (nn.Linear, nn.Conv2d)
_PASSING = (nn.Identity, nn.Dropout, DropPath, PatchDropout, LayerScale)
_VISION = (VisionTransformer, VisionTransformerDistilled, PatchEmbed, Block, Attention, Mlp, nn.Sequential)
_MOST_LEVELS = 511


@dataclass(frozen=True)
class SpikeZipOptions:
    """Options of SpikeZIP-TF.

    Args:
        levels: L, of each quantiser, from 4 to 511; the paper has 32, 16 and 8.
        weight_bits: quantise the weights of linear layers and convolutions to so many bits, from 2 to 8; 32 does not.
        coding: "once": the picture enters at the first step; "spread": a share of 1/L at each of the first L steps (the
            official code's "analog" and "rate").
        remove_softmax: attention without softmax: the weights are the quantised scores, over the number of tokens.
        relu: put ReLU in the place of each other activation, as the paper has it; the network must be trained then.

    Raises:
        UserError: for another value.
    """

    levels: int = 32
    weight_bits: int = 32
    coding: Literal["once", "spread"] = "once"
    remove_softmax: bool = False
    relu: bool = False

    def __post_init__(self) -> None:
        if type(self.levels) is not int or not 4 <= self.levels <= _MOST_LEVELS:
            raise UserError(f"spikezip: levels must be a whole number from 4 to {_MOST_LEVELS}; got {self.levels!r}")
        if type(self.weight_bits) is not int or not (2 <= self.weight_bits <= 8 or self.weight_bits == 32):
            raise UserError(f"spikezip: weight_bits must be 32, or from 2 to 8; got {self.weight_bits!r}")
        if self.coding not in ("once", "spread"):
            raise UserError(f"spikezip: coding must be 'once' or 'spread'; got {self.coding!r}")
        for name in ("remove_softmax", "relu"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"spikezip: {name} must be True or False; got {getattr(self, name)!r}")


# The quantised network


class _Quantised(nn.Module):
    """What all quantised networks have: a check of the weights that are loaded, before one of them is."""

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args) -> None:
        refuse_other_levels(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


class _QuantisedVision(_Quantised):
    official_names = OfficialNames(
        rename=(
            (r"\.attn\.quan_(q|k|v|proj)\.s$", r".attn.\1_node.s"),
            (r"\.attn\.attn_quan\.s$", ".attn.weight_node.s"),
            (r"\.attn\.after_attn_quan\.s$", ".attn.context_node.s"),
            (r"\.quan_w_fn\.s$", ".weight_quantiser.s"),
        )
    )


class QuantisedViT(_QuantisedVision, VisionTransformer):
    """timm's `VisionTransformer` with quantisers."""


class QuantisedDeiT(_QuantisedVision, VisionTransformerDistilled):
    """timm's `VisionTransformerDistilled` with quantisers."""


class QuantisedRoberta(_Quantised, text.RobertaEncoder):
    """`RobertaEncoder` with quantisers."""


class _OverTokens(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.shape[-1]


def _limit(network: nn.Module, options: SpikeZipOptions, data: list[Tensor] | None) -> nn.Module:
    """Quantise a copy of the source, and initialise the scales if there are data."""
    if type(network) not in _FAMILIES:
        known = ", ".join(cls.__name__ for cls in _FAMILIES)
        raise UserError(f"conversion: spikezip takes {known}, and none derived from them; got {type(network).__name__}")
    family = _FAMILIES[type(network)]
    _refuse_unknown(network, family)
    place = device_and_dtype(network)
    quantiser = functools.partial(Quantiser, options.levels, **place)
    family.quantise(network, quantiser, options)
    for path, module in list(network.named_modules()):
        if type(module) in (nn.ReLU, *_SMOOTH):
            if type(module) is nn.ReLU or options.relu:
                quantised = nn.Sequential(quantiser(signed=False), nn.ReLU())
            else:
                quantised = nn.Sequential(module, quantiser(signed=True))
            network.set_submodule(path, quantised)
        elif options.weight_bits < 32 and type(module) in _LINEAR:
            quantise_weight(module, options.weight_bits)
    network.__class__ = family.quantised
    if data is not None:
        calibrate(network, data)
    return network


def _refuse_unknown(network: nn.Module, family: "_Family") -> None:
    known = (*family.parts, *_PASSING, *_LINEAR, *_NORMS, *_SMOOTH, nn.ReLU)
    for path, module in network.named_modules():
        if type(module) not in known:
            raise UserError(
                f"conversion: spikezip doesn't know {path} ({type(module).__name__}); it takes vision transformers "
                "whose parts are timm's own"
            )


def _quantise_vision(network: VisionTransformer, quantiser: Callable[..., Quantiser], options: SpikeZipOptions) -> None:
    for path, module in list(network.named_modules()):
        if type(module) is Attention:
            attention = ExplicitAttention(module, path)
            attention.q_node, attention.k_node, attention.v_node = (quantiser(signed=True) for _ in range(3))
            attention.weight_node, attention.context_node = quantiser(signed=False), quantiser(signed=True)
            if options.remove_softmax:
                attention.softmax = nn.Identity()
                attention.attn_drop = nn.Sequential(_OverTokens(), attention.attn_drop)
            network.set_submodule(path, attention)
        elif type(module) is nn.Conv2d or (type(module) in _NORMS and not path.endswith((".q_norm", ".k_norm"))):
            network.set_submodule(path, nn.Sequential(module, quantiser(signed=True)))
    for block in network.blocks:
        if isinstance(block.ls1, LayerScale):
            block.ls1 = nn.Sequential(block.ls1, quantiser(signed=True))
        else:
            block.attn.proj_node = quantiser(signed=True)
        if isinstance(block.ls2, LayerScale):
            block.ls2 = nn.Sequential(block.ls2, quantiser(signed=True))
        else:
            block.mlp.fc2 = nn.Sequential(block.mlp.fc2, quantiser(signed=True))


def _quantise_text(network: text.RobertaEncoder, quantiser: Callable[..., Quantiser], options: SpikeZipOptions) -> None:
    if options.coding == "spread":
        raise UserError("spikezip: tokens can't be spread over steps; leave coding at 'once' for text")
    if options.remove_softmax:
        raise UserError("spikezip: without softmax the mask of padding has no meaning; keep the softmax for text")
    for module in list(network.modules()):
        if isinstance(module, text.SelfAttention):
            module.q_node, module.k_node, module.v_node = (quantiser(signed=True) for _ in range(3))
            module.weight_node, module.context_node = quantiser(signed=False), quantiser(signed=True)
        elif isinstance(module, text.Output):
            module.dense = nn.Sequential(module.dense, quantiser(signed=True))


# The spiking network


class _EmbedsOnce(Stateful):
    """What is different in a vision transformer that runs in steps: its own tokens enter at the first one only."""

    def reset(self) -> None:
        self._embedded = False

    def _pos_embed(self, x: Tensor) -> Tensor:
        embedded, self._embedded = self._embedded, True
        if not embedded:
            return super()._pos_embed(x)
        return functional.pad(x.flatten(1, -2), (0, 0, self.num_prefix_tokens, 0))

    def pool(self, x: Tensor, pool_type: str | None = None) -> Tensor:
        return self.largest(x) if "max" in self.global_pool else super().pool(x, pool_type)


class SpikingViT(_EmbedsOnce, VisionTransformer):
    """timm's `VisionTransformer`, in steps."""


class SpikingDeiT(_EmbedsOnce, VisionTransformerDistilled):
    """timm's `VisionTransformerDistilled`, in steps."""


class SpikeZip(Converted):
    """A network that SpikeZIP-TF converted. It ends at its quantised network's answer, and stops there by itself.

    Fewer steps than about `levels` give no meaningful answer.

    Args:
        network: what runs at every step.
        step: the most steps.
        options: of the conversion.
        settings: for the file.
    """

    method = "spikezip"
    readout_is = "sum"

    def __init__(self, network: nn.Module, step: int, options: SpikeZipOptions, settings: dict[str, Any]):
        super().__init__(network, step, settings)
        self.coding, self.spread = options.coding, options.levels
        self.register_buffer("levels", torch.tensor(options.levels, device=device_and_dtype(network)["device"]))
        self._entered: Tensor | None = None

    def reset(self) -> None:
        super().reset()
        self._entered = None

    def forward_step(self, x: Tensor) -> Tensor:
        self._entered = x
        return super().forward_step(x)

    def settled(self) -> bool:
        """Tell whether nothing entered in the last step and no neuron fired: then none ever will."""
        fired = [node.spike.any() for node in self.nodes.values()]
        return not bool(torch.stack([self._entered.any(), *fired]).any())

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args) -> None:
        refuse_other_levels(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


class SpikeZipText(SpikeZip):
    """An encoder of text that SpikeZIP-TF converted: it takes tokens `(B, N)`, and attends to no padding."""

    input_dims = 2

    def forward_step(self, x: Tensor) -> Tensor:
        if self._entered is not None and not torch.compiler.is_compiling() and x.any():
            raise UserError("conversion: tokens enter at the first step only, those of later steps must be 0")
        return super().forward_step(x)


def _neuron(path: str, quantiser: Quantiser) -> STBIFNode:
    """Make a neuron from a quantiser; without a scale, its threshold is not a number until one is loaded."""
    threshold = quantiser.scale.detach() if quantiser.ready else torch.full_like(quantiser.s, torch.nan)
    return STBIFNode(threshold, low=quantiser.low, high=quantiser.high)


def _in_steps(path: str, module: nn.Module) -> nn.Module | None:
    """Return what takes a module's place in the spiking network, None if it stays."""
    if isinstance(module, Quantiser):
        return _neuron(path, module)
    if isinstance(module, nn.ReLU):  # the neuron in front lets nothing below 0 through, and its -1 takes spikes back
        return nn.Identity()
    if isinstance(module, (*_NORMS, *_SMOOTH, nn.Softmax)):
        return Increment(module)
    if isinstance(module, Product):
        return IncrementalProduct()
    if isinstance(module, text.Add):
        return AddOnce()
    return Once(module) if isinstance(module, text.Embeddings) else None


def _spiking(
    limit: nn.Module, step: int, options: SpikeZipOptions, data: list[Tensor] | None, settings: dict[str, Any]
) -> SpikeZip:
    if data is not None and not all(m.ready for m in limit.modules() if isinstance(m, Quantiser)):
        calibrate(limit, data)
    place = device_and_dtype(limit)
    for module in limit.modules():
        if isinstance(module, _LINEAR):
            _bias_once(module)
    replaced: list[str] = []
    for path, module in list(limit.named_modules()):
        if any(path.startswith(f"{above}.") for above in replaced):
            continue
        if (part := _in_steps(path, module)) is not None:
            limit.set_submodule(path, part)
            replaced.append(path)
    family = next(family for family in _FAMILIES.values() if type(limit) is family.quantised)
    limit.__class__ = family.spiking
    if isinstance(limit, VisionTransformer):
        limit.grad_checkpointing = False
        if "max" in limit.global_pool:
            names = {"pool_type": limit.global_pool, "num_prefix_tokens": limit.num_prefix_tokens}
            limit.largest = Increment(
                functools.partial(global_pool_nlc, **names, reduce_include_prefix=limit.pool_include_prefix)
            )
    reset(limit)
    return family.converted(limit.to(**place), step, options, settings)


def _bias_once(layer: nn.Linear | nn.Conv2d) -> None:
    """Let a layer add its bias in the first step only; quantised weights become its weights."""
    if isinstance(layer, QuantisedLinear | QuantisedConv2d):
        if layer.weight_quantiser.ready:
            quantised = layer.weight_quantiser(layer.weight)
            layer.weight = nn.Parameter(quantised, requires_grad=False)  # another layer may have the same weight
        del layer.weight_quantiser
    layer.__class__ = BiasOnceLinear if isinstance(layer, nn.Linear) else BiasOnceConv2d


@dataclass(frozen=True)
class _Family:
    """What is done with one kind of source.

    Args:
        quantised, spiking: classes of its network before and after.
        converted: class of the result.
        parts: classes of modules that such a source consists of, besides layers, normalisations and activations.
        quantise: puts the quantisers of its own places into the source.
    """

    quantised: type[nn.Module]
    spiking: type[nn.Module]
    converted: type[SpikeZip]
    parts: tuple[type[nn.Module], ...]
    quantise: Callable[[nn.Module, Callable[..., Quantiser], SpikeZipOptions], None]


_FAMILIES = {
    VisionTransformer: _Family(QuantisedViT, SpikingViT, SpikeZip, _VISION, _quantise_vision),
    VisionTransformerDistilled: _Family(QuantisedDeiT, SpikingDeiT, SpikeZip, _VISION, _quantise_vision),
    text.RobertaEncoder: _Family(
        QuantisedRoberta, text.RobertaEncoder, SpikeZipText, text.PARTS, _quantise_text
    ),
}  # fmt: skip

_ANALOG, _ATTENTION = Known("analog"), (Attention, text.SelfAttention)
_KNOWS = {
    "relu": (Known("spiking"),),
    "matrix product of two activations": (Known("analog", _ATTENTION),),
    "fused attention": (Known("analog", _ATTENTION),),
    "softmax": (Known("analog", _ATTENTION),),
    **dict.fromkeys(("layer norm", "gelu", "gelu (tanh)", "silu", "tanh"), (_ANALOG,)),
    **dict.fromkeys(("rms norm", "power", "rsqrt"), (Known("analog", (RmsNorm,)),)),
    "sigmoid": (Known("analog", (QuickGELU,)),),
    "product of two activations": (Known("analog", (RmsNorm, QuickGELU, text.Embeddings)),),
    "maximum": (Known("analog", (VisionTransformer,)),),
    **dict.fromkeys(("comparison", "data-dependent selection"), (Known("analog", (text.RobertaEncoder,)),)),
}

METHOD = Method(
    name="spikezip",
    paper="You et al., SpikeZIP-TF: Conversion is All You Need for Transformer-based SNN (ICML 2024)",
    options=SpikeZipOptions,
    limit=_limit,
    spiking=_spiking,
    trains=True,
    knows=_KNOWS,
    networks=tuple(_FAMILIES),
)
"""SpikeZIP-TF."""
