"""What the tests need to know of Spikingformer and Spikingformer-CML."""

from braincog_transformers.models import Spikingformer

from .official import builder

TINY = {"embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5, "img_size": 16, "step": 2}
EXAMPLE = "spikingformer_cml_4_384_cifar"
SMALL = {"spikingformer_digits"}
ALIASES = {}
PARAMETERS = {
    f"spikingformer_{cml}{name}": count
    for cml in ("", "cml_")
    for name, count in {
        "4_256_cifar.cifar10": 4_152_106,
        "4_256_cifar.cifar100": 4_175_236,
        "2_384_cifar": 5_762_746,
        "4_384_cifar": 9_320_122,
        "2_384_cifar100": 5_797_396,
        "4_384_cifar100": 9_354_772,
        "8_384": 16_816_024,
        "8_512": 29_689_384,
        "8_768": 66_338_632,
        "2_256_dvs.cifar10dvs": 2_566_666,
        "2_256_dvs.gesture": 2_566_923,
    }.items()
}


@builder
def build(official):
    """Build the network of an official class, which hard-codes what its folder and repository tell."""
    kind, cml = official.require_kind(), official.repository.endswith("CML")
    dim, heads, depth = {"cifar": (384, 12, 4), "imagenet": (512, 8, 8), "events": (256, 16, 2)}[kind]
    return Spikingformer(
        **official.common(dim, heads),
        patch_size=4 if kind == "cifar" else 16,
        depth=official.read("depths", depth),
        pool="potentials" if cml else "spikes",
        tau=(1.75 if cml else 1.5) if kind == "events" else 2.0,
        step=official.steps(),
    )


SOURCES = {
    (f"zhouchenlin2096/{repository}", name): build
    for repository in ("Spikingformer", "Spikingformer-CML")
    for name in ("vit_snn", "Spikingformer")
}
