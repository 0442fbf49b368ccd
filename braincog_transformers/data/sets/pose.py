"""Poses of people over time: event frames and the parameters of the SMPL body model, of four sets and a scene."""

from ..registry import TaskSet, register_dataset

_FILES = "poses/pose_0001.npz, poses_flip/ and events_frame_04/events_0001.npz in"
_PAPER = "Zou et al., Highly Efficient 3D Human Pose Tracking from Events (IEEE TCSVT 2025)"
_SHARED = {"task": "pose", "in_chans": 4, "size": (256, 256)}
_ASK = "ask the authors of https://github.com/JimmyZou/HumanPoseTracking_SNN"

register_dataset(
    TaskSet(
        name="pose_scene", layout="mmhpsd", folders=(), **_SHARED,
        tree="nothing, a moving figure is drawn at first use", note="layout of mmhpsd; written to --data-dir",
        source="it is made here", licence="that of this package", citation="none",
    )
)  # fmt: skip
register_dataset(
    TaskSet(
        name="mmhpsd", layout="mmhpsd", folders=(".", "mmhpsd"), marks=("mmhpsd_events",), **_SHARED,
        tree=f"{_FILES} mmhpsd_events/subject01_group1_time1", source=_ASK,
        note="subjects 01, 02 and 07 test", licence="research only, see the source",
        citation="Zou et al., EventHPE: Event-based 3D Human Pose and Shape Estimation (ICCV 2021)",
    )
)  # fmt: skip
register_dataset(
    TaskSet(
        name="h36m_events", layout="h36m_events", folders=(".", "h36m_events"), marks=("h36m_events_processed",),
        tree=f"{_FILES} h36m_events_processed/s_01_act_02_subact_01_ca_02", source=f"{_ASK}, and http://vision.imar.ro",
        note="s_09 and s_11 test; no mirrored poses", licence="that of Human3.6M: research only", citation=_PAPER,
        **_SHARED,
    )
)  # fmt: skip
register_dataset(
    TaskSet(
        name="phspd", layout="phspd", folders=(".", "phspd"), marks=("phspd_events",), **_SHARED,
        tree=f"{_FILES} phspd_events/subject04_group1_time1", source=_ASK, note="subjects 04, 07 and 11 test",
        licence="research only, see the source",
        citation="Zou et al., 3D Human Shape Reconstruction from a Polarization Image (ECCV 2020)",
    )
)  # fmt: skip
register_dataset(
    TaskSet(
        name="amass_events", layout="amass_events", folders=(".", "amass"), marks=("amass_events",), **_SHARED,
        tree=f"{_FILES} amass_events/BMLhandball/S06_Novice/Trial_upper_right_left_084_poses",
        source=f"{_ASK}, and https://amass.is.tue.mpg.de", note="no test split: --task-kwargs test_actions",
        licence="that of AMASS: research only", citation=_PAPER,
    )
)  # fmt: skip
