"""Networks of other libraries that resemble ours, whose weights do not load."""

import re
from collections.abc import Iterable

__all__ = ["describe_foreign"]

_ONE_PROJECTION = "one projection makes its queries, keys and values, where the paper's network has"
# Networks of other libraries that resemble ours: a name that no other has, what they are, and why they don't load.
_FOREIGN = (
    (
        r"(^|\.)patch_embed\.stages\.0\.conv_bn\.block\.0\.",
        "SpikingJelly's Spikformer, another network: its stem pools in front of the neurons, "
        f"{_ONE_PROJECTION} several, and its projections and MLPs have no biases",
    ),
    (
        r"(^|\.)stage1\.0\.attn\.qk_conv_bn\.0\.",
        "SpikingJelly's QKFormer, another network: "
        f"{_ONE_PROJECTION} several, and its attention's projections have no biases",
    ),
    (
        r"(^|\.)stage1\.0\.dwconv\.",
        "SpikingJelly's MaxFormer, of which this package has no network: its first stages have depthwise convolutions "
        "in the place of attention",
    ),
)


def describe_foreign(names: Iterable[str]) -> str:
    """Say of which other library's network these are the weights, and what differs; "" for none that is known."""
    names = list(names)
    return next((text for pattern, text in _FOREIGN if any(re.search(pattern, name) for name in names)), "")
