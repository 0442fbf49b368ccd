"""The surrogate modules of BrainCog that a node holds: what is built, what it fires with, what may take its place."""

from collections.abc import Callable

import torch
from braincog.base.strategy import surrogate as braincog_surrogate
from torch import Tensor, nn

from ..errors import UserError, shown, unknown
from ..ops.surrogate import SURROGATES
from ..runtime.watching import is_hooked

__all__ = ["build_surrogate", "fires_above", "is_known", "own_fire"]

_CALLED = ("forward", "act_fun", "_call_impl", "_wrapped_call_impl")
"""Methods that a call of a surrogate runs. They are named, since PyTorch 2.6 can't trace a loop over `__dict__`."""


def build_surrogate(act_fun: str | type, alpha: float, requires_grad: bool = False) -> nn.Module:
    """Build BrainCog's surrogate module; its `alpha` is where the node reads the steepness from."""
    if isinstance(act_fun, str):
        cls = getattr(braincog_surrogate, act_fun, None)
        known = [name for name in vars(braincog_surrogate) if name.endswith("Grad")]
        if act_fun not in known:
            raise unknown("surrogate gradient (act_fun)", act_fun, known)
    elif isinstance(act_fun, type):
        cls = act_fun
    else:
        raise UserError(f"act_fun must be a class of BrainCog's surrogates or its name; got {shown(act_fun)}")
    if cls.__name__ == "RoundGrad":
        raise UserError("act_fun RoundGrad does not give 0/1 spikes; choose from " + ", ".join(SURROGATES))
    return cls(alpha=alpha, requires_grad=requires_grad)


def fires_above(act_fun: nn.Module) -> bool:
    """Tell whether BrainCog's form of a surrogate fires above the threshold only, not at it."""
    return type(act_fun).__name__ in ("AtanGrad", "GateGrad", "QGateGrad")


def is_known(act_fun: nn.Module) -> bool:
    """Tell whether a surrogate is BrainCog's own class, of which there is a form in `ops.surrogate`."""
    cls = type(act_fun)
    return cls.__name__ in SURROGATES and cls is getattr(braincog_surrogate, cls.__name__)


def own_fire(act_fun: nn.Module, strict: bool) -> Callable[[Tensor], Tensor] | None:
    """Return the spike function of a surrogate module, or None where the form in `ops.surrogate` may take its place.

    That it may not where there is none, where somebody watches or replaced the module, or where its steepness learns or
    is no scalar. A known one fires at the threshold or not as `strict` says, all the same.
    """
    if not is_known(act_fun):
        return act_fun
    learns = type(act_fun).__name__ == "AtanGrad" and act_fun.alpha.requires_grad  # the others give alpha no gradient
    replaced = any(name in act_fun.__dict__ for name in _CALLED)
    if act_fun.alpha.dim() == 0 and not (learns or is_hooked(act_fun) or replaced):
        return None
    if strict == fires_above(act_fun):
        return act_fun
    tiny = torch.finfo(torch.float32).tiny
    return lambda over: act_fun(over + (over == 0) * (-tiny if strict else tiny))
