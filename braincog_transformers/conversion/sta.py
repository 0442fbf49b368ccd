"""Spatio-Temporal Approximation (STA): a vision transformer becomes spiking without training.

GELU, `1 / sqrt` of layer normalisation and the softmax are replaced by universal group operators (`operators.py`), and
the hidden units of the first two by neurons. Products of values that change over time are corrected, so that the mean
of what leaves is the product of the means of what enters. The picture is presented at every step, and the tail of the
network reads the mean of the tokens.

Not converted, as published: patch embedding, positions, the normalisation behind them, the final one, pooling and
classifier. The softmax is computed by its operators on real numbers at every step.

Source: Jiang et al., Spatio-Temporal Approximation: A Training-Free SNN Conversion for Transformers (ICLR 2024);
official code: github.com/ViviaHu/STA, `model.py`. What is ours: the operators are fitted to the ranges of the
calibration data, each place by itself; a part that stays analog behind spiking blocks reads the mean of what enters it.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from timm.layers import AttentionPoolLatent, Mlp, QuickGELU
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import UserError, listed, unknown
from ..nodes import BurstNode
from ..ops.neuron import membrane_dtype
from .attention import ExplicitAttention
from .converted import Converted, device_and_dtype
from .method import Known, Method
from .operators import GroupOperator, fit_operator
from .sta_layers import CUT, AtMeans, Followed, OfMeans, OperatorNorm, OperatorSoftmax, Signed, shifted
from .sta_thresholds import Rule, calibrate

__all__ = ["METHOD", "STAConverted", "STAOptions"]

_OPERATORS = ("exp", "inv", "sqrtinv", "gelu")
_CLAMP = 3.0
"""Where shifted scores are cut in the official code, and at the least here."""
_OVERFLOWS = 80.0
"""Above it the exponential does not fit in single precision."""
_LARGEST_ERROR = 0.2
"""Relative error of a fitted operator that is refused."""


@dataclass(frozen=True)
class STAOptions:
    """Options of `sta`.

    Args:
        burst: half spikes at most that a neuron adds in one step.
        bipolar: negative spikes may take back what was put out.
        blocks: indices of the blocks that are converted; None for all.
        threshold: rule for the thresholds: "mse", the bound of the quantiser with T levels that loses least; "max"; or
            a quantile of the activations, above 0 and up to 1.
        per_neuron: a threshold for each channel (of attention weights: for each key) and unit, else for each layer.
        momentum: share of a threshold that a further batch of the calibration data leaves as it was, 0 to below 1.
        shift: from which score a softmax measures the others: "max", the largest, so that none is out of the operator's
            interval; "first", that of the first key, as published, which trained networks often exceed by far.
        clamp: for "first", where larger scores are cut; 3.0 as published, None for the largest on the data if above 3.
        exp_hidden, inv_hidden, sqrtinv_hidden, gelu_hidden: hidden units of the operators that are fitted.
        operators: operators to use instead of fitted ones, by name: "exp", "inv", "sqrtinv", "gelu". The fitted
            "sqrtinv" adds the normalisation's epsilon, the published one does not.
    """

    burst: int = 2
    bipolar: bool = True
    blocks: tuple[int, ...] | None = None
    threshold: Literal["mse", "max"] | float = "mse"
    per_neuron: bool = True
    momentum: float = 0.9
    shift: Literal["first", "max"] = "max"
    clamp: float | None = None
    exp_hidden: int = 32
    inv_hidden: int = 64
    sqrtinv_hidden: int = 8
    gelu_hidden: int = 64
    operators: Mapping[str, GroupOperator] | None = field(default=None, repr=False)

    def __post_init__(self):
        _require(type(self.burst) is int and self.burst >= 0, "burst must be a whole number from 0", self.burst)
        quantile = type(self.threshold) in (int, float) and 0 < self.threshold <= 1
        _require(
            quantile or self.threshold in ("mse", "max"),
            'threshold must be "mse", "max" or a quantile above 0 and up to 1',
            self.threshold,
        )
        share = type(self.momentum) in (int, float) and 0 <= self.momentum < 1
        _require(share, "momentum must be at least 0 and below 1", self.momentum)
        _require(self.shift in ("first", "max"), 'shift must be "first" or "max"', self.shift)
        bound = self.clamp is None or (self.shift == "first" and type(self.clamp) in (int, float) and self.clamp > 1)
        _require(bound, 'clamp must be above 1, and goes with shift="first" only', self.clamp)
        for name in _OPERATORS:
            count = getattr(self, f"{name}_hidden")
            _require(type(count) is int and count >= 1, f"{name}_hidden must be a whole number from 1", count)
        if self.blocks is not None:
            blocks = tuple(self.blocks) if isinstance(self.blocks, Iterable) else ()
            rule = "blocks must hold whole numbers, each once; leave it out for all"
            _require(len({*blocks}) == len(blocks) > 0 and all(type(i) is int for i in blocks), rule, self.blocks)
            object.__setattr__(self, "blocks", tuple(sorted(blocks)))
        for name, operator in (self.operators or {}).items():
            if name not in _OPERATORS:
                raise unknown("operator of sta", name, _OPERATORS)
            rule = f"the operator {name} must be a GroupOperator (GroupOperator.from_state, fit_operator)"
            _require(isinstance(operator, GroupOperator), rule, type(operator).__name__)

    def hidden(self, name: str) -> int:
        """Return the number of hidden units of an operator."""
        given = (self.operators or {}).get(name)
        return getattr(self, f"{name}_hidden") if given is None else given.hidden

    def plain(self) -> "STAOptions":
        """Return options without modules, which build networks of the same sizes."""
        return replace(self, operators=None, **{f"{name}_hidden": self.hidden(name) for name in _OPERATORS})


def _require(holds: bool, rule: str, value: Any) -> None:
    if not holds:
        raise UserError(f"sta: {rule}; got {value!r}")


# The limit


def _limit(network: nn.Module, options: STAOptions, batches: list[Tensor] | None) -> nn.Module:
    blocks = _blocks(network, options)
    for path, block in blocks.items():
        block.attn = ExplicitAttention(block.attn, f"{path}.attn")
    ranges = None if batches is None else _recorded(network.eval(), blocks, options, batches)
    place = device_and_dtype(network)
    for path, block in blocks.items():
        built = {name: operator.to(**place) for name, operator in _operators(path, block, options, ranges).items()}
        attn = block.attn
        attn.qkv, block.mlp.fc1 = _folded(block.norm1, attn.qkv), _folded(block.norm2, block.mlp.fc1)
        block.norm1, block.norm2 = OperatorNorm(built["norm1"]), OperatorNorm(built["norm2"])
        attn.softmax = OperatorSoftmax(built["exp"], built["inv"], options.shift)
        attn.weight_node, attn.proj = nn.ReLU(), nn.Sequential(Signed(), attn.proj)
        block.mlp.act = built["gelu"]
    return network


def _blocks(network: VisionTransformer, options: STAOptions) -> dict[str, Block]:
    """Return the blocks to convert, by path; refuse those whose own code computes something else than timm's."""
    depth = len(network.blocks)
    if not depth:
        raise UserError("sta: the network has no block, so there is nothing to convert")
    chosen = range(depth) if options.blocks is None else options.blocks
    if outside := [i for i in chosen if not 0 <= i < depth]:
        raise UserError(f"sta: the network has blocks 0 to {depth - 1}; got {listed([*map(str, outside)])}")
    for method in ("forward", "forward_features"):
        _require_plain("the network", network, VisionTransformer, method)
    blocks = {f"blocks.{i}": network.blocks[i] for i in chosen}
    for path, block in blocks.items():
        _require_plain(path, block, Block)
        _require_plain(f"{path}.attn", block.attn, Attention)
        _require_plain(f"{path}.mlp", block.mlp, Mlp)
        _require_plain(f"{path}.attn.qkv", block.attn.qkv, nn.Linear)
        _require_plain(f"{path}.mlp.fc1", block.mlp.fc1, nn.Linear)
    return blocks


def _require_plain(path: str, module: nn.Module, cls: type, method: str = "forward") -> None:
    if getattr(type(module), method, None) is not getattr(cls, method):
        raise UserError(
            f"sta: {path} is a {type(module).__name__} with a {method} of its own, which it can't take apart; it knows "
            f"that of {cls.__name__}"
        )


def _folded(norm: nn.LayerNorm, linear: nn.Linear) -> nn.Linear:
    """Return a linear layer that reads what a layer normalisation's scale and shift would be applied to."""
    folded = nn.Linear(linear.in_features, linear.out_features, device="meta", dtype=linear.weight.dtype)
    weight, bias = linear.weight, torch.zeros_like(linear.weight[:, 0]) if linear.bias is None else linear.bias
    if norm.bias is not None:
        bias = bias + weight @ norm.bias
    if norm.weight is not None:
        weight = weight * norm.weight
    folded.weight, folded.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    return folded


# Operators for the ranges of the data

Ranges = dict[str, tuple[float, float]]
"""Smallest and largest value by place: the variance in front of a normalisation, the shifted scores and their sums of
exponentials in an attention, the input of an activation."""


def _recorded(network: nn.Module, blocks: Mapping[str, Block], options: STAOptions, batches: list[Tensor]) -> Ranges:
    """Run the source on the data and return the ranges of what its operators read."""
    ranges: Ranges = {}
    clamp = _OVERFLOWS if options.clamp is None else options.clamp

    def note(place: str, values: Tensor) -> None:
        low, high = (float(end) for end in torch.aminmax(values))
        before = ranges.get(place, (low, high))
        ranges[place] = min(low, before[0]), max(high, before[1])

    def variance(place: str) -> Callable[..., None]:
        return lambda _m, inputs: note(place, inputs[0].to(membrane_dtype(inputs[0].dtype)).var(-1, correction=0))

    def scores(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            z = shifted(inputs[0].to(membrane_dtype(inputs[0].dtype)), options.shift)
            note(f"{path}.exp", z)
            note(f"{path}.inv", z.clamp(max=clamp).exp().sum(-1))

        return hook

    hooks = []
    for path, block in blocks.items():
        act = block.mlp.act
        hooks += [
            block.norm1.register_forward_pre_hook(variance(f"{path}.norm1")),
            block.norm2.register_forward_pre_hook(variance(f"{path}.norm2")),
            block.attn.softmax.register_forward_pre_hook(scores(path)),
            act.register_forward_pre_hook(lambda _m, inputs, path=path: note(f"{path}.gelu", inputs[0])),
        ]
    try:
        for x in batches:
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    if broken := [place for place, ends in ranges.items() if not all(map(math.isfinite, ends))]:
        raise UserError(f"sta: values that are not finite reach {listed(broken)} on the data; check the weights")
    return ranges


def _operators(path: str, block: Block, options: STAOptions, ranges: Ranges | None) -> dict[str, GroupOperator]:
    """Return a block's operators by place; without ranges, empty ones of the same sizes."""
    kinds = {"norm1": "sqrtinv", "norm2": "sqrtinv", "exp": "exp", "inv": "inv", "gelu": "gelu"}
    given = options.operators or {}
    found = {place: copy.deepcopy(given[kind]) for place, kind in kinds.items() if kind in given}
    if ranges is None:
        return {place: found.get(place, GroupOperator(options.hidden(kind))) for place, kind in kinds.items()}
    for place, kind in kinds.items():
        low, high = ranges[f"{path}.{place}"]
        if place == "exp":
            high = 1.0 if options.shift == "max" else options.clamp or max(_CLAMP, high)
        if place in found:
            _require_covered(f"{path}.{place}", kind, found[place], low, high)
            if place == "exp" and options.clamp is not None:
                found[place].high.clamp_(max=options.clamp)
            continue
        function, low, high, floor = _task(block, place, low, high)
        operator = fit_operator(function, low, high, options.hidden(kind), floor=floor)
        if operator.error > _LARGEST_ERROR:
            remedy = ', or shift="max"' if kind == "exp" and options.shift == "first" else ""
            raise UserError(
                f"sta: {kind} in {path}.{place} has to hold from {low:.3g} to {high:.3g} on the data, and with "
                f"{operator.hidden} hidden units it is wrong by {operator.error:.0%}; take more of them "
                f"({kind}_hidden){remedy}"
            )
        found[place] = operator
    return found


def _task(block: Block, place: str, low: float, high: float) -> tuple[Callable, float, float, float]:
    """Return what to fit for a recorded range: function, interval and `floor`.

    What the spiking network reads is near what the source reads, so that intervals are wider than the ranges.
    """
    if place == "exp":  # nothing is above; and of what is below 1 % of the reference, precision is of no use
        return torch.exp, CUT, high, 0.01
    if place == "inv":  # from 1, for the weights that are repaired
        return torch.reciprocal, 1.0, 2 * high, 0.0
    if place == "gelu":
        margin = 0.1 * (high - low) + 0.1
        return block.mlp.act, low - margin, high + margin, 1.0
    norm = getattr(block, place)
    # a token without variance is 0 whatever it is multiplied by
    return lambda v: (v + norm.eps).rsqrt(), max(low / 2, high * 1e-6, 1e-12), max(2 * high, 1e-11), 0.0


def _require_covered(path: str, kind: str, operator: GroupOperator, low: float, high: float) -> None:
    """Refuse an operator that was handed in and does not hold on a recorded range."""
    bottom, top = float(operator.low), float(operator.high)
    if high > top or (low < bottom and kind != "exp"):  # exp is constant there
        raise UserError(
            f"sta: the operator {kind} that was handed in holds from {bottom:g} to {top:g}, but {path} reads {low:.3g} "
            f"to {high:.3g} on the data; leave it out, and one is fitted"
        )


# The spiking network


class STAConverted(Converted):
    """A vision transformer whose blocks spike; see the module's docstring."""

    method = "sta"

    def __init__(self, network: nn.Module, step: int, settings: dict[str, Any] | None = None):
        super().__init__(network, step, settings)
        self.fitted_to = step

    def _enter(self, x: Tensor) -> Tensor:
        network = self.network
        return network.norm_pre(network.patch_drop(network._pos_embed(network.patch_embed(x))))

    def forward_step(self, x: Tensor) -> Tensor:
        """Take one step on images `(B, C, H, W)` and return what it adds to the tokens `(B, N, D)`; keeps the state."""
        return self.network.blocks(self._enter(x))

    def readout(self, total: Tensor, steps: int) -> Tensor:
        """Return the source's answer to the mean of the tokens."""
        mean = (total / steps).to(device_and_dtype(self.network)["dtype"])
        return self.network.forward_head(self.network.norm(mean))

    def _steps(self, x: Tensor, progress: bool = False) -> Iterator[tuple[Tensor, int]]:
        """Run block by block, all steps of each, so that only one block at a time has neurons with a state."""
        framed = x.dim() == self.input_dims + 1
        if framed and x.shape[1] < 1:
            raise UserError(f"{type(self).__name__}: the input (B, T, ...) holds no step")
        tokens = list(x.unbind(1)) if framed else [self._enter(x)] * self.step
        parts = [*([self._enter] if framed else []), *self.network.blocks]
        try:
            self.reset()
            with tqdm(
                total=len(parts) * len(tokens), desc="steps", unit="step", disable=not progress, leave=False
            ) as bar:
                for part in parts:
                    for t, entering in enumerate(tokens):
                        self.current = t
                        tokens[t] = part(entering)
                        bar.update()
                    self.reset()
        finally:
            self.current = None
            self.reset()
        total: Any = 0.0
        for t, left in enumerate(tokens, 1):
            total = total + left.to(membrane_dtype(left.dtype))
            self._steps_used = t
            yield total, t


def _spiking(
    network: nn.Module, step: int, options: STAOptions, batches: list[Tensor] | None, settings: dict[str, Any]
) -> STAConverted:
    depth = len(network.blocks)
    chosen = list(range(depth)) if options.blocks is None else list(options.blocks)
    places = {f"blocks.{i}.{site}": (network.blocks[i], site) for i in chosen for site in _SITES}
    if batches is None:  # whoever asks for a network without thresholds has them in a file
        thresholds = {path: torch.full(_shape(network, *place, options), torch.nan) for path, place in places.items()}
    else:
        rule = Rule(step, options.threshold, options.per_neuron, options.momentum)
        thresholds = calibrate(network, places, rule, batches)
    for path, threshold in thresholds.items():
        node = BurstNode(threshold, burst=options.burst, bipolar=options.bipolar).to(**device_and_dtype(network))
        network.set_submodule(path, node)
    for i in range(chosen[0], depth):
        block = network.blocks[i]
        if i not in chosen:
            network.blocks[i] = OfMeans(block)
            continue
        for norm in (block.norm1, block.norm2):
            norm.variance, norm.scaled = OfMeans(norm.variance), OfMeans(norm.scaled)
        attn = block.attn
        attn.scores, attn.context = AtMeans(attn.scores), OfMeans(attn.context)
        attn.weight_node = Followed(attn.weight_node)
    return STAConverted(network, step, {**settings, "options": vars(options.plain())})


_SITES = (
    "norm1.operator.approximator.1",
    "norm1.encoder.node",
    "attn.weight_node",
    "attn.proj.0.node",
    "norm2.operator.approximator.1",
    "norm2.encoder.node",
    "mlp.act.approximator.1",
)
"""Where a block has ReLUs that become neurons."""


def _shape(network: nn.Module, block: Block, site: str, options: STAOptions) -> tuple[int, ...]:
    """Return the shape of a site's thresholds."""
    if not options.per_neuron:
        return ()
    width, hidden = block.attn.proj[1].in_features, block.mlp.fc1.out_features
    if site == "attn.weight_node":
        return 1, 1, network.patch_embed.num_patches + network.num_prefix_tokens
    if site == "mlp.act.approximator.1":
        return 1, 1, hidden, options.hidden("gelu")
    return (1, 1, options.hidden("sqrtinv")) if "operator" in site else (1, 1, width, 2)


_IN_BLOCK, _TAIL = Known("spiking", (Block,)), Known("analog", (VisionTransformer, AttentionPoolLatent))
_KNOWS = {
    "layer norm": (_IN_BLOCK, _TAIL),
    **dict.fromkeys(
        ("fused attention", "softmax", "matrix product of two activations"),
        (Known("analog", (Attention, AttentionPoolLatent)),),
    ),
    **dict.fromkeys(("relu", "gelu", "gelu (tanh)", "silu"), (Known("spiking", (Mlp,)),)),
    **dict.fromkeys(("sigmoid", "product of two activations"), (Known("spiking", (QuickGELU,)),)),
    "maximum": (_TAIL,),
}

METHOD = Method(
    name="sta",
    paper="Jiang et al., Spatio-Temporal Approximation: A Training-Free SNN Conversion for Transformers (ICLR 2024)",
    options=STAOptions,
    limit=_limit,
    spiking=_spiking,
    knows=_KNOWS,
    networks=(VisionTransformer,),
)
"""Spatio-Temporal Approximation."""
