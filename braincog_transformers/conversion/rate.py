"""Rate coding: each ReLU becomes a neuron whose firing rate is its activation.

Mueller, Studenyak, Auge, Knoll: Spiking Transformer Networks: A Rate Coded Approach for Processing Sequential Data.
ICSAI 2021, doi 10.1109/ICSAI53574.2021.9664146; code of the second author: vvvityaaa/transformer-ann2snn at e0a4cba, of
which nothing is used here. They convert transformers of linear layers, softmax attention and ReLU. Here any network of
linear layers, convolutions, batch normalisations, poolings and residual sums is taken, too.

The input stays the same at all T steps, and the answer is the mean of what leaves. All that is linear then passes mean
values on. A neuron with soft reset that reads x/L at a step fires at the rate clip(x/L, 0, 1), up to 1/T. So the network
approaches its *limit*, the source with activations clipped at their thresholds L, with an error of the order 1/T.

**Thresholds instead of rescaled weights.** Data-based normalisation divides the weights of layer l by L[l]/L[l-1] and
its bias by L[l], and lets all neurons fire at 1. Here weights stay as they are, a neuron fires at L[l], and its spike is
worth L[l]. Its potential over its threshold is the same in both, so that the same spikes are fired. But a sum of two
branches with different L, as in a residual network, has no common scale to which its weights could be normalised. Spikes
that are worth L can be added as they are.

**Max pooling** of rates is not the rate of max-pooled spikes. `Increment` puts out by how much the pooling of all
spikes so far has grown, which is a spike or none, and adds up to the pooling of the rates exactly.

**Softmax, layer normalisation and products of activations**, that is attention, are computed anew at each step from its
spikes, as in the paper. They are not linear, so that the network approaches something else than the limit there.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import UserError, listed
from ..nodes.valued import SoftResetNode
from .converted import Converted
from .increments import Increment
from .methods import Method, device_and_dtype
from .tracing import ACTIVATIONS, MAX_POOLS, Trace, trace

__all__ = ["METHOD", "ClippedReLU", "InTurn", "RateCoded", "RateOptions", "normalise_as_released"]

_RELUS = (nn.ReLU, nn.ReLU6)
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
_BINS, _CANDIDATES = 4096, 200
"""Resolution of a histogram of activations, and of the search for a threshold."""


@dataclass(frozen=True)
class RateOptions:
    """Options of rate coding.

    The paper's are `percentile=0.99, start=0.0, strict=True`. The defaults need fewer steps.

    Args:
        levels: a threshold is that of the least squared error if activations are rounded to so many levels, which is
            what a neuron does in as many steps; 8, unless `percentile` is given.
        percentile: instead, a threshold is the largest of the channels' maxima over the calibration data, without the
            share above this one.
        start: potential at the first step, as a share of the threshold; 0.5 rounds to the nearest level, 0 down.
        strict: fire above the threshold only, not at it.
        as_released: rescale weights as the released code does, with `percentile`: those of layers with a ReLU only,
            although what enters the layers without one is rescaled, too, so that another function is computed.
        calls: by name how often a forward pass calls a ReLU or max pooling that it calls more than once. The data tell;
            it is for building the network without data.
    """

    levels: int | None = None
    percentile: float | None = None
    start: float = 0.5
    strict: bool = False
    as_released: bool = False
    calls: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.levels is not None and self.percentile is not None:
            raise UserError("rate: levels and percentile are two rules for the thresholds; give one of them")
        if self.levels is not None and (isinstance(self.levels, bool) or self.levels != int(self.levels) or self.levels < 1):
            raise UserError(f"rate: levels must be a whole number from 1; got {self.levels}")
        if self.percentile is not None and not 0 < self.percentile <= 1:
            raise UserError(f"rate: percentile must be above 0 and at most 1; got {self.percentile}")
        if not 0 <= self.start < 1:
            raise UserError(f"rate: start must be from 0, and below 1, a share of the threshold; got {self.start}")
        if self.as_released and self.percentile is None:
            raise UserError("rate: as_released rescales weights by a percentile; give it (the released code: 0.99)")


class ClippedReLU(nn.Module):
    """`clip(x, 0, threshold)`: what a neuron with this threshold approaches.

    Args:
        threshold: a scalar.
    """

    def __init__(self, threshold: Tensor):
        super().__init__()
        self.register_buffer("threshold", threshold)

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=0).minimum(self.threshold)


class InTurn(nn.Module):
    """Modules in the place of one that a forward pass calls several times: the first call goes to the first.

    Each has a state and a threshold of its own. The network's pre-hook `_first` begins a forward pass.

    Args:
        module: the module.
        count: number of calls.
    """

    def __init__(self, module: nn.Module, count: int):
        super().__init__()
        self.calls = nn.ModuleList(copy.deepcopy(module) for _ in range(count))
        self.called = 0

    def forward(self, x: Tensor) -> Tensor:
        self.called += 1
        return self.calls[self.called - 1](x)


def _first(network: nn.Module, _: tuple) -> None:
    for module in network.modules():
        if isinstance(module, InTurn):
            module.called = 0


class RateCoded(Converted):
    """A rate-coded network: the input at every step, the mean of the outputs as the answer."""

    method = "rate"
    coding = "constant"
    readout_is = "mean"


def _of_types(network: nn.Module, types: tuple[type, ...]) -> dict[str, nn.Module]:
    """Return the modules of some types by name; a module in several places has several names."""
    return {name: m for name, m in network.named_modules(remove_duplicate=False) if isinstance(m, types) and name}


def _replace(network: nn.Module, new: Mapping[str, nn.Module]) -> None:
    """Put modules in the places of others, everywhere where those are."""
    by_old = {id(network.get_submodule(name)): module for name, module in new.items()}
    for name, old in list(network.named_modules(remove_duplicate=False)):
        if id(old) in by_old:
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, by_old[id(old)])


def _limit(network: nn.Module, options: RateOptions, data: list[Tensor] | None) -> nn.Module:
    """Return the network with its activations clipped at their thresholds."""
    network.eval()
    pools = {name: pool for name, pool in _of_types(network, _POOLS).items() if not pool.return_indices}
    seen = Trace()
    if data is not None:
        seen = trace(network, data[0][:1], _of_types(network, _RELUS), pools)
        _refuse(seen.foreign)
    calls = {name: len(found) for name, found in seen.calls.items() if len(found) > 1}
    if data is None:
        calls = options.calls
    elif options.calls and options.calls != calls:
        raise UserError(f"rate: calls={dict(options.calls)}, but the data show {calls}; leave calls out")
    if options.as_released and data is not None:
        normalise_as_released(network, data, options.percentile, seen)
    answer = None if data is None else network(data[0][:1])
    _replace(network, {name: InTurn(network.get_submodule(name), count) for name, count in calls.items()})
    if calls:
        network.register_forward_pre_hook(_first)
    place = device_and_dtype(network)
    bound = 1.0 if data is None or options.as_released else math.inf
    bounds = {name: min(bound, 6.0) if isinstance(m, nn.ReLU6) else bound for name, m in _of_types(network, _RELUS).items()}
    _replace(network, {name: ClippedReLU(torch.full((), value, **place)) for name, value in bounds.items()})
    if data is not None and not options.as_released:
        if not torch.allclose(network(data[0][:1]), answer, rtol=1e-4, atol=1e-6):
            raise UserError(
                f"rate: {type(network).__name__} computes something else with its nn.ReLU modules replaced: the input "
                "of one is read again after it was changed in place; build them with inplace=False"
            )
        _calibrate(network, data, seen, options)
    return network


def _refuse(foreign: Mapping[str, list[str]]) -> None:
    """Raise `UserError` for the first operation that rate coding does not know."""
    for name, paths in foreign.items():
        where = listed(paths)
        if name in ("relu", "threshold", "hardtanh"):
            raise UserError(
                f"rate: {where} calls {ACTIVATIONS[name]} as a function, where no neuron can be put; make it a module "
                f"nn.{ACTIVATIONS[name]} of the network"
            )
        if name in MAX_POOLS:
            raise UserError(
                f"rate: {where} calls a max pooling as a function, or for its indices; make it a module nn.MaxPool2d "
                "of the network"
            )
        if name in ACTIVATIONS:
            raise UserError(
                f"rate: {where} computes {ACTIVATIONS[name]}, and only ReLU becomes a neuron that fires at a rate; "
                "train the network with nn.ReLU, or convert it by sta, which approximates GELU in timm's vision "
                "transformers"
            )
        what = "the product of two activations" if name == "mul" else name.strip("_")
        raise UserError(
            f"rate: {where} computes {what}, which is not linear, so that it does not add up over the steps; no method "
            "here knows it outside of attention"
        )


def _calibrate(network: nn.Module, data: list[Tensor], seen: Trace, options: RateOptions) -> None:
    """Set the thresholds of the activations, which are not clipped yet."""
    axes = {}
    for name, calls in seen.calls.items():
        places = [name] if len(calls) == 1 else [f"{name}.calls.{i}" for i in range(len(calls))]
        axes |= {place: call.axis for place, call in zip(places, calls, strict=True)}
    relus = {name: relu for name, relu in _of_types(network, (ClippedReLU,)).items() if name in axes}
    maxima = _channel_maxima(network, data, {name: (relu, axes[name]) for name, relu in relus.items()})
    for name, found in maxima.items():
        if not torch.isfinite(found).all():
            raise UserError(f"rate: {name} is not finite on the calibration data; check the network's weights")
    if options.percentile is None:
        found = _least_error(network, data, relus, maxima, options)
    else:
        found = {name: _robust(maximum, options.percentile) for name, maximum in maxima.items()}
    for name, threshold in found.items():
        relus[name].threshold.copy_(threshold if threshold > 0 else 1.0)  # one that is never positive stays silent


def _robust(maxima: Tensor, percentile: float) -> Tensor:
    """Return the largest of the channels' maxima, without the share above the percentile."""
    ordered = maxima.sort().values
    return ordered[int(percentile * (len(ordered) - 1))]


def _least_error(
    network: nn.Module, data: list[Tensor], relus: Mapping[str, nn.Module], maxima: Mapping[str, Tensor],
    options: RateOptions,
) -> dict[str, Tensor]:  # fmt: skip
    """Return the thresholds at which rounding the activations has the least squared error, from their histograms."""
    counts: dict[str, Tensor] = {}

    def note(name: str, out: Tensor) -> None:
        found = out.float().histc(_BINS, 0, float(maxima[name].max()))
        counts[name] = found if name not in counts else counts[name] + found

    _observe(network, data, relus, note)
    found = {}
    for name, count in counts.items():
        largest = maxima[name].max()
        shares = torch.arange(1, _CANDIDATES + 1, device=count.device)[:, None] / _CANDIDATES  # of the largest
        middles = (torch.arange(_BINS, device=count.device) + 0.5) / _BINS
        levels = 8 if options.levels is None else options.levels
        rounded = (levels * middles / shares + options.start).floor().clamp(0, levels) / levels * shares
        found[name] = largest * shares[((rounded - middles).square() * count).sum(1).argmin(), 0]
    return found


def _observe(
    network: nn.Module, data: list[Tensor], modules: Mapping[str, nn.Module], note: Callable[[str, Tensor], None]
) -> None:
    """Run a network over the data and hand over what some modules put out, with their names."""
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: note(name, out)) for name, module in modules.items()
    ]
    try:
        for x in tqdm(data, desc="calibration", unit="batch", disable=None, leave=False):
            network(x)
    finally:
        for hook in hooks:
            hook.remove()


def _channel_maxima(
    network: nn.Module, data: list[Tensor], modules: Mapping[str, tuple[nn.Module, int]]
) -> dict[str, Tensor]:
    """Return the largest output of each channel of some modules over the data; the modules come with that axis."""
    maxima: dict[str, Tensor] = {}

    def note(name: str, out: Tensor) -> None:
        found = out.movedim(modules[name][1], 0).flatten(1).amax(1)
        maxima[name] = found if name not in maxima else torch.maximum(maxima[name], found)

    _observe(network, data, {name: module for name, (module, _) in modules.items()}, note)
    return maxima


def normalise_as_released(
    network: nn.Module, data: list[Tensor], percentile: float = 0.99, seen: Trace | None = None
) -> None:
    """Rescale weights in place as the released code does, so that neurons with the threshold 1 fit.

    Layer by layer, in the order of the forward pass: with A the robust maximum of the activations of the network as it
    is by then, `s = max(A, max(W), max(b))`, `W <- W / (s / s')` with the s' of the layer before, `b <- b / s`. Only
    layers with a ReLU are rescaled, although the others read rescaled values.

    Args:
        network: in evaluation mode, with its ReLU modules.
        data: inputs.
        percentile: see `RateOptions`.
        seen: its trace, if there is one.

    Raises:
        UserError: for a ReLU that is called twice, or that does not read what a layer puts out.
    """
    relus = _of_types(network, _RELUS)
    seen = trace(network, data[0][:1], relus, {}) if seen is None else seen
    before = 1.0
    for name, calls in seen.calls.items():
        if name not in relus:
            continue
        if len(calls) > 1 or not calls[0].layer:
            raise UserError(
                f"rate: as_released rescales the layer in front of each ReLU, and {name} "
                + ("is called more than once" if len(calls) > 1 else "does not read what a layer puts out")
            )
        layer = network.get_submodule(calls[0].layer)
        maxima = _channel_maxima(network, data, {name: (relus[name], calls[0].axis)})[name]
        values = [_robust(maxima, percentile), layer.weight.max().clamp(min=0)]
        scale = torch.stack(values if layer.bias is None else [*values, layer.bias.max()]).max()
        layer.weight.div_(scale / before)
        if layer.bias is not None:
            layer.bias.div_(scale)
        before = scale


def _spiking(
    network: nn.Module, step: int, options: RateOptions, data: list[Tensor] | None, settings: dict[str, Any]
) -> RateCoded:
    """Put neurons in the places of the clipped activations."""
    place = device_and_dtype(network)
    neuron = {"start": options.start, "strict": options.strict, "step": step}
    _replace(
        network,
        {
            **{
                name: SoftResetNode(relu.threshold, **neuron).to(**place)
                for name, relu in _of_types(network, (ClippedReLU,)).items()
            },
            **{name: Increment(pool) for name, pool in _of_types(network, _POOLS).items() if not pool.return_indices},
        },
    )
    calls = {name: len(module.calls) for name, module in _of_types(network, (InTurn,)).items()}
    converted = RateCoded(network, step, {**settings, "options": {**vars(options), "calls": calls}})
    if data is not None:
        converted.input_dims = data[0].dim()
    return converted


METHOD = Method(
    name="rate",
    paper="Mueller et al., Spiking Transformer Networks, ICSAI 2021",
    options=RateOptions,
    limit=_limit,
    spiking=_spiking,
)
