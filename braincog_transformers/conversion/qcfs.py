"""QCFS activations, trained as an ordinary network's, then swapped for integrate-and-fire neurons with soft reset.

A network of ReLU-like modules gets QCFS in their places. timm's ViT and Swin get it where the Masked Spiking
Transformer has it: behind the patch embedding, the norms of a block, q, k, v, the scores, the product with v, both
projections, in the MLP, and behind the merging of patches. So all layers of a block read spikes; the first layer, the
merging and the classifier don't. A transformer that was trained without QCFS has to be trained with it, as it cuts off
all that is below 0.

The input stays the same at all T steps, and the answer is the mean of what leaves. All that is linear passes mean
values on. Softmax and products of activations are evaluated at each step on its spikes, so that the network approaches
something near the limit, not the limit. A layer norm would spoil more: it brings what a single step says to the size of
the whole. So it reads the mean over all steps so far, unless `norms="step"`, as in the paper's own network, where it is
behind the last block only.

Source: Wang et al., Masked Spiking Transformer (ICCV 2023, arXiv 2210.01208), official code
bic-L/Masked-Spiking-Transformer at 368c9a5; Bu et al., Optimal ANN-SNN Conversion (ICLR 2022), for QCFS. Thresholds
from data, and norms and poolings of all steps so far, are ours.
"""

import math
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.layers import Mlp, PatchEmbed, RmsNorm, activations
from timm.models.swin_transformer import PatchMerging, SwinTransformerBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import UserError
from ..nodes import SoftResetNode
from .attention import ATTENTIONS, ExplicitAttention
from .calls import InTurn, calls_of, modules_of, own_modules, replace_modules
from .converted import Converted, Stateful, device_and_dtype
from .increments import Increment, OfMean
from .method import Known, Method
from .survey import example_input

__all__ = ["METHOD", "QCFS", "QCFSOptions", "SeededMasks", "SpikeMask", "mark_levels", "put_in_attention", "set_masks"]

ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish),
    *(activations.GELU, activations.GELUTanh, activations.QuickGELU),
    *(activations.Swish, activations.Mish, activations.HardSwish),
)
"""Modules that QCFS takes the place of: 0 or little below 0, and the input itself, or nearly, above."""

_BLOCKS = (Block, SwinTransformerBlock)
_BEHIND = {_BLOCKS: ("norm1", "norm2"), PatchEmbed: ("norm",), Mlp: ("fc2",), PatchMerging: ("reduction",)}
"""Layers of timm's modules that QCFS goes behind."""
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, RmsNorm)
_LEVELS = "qcfs_levels"


@dataclass(frozen=True)
class QCFSOptions:
    """Options of the method. A network with QCFS of its own keeps that, whatever the first three say.

    Args:
        levels: L, by which QCFS divides its threshold. A neuron says as much in L steps.
        threshold: where it starts without data.
        percentile: share of the positive inputs of a QCFS on the calibration data that its threshold is not below.
        masking_ratio: share of q, k and scores that random spike masking sets to 0, in training and in inference.
        norms: a layer norm of the spiking network reads the "mean" over the steps so far, or each "step" by itself.
        seed: of the spiking network's masks, which are the same in every call; those of training come from PyTorch's
            own generator.
        calls: how often a pass calls each module with a state that it calls more than once; None to find out. It is for
            building the network without data.
    """

    levels: int = 16
    threshold: float = 2.0
    percentile: float = 0.999
    masking_ratio: float = 0.0
    norms: Literal["mean", "step"] = "mean"
    seed: int = 0
    calls: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.levels, bool) or not isinstance(self.levels, int) or self.levels < 1:
            raise UserError(f"qcfs: levels must be a whole number from 1; got {self.levels!r}")
        if not 0 < self.threshold < math.inf:
            raise UserError(f"qcfs: threshold must be above 0; got {self.threshold}")
        if not 0 < self.percentile <= 1:
            raise UserError(f"qcfs: percentile must be above 0 and at most 1; got {self.percentile}")
        if not 0 <= self.masking_ratio < 1:
            raise UserError(f"qcfs: masking_ratio must be at least 0 and below 1; got {self.masking_ratio}")
        if self.norms not in ("mean", "step"):
            raise UserError(f"qcfs: norms must be 'mean' or 'step'; got {self.norms!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**31:
            raise UserError(f"qcfs: seed must be a whole number from 0 and below 2^31; got {self.seed!r}")


def _levels_of(x: Tensor, threshold: Tensor, levels: int) -> Tensor:
    return x.div(threshold).mul_(levels).add_(0.5).floor_().div_(levels)


class _Rounded(torch.autograd.Function):
    """See `QCFS`. The gradients are written out: that of clamp at its ends depends on PyTorch's release."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, threshold: Tensor, levels: int) -> Tensor:
        return _levels_of(x, threshold, levels).clamp(0, 1).mul_(threshold)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, threshold, ctx.levels = inputs
        ctx.save_for_backward(x, threshold)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, threshold = ctx.saved_tensors
        u = _levels_of(x, threshold, ctx.levels)
        inside = (u >= 0) & (u <= 1)
        by_threshold = torch.where(inside, u - x / threshold, (u > 1).to(u.dtype))
        return grad * inside, (grad * by_threshold).sum().view_as(threshold), None


class QCFS(nn.Module):
    """Quantised clip-floor-shift activation, `y = threshold clip(u, 0, 1)` with `u = floor(L x / threshold + 1/2) / L`.

    The floor has the gradient 1, and the clip passes it on where u is from 0 to 1. So there the derivatives are 1 by x
    and `u - x / threshold` by the threshold; above they are 0 and 1, below 0 and 0.

    Args:
        levels: L.
        threshold: where it starts; one for the whole layer, and trained.
        most: what the data may set it to at most: 6 in the place of ReLU6.
    """

    def __init__(self, levels: int = 16, threshold: float = 2.0, most: float = math.inf):
        super().__init__()
        self.levels, self.most = levels, most
        self.threshold = nn.Parameter(torch.tensor([min(float(threshold), most)]))

    def forward(self, x: Tensor) -> Tensor:
        return _Rounded.apply(x, self.threshold, self.levels)

    def extra_repr(self) -> str:
        return f"levels={self.levels}"


# Random spike masking


class SpikeMask(Stateful):
    """Random spike masking: sets each entry to 0 with the probability `ratio`, and rescales nothing.

    Args:
        ratio: share of entries; at 0 nothing is drawn.

    Attributes:
        masks: maps a tensor to the mask that it is multiplied with; None draws from PyTorch's own generator.
    """

    def __init__(self, ratio: float):
        super().__init__()
        self.ratio = ratio
        self.masks: Callable[[Tensor], Tensor] | None = None

    def reset(self) -> None:
        if isinstance(self.masks, SeededMasks):
            self.masks.reset()

    def forward(self, x: Tensor) -> Tensor:
        if not self.ratio:
            return x
        masks = self.masks or (lambda x: torch.rand(x.shape, device=x.device) > self.ratio)
        return x * masks(x)

    def extra_repr(self) -> str:
        return f"ratio={self.ratio:g}"


class SeededMasks:
    """Masks of one network that are the same after every reset.

    Args:
        ratio: share of entries that are 0.
        seed: whole number.
    """

    def __init__(self, ratio: float, seed: int = 0):
        self.ratio, self.seed = ratio, seed
        self.reset()

    def reset(self) -> None:
        self._seeds = random.Random(self.seed)

    def __call__(self, x: Tensor) -> Tensor:
        # a generator of PyTorch's for each mask, as it can't be copied with the network; of a seed it reads 32 bits
        generator = torch.Generator(x.device).manual_seed(self._seeds.getrandbits(32))
        return torch.rand(x.shape, generator=generator, device=x.device) > self.ratio


def set_masks(network: nn.Module, masks: Callable[[Tensor], Tensor] | None) -> None:
    """Let a network, spiking or not, take the masks of random spike masking from a function.

    Args:
        network: with `SpikeMask` modules whose ratio is not 0.
        masks: maps a tensor to a mask of its shape. A step calls it for each block in turn, for q, k and the scores.
            None draws them from PyTorch's own generator.
    """
    for mask in modules_of(network, (SpikeMask,)).values():
        mask.masks = masks


# The number of levels in the state


def mark_levels(network: nn.Module, levels: int) -> None:
    """Put the number of levels into a network's state dict, and let it refuse one with another number.

    Weights without the number, as official ones are, load.
    """
    network.register_buffer(_LEVELS, torch.tensor(levels))
    network.register_load_state_dict_pre_hook(_refuse_other_levels)


def _refuse_other_levels(network: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    if _LEVELS not in network._buffers:  # it was converted, where levels say nothing any more
        return
    key, own = prefix + _LEVELS, next(module.levels for module in network.modules() if isinstance(module, QCFS))
    if int(state.setdefault(key, torch.tensor(own))) != own:
        raise UserError(
            f"{type(network).__name__}: the checkpoint was trained with levels={int(state[key])}, this network has "
            f"levels={own}; build it with the checkpoint's"
        )


# From a source to the network with QCFS


def put_in_attention(attention: ExplicitAttention, options: QCFSOptions) -> ExplicitAttention:
    """Put QCFS and masks in the places of an attention where the Masked Spiking Transformer has them."""
    for name in ("q", "k", "v", "score", "context", "proj"):
        setattr(attention, f"{name}_node", QCFS(options.levels, options.threshold))
    for name in ("q", "k", "score"):
        setattr(attention, f"{name}_mask", SpikeMask(options.masking_ratio))
    return attention


def _limit(network: nn.Module, options: QCFSOptions, data: list[Tensor] | None) -> nn.Module:
    """Return the network with QCFS; one that has it keeps its thresholds."""
    network.eval()
    if _LEVELS in network._buffers:
        return _with_options(network, options)
    if modules_of(network, (QCFS,)):
        return network
    _place(network, options)
    network.to(**device_and_dtype(network))
    calls = options.calls
    if data is not None or calls is None:
        kept = modules_of(network, (QCFS, *_POOLS, *(_NORMS if options.norms == "mean" else ())))
        found = calls_of(network, kept, example_input(network) if data is None else data[0][:1])
        calls = {name: len(each) for name, each in found.items()}
    own_modules(network, calls)
    if options.masking_ratio and not modules_of(network, (SpikeMask,)):
        raise UserError(f"qcfs: masking_ratio masks attention, and {type(network).__name__} has none; leave it out")
    mark_levels(network, options.levels)
    if data is not None:
        _calibrate(network, data, options.percentile)
    return network


def _with_options(network: nn.Module, options: QCFSOptions) -> nn.Module:
    """Give the network of a paper, which has QCFS already, the levels and the masking of some options."""
    for site in modules_of(network, (QCFS,)).values():
        site.levels = options.levels
    for mask in modules_of(network, (SpikeMask,)).values():
        mask.ratio = options.masking_ratio
    network.get_buffer(_LEVELS).fill_(options.levels)
    return network


def _follow(parent: nn.Module, name: str, options: QCFSOptions) -> None:
    """Put QCFS behind a layer."""
    layer, node = getattr(parent, name), QCFS(options.levels, options.threshold)
    if not isinstance(layer, nn.Identity):
        node = nn.Sequential(OrderedDict(layer=layer, node=node))
    setattr(parent, name, node)


def _place(network: nn.Module, options: QCFSOptions) -> None:
    """Put QCFS in the places of activations and, in timm's transformers, where the paper has it."""
    for name, pool in modules_of(network, _POOLS).items():
        if pool.return_indices:
            raise UserError(f"qcfs: {name} returns the indices of its maxima, which spikes have none of")
    nodes = {
        name: QCFS(options.levels, options.threshold, 6.0 if isinstance(activation, nn.ReLU6) else math.inf)
        for name, activation in modules_of(network, ACTIVATIONS).items()
    }
    replace_modules(network, nodes)
    attentions = modules_of(network, ATTENTIONS)
    for name in attentions:
        block = network.get_submodule(name.rpartition(".")[0])
        if not isinstance(block, _BLOCKS):
            raise UserError(
                f"qcfs: {name} is the attention of a {type(block).__name__}, and the paper says where neurons go only "
                "for a block with norms in front of attention and MLP; no method of conversion knows it"
            )
    explicit = {name: ExplicitAttention(attention, name) for name, attention in attentions.items()}
    replace_modules(network, {name: put_in_attention(attention, options) for name, attention in explicit.items()})
    for module in list(network.modules()):
        for name in next((names for kind, names in _BEHIND.items() if isinstance(module, kind)), ()):
            _follow(module, name, options)


def _calibrate(network: nn.Module, data: list[Tensor], percentile: float) -> None:
    """Set the thresholds from the data: each from inputs that the QCFS in front of it have quantised by then."""
    found: dict[str, list[Tensor]] = {}

    def note(name: str, site: QCFS, x: Tensor) -> None:
        positive = x[x > 0]
        if positive.numel():
            least = positive.float().kthvalue(math.ceil(percentile * positive.numel())).values
            found.setdefault(name, []).append(least)
            site.threshold.fill_(torch.stack(found[name]).mean().clamp(max=site.most))

    hooks = [
        site.register_forward_pre_hook(lambda site, inputs, name=name: note(name, site, inputs[0]))
        for name, site in modules_of(network, (QCFS,)).items()
    ]
    try:
        for x in tqdm(data, desc="calibration", unit="batch", disable=None, leave=False):
            network(x)
    finally:
        for hook in hooks:
            hook.remove()


# From the network with QCFS to the spiking one


class SpikingQCFS(Converted):
    """The input at every step, the mean of the outputs as the answer."""

    method = "qcfs"
    coding = "constant"
    readout_is = "mean"


def _spiking(
    network: nn.Module, step: int, options: QCFSOptions, data: list[Tensor] | None, settings: dict[str, Any]
) -> SpikingQCFS:
    """Put neurons in the places of QCFS."""
    place, sites = device_and_dtype(network), modules_of(network, (QCFS,))
    thresholds = {name: float(site.threshold) for name, site in sites.items()}
    if wrong := [f"{name} {value:.3g}" for name, value in thresholds.items() if not 0 < value < math.inf]:
        raise UserError(
            f"qcfs: thresholds must be finite and above 0, which training does not see to; got {', '.join(wrong)} "
            "(train again, with a lower learning rate)"
        )
    nodes = {name: SoftResetNode(site.threshold[0], start=0.5, step=step).to(**place) for name, site in sites.items()}
    replace_modules(network, nodes)
    replace_modules(network, {name: Increment(pool) for name, pool in modules_of(network, _POOLS).items()})
    if options.norms == "mean":
        replace_modules(network, {name: OfMean(norm) for name, norm in modules_of(network, _NORMS).items()})
    calls = {name: len(module.calls) for name, module in modules_of(network, (InTurn,)).items()}
    network._buffers.pop(_LEVELS, None)
    set_masks(network, SeededMasks(options.masking_ratio, options.seed))
    converted = SpikingQCFS(network, step, {**settings, "options": {**vars(options), "calls": calls}})
    if data is not None:
        converted.input_dims = data[0].dim()
    return converted


_SITES = Known("spiking", (*ACTIVATIONS, QCFS))
_PER_STEP, _RMS = Known("analog"), Known("analog", (RmsNorm, nn.RMSNorm))
_KNOWS = {
    **dict.fromkeys(("relu", "clamp", "gelu", "gelu (tanh)", "silu", "mish", "hardswish", "sigmoid"), (_SITES,)),
    "rounding": (_SITES,),
    "product of two activations": (_SITES, _RMS),  # as which QuickGELU writes its sigmoid
    **dict.fromkeys(("power", "rsqrt"), (_RMS,)),
    "matrix product of two activations": (Known("spiking", ATTENTIONS),),
    **dict.fromkeys(("fused attention", "softmax"), (Known("analog", ATTENTIONS),)),
    **dict.fromkeys(("layer norm", "group norm", "rms norm"), (_PER_STEP,)),
    "max pooling": (Known("analog", _POOLS),),
}

METHOD = Method(
    name="qcfs",
    paper="Wang et al., Masked Spiking Transformer, ICCV 2023",
    options=QCFSOptions,
    limit=_limit,
    spiking=_spiking,
    trains=True,
    knows=_KNOWS,
)
