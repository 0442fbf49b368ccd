"""Names of the classes: kept in the checkpoints of a run, and compared with those of the data that they meet later."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..recipe.groups import DataOptions

__all__ = ["compare_classes", "difference_of_classes"]


def compare_classes(
    content: Mapping[str, Any], path: str | Path, classes: Sequence[str], data: DataOptions, *, refuses: bool,
    say: Callable[[str], object],
) -> None:  # fmt: skip
    """Compare the classes that a checkpoint's classifier learnt with those of the data.

    A file without names, such as any from elsewhere, is passed over; and a classifier of another number of classes,
    about which loading has its own word.

    Args:
        content: of the checkpoint.
        path: its file, for messages.
        classes: names of the data's classes in the order of the labels; none where nothing names them.
        data: where this run's data are from.
        refuses: raise for other classes of the same data set; otherwise `say` names them.
        say: prints a line.

    Raises:
        UserError: for other classes, or another order of them.
    """
    problem = difference_of_classes(content, classes, same_number=True)
    if problem is None:
        return
    theirs = content.get("options")
    origin = ("dataset", "dataset_source")
    same = isinstance(theirs, Mapping) and all(theirs.get(name) == getattr(data, name) for name in origin)
    if refuses and same:
        raise UserError(f"{path}: {problem}; name and sort the classes as there, or its answers mean other ones")
    say(f"{path}: {problem}; its classifier learnt the former")


def difference_of_classes(
    content: Mapping[str, Any], classes: Sequence[str], *, same_number: bool = False
) -> str | None:
    """Say where the classes in a checkpoint differ from those of the data, None where they don't or are unknown.

    Args:
        content: of the checkpoint.
        classes: names of the data's classes in the order of the labels.
        same_number: whether another number of classes passes.
    """
    stored = content.get("classes")
    known = isinstance(stored, (list, tuple)) and all(isinstance(name, str) for name in stored)
    if not known or not stored or not classes or tuple(stored) == tuple(classes):
        return None
    if len(stored) != len(classes):
        return None if same_number else f"it was trained on {len(stored)} classes, and the data have {len(classes)}"
    label = next(label for label, name in enumerate(stored) if name != classes[label])
    order = ", the same classes in another order" if set(stored) == set(classes) else ""
    return f"label {label} was {stored[label][:80]!r} and is {classes[label][:80]!r} in the data{order}"
