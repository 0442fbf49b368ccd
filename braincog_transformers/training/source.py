"""The source of a conversion: an ordinary network, timm's or one of `conversion.sources`, and its weights."""

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from braincog.base.node.node import BaseNode
from timm.models import PretrainedCfg
from torch import Tensor, nn

from ..checkpoints import find_weights, load_state, read_checkpoint
from ..conversion import Method, convert, find_method, is_converted, prepare
from ..data.registry import PictureSet, lookup
from ..errors import UserError, listed, shown, unknown
from ..models.registry import REGISTERED
from ..recipe import Options, keywords
from .class_names import compare_classes
from .distributed import Ranks
from .network import Shape, tune_batch_norm
from .teacher import find_timm

__all__ = ["Source", "build_source", "find_source", "method_of", "source_shape"]

STEPS = 32
"""T where --step is left out."""


@dataclass(frozen=True)
class Source:
    """What a conversion starts from.

    Args:
        network: the ordinary network, on its device.
        trained: whether its weights are trained ones.
        limit: the prepared network that the named file holds, with its weights; None for a file of the source.
    """

    network: nn.Module
    trained: bool
    limit: nn.Module | None = None


def method_of(options: Options) -> tuple[Method, dict[str, Any]]:
    """Return the method of --convert, and its options as --convert-kwargs gives them, checked.

    Raises:
        UserError: for an option that the method does not have, or a value that it does not take.
    """
    method, given = find_method(options.convert.convert), keywords(options.convert.convert_kwargs)
    try:
        method.chosen(given)
    except (UserError, TypeError) as error:
        raise UserError(f"--convert-kwargs: {shown(error)}") from error
    return method, given
