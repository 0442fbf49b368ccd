"""Command lines of conversions that take a second or two, on a few of the digits."""

from dataclasses import replace

import timm

from braincog_transformers.data.build import build_datasets
from braincog_transformers.data.pictures.stored import ArrayPictures

TRAINING, TEST = 192, 64
"""Samples that the runs see."""
SIZES = ["patch_size=4", "embed_dim=16", "depth=1", "num_heads=2", "act_layer=relu"]
VIT = ["--model", "vit_tiny_patch16_224", "--model-kwargs", *SIZES]
RESNET = ["--model", "resnet18", "--model-kwargs", "layers=[1,1,1,1]", "channels=[4,4,8,8]"]
RUN = ["--dataset", "digits", "--device", "cpu", "--workers", "0", "--tensorboard-dir", "", "-b", "64"]
SHORT = ["--epochs", "2", "--warmup-epochs", "0", "--cooldown-epochs", "0", "--lr", "0.002", "--lr-base-size", "0"]
LEVELS = ["--convert-kwargs", "levels=8"]
STEPS = {"rate": 4, "sta": 4, "qcfs": 8, "spikezip": 12}
QUICK = ["--step", "4", "--allow-silent", "--analyze-batches", "1"]


def vit():
    """Return the network of `VIT`, untrained."""
    kwargs = dict(patch_size=4, embed_dim=16, depth=1, num_heads=2, act_layer="relu")
    return timm.create_model("vit_tiny_patch16_224", img_size=8, in_chans=1, num_classes=10, **kwargs)


def few_digits(*args, **kwargs):
    """Build data sets of the first samples alone."""
    bundle = build_datasets(*args, **kwargs)
    parts = {}
    for name, count in (("train", TRAINING), ("test", TEST)):
        part = getattr(bundle, name)
        parts[name] = replace(part, source=ArrayPictures(part.source.pixels[:count], part.source.targets[:count]))
    return replace(bundle, **parts)
