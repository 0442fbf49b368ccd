"""Tracks of single objects in event frames: two sets and a scene."""

from ..registry import TaskSet, register_dataset

_LAYOUT = "img_120_split/train/list.txt, img_120_split/train/NAME/{pos,neg,groundtruth_rect.txt} and img_120_5_split"
_SHARED = {"task": "track", "layout": "stnet", "tree": _LAYOUT}
_FRAMES = "event frames as the official code of STNet reads them; tasks.tracking.files makes them of events"

register_dataset(
    TaskSet(
        name="track_scene", task="track", layout="stnet", size=(120, 160), folders=(),
        tree="nothing, moving patterns are drawn at first use", note="layout of fe240hz; written to --data-dir",
        source="it is made here", licence="that of this package", citation="none",
    )
)  # fmt: skip
register_dataset(
    TaskSet(
        name="fe240hz", size=(260, 346), folders=(".", "fe240hz", "FE240hz", "fe108", "FE108"), **_SHARED,
        marks=("img_120_split",), note=_FRAMES, source="https://github.com/Jee-King/ICCV2021_Event_Frame_Tracking",
        licence="research only, see the source",
        citation="Zhang et al., Object Tracking by Jointly Exploiting Frame and Event Domain (ICCV 2021)",
    )
)  # fmt: skip
register_dataset(
    TaskSet(
        name="visevent", size=(260, 346), folders=(".", "visevent", "VisEvent"), **_SHARED,
        marks=("img_120_split",), note=_FRAMES, source="https://github.com/wangxiao5791509/VisEvent_SOT_Benchmark",
        licence="research only, see the source",
        citation="Wang et al., VisEvent: Reliable Object Tracking via Collaboration of Frame and Event Flows "
        "(IEEE Transactions on Cybernetics 2023)",
    )
)  # fmt: skip
