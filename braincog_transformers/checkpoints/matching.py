"""Find the registered network that a checkpoint belongs to, from nothing but the names and shapes of its weights."""

import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import timm
import torch
from torch import Tensor

from ..errors import UserError, shown
from ..models.masked import encoder_weights
from ..models.registry import REGISTERED, Entry
from ..models.task_networks import TASK_NETWORKS
from .files import read_checkpoint
from .loading import class_count, convert_official, describe_foreign, fit_tables, misfits
from .state_dicts import find_weights, without_prefix

__all__ = ["Fit", "identify"]

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Fit:
    """How a registered name compares with a checkpoint.

    Args:
        name: registry name.
        differences: one text for each tensor that is missing, unexpected or of another shape; empty if all fit.
        num_classes: classes of the checkpoint's classifier, where they are not the variant's own.
        foreign: missing and unexpected names that the other side has in no block: they tell another family, where more
            blocks or other shapes tell another size.
    """

    name: str
    differences: tuple[str, ...]
    num_classes: int | None = None
    foreign: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        classes = f" with num_classes={self.num_classes}" if self.num_classes is not None else ""
        if not self.differences:
            return f"fits {self.name}{classes}"
        head = f"fits none; the nearest is {self.name}{classes}, with {len(self.differences)} differences:"
        return "\n  ".join([head, *self.differences])


def _compare(name: str, entry: Entry, state: Mapping[str, Tensor]) -> Fit:
    """Compare a state dict with one registered network, built without memory for the checkpoint's classes; that of a
    masked pre-training with the encoder that it has."""
    masking = getattr(entry.cls, "masking", None)
    encoder = encoder_weights(state) if masking else None
    with torch.device("meta"):
        model = timm.create_model(name, **({} if encoder is None else masking.arguments))
        own_classes = getattr(model, "num_classes", 0)
        try:
            converted, _ = fit_tables(model, convert_official(state if encoder is None else encoder, model))
        except UserError as error:  # as where two names of another family stand for one here
            return Fit(name, (str(error),), foreign=len(state))
        classes = own_classes
        if hasattr(model, "reset_classifier"):
            classes = class_count(converted) or (own_classes if encoder is None else 0)
            model.reset_classifier(classes)
    found = misfits(model, converted)
    differences = tuple(f"{kind} {shown(key, 200)}" for kind, keys in found.items() for key in sorted(keys))
    own, theirs = ({_NUMBER.sub("", name) for name in names} for names in (model.state_dict(), converted))
    foreign = sum(_NUMBER.sub("", name) not in theirs for name in found["missing"])
    foreign += sum(_NUMBER.sub("", name) not in own for name in found["unexpected"])
    return Fit(name, differences, classes if classes != own_classes else None, foreign)


def identify(
    checkpoint: str | pathlib.Path | Mapping[str, Tensor], *, further: Mapping[str, Entry] | None = None
) -> list[Fit]:
    """Find the networks, of the zoo or of a task, whose weights a checkpoint has, official or our own.

    Number of heads, thresholds, time constants and the order of pooling and neuron leave no trace in weights: several
    names may fit. Networks with equal layers (Spikingformer and its CML form) fit the same files.

    Args:
        checkpoint: a file, see `checkpoints.read_checkpoint`, or tensors by name.
        further: other registered networks by name, as those that a method of conversion is for.

    Returns:
        Every name that fits; or else the nearest one alone, with each difference.

    Raises:
        UserError: see `read_checkpoint`; or if hardly a tensor has a name that any network knows.
    """
    try:
        state = checkpoint if isinstance(checkpoint, Mapping) else find_weights(read_checkpoint(checkpoint)).state
        # without a wrapper, the first parts of the names differ in every network here
        state = without_prefix(state, lambda inner: len({name.partition(".")[0] for name in inner}) > 1)[1]
        return _identify(state, further or {})
    except UserError as error:
        if isinstance(checkpoint, Mapping) or shown(checkpoint) in str(error):
            raise
        raise UserError(f"{shown(checkpoint)}: {error}") from error


def _identify(state: Mapping[str, Tensor], further: Mapping[str, Entry]) -> list[Fit]:
    if foreign := describe_foreign(state):
        raise UserError(f"the checkpoint is {foreign}")
    entries = {name: entry for name, entry in REGISTERED.items() if not entry.alias_of}
    entries |= {name: one.entry for name, one in TASK_NETWORKS.items()} | further
    fits = [_compare(name, entry, state) for name, entry in entries.items()]
    exact = sorted(
        (fit for fit in fits if not fit.differences), key=lambda fit: (fit.num_classes is not None, fit.name)
    )
    if exact:
        return exact
    nearest = min(fits, key=lambda fit: (fit.foreign, len(fit.differences)))
    unknown = sum(difference.startswith("unexpected") for difference in nearest.differences)
    if 2 * unknown > len(state):
        raise UserError(
            f"the checkpoint is of no network of this package: {unknown} of its {len(state)} names are unknown"
        )
    return [nearest]
