"""Augmentation of event samples: one draw for all frames, the input untouched, the rules as published."""

import pytest
import torch

from braincog_transformers.data.events import transforms as module
from braincog_transformers.data.events.transforms import (
    Cutout,
    EventRandAugment,
    HorizontalFlip,
    PaddedCrop,
    PolaritySum,
    ResformerAugment,
    Roll,
    Rotate,
    Shear,
    SNNAugmentWide,
    VerticalFlip,
    event_transforms,
)
from braincog_transformers.data.loading.loader import make_loader
from braincog_transformers.data.settings import Augment
from braincog_transformers.errors import UserError
from braincog_transformers.recipe import ENTRIES

NAMES = ENTRIES["event_augment"].metadata["choices"]
ALIKE = [HorizontalFlip(0.5), VerticalFlip(0.5), PaddedCrop(), SNNAugmentWide(), ResformerAugment(), Cutout(6)]
ALIKE += [SNNAugmentWide(erase=False), Roll(5), Rotate(15), Shear(15)]
ALL = [*ALIKE, EventRandAugment(3, 30)]


def frames():
    return torch.poisson(torch.full((3, 2, 24, 20), 0.5), generator=torch.Generator().manual_seed(0))


def same_frames():
    return frames()[:1].expand(4, -1, -1, -1).clone()


@pytest.mark.parametrize("transform", ALL, ids=repr)
def test_same_seed_same_result_and_the_input_is_kept(transform):
    for seed in range(12):
        x = frames()
        results = []
        for _ in range(2):
            torch.manual_seed(seed)
            results.append(transform(x))
        assert torch.equal(*results)
        assert results[0].shape == x.shape
        assert torch.equal(x, frames())


@pytest.mark.parametrize("transform", ALIKE, ids=repr)
def test_all_frames_get_the_same_draw(transform):
    for seed in range(12):
        torch.manual_seed(seed)
        moved = transform(same_frames())
        assert torch.equal(moved, moved[:1].expand_as(moved))


def test_flips():
    assert torch.equal(HorizontalFlip(1.0)(frames()), frames().flip(3))
    assert torch.equal(VerticalFlip(1.0)(frames()), frames().flip(2))
    assert torch.equal(HorizontalFlip(0.0)(frames()), frames())


def test_padded_crop_shifts_by_up_to_a_twelfth():
    x = torch.zeros(1, 1, 20, 20)
    x[..., 10, 10] = 1
    places = set()
    for seed in range(100):
        torch.manual_seed(seed)
        places.add(tuple(PaddedCrop()(x)[0, 0].nonzero()[0].tolist()))
    assert places == {(row, column) for row in range(9, 12) for column in range(9, 12)}


@pytest.mark.parametrize("choice", range(6))
def test_each_operation_of_snn_augment_wide(choice, monkeypatch):
    monkeypatch.setattr(module, "_below", lambda count: choice if count == 6 else count - 1)
    torch.manual_seed(1)
    x = frames()
    moved = SNNAugmentWide()(x)
    if choice == 0:
        assert torch.equal(moved, x)
    elif choice == 2:
        assert torch.equal(moved[..., 5:], x[..., :-5])
        assert not moved[..., :5].any()
    elif choice == 3:
        assert torch.equal(moved[..., 5:, :], x[..., :-5, :])
    else:
        assert not torch.equal(moved, x)
    if choice == 5:
        erased = (moved != x).any(0).any(0)
        rows, columns = erased.any(1).sum(), erased.any(0).sum()
        assert rows * columns <= 0.13 * 24 * 20


def test_levels_are_31_from_end_to_end():
    torch.manual_seed(0)
    levels = sorted({round(module._level(0.3), 6) for _ in range(2000)})
    assert len(levels) == 31
    assert (levels[0], levels[15], levels[-1]) == (-0.3, 0.0, 0.3)


def test_rand_augment_of_no_strength_changes_nothing():
    torch.manual_seed(0)
    assert torch.equal(EventRandAugment(5, 0)(frames()), frames())


def test_rand_augment_operations():
    torch.manual_seed(0)
    x = frames() + 1
    assert (module._cut_square(x, 0.5) == 0).sum() <= 3 * 2 * 10 * 10
    assert (module._cut_time(x, 0.5).sum((1, 2, 3)) == 0).sum() <= 2
    added = module._add_noise(x, 0.3) - x
    assert set(added.unique().tolist()) == {0.0, 1.0}
    assert added.mean() < 0.35
    assert module._blur(x, 1.0).mean().item() == pytest.approx(x.mean().item(), rel=0.05)


@pytest.mark.parametrize("sigma", [0.1, 0.2, 0.5, 1.0])
def test_blur_is_torchvisions(sigma, monkeypatch):
    monkeypatch.setattr(module, "_uniform", lambda low, high: sigma)
    expected = module.vision.gaussian_blur(frames(), [5, 5], [sigma, sigma])
    torch.testing.assert_close(module._blur(frames(), 1.0), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("choice", range(3))
def test_each_operation_of_spikingresformer(choice, monkeypatch):
    monkeypatch.setattr(module, "_below", lambda count: choice if count == 3 else count - 1)
    torch.manual_seed(1)
    x = frames() + 1
    moved = ResformerAugment()(x)
    if choice == 0:  # the largest shift, a third of 24 rows and of 20 columns
        assert torch.equal(moved, x.roll((8, 6), (2, 3)))
    elif choice == 1:
        assert not moved[..., 0, 0].any()
        assert torch.equal(moved[..., 11:13, 9:11], x[..., 11:13, 9:11])
    else:  # about the last pixel: of 8 x 8 pixels, 5 x 5 are inside
        assert (moved == 0).all(0).all(0).sum() == 5 * 5
        assert not moved[..., -5:, -5:].any()


def test_spikingresformer_draws_evenly_and_rolls_up_to_a_third():
    x = torch.zeros(1, 1, 9, 9)
    x[..., 4, 4] = 1
    x[..., 0, 0] = 2
    rolled, places = 0, set()
    for seed in range(600):
        torch.manual_seed(seed)
        moved = ResformerAugment()(x)
        if (moved == 2).any() and (moved == 1).any() and not torch.equal(moved[..., 4, 4], x[..., 4, 4]):
            rolled += 1
            places.add(tuple((moved[0, 0] == 1).nonzero()[0].tolist()))
    assert {place[0] for place in places} == {place[1] for place in places} == set(range(1, 8))
    assert 150 < rolled < 250


def test_cutout_is_clipped_at_the_border():
    sizes = set()
    for seed in range(200):
        torch.manual_seed(seed)
        cut = (Cutout(16)(frames() + 1) == 0).all(0).all(0)
        sizes.add((int(cut.any(1).sum()), int(cut.any(0).sum())))
        assert cut.sum() == cut.any(1).sum() * cut.any(0).sum()
    assert {max(side) for side in zip(*sizes, strict=True)} == {16}
    assert {min(side) for side in zip(*sizes, strict=True)} == {8}


def test_polarity_sum_is_the_third_channel():
    moved = PolaritySum()(frames())
    assert torch.equal(moved[:, :2], frames())
    assert torch.equal(moved[:, 2], frames()[:, 0] + frames()[:, 1])


NOTHING = Augment(hflip=0.0, vflip=0.0, event_augment="none")


@pytest.mark.parametrize(("name", "last"), [("resformer", ResformerAugment()), ("roll_flip", Roll(5))])
@pytest.mark.parametrize(("given", "expected"), [(None, 0.5), (0.0, 0.0), (1.0, 1.0)])
def test_published_sets_with_a_flip_flip_half_of_the_samples_unless_told_otherwise(name, last, given, expected):
    filled = Augment(event_augment=name, hflip=given).filled(NOTHING)
    assert filled.hflip == expected
    assert event_transforms(filled)[-1] == last


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("resformer", "roll_flip")])
def test_no_other_name_brings_a_flip(name):
    assert not any(isinstance(step, HorizontalFlip) for step in event_transforms(_chosen(name)))


def _chosen(*names):
    return Augment(event_augment=names).filled(NOTHING)


def test_every_name_of_the_option_is_known_and_none_is_nothing():
    assert set(NAMES) == set(module._NAMED)
    assert all(len(event_transforms(_chosen(name))) == (name != "none") + (name in _FLIPPING) for name in NAMES)


_FLIPPING = ("resformer", "roll_flip")


def test_several_names_are_applied_in_their_order():
    assert event_transforms(_chosen("rotate", "crop")) == (Rotate(15), PaddedCrop())
    assert event_transforms(_chosen("crop", "rotate")) == (PaddedCrop(), Rotate(15))
    with pytest.raises(UserError, match="none excludes crop, none"):
        event_transforms(_chosen("crop", "none"))


class _Samples(torch.utils.data.Dataset):
    def __init__(self):
        self.steps = [step for name in NAMES for step in event_transforms(_chosen(name))]

    def __len__(self):
        return 9

    def __getitem__(self, index):
        x = frames()
        return torch.stack([step(x) for step in self.steps]), index


def test_every_name_gives_the_same_batches_for_any_number_of_workers():
    found = []
    for workers in (0, 1, 2):
        loader = make_loader(_Samples(), batch_size=2, train=True, seed=3, workers=workers)
        loader.set_epoch(1)
        found.append(torch.cat([x for x, _ in loader]))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_roll_reaches_its_limit_and_loses_nothing():
    x = torch.zeros(1, 1, 20, 20)
    x[..., 10, 10] = 1
    places = set()
    for seed in range(400):
        torch.manual_seed(seed)
        moved = Roll(5)(x)
        assert moved.sum() == 1
        places.add(tuple(moved[0, 0].nonzero()[0].tolist()))
    assert {row for row, _ in places} == {column for _, column in places} == set(range(5, 16))


@pytest.mark.parametrize(("transform", "angle"), [(Rotate(15), "rotate"), (Shear(15), "shear")])
def test_rotation_and_shear_stay_within_their_limit(transform, angle, monkeypatch):
    seen = []
    monkeypatch.setattr(module.vision, "rotate", lambda x, degrees: seen.append(degrees) or x)
    monkeypatch.setattr(module.vision, "affine", lambda x, shear, **_: seen.append(shear[0]) or x)
    torch.manual_seed(0)
    for _ in range(300):
        transform(frames())
    assert -15 <= min(seen) < -14
    assert 14 < max(seen) <= 15


def test_spike_driven_transformer_never_erases(monkeypatch):
    counts = []
    monkeypatch.setattr(module, "_below", lambda count: counts.append(count) or 0)
    SNNAugmentWide(erase=False)(frames())
    assert counts == [5]


def test_order_is_flips_then_named_then_rand_augment():
    augment = Augment(hflip=0.5, vflip=0.1, event_augment="snn_wide", rand_aug=True, randaug_n=2, randaug_m=9)
    expected = (HorizontalFlip(0.5), VerticalFlip(0.1), SNNAugmentWide(), EventRandAugment(2, 9))
    assert event_transforms(augment) == expected
    assert event_transforms(Augment(no_aug=True, hflip=1.0, rand_aug=True)) == ()
