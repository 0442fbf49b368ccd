"""Thresholds of STA, from what the limit's ReLUs put out on calibration data.

Source: Jiang et al., Spatio-Temporal Approximation (ICLR 2024); official code, `DataSaverHook`, `find_threshold_mse`.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import UserError
from .operators import GroupOperator

__all__ = ["Rule", "calibrate"]


@dataclass(frozen=True)
class Rule:
    """How thresholds follow from activations.

    Args:
        step: T.
        threshold: "mse", "max" or a quantile.
        per_neuron: one for each neuron, else for each layer.
        momentum: share that a further batch leaves as it was.
    """

    step: int
    threshold: str | float
    per_neuron: bool
    momentum: float


def calibrate(network: nn.Module, sites: Iterable[str], rule: Rule, batches: list[Tensor]) -> dict[str, Tensor]:
    """Return the threshold of each site after all batches, which update it one after the other.

    Args:
        network: the limit.
        sites: paths of its ReLUs that become neurons.
        rule: how.
        batches: inputs.

    Raises:
        UserError: if a value is not finite, or the thresholds of one batch don't fit the next.
    """
    thresholds: dict[str, Tensor] = {}

    def hook(site: str) -> Callable[..., None]:
        def update(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            (x,) = inputs
            if not torch.isfinite(x).all():
                raise UserError(
                    f"sta: values that are not finite reach {site} on the data; check the weights, and prepare the "
                    "source with data"
                )
            before, momentum = thresholds.get(site), rule.momentum
            found = (
                _of_operator(module, x, rule)
                if isinstance(module, GroupOperator)
                else _of_neurons(x.relu().flatten(0, -3 if site.endswith("weight_node") else 0), rule)
            )
            if before is not None and before.shape != found.shape:
                raise UserError(
                    "sta: the data hold inputs of several sizes, and each token has thresholds of its own; give data "
                    "of one size, or per_neuron=False"
                )
            thresholds[site] = found if before is None else momentum * before + (1 - momentum) * found

        return update

    owners = {site: network.get_submodule(site.removesuffix(".approximator.1")) for site in sites}
    hooks = [owner.register_forward_pre_hook(hook(site)) for site, owner in owners.items()]
    try:
        for x in tqdm(batches, desc="calibration", unit="batch", disable=None, leave=False):
            network(x)
    finally:
        for hooked in hooks:
            hooked.remove()
    return thresholds


def _of_operator(operator: GroupOperator, x: Tensor, rule: Rule) -> Tensor:
    """Return the thresholds of an operator's hidden units for its inputs: tokens `(B, N)`, or `(B, N, C)`."""
    if x.dim() < 3 or not rule.per_neuron:
        return _of_neurons(operator.units(x), rule)
    size = max(1, _AT_ONCE // (x[..., 0].numel() * operator.hidden))
    return torch.cat([_of_neurons(operator.units(part), rule) for part in x.split(size, dim=-1)], dim=2)


def _of_neurons(x: Tensor, rule: Rule) -> Tensor:
    """Return the thresholds for activations `(A, B, ...)`: of each neuron `(1, 1, ...)`, or one."""
    samples = x.flatten(0, 1).flatten(1) if rule.per_neuron else x.flatten().unsqueeze(1)
    if rule.threshold == "mse":
        found = _least_loss(samples, rule.step, finest=0.005 if rule.per_neuron else 0.01)
    else:
        found = _quantile(samples, 1.0 if rule.threshold == "max" else rule.threshold)
    return found.reshape(1, 1, *x.shape[2:]) if rule.per_neuron else found[0]


_AT_ONCE = 1 << 18
"""Activations that bounds are searched for at once: as many as fit the processor's cache."""


def _least_loss(samples: Tensor, step: int, finest: float) -> Tensor:
    """Return for each column of `(S, K)` the bound of the floor quantiser with T levels that loses least.

    Candidates are the maximum, and 94 smaller bounds at distances of the share `finest` of it. No sample is below 0.
    """
    found = samples.amax(0)
    (alive,) = found.nonzero(as_tuple=True)
    for columns in alive.split(max(1, _AT_ONCE // len(samples))):
        part, largest = samples[:, columns], found[columns]
        best, least = largest, torch.full_like(largest, torch.inf)
        for i in range(95):
            bound = largest * (1.0 - i * finest)
            quantised = (part / bound).mul_(step).clamp_(max=step).floor_().mul_(bound / step)
            loss = quantised.sub_(part).square_().sum(0)
            better = loss < least
            best, least = torch.where(better, bound, best), torch.where(better, loss, least)
        found[columns] = best
    return found


def _quantile(samples: Tensor, share: float) -> Tensor:
    """Return the quantile of each column, between two samples a weighted mean; `torch.quantile` refuses large ones."""
    place = share * (len(samples) - 1)
    low = math.floor(place)
    below, above = (samples.kthvalue(rank + 1, dim=0).values for rank in (low, min(low + 1, len(samples) - 1)))
    return below + (above - below) * (place - low)
