"""LSQ: quantisers that learn their scale.

With the scale s and the bounds low and high, whole numbers,

    n = floor(x / s + 1/2),  y = clip(n, low, high) s

The gradient goes straight through the rounding. With g = 1 / sqrt(high N) for the N numbers of x,

    low <= n <= high:  dy/dx = 1,  dy/ds = g (n - x / s)
    otherwise:         dy/dx = 0,  dy/ds = g clip(n, low, high)

The scale is |s| of the parameter, since a step of training may take it below 0, where it would mean nothing.

A quantiser begins with s = 2 mean|x| / sqrt(high) of the first x that it sees in training, or of calibration data.

Source: Esser et al., Learned Step Size Quantization (ICLR 2020, arXiv 1902.08153), equations 1 to 3 and section 2; the
rounding and the bounds are those of the code of SpikeZIP-TF (You et al., ICML 2024), `MyQuan`.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from tqdm import tqdm

from ..errors import UserError
from ..ops.neuron import membrane_dtype

__all__ = ["QuantisedConv2d", "QuantisedLinear", "Quantiser", "calibrate", "quantise_weight", "refuse_other_levels"]


class _Quantise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.bounds = low, high
        n = (x.to(membrane_dtype(x.dtype)) / scale + 0.5).floor()
        return (n.clamp(low, high) * scale).to(x.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (x, scale), (low, high) = ctx.saved_tensors, ctx.bounds
        u = x.to(membrane_dtype(x.dtype)) / scale
        n = (u + 0.5).floor()
        inside = (n >= low) & (n <= high)
        slope = torch.where(inside, n - u, n.clamp(low, high))
        return grad * inside, (grad * slope).sum() / (high * x.numel()) ** 0.5, None, None


class Quantiser(nn.Module):
    """A quantiser with one scale for all of its input, see the module's docstring.

    The scale has no axes, so timm's optimizers let it not decay. A state dict holds the number of levels and whether
    the scale is initialised, too: training that is resumed goes on with the scale. One without these is official, and
    its scale is taken for initialised.

    Args:
        levels: L, at least 4.
        signed: bounds of floor(-L/2) and floor(L/2) - 1; without it, of 0 and L - 1.
        device, dtype: of the scale.

    Raises:
        UserError: when it is called in evaluation before its scale is initialised.
    """

    def __init__(
        self, levels: int, *, signed: bool, device: torch.device | None = None, dtype: torch.dtype | None = None
    ):
        super().__init__()
        self.low, self.high = (-levels // 2, levels // 2 - 1) if signed else (0, levels - 1)
        self.s = nn.Parameter(torch.ones((), device=device, dtype=dtype))
        self.register_buffer("levels", torch.tensor(levels, device=device))
        self.register_buffer("initialised", torch.tensor(False, device=device))
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether the scale is initialised; the device is asked until it is."""
        self._ready = self._ready or bool(self.initialised)
        return self._ready

    @torch.no_grad()
    def start(self, mean: Tensor) -> None:
        """Set the scale from the mean of |x|; it stays 1 where that is 0, which tells nothing."""
        self.s.copy_(torch.where(mean > 0, 2 * mean / self.high**0.5, 1.0))
        self.initialised.fill_(True)

    @property
    def scale(self) -> Tensor:
        """The scale, above 0."""
        return self.s.abs().clamp(min=torch.finfo(self.s.dtype).tiny)

    def forward(self, x: Tensor) -> Tensor:
        """Quantise a tensor of any shape."""
        if not self.ready:
            if not self.training:
                raise UserError(
                    "conversion: the scales of the quantised network are not initialised; give prepare() data, train "
                    "the network, or load its weights"
                )
            mean = x.detach().abs().mean(dtype=membrane_dtype(x.dtype))
            if distributed.is_available() and distributed.is_initialized():  # the same scale in every process
                distributed.all_reduce(mean)
                mean /= distributed.get_world_size()
            self.start(mean)
        return _Quantise.apply(x, self.scale, self.low, self.high)

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._ready = False
        if f"{prefix}s" in state_dict and f"{prefix}initialised" not in state_dict:
            if not (given := state_dict[f"{prefix}s"]) > 0:  # official code divides by it as it is
                raise UserError(f"{prefix}s is {float(given):.3g}; the scale of a quantiser is above 0")
            self.initialised.fill_(True)

    def extra_repr(self) -> str:
        return f"low={self.low}, high={self.high}"


class QuantisedLinear(nn.Linear):
    """A linear layer with quantised weights; `quantise_weight` makes one."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight_quantiser(self.weight), self.bias)


class QuantisedConv2d(nn.Conv2d):
    """A convolution with quantised weights; `quantise_weight` makes one."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight_quantiser(self.weight), self.bias)


def quantise_weight(layer: nn.Linear | nn.Conv2d, bits: int) -> None:
    """Let a layer quantise its weights to so many bits, signed. It stays the same object, with the same parameters."""
    layer.weight_quantiser = Quantiser(2**bits, signed=True, device=layer.weight.device, dtype=layer.weight.dtype)
    layer.__class__ = QuantisedLinear if isinstance(layer, nn.Linear) else QuantisedConv2d


@torch.no_grad()
def calibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Initialise all quantisers of a network on calibration data, and leave it in evaluation mode.

    After the first batch the scales are those that a first training step on it would begin with, without dropout. Each
    further one refines the mean of |x|.
    """
    seen: dict[nn.Module, tuple[Tensor, int]] = {}

    def observe(quantiser: nn.Module, inputs: tuple[Tensor]) -> None:
        (x,) = inputs
        total, count = seen.get(quantiser, (0, 0))
        seen[quantiser] = total + x.abs().sum(dtype=membrane_dtype(x.dtype)), count + x.numel()
        quantiser.start(seen[quantiser][0] / seen[quantiser][1])

    hooks = [m.register_forward_pre_hook(observe) for m in network.modules() if isinstance(m, Quantiser)]
    network.eval()
    try:
        for x in tqdm(batches, desc="calibration", unit="batch", disable=None, leave=False):
            network(x)
    finally:
        for hook in hooks:
            hook.remove()


def refuse_other_levels(network: nn.Module, state: Mapping[str, Tensor], prefix: str) -> None:
    """Raise `UserError` if weights were trained with quantisers of other levels than a network has.

    Args:
        network: one whose modules have `levels`.
        state: tensors by name.
        prefix: of the network's names in them.
    """
    for name, own in network.named_buffers():
        theirs = state.get(prefix + name, own)
        if name.rpartition(".")[2] == "levels" and not torch.equal(theirs.to(own), own):
            raise UserError(
                f"the weights were trained with {int(theirs)} levels, {prefix + name} has {int(own)}; prepare the "
                f"source with the options that they were trained with"
            )
