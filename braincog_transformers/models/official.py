"""How the official state dicts name their tensors; each paper's file holds the table of its network."""

import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["BLOCKS", "BN", "LINEAR", "MLP", "NORM", "POSITION", "OfficialNames", "number_stage"]


@dataclass(frozen=True)
class OfficialNames:
    """How official names become ours. A network has it as `official_names`, and its subclasses inherit it.

    Args:
        rename: pairs of a regular expression on official names and its replacement, applied in order, at every match.
        dead: patterns of names that the official network declares and never uses, with the reason.
    """

    rename: tuple[tuple[str, str | Callable[[re.Match], str]], ...]
    dead: tuple[tuple[str, str], ...] = ()

    def reason_dead(self, name: str) -> str:
        """Return why the official network never uses a tensor, "" for one that it uses."""
        return next((reason for pattern, reason in self.dead if re.search(pattern, name)), "")

    def translate(self, name: str) -> str | None:
        """Return our name for an official one, None for a dead one."""
        if self.reason_dead(name):
            return None
        for pattern, replacement in self.rename:
            name = re.sub(pattern, replacement, name)
        return name


# Names that the code of several papers shares. A network lists its own only, so that `identify` can separate them.
BLOCKS = (r"^block\.", "blocks.")
POSITION = (r"^patch_embed\.rpe_(conv|bn)\.", r"patch_embed.rpe.\1.")
MLP = (r"\.mlp(\d)_(?=conv|bn)", r".fc\1_")
LINEAR = (r"\.(q|k|v|proj|fc1|fc2)_conv\.", r".\1.linear.")
BN = (r"\.(q|k|v|proj|fc1|fc2)_bn\.", r".\1.bn.")
NORM = (r"^block\.\d+\.norm[12]\.(weight|bias)$", "layer norm that the block never calls")


def number_stage(match: re.Match) -> str:
    """Number the first four convolutions of Spikformer's stem: `proj_conv` is 0, `proj_conv3` is 3."""
    return f"patch_embed.stages.{match[2] or 0}.{match[1]}."
