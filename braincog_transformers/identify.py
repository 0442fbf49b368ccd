"""`checkpoints.identify` under its former name."""

from .checkpoints import Fit, identify

__all__ = ["Fit", "identify"]
