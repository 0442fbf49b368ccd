"""Augmentation of event samples: one draw for all frames, the input untouched, the rules as published."""

import pytest
import torch

from braincog_transformers.data import event_transforms as module
from braincog_transformers.data.event_transforms import (
    Cutout,
    EventRandAugment,
    HorizontalFlip,
    PaddedCrop,
    PolaritySum,
    ResformerAugment,
    SNNAugmentWide,
    VerticalFlip,
    event_transforms,
)
from braincog_transformers.data.settings import Augment

ALIKE = [HorizontalFlip(0.5), VerticalFlip(0.5), PaddedCrop(), SNNAugmentWide(), ResformerAugment(), Cutout(6)]
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


@pytest.mark.parametrize(("given", "expected"), [(None, 0.5), (0.0, 0.0), (1.0, 1.0)])
def test_spikingresformer_flips_half_of_the_samples_unless_told_otherwise(given, expected):
    defaults = Augment(hflip=0.0, vflip=0.0, event_augment="none")
    filled = Augment(event_augment="resformer", hflip=given).filled(defaults)
    assert filled.hflip == expected
    assert event_transforms(filled)[-1] == ResformerAugment()


def test_order_is_flips_then_named_then_rand_augment():
    augment = Augment(hflip=0.5, vflip=0.1, event_augment="snn_wide", rand_aug=True, randaug_n=2, randaug_m=9)
    expected = (HorizontalFlip(0.5), VerticalFlip(0.1), SNNAugmentWide(), EventRandAugment(2, 9))
    assert event_transforms(augment) == expected
    assert event_transforms(Augment(no_aug=True, hflip=1.0, rand_aug=True)) == ()
