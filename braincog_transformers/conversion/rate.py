"""Rate coding: each ReLU becomes a neuron whose firing rate is its activation.

Mueller, Studenyak, Auge, Knoll: Spiking Transformer Networks: A Rate Coded Approach for Processing Sequential Data.
ICSAI 2021, doi 10.1109/ICSAI53574.2021.9664146; code of the second author: vvvityaaa/transformer-ann2snn at e0a4cba, of
which nothing is used here. They convert transformers of linear layers, softmax attention and ReLU. Here any network of
linear layers, convolutions, batch normalisations, poolings and residual sums is taken, too.

The input stays the same at all T steps, and the answer is the mean of what leaves. All that is linear then passes mean
values on. A neuron with soft reset that reads x/L at each step fires at the rate clip(x/L, 0, 1), up to 1/T. So the
network approaches its *limit*, the source with activations clipped at their thresholds L, with an error of the order
1/T.

**Thresholds instead of rescaled weights.** Data-based normalisation divides the weights of layer l by L[l]/L[l-1] and
its bias by L[l], and lets all neurons fire at 1. Here weights stay as they are, a neuron fires at L[l], and its spike
is worth L[l]. Its potential over its threshold is the same in both, so that the same spikes are fired. But a sum of two
branches with different L, as in a residual network, has no common scale to which its weights could be normalised.
Spikes that are worth L can be added as they are.

**Max pooling** of rates is not the rate of max-pooled spikes. `Increment` puts out by how much the pooling of all
spikes so far has grown, which is a spike or none, and adds up to the pooling of the rates exactly.

**Softmax, layer normalisation and products of activations**, that is attention, are computed anew at each step from its
spikes, as in the paper. They are not linear, so that the network approaches something else than the limit there.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import RmsNorm
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import UserError
from ..nodes import SoftResetNode
from .calls import Call, InTurn, calls_of, modules_of, own_modules, replace_modules
from .converted import Converted, device_and_dtype
from .increments import Increment
from .method import Known, Method
from .survey import example_input

__all__ = ["METHOD", "ClippedReLU", "RateCoded", "RateOptions", "normalise_as_released"]

_RELUS = (nn.ReLU, nn.ReLU6)
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
_LEVELS = 8
_BINS, _CANDIDATES = 4096, 200
"""Resolution of a histogram of activations, and of the search for a threshold."""


@dataclass(frozen=True)
class RateOptions:
    """Options of rate coding. The paper's are `percentile=0.99, start=0.0, strict=True`; the defaults need fewer steps.

    Args:
        levels: a threshold is that of the least squared error if activations are rounded to so many levels, which is
            what a neuron does in as many steps; 8, unless `percentile` is given. More cut off less of the largest
            activations, and need more steps.
        percentile: instead, a threshold is the largest of the channels' maxima over the calibration data, without the
            share above this one.
        start: potential at the first step, as a share of the threshold; 0.5 rounds to the nearest level, 0 down.
        strict: fire above the threshold only, not at it.
        as_released: rescale weights as the released code does, with `percentile`: those of layers with a ReLU only,
            although what enters the layers without one is rescaled, too, so that another function is computed.
        calls: how often a pass calls each ReLU or pooling that it calls more than once; None to find out. It is for
            building the network without data.
    """

    levels: int | None = None
    percentile: float | None = None
    start: float = 0.5
    strict: bool = False
    as_released: bool = False
    calls: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        levels = self.levels
        if levels is not None and self.percentile is not None:
            raise UserError("rate: levels and percentile are two rules for the thresholds; give one of them")
        if levels is not None and (isinstance(levels, bool) or not isinstance(levels, int) or levels < 1):
            raise UserError(f"rate: levels must be a whole number from 1; got {levels!r}")
        if self.percentile is not None and not 0 < self.percentile <= 1:
            raise UserError(f"rate: percentile must be above 0 and at most 1; got {self.percentile}")
        if not 0 <= self.start < 1:
            raise UserError(f"rate: start must be at least 0 and below 1, a share of the threshold; got {self.start}")
        if self.as_released and self.percentile is None:
            raise UserError("rate: as_released rescales weights by a percentile; give it (0.99 in the released code)")


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


# From a source to the network with clipped activations


def _limit(network: nn.Module, options: RateOptions, data: list[Tensor] | None) -> nn.Module:
    """Return the network with its activations clipped at their thresholds."""
    network.eval()
    for name, pool in modules_of(network, _POOLS).items():
        if pool.return_indices:
            raise UserError(f"rate: {name} returns the indices of its maxima, which spikes have none of")
    calls: dict[str, list[Call]] = {}
    if data is not None or options.calls is None:
        x = example_input(network) if data is None else data[0][:1]
        calls = calls_of(network, modules_of(network, (*_RELUS, *_POOLS)), x)
    if options.as_released and data is not None:
        normalise_as_released(network, data, options.percentile)
    own_modules(network, {name: len(found) for name, found in calls.items()} if calls else options.calls or {})
    clips = data is None or options.as_released
    replace_modules(network, {name: _unset(network, relu, clips) for name, relu in modules_of(network, _RELUS).items()})
    if not clips:
        _calibrate(network, data, calls, options)
    return network


def _unset(network: nn.Module, relu: nn.Module, clips: bool) -> ClippedReLU:
    """Return what takes the place of a ReLU: with the threshold 1, or as high as it needs to change nothing."""
    bound = 1.0 if clips else 6.0 if isinstance(relu, nn.ReLU6) else math.inf
    return ClippedReLU(torch.full((), bound, **device_and_dtype(network)))


def _calibrate(network: nn.Module, data: list[Tensor], calls: Mapping[str, list[Call]], options: RateOptions) -> None:
    """Set the thresholds of the activations, which are not clipped yet."""
    axes = {name: found[0].axis for name, found in calls.items() if len(found) == 1}
    axes |= {
        f"{name}.calls.{i}": call.axis
        for name, found in calls.items()
        if name not in axes
        for i, call in enumerate(found)
    }
    relus = {name: relu for name, relu in modules_of(network, (ClippedReLU,)).items() if name in axes}
    maxima = _channel_maxima(network, data, {name: (relu, axes[name]) for name, relu in relus.items()})
    for name, found in maxima.items():
        if not torch.isfinite(found).all():
            raise UserError(f"rate: {name} is not finite on the calibration data; check the weights and the data")
    if options.percentile is None:
        levels = _LEVELS if options.levels is None else options.levels
        largest = {name: found.max() for name, found in maxima.items()}
        thresholds = _least_errors(network, data, relus, largest, levels, options.start)
    else:
        thresholds = {name: _robust(found, options.percentile) for name, found in maxima.items()}
    for name, threshold in thresholds.items():
        relus[name].threshold.copy_(threshold if threshold > 0 else 1.0)  # one that is never positive stays silent


def _robust(maxima: Tensor, percentile: float) -> Tensor:
    """Return the largest of the channels' maxima, without the share above the percentile."""
    return maxima.sort().values[int(percentile * (len(maxima) - 1))]


def _least_errors(
    network: nn.Module, data: list[Tensor], relus: Mapping[str, nn.Module], largest: Mapping[str, Tensor], levels: int,
    start: float,
) -> dict[str, Tensor]:  # fmt: skip
    """Return the thresholds at which rounding the activations has the least squared error, from their histograms."""
    counts: dict[str, Tensor] = {}

    def note(name: str, out: Tensor) -> None:
        shares = out.float() / largest[name].float().clamp(min=1e-30)
        found = (shares.flatten() * _BINS).long().clamp(max=_BINS - 1).bincount(minlength=_BINS)
        counts[name] = found if name not in counts else counts[name] + found

    _observe(network, data, relus, note)
    found = {}
    for name, count in counts.items():
        x = (torch.arange(_BINS, device=count.device) + 0.5) / _BINS  # activations, as shares of the largest
        thresholds = torch.arange(1, _CANDIDATES + 1, device=count.device)[:, None] / _CANDIDATES
        rounded = (levels * x / thresholds + start).floor().clamp(0, levels) / levels * thresholds
        best = ((rounded - x).square() * count).sum(1).argmin()
        found[name] = largest[name] * thresholds[best, 0]
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


def normalise_as_released(network: nn.Module, data: list[Tensor], percentile: float = 0.99) -> None:
    """Rescale weights in place as the released code does, so that neurons with the threshold 1 fit.

    Layer by layer, in the order of the forward pass: with A the robust maximum of the activations of the network as it
    is by then, `s = max(A, max(W), max(b))`, `W <- W / (s / s')` with the s' of the layer before, `b <- b / s`. Only
    layers with a ReLU are rescaled, although the others read rescaled values.

    Args:
        network: in evaluation mode, with its ReLU modules.
        data: batches of inputs.
        percentile: see `RateOptions`.

    Raises:
        UserError: for a ReLU that is called twice, or that does not read what a layer puts out.
    """
    relus, before = modules_of(network, _RELUS), 1.0
    for name, calls in calls_of(network, relus, data[0][:1]).items():
        if len(calls) > 1 or not calls[0].layer:
            raise UserError(
                f"rate: as_released rescales the layer in front of each ReLU, and {name} "
                + ("is called more than once" if len(calls) > 1 else "does not read what a layer puts out")
            )
        layer = network.get_submodule(calls[0].layer)
        maxima = _channel_maxima(network, data, {name: (relus[name], calls[0].axis)})[name]
        scales = [_robust(maxima, percentile), layer.weight.max().clamp(min=0)]
        scale = torch.stack(scales if layer.bias is None else [*scales, layer.bias.max()]).max()
        layer.weight.div_(scale / before)
        if layer.bias is not None:
            layer.bias.div_(scale)
        before = scale


# From the network with clipped activations to the spiking one


class RateCoded(Converted):
    """The input at every step, the mean of the outputs as the answer."""

    method = "rate"
    coding = "constant"
    readout_is = "mean"


def _spiking(
    network: nn.Module, step: int, options: RateOptions, data: list[Tensor] | None, settings: dict[str, Any]
) -> RateCoded:
    """Put neurons in the places of the clipped activations."""
    place = device_and_dtype(network)
    neuron = {"start": options.start, "strict": options.strict, "step": step}
    relus = modules_of(network, (ClippedReLU,))
    replace_modules(
        network, {name: SoftResetNode(relu.threshold, **neuron).to(**place) for name, relu in relus.items()}
    )
    replace_modules(network, {name: Increment(pool) for name, pool in modules_of(network, _POOLS).items()})
    calls = {name: len(module.calls) for name, module in modules_of(network, (InTurn,)).items()}
    converted = RateCoded(network, step, {**settings, "options": {**vars(options), "calls": calls}})
    if data is not None:
        converted.input_dims = data[0].dim()
    return converted


_PER_STEP, _RMS = (Known("analog"),), (Known("analog", (RmsNorm, nn.RMSNorm)),)

METHOD = Method(
    name="rate",
    paper="Mueller et al., Spiking Transformer Networks, ICSAI 2021",
    options=RateOptions,
    limit=_limit,
    spiking=_spiking,
    knows={
        "relu": (Known("spiking", _RELUS),),
        "clamp": (Known("spiking", (nn.ReLU6,)),),
        "max pooling": (Known("analog", _POOLS),),
        **dict.fromkeys(("softmax", "matrix product of two activations", "fused attention"), _PER_STEP),
        **dict.fromkeys(("layer norm", "rms norm"), _PER_STEP),
        **dict.fromkeys(("power", "rsqrt", "product of two activations"), _RMS),
    },
)
