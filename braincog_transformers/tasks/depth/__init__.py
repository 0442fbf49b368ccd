"""Depth of every pixel from the stream of a spike camera.

`files` reads spike tensors, depth maps, times and raw streams; `frames` pairs and crops them; `labels`, `losses` and
`metrics` are what the published training and evaluation compute; `scene` makes the generated data.
"""

from .estimation import DepthEstimation

__all__ = ["DepthEstimation"]
