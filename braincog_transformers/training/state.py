"""Everything that a run needs to go on bit for bit, in one dictionary of tensors and plain types."""

from copy import deepcopy
from typing import Any

from timm.scheduler.plateau_lr import PlateauLRScheduler
from timm.scheduler.scheduler import Scheduler

from ..errors import UserError
from .distributed import Ranks
from .generators import global_state, set_global_state
from .learner import Learner, Progress

__all__ = ["collect", "difference", "position", "restore"]

FORMAT = 1


def _schedule_state(scheduler: Scheduler | None) -> dict:
    """Return what a schedule remembers: timm's are functions of the epoch, but for the plateau."""
    if not isinstance(scheduler, PlateauLRScheduler):
        return {}
    kept = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
    inner = {name: getattr(scheduler.lr_scheduler, name) for name in kept}
    return {"plateau": inner, "restore_lr": scheduler.restore_lr}


def _restore_schedule(scheduler: Scheduler | None, state: dict) -> None:
    if isinstance(scheduler, PlateauLRScheduler) and state:
        for name, value in state["plateau"].items():
            setattr(scheduler.lr_scheduler, name, value)
        scheduler.restore_lr = state["restore_lr"]


def _rank_state(learner: Learner, progress: Progress) -> dict:
    own = {name: generator.get_state() for name, generator in learner.generators.items()}
    return {"global": global_state(), "own": own, "sums": progress.sums.cpu()}


def collect(learner: Learner, progress: Progress, ranks: Ranks, *, about: dict[str, Any]) -> dict[str, Any]:
    """Gather the state of a run; every rank must call this, and gets the same dictionary.

    Args:
        learner: what learns.
        progress: how far the run has come.
        ranks: the processes of the run.
        about: plain values that say what the run is: version, model, options.
    """
    return {
        "format": FORMAT,
        **about,
        "state_dict": learner.network.state_dict(),
        "state_dict_ema": None if learner.ema is None else learner.ema.module.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "scheduler": _schedule_state(learner.scheduler),
        "scaler": learner.precision.state_dict(),
        "epoch": progress.epoch,
        "batch": progress.batch,
        "step": progress.step,
        "rows": deepcopy(progress.rows),
        "best": progress.best,
        "best_epoch": progress.best_epoch,
        "ranks": ranks.gather(_rank_state(learner, progress)),
    }


def position(state: dict[str, Any]) -> tuple[int, int]:
    """Return (epoch, batch) of a state, by which states of a run are ordered."""
    return state["epoch"], state["batch"]


def restore(state: dict[str, Any], learner: Learner, progress: Progress, ranks: Ranks) -> None:
    """Put learner, progress and all generators where `collect` found them.

    Raises:
        UserError: for a state of another number of processes, or without what the run needs.
    """
    missing = {"format", "state_dict", "optimizer", "ranks", "rows", "batch"} - state.keys()
    if missing or state["format"] != FORMAT:
        raise UserError(
            "--resume needs a checkpoint that training wrote; this one holds weights alone or comes from elsewhere "
            "(use --initial-checkpoint to start from its weights)."
        )
    if len(state["ranks"]) != ranks.world_size:
        raise UserError(
            f"--resume: the run had {len(state['ranks'])} processes and this one has {ranks.world_size}; "
            "start as many, or use --no-resume-opt."
        )
    learner.network.load_state_dict(state["state_dict"])
    if learner.ema is not None:
        learner.ema.module.load_state_dict(state["state_dict_ema"])
    learner.optimizer.load_state_dict(state["optimizer"])
    _restore_schedule(learner.scheduler, state["scheduler"])
    learner.precision.load_state_dict(state["scaler"])
    for name in ("epoch", "batch", "step", "best", "best_epoch"):
        setattr(progress, name, state[name])
    progress.rows[:] = deepcopy(state["rows"])
    mine = state["ranks"][ranks.rank]
    progress.sums = mine["sums"].to(progress.sums.device)
    for name, generator in learner.generators.items():
        generator.set_state(mine["own"][name])
    set_global_state(mine["global"])


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
    changed = [name for name in names if _plain(before.get(name)) != _plain(now.get(name))]
    if not changed:
        return None
    told = [f"--{name.replace('_', '-')} was {before.get(name)}, now {now.get(name)}" for name in changed[:5]]
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    return "; ".join(told) + more


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
