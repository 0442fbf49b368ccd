"""Networks of papers for tasks other than classification: registered with timm, beside the zoo of classifiers."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import UserError
from .registry import Entry, Paper, Variant, enter

__all__ = ["TASK_NETWORKS", "TaskNetwork", "register_for"]


@dataclass(frozen=True)
class TaskNetwork:
    """One registered name.

    Args:
        task: what it is for, as `--task` names it.
        paper: where it is from.
        entry: its class, arguments and configurations.
    """

    task: str
    paper: Paper
    entry: Entry


TASK_NETWORKS: dict[str, TaskNetwork] = {}
"""Every such name, in the order of registration."""


def register_for(task: str, cls: type, paper: Paper, variants: Mapping[str, Variant], *, first_conv: str) -> None:
    """Register variants of a network with timm and in `TASK_NETWORKS`.

    Args:
        task: what they are for: track, depth or pose.
        cls: the network.
        paper: where it is from.
        variants, first_conv: see `models.registry.enter`. A configuration may be `registry.cfg` with 0 classes.

    Raises:
        UserError: for a name that another network has.
    """
    for name in variants:
        if name in TASK_NETWORKS and TASK_NETWORKS[name].entry.cls.__module__ != cls.__module__:
            raise UserError(f"{name}: {TASK_NETWORKS[name].entry.cls.__name__} has this name; choose another")
    entries = enter(cls, variants, first_conv=first_conv)
    TASK_NETWORKS.update({name: TaskNetwork(task, paper, entry) for name, entry in entries.items()})
