"""A small converted network of each method."""

import functools

import timm
import torch

from braincog_transformers.conversion import METHODS, convert, prepare

_TINY = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 5}
_RELU = {"rate": {"act_layer": "relu"}}
METHOD_NAMES = sorted(METHODS)


def source_of(method):
    """Say how the source is built."""
    return {"model": "vit_tiny_patch16_224", "kwargs": _TINY | _RELU.get(method, {})}


def images(count=4):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@functools.cache
def _converted(method, step):
    torch.manual_seed(0)
    source = source_of(method)
    ann = timm.create_model(source["model"], **source["kwargs"]).eval()
    with torch.no_grad():
        ann.head.weight.mul_(10)
    limit = prepare(ann, method, data=images())
    return convert(limit, method, step=step, data=images(), allow_silent=True)


def converted(method, step=3):
    """Return a network that is not to be changed."""
    return _converted(method, step)
