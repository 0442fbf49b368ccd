"""Depth from spike cameras: DENSE-spike and Outdoor-spike of the spike transformer's paper, and a generated scene."""

from ..registry import TaskSet, register_dataset

_PAPER = "Zhang et al., Spike Transformer: Monocular Depth Estimation for Spiking Camera (ECCV 2022)"
_SEQUENCES = (
    "{train,validation,test}/SEQUENCE/ with spike/r128/{spike_%010d.npy,timestamps.txt} and "
    "depth/data/{depth_%010d.npy,timestamps.txt}"
)

register_dataset(
    TaskSet(
        name="dense_spike", task="depth", layout="sequences", holds="event", in_chans=128, size=(224, 224),
        tree=f"DENSE/{_SEQUENCES}", folders=("DENSE", "dense_spike", "DENSE-spike", "."),
        marks=("train", "validation", "test"), note="simulated from DENSE's pictures; depth up to 1000 m",
        source="follow the link to DENSE-Spike in the README of github.com/Leozhangjiyuan/MDE-SpikingCamera",
        citation=_PAPER,
    )
)  # fmt: skip
register_dataset(
    TaskSet(
        name="outdoor_spike", task="depth", layout="stream", holds="event", in_chans=128, size=(248, 400),
        tree="Outdoor-Spike/*.dat", folders=("Outdoor-Spike", "outdoor_spike", "."),
        note="33 recordings of 20,000 frames from a car, without depth: for predictions only",
        source="follow the link to Outdoor-Spike in the README of github.com/Leozhangjiyuan/MDE-SpikingCamera",
        citation=_PAPER, marks=(".",),
    )
)  # fmt: skip
register_dataset(
    TaskSet(
        name="depth_scene", task="depth", layout="sequences", holds="event", in_chans=32, size=(48, 48),
        tree="nothing, it is made at first use", folders=(), note="planes at 5 to 120 m, in DENSE-spike's files",
        source="nothing to get", licence="as this package", citation="this package",
    )
)  # fmt: skip
