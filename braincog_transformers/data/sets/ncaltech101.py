"""N-Caltech101: the pictures of Caltech101, seen by a camera that moves along three saccades."""

from ..loading.fetching import ByTonic
from ..registry import EventSet, register_dataset
from .nmnist import CITATION

CLASSES = (
    "BACKGROUND_Google", "Faces_easy", "Leopards", "Motorbikes", "accordion", "airplanes", "anchor", "ant", "barrel",
    "bass", "beaver", "binocular", "bonsai", "brain", "brontosaurus", "buddha", "butterfly", "camera", "cannon",
    "car_side", "ceiling_fan", "cellphone", "chair", "chandelier", "cougar_body", "cougar_face", "crab", "crayfish",
    "crocodile", "crocodile_head", "cup", "dalmatian", "dollar_bill", "dolphin", "dragonfly", "electric_guitar",
    "elephant", "emu", "euphonium", "ewer", "ferry", "flamingo", "flamingo_head", "garfield", "gerenuk", "gramophone",
    "grand_piano", "hawksbill", "headphone", "hedgehog", "helicopter", "ibis", "inline_skate", "joshua_tree",
    "kangaroo", "ketch", "lamp", "laptop", "llama", "lobster", "lotus", "mandolin", "mayfly", "menorah", "metronome",
    "minaret", "nautilus", "octopus", "okapi", "pagoda", "panda", "pigeon", "pizza", "platypus", "pyramid", "revolver",
    "rhino", "rooster", "saxophone", "schooner", "scissors", "scorpion", "sea_horse", "snoopy", "soccer_ball",
    "stapler", "starfish", "stegosaurus", "stop_sign", "strawberry", "sunflower", "tick", "trilobite", "umbrella",
    "watch", "water_lilly", "wheelchair", "wild_cat", "windsor_chair", "wrench", "yin_yang",
)  # fmt: skip

register_dataset(
    EventSet(
        name="ncaltech101", num_classes=101, size=(180, 240), classes=CLASSES, samples=(8709, 0),
        tree="NCALTECH101/Caltech101/<BACKGROUND_Google..yin_yang>/image_NNNN.bin",
        note="stratified by `--split-seed`",
        source="unpack Caltech101.zip of Mendeley data set cy6cvx3ryv (garrickorchard.com/datasets/n-caltech101)",
        citation=CITATION, fetch=ByTonic("NCALTECH101", {}),
        folders=(
            "ncaltech101", "NCALTECH101/Caltech101", "NCALTECH101", "ncaltech101/Caltech101", "Caltech101",
            "DVS/NCALTECH101/NCALTECH101/Caltech101", "DVS/NCALTECH101/NCALTECH101", ".",
        ),
        splits=("stratified", "random", "text"), endings=(".bin",), top_left=True,
    )
)  # fmt: skip
