"""Everything that a run needs to go on bit for bit, in one dictionary of tensors, numbers and texts."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from timm.scheduler.plateau_lr import PlateauLRScheduler
from timm.scheduler.scheduler import Scheduler

from ..checkpoints.state_dicts import UNRANKED
from ..errors import UserError, quoted, shown
from .distributed import Ranks
from .generators import global_state, set_global_state
from .learner import Learner, Progress
from .state_check import check_optimizer, check_state, hyperparameters

__all__ = ["collect", "difference", "position", "require_run", "restore", "saved_options"]

FORMAT = 1
_PLATEAU = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
_PROGRESS = {"epoch": "epoch", "batch": "batch", "step": "updates", "best": "best", "best_epoch": "best_epoch"}
"""Keys of a state, and the fields of `Progress` that stand there."""


def _schedule_state(scheduler: Scheduler | None) -> dict:
    """Return what a schedule remembers: timm's are functions of the epoch, but for the plateau."""
    if not isinstance(scheduler, PlateauLRScheduler):
        return {}
    inner = {name: getattr(scheduler.lr_scheduler, name) for name in _PLATEAU}
    return {"plateau": inner, "restore_lr": scheduler.restore_lr}


def _restore_schedule(scheduler: Scheduler | None, state: dict) -> None:
    if isinstance(scheduler, PlateauLRScheduler) and state:
        values, rates = {name: state["plateau"][name] for name in _PLATEAU}, state["restore_lr"]
        for value in (*values.values(), *(rates or ())):
            if not isinstance(value, (int, float)):
                raise UserError(f"'scheduler' of the state has {quoted(value, 80)} where a number is usual")
        vars(scheduler.lr_scheduler).update(values)
        scheduler.restore_lr = rates


def _rank_state(learner: Learner, progress: Progress) -> dict:
    own = {name: generator.get_state() for name, generator in learner.generators.items()}
    return {"global": global_state(), "own": own, "sums": progress.sums.cpu()}


def collect(learner: Learner, progress: Progress, ranks: Ranks, *, about: dict[str, Any]) -> dict[str, Any]:
    """Gather the state of a run; every rank must call this, and gets the same dictionary.

    Args:
        learner: what learns.
        progress: how far the run has come.
        ranks: the processes of the run.
        about: numbers and texts that say what the run is: version, model, options.
    """
    return {
        "format": FORMAT,
        **about,
        "state_dict": learner.network.state_dict(),
        _place_of_average(about): None if learner.ema is None else learner.ema.module.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "scheduler": _schedule_state(learner.scheduler),
        "scaler": learner.precision.scaler.state_dict(),
        **{key: getattr(progress, name) for key, name in _PROGRESS.items()},
        "rows": deepcopy(progress.rows),
        "ranks": ranks.gather(_rank_state(learner, progress)),
    }


def position(state: dict[str, Any]) -> tuple[int, int]:
    """Return (epoch, batch) of a state, by which states of a run are ordered."""
    return state["epoch"], state["batch"]


def _place_of_average(about: Mapping[str, Any]) -> str:
    """Return where an average is kept: one that was never evaluated lies apart, so that nobody reads it unasked."""
    return UNRANKED if about.get("options", {}).get("model_ema_force_cpu") else "state_dict_ema"


def require_run(state: Mapping[str, Any]) -> None:
    """Raise `UserError` for a state that training has not written."""
    missing = {"format", "state_dict", "optimizer", "ranks", "rows", "batch"} - state.keys()
    if missing or type(state["format"]) is not int or state["format"] != FORMAT:
        raise UserError(
            "--resume needs a checkpoint that training wrote; this one holds weights alone or comes from elsewhere "
            "(use --initial-checkpoint to start from its weights)."
        )
    check_state(state)


@contextmanager
def _naming(path: str | os.PathLike) -> Iterator[None]:
    """Put the name of a file, if there is one, in front of what is wrong with its state."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{shown(path)}: {error}" if str(path) else str(error)) from error


def saved_options(
    state: Mapping[str, Any], defaults: Mapping[str, Any], *, path: str | os.PathLike = ""
) -> dict[str, Any]:
    """Return the options of the run that a state belongs to; what its version did not know has its default.

    Args:
        state: of `collect`.
        defaults: options by name.
        path: the file that the state is from, for messages.

    Raises:
        UserError: for a state that training has not written.
    """
    with _naming(path):
        require_run(state)
    return {**defaults, **state.get("options", {})}


def restore(
    state: dict[str, Any], learner: Learner, progress: Progress, ranks: Ranks, *, path: str | os.PathLike = ""
) -> None:
    """Put learner, progress and all generators where `collect` found them.

    Args:
        state: of `collect`.
        learner: what learns.
        progress: how far the run has come.
        ranks: the processes of the run.
        path: the file that the state is from, for messages.

    Raises:
        UserError: for a state of another number of processes, or without what the run needs, or in which a part is not
            what training writes there.
    """
    with _naming(path):
        require_run(state)
        if len(state["ranks"]) != ranks.world_size:
            raise UserError(
                f"--resume: the run had {len(state['ranks'])} processes and this one has {ranks.world_size}; "
                "start as many, or use --no-resume-opt."
            )
        try:
            _take_over(state, learner, progress, ranks)
        except UserError:
            raise
        except Exception as error:  # whatever PyTorch and the generators make of a changed file
            raise UserError(
                f"the state does not fit this run ({type(error).__name__}: {shown(error, 200)}); it was changed, or "
                "written by another version"
            ) from error


def _take_over(state: dict[str, Any], learner: Learner, progress: Progress, ranks: Ranks) -> None:
    learner.network.load_state_dict(state["state_dict"])
    if learner.ema is not None:
        average = state.get("state_dict_ema") or state.get(UNRANKED)
        if average is None:
            raise UserError("the state holds no moving average, which this run keeps (--model-ema)")
        learner.ema.module.load_state_dict(average)
    usual = hyperparameters(learner.optimizer)
    learner.optimizer.load_state_dict(state["optimizer"])
    check_optimizer(learner.optimizer, usual)
    _require_memory(state, learner)
    _restore_schedule(learner.scheduler, state["scheduler"])
    if state["scaler"]:
        learner.precision.scaler.load_state_dict(state["scaler"])
    for key, name in _PROGRESS.items():
        setattr(progress, name, state[key])
    progress.rows[:] = deepcopy(state["rows"])
    mine = state["ranks"][ranks.rank]
    if mine["sums"].shape != progress.sums.shape or mine["sums"].dtype != progress.sums.dtype:
        raise UserError("'ranks' of the state holds no sums of this epoch")
    progress.sums = mine["sums"].to(progress.sums.device)
    for name, generator in learner.generators.items():
        generator.set_state(mine["own"][name])
    set_global_state(mine["global"])


def _require_memory(state: Mapping[str, Any], learner: Learner) -> None:
    """Refuse an optimizer that has forgotten its steps; in float16 (a scaler) all of them may have been skipped."""
    name, group = type(learner.optimizer).__name__, learner.optimizer.param_groups[0]
    keeps_nothing = "sgd" in name.lower() and not group.get("momentum")
    if state["step"] and not (state["optimizer"]["state"] or state["scaler"] or keeps_nothing):
        raise UserError(
            f"'optimizer' of the state holds no memory after {state['step']} steps of {name}; --no-resume-opt starts "
            "anew from the weights"
        )


def difference(before: dict[str, Any], now: dict[str, Any], *, free: frozenset[str]) -> str | None:
    """Name the options that differ between two runs and would change what is computed.

    Args:
        before: options of the saved run, by name.
        now: options of this run, by name.
        free: names of options that change nothing in what is computed.

    Returns:
        One line, or None where nothing differs.
    """
    names = sorted((before.keys() | now.keys()) - free)
    changed = [name for name in names if _as_list(before.get(name)) != _as_list(now.get(name))]
    if not changed:
        return None
    lines = [
        f"--{shown(name.replace('_', '-'), 60)} was {shown(before.get(name), 80)}, now {shown(now.get(name), 80)}"
        for name in changed[:5]
    ]
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    return "; ".join(lines) + more


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
