"""What the tests need to know of Spikingformer and Spikingformer-CML."""

from braincog_transformers.models import Spikingformer

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


def build(kwargs, meta):
    """Translate the official constructor's arguments; what the class hard-codes is told from its repository."""
    repository, folder = meta["source"].split("@")[0], meta["source"].rsplit(":", 1)[1].split("/")[0]
    cml = repository.endswith("CML")
    return Spikingformer(
        img_size=(kwargs["img_size_h"], kwargs["img_size_w"]),
        patch_size=4 if folder == "cifar10" else 16,
        in_chans=kwargs["in_channels"],
        num_classes=kwargs["num_classes"],
        embed_dim=kwargs["embed_dims"],
        depth=kwargs["depths"],
        num_heads=kwargs["num_heads"],
        mlp_ratio=kwargs["mlp_ratios"],
        pool="potentials" if cml else "spikes",
        tau=(1.75 if cml else 1.5) if "dvs" in folder else 2.0,
        step=int(meta["timesteps"]),
    )


VECTORS = {"spikingformer": build}
