"""Check that what a file holds is the state of a run, before anything of it is used."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from ..checkpoints.state_dicts import UNRANKED, refuse_broken, refuse_odd
from ..errors import UserError, quoted, shown

__all__ = ["check_optimizer", "check_state", "hyperparameters"]

_WORDS = 624
"""Words of the Mersenne twister's state: NumPy reads beyond them where the position says so."""
_COLUMNS = {"epoch", "train_loss", "lr"}
_OF_CLASSES = ("test_loss", "train_top1", "test_top1")
"""What each row of a run has; those of classifiers and of masked pre-training have more."""


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def _setting(value: Any) -> bool:
    """Return whether a value is what an option can be."""
    return value is None or type(value) in (bool, int, float, str) or (
        isinstance(value, (list, tuple)) and all(type(one) in (int, float, str) for one in value)
    )  # fmt: skip


def _texts_to(of: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(type(key) is str and of(one) for key, one in value.items())


def _list_of(of: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (list, tuple)) and all(map(of, value))


def _or_none(of: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or of(value)


def _weights(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(one, Tensor) for one in value.values())


def _row(value: Any) -> bool:
    return _texts_to(_number)(value) and value.keys() >= _COLUMNS and _whole(value["epoch"])


def _parts(**kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(isinstance(value.get(part), kinds[part]) for part in kinds)


_KINDS: dict[str, Callable[[Any], bool]] = {
    "epoch": _whole,
    "batch": _whole,
    "step": _whole,
    "rows": _list_of(_row),
    "best": _or_none(_number),
    "best_epoch": _or_none(_whole),
    "state_dict": _weights,
    "optimizer": _parts(state=dict, param_groups=list),
    "scheduler": _parts(),
    "scaler": _texts_to(_number),
    "ranks": _list_of(_parts(own=dict, sums=Tensor, **{"global": dict})),
}
# absent from states of other versions
_OPTIONAL: dict[str, Callable[[Any], bool]] = {
    "state_dict_ema": _or_none(_weights),
    UNRANKED: _or_none(_weights),
    "options": _texts_to(_setting),
}


def check_state(state: Mapping[Any, Any]) -> None:
    """Raise `UserError` that names the first part of a state that is not what training writes there."""
    for name, kind in (_KINDS | _OPTIONAL).items():
        if name not in state:
            if name in _OPTIONAL:
                continue
            raise UserError(f"the state has no {name!r}; it was changed or comes from elsewhere")
        if not kind(state[name]):
            raise _unwritten(state, name)
    asked = state.get("options", {})
    columns = () if asked.get("task") else ("test_loss",) if asked.get("pretrain") else _OF_CLASSES
    if not all(row.keys() >= {*columns} for row in state["rows"]):
        raise _unwritten(state, "rows")
    for name in ("state_dict", "state_dict_ema", UNRANKED):
        weights = state.get(name) or {}
        refuse_odd(weights)
        refuse_broken(weights)
    if (state["best"] is None) != (state["best_epoch"] is None):
        raise UserError("the state has one of 'best' and 'best_epoch' without the other")
    for rank in state["ranks"]:
        _check_generator(rank["global"].get("numpy"))


def _unwritten(state: Mapping[Any, Any], name: str) -> UserError:
    return UserError(f"{name!r} of the state is not what training writes there: {quoted(state[name], 120)}")


def _check_generator(numpy: Any) -> None:
    """Refuse a state of NumPy's generator whose position lies beyond its words."""
    sound = _parts(keys=Tensor, position=int)(numpy) and numpy["keys"].shape == (_WORDS,)
    if not sound or not 0 <= numpy["position"] <= _WORDS:
        raise UserError("'ranks' of the state holds no state of NumPy's random numbers")


def hyperparameters(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return what an optimizer's groups hold beside parameters."""
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def check_optimizer(optimizer: Optimizer, before: list[dict[str, Any]]) -> None:
    """Raise `UserError` where an optimizer has taken over from a file what it can't compute with.

    Args:
        optimizer: after `load_state_dict`.
        before: its `hyperparameters` before that.
    """
    for own, group in zip(before, optimizer.param_groups, strict=True):
        for name, value in own.items():
            if name not in group or not _alike(value, group[name], moves=name.endswith(("lr", "step"))):
                got = quoted(group[name], 80) if name in group else "nothing"
                raise UserError(f"'optimizer' of the state has {got} for {shown(name, 60)}, where {value!r} is usual")
        kinds: dict[tuple[bool, bool], dict] = {}
        for parameter in group["params"]:
            entries = optimizer.state.get(parameter, {})
            if not isinstance(entries, dict):
                raise UserError(f"'optimizer' of the state has {quoted(entries, 80)} for a weight")
            if odd := next(_odd_entries(entries, parameter), ""):
                raise UserError(f"'optimizer' of the state does not fit the weights: {shown(odd, 100)}")
            found = {name: _kind(value, parameter) for name, value in entries.items()}
            # matrices and vectors may be treated differently, two matrices are not
            sort = parameter.dim() > 1, parameter.numel() == 1
            if found and kinds.setdefault(sort, found) != found:
                raise UserError("'optimizer' of the state remembers different things about different weights")


def _kind(value: Any, parameter: Tensor) -> tuple:
    """Describe what an optimizer remembers about a weight, alike for all weights."""
    if isinstance(value, Tensor):
        alone = value.numel() == 1  # a number, or a vector of one: a weight may be either
        return value.dtype, value.shape == parameter.shape or (alone and parameter.numel() == 1), alone
    return (type(value),)


def _alike(usual: Any, value: Any, *, moves: bool = False) -> bool:
    """Return whether a hyperparameter of a file is of the usual kind, and in its range; rates and counts move."""
    if usual is None or isinstance(usual, (bool, str)):
        return type(value) is type(usual) and value == usual
    if isinstance(usual, (list, tuple)):
        return isinstance(value, (list, tuple)) and len(usual) == len(value) and all(map(_alike, usual, value))
    if _number(usual):
        end = 1 if not moves and 0 <= usual < 1 else float("inf")
        return _number(value) and (0 if usual >= 0 else -end) <= value < end
    return type(value) is type(usual)


def _odd_entries(entries: Mapping[Any, Any], parameter: Tensor) -> Iterator[str]:
    """Yield what an optimizer remembers about a weight in another shape, or in no usual numbers."""
    sides = {*parameter.shape, 1}
    for name, value in entries.items():
        if isinstance(value, Tensor):
            try:
                refuse_odd({str(name): value})
            except UserError as error:
                yield str(error)
                continue
            if not (value.shape == parameter.shape or set(value.shape) <= sides or value.numel() == 1):
                yield f"{name} {tuple(value.shape)} for {tuple(parameter.shape)}"
            elif value.dim() == 0 != parameter.dim() and not 0 <= value.item() < float("inf"):
                yield f"{name} is {value.item()}"
        elif not (value is None or (type(value) in (bool, int, float) and 0 <= value < float("inf"))):
            yield f"{name} is {quoted(value, 40)}"
