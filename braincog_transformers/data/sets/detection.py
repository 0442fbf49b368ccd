"""Sets for detection: COCO, Prophesee's Gen1, and a scene of shapes that is generated."""

from ..registry import TaskSet, register_dataset
from ..settings import Augment, Colours

_IMAGENET = Colours(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), origin="ImageNet's, as in torchvision")

register_dataset(
    TaskSet(
        name="coco", task="detect", layout="coco", num_classes=80, size=(640, 640), colours=_IMAGENET,
        tree="coco/{annotations/instances_{train,val}2017.json,train2017,val2017}",
        note="--task-kwargs train_json=..., val_json=..., images=... read a set of your own in its format",
        source="unpack train2017.zip, val2017.zip and annotations_trainval2017.zip of cocodataset.org",
        licence="annotations CC BY 4.0; photos under the terms of Flickr",
        citation="Lin et al., Microsoft COCO: Common Objects in Context (ECCV 2014)",
        folders=("coco", "COCO", "coco2017", "."), marks=("annotations", "train2017", "val2017"),
        augment=Augment(hflip=0.5),
    )
)  # fmt: skip

register_dataset(
    TaskSet(
        name="gen1", task="detect", layout="gen1", num_classes=2, classes=("car", "pedestrian"), in_chans=2,
        size=(240, 304), tree="gen1/{train,val,test}/*_td.dat and *_bbox.npy",
        note="frames of the events in front of each labelled moment",
        source="unpack the archives of the GEN1 Automotive Detection Dataset of prophesee.ai",
        licence="Prophesee's own, for research",
        citation="de Tournemire et al., A Large Scale Event-based Detection Dataset for Automotive (arXiv 2020)",
        folders=("gen1", "Gen1", "GEN1", "detection_dataset_duration_60s_ratio_1.0", "."),
        marks=("train", "val", "test"), augment=Augment(hflip=0.5),
    )
)  # fmt: skip

register_dataset(
    TaskSet(
        name="detect_scene", task="detect", layout="coco", num_classes=3, classes=("disc", "square", "triangle"),
        size=(96, 96), colours=Colours(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), origin="rounded"),
        tree="no files: it is generated", source="it is generated at its first use", licence="free of rights",
        citation="none: seeded shapes on a plain ground", folders=(), augment=Augment(hflip=0.5),
    )
)  # fmt: skip
