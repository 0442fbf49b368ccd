"""ImageNet (ILSVRC2012), or any photos in class folders or tars, whose folders name the classes."""

from ..registry import PictureSet, register_dataset
from ..settings import Colours

register_dataset(
    PictureSet(
        name="imnet", num_classes=1000, samples=(1281167, 50000),
        tree="imnet/train/<class>/*.JPEG and imnet/val/<class>/*.JPEG (or validation/; or train.tar and val.tar, or "
        "folders of tars)",
        note="each half may be a tar of class folders, or a folder or tar of one tar for each class; or shards and "
        "other sources, below",
        source="unpack the ILSVRC2012 archives of image-net.org and sort the validation pictures into class folders",
        licence="for non-commercial research and education, under the terms of image-net.org",
        citation="Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge (International Journal of "
        "Computer Vision 2015)",
        colours=Colours(
            mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
            origin="timm's IMAGENET_DEFAULT_MEAN and IMAGENET_DEFAULT_STD",
        ),
        folders=(".", "ILSVRC2012", "imnet"),
    )
)  # fmt: skip
