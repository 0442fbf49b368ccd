"""From PIL pictures to tensors: timm's transforms with our options, for training and for the test."""

import re
from collections.abc import Callable, Sequence

from PIL import Image, ImageOps
from timm.data import auto_augment, create_transform
from timm.data.auto_augment import augment_and_mix_transform, auto_augment_transform, rand_augment_transform
from timm.data.transforms import str_to_pil_interp
from torch import Tensor
from torchvision.transforms import Compose

from ...errors import UserError
from ..settings import Augment

__all__ = ["picture_transforms"]

_SPIKFORMER_OPERATIONS = ("Equalize", "Rotate", "ShearX", "TranslateXRel", "TranslateYRel")
"""The five operations that are left in RandAugment of Spikformer's CIFAR scripts."""

Transform = Callable[[Image.Image], Tensor]


class _Clamp:
    """Keep values in [0, 1], since erasing with noise goes beyond."""

    def __call__(self, picture: Tensor) -> Tensor:
        return picture.clamp(0.0, 1.0)


def picture_transforms(
    size: tuple[int, int],
    augment: Augment,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    normalize: bool,
) -> tuple[Transform, Transform]:
    """Return the transforms of training and of test pictures.

    Args:
        size: (H, W) of the tensors.
        augment: with no field left None that concerns pictures.
        mean: per channel, for the normalisation and as filling colour.
        std: per channel.
        normalize: subtract the mean and divide by the deviation; otherwise values stay in [0, 1].

    Raises:
        UserError: for an unknown policy.
    """
    # An empty normalisation still turns the picture into floating point, which timm's `normalize=False` doesn't.
    shift, spread = (mean, std) if normalize else ([0.0] * len(mean), [1.0] * len(std))
    test = create_transform(
        size, interpolation=augment.interpolation, mean=shift, std=spread, crop_pct=augment.crop_pct
    )
    if augment.no_aug:
        return test, test
    policy = _policy(augment, size, mean)
    # timm leaves colours to the policy, except beside its three-augment ("3a"), which has none of its own.
    jitter = augment.color_jitter if policy is None or "3a" in augment.aa else None
    primary, secondary, final = create_transform(
        size,
        is_training=True,
        scale=tuple(augment.scale),
        ratio=tuple(augment.ratio),
        hflip=augment.hflip,
        vflip=augment.vflip,
        color_jitter=jitter or None,
        interpolation=augment.train_interpolation,
        mean=shift,
        std=spread,
        re_prob=augment.reprob,
        re_mode=augment.remode,
        re_count=augment.recount,
        separate=True,
    )
    parts = [*primary.transforms, *([policy] if policy else []), *secondary.transforms, *final.transforms]
    return Compose(parts if normalize else [*parts, _Clamp()]), test


def _check_sections(text: str) -> None:
    """Refuse a section of a policy without a number, which timm would ignore silently."""
    for section in filter(None, text.split("-")):
        if not re.fullmatch(r"[a-z]+\d[\d.]*|t\w+", section):
            raise ValueError(f"section {section!r} has no number")


def _posterize(picture: Image.Image, bits: int, **_) -> Image.Image:
    """Keep `bits` bits of each value; none at all is black, as Pillow had it until it refused the number."""
    if bits < 1:
        return picture.point([0] * 256 * len(picture.getbands()))
    return picture if bits >= 8 else ImageOps.posterize(picture, bits)


def _mended(policy: Callable) -> Callable:
    """Let a policy of timm's posterize to 0 bits, which its strongest settings sometimes draw."""
    sub_policies = getattr(policy, "policy", [])
    for operation in [*getattr(policy, "ops", []), *(op for ops in sub_policies for op in ops)]:
        if operation.aug_fn is auto_augment.posterize:
            operation.aug_fn = _posterize
    return policy


def _policy(augment: Augment, size: tuple[int, int], mean: Sequence[float]) -> Callable | None:
    """Build the automatic augmentation that `aa` names."""
    name = augment.aa
    if not name or name == "none":
        return None
    settings = {"translate_const": int(min(size) * 0.45), "img_mean": tuple(min(255, round(255 * m)) for m in mean)}
    if len(mean) == 1:
        settings["img_mean"] = settings["img_mean"][0]
    if augment.train_interpolation != "random":
        settings["interpolation"] = str_to_pil_interp(augment.train_interpolation)
    family, _, rest = name.partition("-")
    try:
        if family in ("rand", "spikformer"):
            _check_sections(rest)
            operations = list(_SPIKFORMER_OPERATIONS) if family == "spikformer" else None
            return _mended(rand_augment_transform("rand-" + rest, settings, transforms=operations))
        if family.startswith("augmix"):
            return _mended(augment_and_mix_transform(name, {**settings, "translate_pct": 0.3}))
        return _mended(auto_augment_transform(name, settings))
    except (AssertionError, ValueError, KeyError) as error:
        raise UserError(
            f"--aa {name!r} is no augmentation policy ({error}); examples: rand-m9-mstd0.5-inc1, "
            "spikformer-m9-n1-mstd0.4-inc1, augmix-m5-w4-d2, original, v0, none"
        ) from None
