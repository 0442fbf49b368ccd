"""Single-object tracking with events: an object whose box in the first frame is given is followed to the last."""

from .following import Tracking, TrackingSettings

__all__ = ["Tracking", "TrackingSettings"]
