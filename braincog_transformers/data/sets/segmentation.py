"""Sets for semantic segmentation: Pascal VOC, ADE20K, and a generated scene in VOC's layout."""

from ..registry import TaskSet, register_dataset
from ..settings import Augment, Colours

_PHOTO = {
    "task": "segment",
    "size": (512, 512),
    "augment": Augment(hflip=0.5),
    "colours": Colours(
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
        origin="timm's IMAGENET_DEFAULT_MEAN and IMAGENET_DEFAULT_STD",
    ),
}  # fmt: skip
VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
ADE20K = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet", "sidewalk",
    "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water", "painting", "sofa",
    "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp",
    "bathtub", "railing", "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter", "sand",
    "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs", "runway", "case", "pool table",
    "pillow", "screen door", "stairway", "river", "bridge", "bookcase", "blind", "coffee table", "toilet", "flower",
    "book", "hill", "bench", "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat", "bar",
    "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight",
    "booth", "television receiver", "airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator",
    "ottoman", "bottle", "buffet", "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer",
    "plaything", "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven",
    "ball", "food", "step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher",
    "screen", "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier",
    "crt screen", "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip
SHAPES = ("background", "disc", "square", "triangle")

register_dataset(
    TaskSet(
        name="voc", layout="voc", num_classes=21, classes=VOC, samples=(1464, 1449), **_PHOTO,
        tree="JPEGImages/*.jpg, SegmentationClass/*.png and ImageSets/Segmentation/{train,val}.txt in "
        "VOCdevkit/VOC2012 (or VOC2012, or the folder itself)",
        note="masks: 255 is void, in neither loss nor figures; your own set in this layout: --num-classes or "
        "--task-kwargs class_names=FILE",
        folders=("VOCdevkit/VOC2012", "VOC2012", "."), marks=("SegmentationClass",),
        source="unpack VOCtrainval_11-May-2012.tar of host.robots.ox.ac.uk/pascal/VOC",
        licence="the pictures are Flickr's, under its terms of use",
        citation="Everingham et al., The Pascal Visual Object Classes (VOC) Challenge (International Journal of "
        "Computer Vision 2010)",
    )
)  # fmt: skip
register_dataset(
    TaskSet(
        name="ade20k", layout="ade20k", num_classes=150, classes=ADE20K, samples=(20210, 2000), **_PHOTO,
        tree="images/{training,validation}/*.jpg and annotations/{training,validation}/*.png in ADEChallengeData2016 "
        "(or the folder itself)",
        note="masks: 1 to 150 are the classes, 0 is in neither loss nor figures; your own set in this layout: "
        "--num-classes or --task-kwargs class_names=FILE",
        folders=("ADEChallengeData2016", "ade/ADEChallengeData2016", "."), marks=("annotations",),
        source="unpack ADEChallengeData2016.zip of the Scene Parsing Challenge 2016 (sceneparsing.csail.mit.edu)",
        licence="BSD 3-clause; pictures for non-commercial research and education",
        citation="Zhou et al., Semantic Understanding of Scenes through the ADE20K Dataset (International Journal of "
        "Computer Vision 2019)",
    )
)  # fmt: skip
register_dataset(
    TaskSet(
        name="segment_scene", task="segment", layout="voc", num_classes=4, classes=SHAPES, samples=(240, 60),
        size=(64, 64), augment=Augment(hflip=0.5),
        colours=Colours(mean=(0.5,) * 3, std=(0.25,) * 3, origin="chosen, for pictures whose colours are drawn evenly"),
        tree="nothing, it is generated at first use", folders=(), source="it is generated at first use",
        licence="that of this package", citation="that of this package",
    )
)  # fmt: skip
