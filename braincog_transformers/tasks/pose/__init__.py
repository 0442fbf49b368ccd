"""Poses of a person over time from events: rotations, shape and place of the body model SMPL, and its joints."""

from .estimation import PoseEstimation, PoseSettings

__all__ = ["PoseEstimation", "PoseSettings"]
