"""How the official state dicts name their tensors, by the class that they fit here.

A table: `checkpoints` does the work. Patterns are regular expressions on official names, applied in order.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["FAMILIES", "Family"]


class Family(NamedTuple):
    """How official names become ours.

    Args:
        rename: pairs of a pattern and its replacement, applied in order, each wherever it matches.
        dead: patterns of keys that the official network never uses, with the reason.
    """

    rename: tuple[tuple[str, str | Callable[[re.Match], str]], ...]
    dead: tuple[tuple[str, str], ...]


def _stage(match: re.Match) -> str:
    """Number Spikformer's first four convolutions: `proj_conv` is 0, `proj_conv3` is 3."""
    return f"patch_embed.stages.{match[2] or 0}.{match[1]}."


def _tokenizer(match: re.Match) -> str:
    """Number Spikingformer's convolutions: `proj_conv` and `block0_conv` are the first, `proj4_conv` the last."""
    number = int(match[1] or match[2] or 0)
    return f"patch_embed.{f'stages.{number - 1}' if number else 'first'}.{match[3]}."


def _cml_stage(match: re.Match) -> str:
    """Number CML-Spikformer's first four convolutions: `block1_conv` is 0."""
    return f"patch_embed.stages.{int(match[1]) - 1}.{match[2]}."


def _qk_embedding(match: re.Match) -> str:
    """Number QKFormer's convolutions: the stem's from 0 on, the later embeddings' `proj3` (or `proj`) and `proj4`."""
    level, number, kind = int(match[1]) - 1, match[2], match[3]
    place = f"stages.{level}.embed" if level else "patch_embed"
    if number == "_res":
        return f"{place}.shortcut.{kind}."
    return f"{place}.convs.{int(number == '4') if level else number or 0}.{kind}."


def _qk_block(match: re.Match) -> str:
    return f"stages.{int(match[1]) - 1}.blocks."


FAMILIES = {
    "Spikformer": Family(
        rename=(
            (r"^patch_embed\.proj_(conv|bn)(\d?)\.", _stage),
            (r"^patch_embed\.block(\d)_(conv|bn)\.", _cml_stage),
            (r"^patch_embed\.rpe_(conv|bn)\.", r"patch_embed.rpe.\1."),
            (r"^block\.", "blocks."),
            (r"\.(q|k|v|proj|fc1|fc2)_(?:linear|conv)\.", r".\1.linear."),
            (r"\.(q|k|v|proj|fc1|fc2)_bn\.", r".\1.bn."),
        ),
        dead=(
            (r"^block\.\d+\.norm[12]\.(weight|bias)$", "layer norm that the block never calls"),
            (r"^norm\.(weight|bias)$", "layer norm that the network never calls"),
            (r"^pos_embed$", "position table that is never added"),
        ),
    ),
    "Spikingformer": Family(
        rename=(
            (r"^patch_embed\.(?:proj(\d?)|block(\d))_(conv|bn)\.", _tokenizer),
            (r"^block\.", "blocks."),
            (r"\.mlp(\d)_(?=conv|bn)", r".fc\1_"),
            (r"\.(q|k|v|proj|fc1|fc2)_conv\.", r".\1.linear."),
            (r"\.(q|k|v|proj|fc1|fc2)_bn\.", r".\1.bn."),
        ),
        dead=((r"^block\.\d+\.norm[12]\.(weight|bias)$", "layer norm that the block never calls"),),
    ),
    "QKFormer": Family(
        rename=(
            (r"^patch_embed(\d)\.proj(\d?|_res)_(conv|bn)\.", _qk_embedding),
            (r"^stage(\d)\.", _qk_block),
            (r"\.t?ssa\.", ".attn."),
            (r"\.mlp(\d)_(?=conv|bn)", r".fc\1_"),
            (r"\.(q|k|v|proj|fc1|fc2)_conv\.", r".\1.linear."),
            (r"\.(q|k|v|proj|fc1|fc2)_bn\.", r".\1.bn."),
        ),
        dead=(),
    ),
}
