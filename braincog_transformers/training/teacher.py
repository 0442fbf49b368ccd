"""The teacher of a distillation: a network of timm's that is looked at and never changed."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from timm.models import PretrainedCfg
from torch import nn

from ..checkpoints import read_checkpoint, weights_of
from ..errors import UserError, shown
from ..models.timm_networks import find_timm
from ..recipe.groups import TrainOptions

__all__ = ["build_teacher", "find_teacher"]


def find_teacher(name: str) -> tuple[Callable[..., nn.Module], PretrainedCfg]:
    """Find a network of timm's own, see `find_timm`."""
    return find_timm(name, "--teacher")


def _create(name: str, *, published: bool, size: tuple[int, int], in_chans: int, num_classes: int) -> nn.Module:
    entry, config = find_teacher(name)
    asked: dict[str, Any] = {"pretrained_cfg": config}
    if config.fixed_input_size:
        asked["img_size"] = size
    if not published:
        return entry(**asked, in_chans=in_chans, num_classes=num_classes)
    if not config.has_weights:
        raise UserError(f"--teacher {name}: timm has no weights for it; give a file with --teacher-checkpoint.")
    if (config.input_size[0], config.num_classes) != (in_chans, num_classes):
        raise UserError(
            f"--teacher {name}: its published weights take {config.input_size[0]} channels and know "
            f"{config.num_classes} classes, the data have {in_chans} and {num_classes}; train a teacher for them and "
            "give it with --teacher-checkpoint."
        )
    try:
        return entry(**asked, pretrained=True)
    except (OSError, RuntimeError) as error:  # of the network, of the hub, or of a damaged file
        raise UserError(
            f"--teacher {name}: its weights cannot be had ({error}); give a file with --teacher-checkpoint."
        ) from error


def _load(teacher: nn.Module, path: str, ema: bool | None) -> None:
    """Load a checkpoint in timm's names, or in those of the paper where timm can translate them."""
    content = read_checkpoint(path)
    try:
        state = weights_of(content, ema)
    except UserError as error:
        raise UserError(f"--teacher-checkpoint {shown(path)}: {error}") from error
    translate = getattr(sys.modules[type(teacher).__module__], "checkpoint_filter_fn", None)
    try:
        if translate is not None and state.keys() != teacher.state_dict().keys():
            state = translate(state, teacher)
        teacher.load_state_dict(state)
    except (RuntimeError, KeyError) as error:
        raise UserError(f"--teacher-checkpoint {path} does not fit the teacher: {shown(error, 300)}") from error


def build_teacher(
    options: TrainOptions, *, size: tuple[int, int], in_chans: int, num_classes: int, device: torch.device,
    ema: bool | None = None,
) -> nn.Module:  # fmt: skip
    """Build the teacher with its weights, in evaluation mode and without gradients.

    Args:
        options: of the training; `--teacher` is set.
        size: height and width of the network's images.
        in_chans: their channels.
        num_classes: classes K.
        device: where it computes.
        ema: which weights of `--teacher-checkpoint`, see `checkpoints.load_checkpoint`.

    Returns:
        A module that maps images `(B, C, H, W)` to logits `(B, K)`.

    Raises:
        UserError: for an unknown teacher, one that does not fit the data, or one whose weights cannot be had.
    """
    name, path = options.teacher, options.teacher_checkpoint
    try:
        teacher = _create(name, published=not path, size=size, in_chans=in_chans, num_classes=num_classes)
        if path:
            _load(teacher, path, ema)
        teacher = teacher.eval().requires_grad_(False).to(device)
        with torch.no_grad():
            found = teacher(torch.zeros(1, in_chans, *size, device=device))
    except UserError:
        raise
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        images = f"{in_chans}x{size[0]}x{size[1]}"
        raise UserError(f"--teacher {name} does not take images of {images}: {shown(error, 200)}") from error
    if found.shape != (1, num_classes):
        raise UserError(f"--teacher {name} answers {tuple(found.shape)} for one image; needed are (1, {num_classes}).")
    return teacher
