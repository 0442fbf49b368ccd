"""Mixers: labels follow the events, sum to 1, and are never NaN."""

import pytest
import torch

from braincog_transformers.data.events.mixing import CutMix, EventMix, MixUp

MIXERS = [MixUp, CutMix, EventMix]
SHAPE = (6, 3, 2, 12, 10)


def frames(seed=0):
    return torch.poisson(torch.full(SHAPE, 0.7), generator=torch.Generator().manual_seed(seed))


def mix(mixer, x, target, seed=0):
    return mixer(x, target, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", MIXERS)
@pytest.mark.parametrize("seed", range(5))
def test_soft_targets_sum_to_one_and_inputs_are_left_alone(kind, seed):
    x, target = frames(), torch.arange(6)
    kept = x.clone()
    mixed, soft = mix(kind(10, prob=1.0, rounds=2, noise=0.1), x, target, seed)
    assert mixed.shape == SHAPE
    assert soft.shape == (6, 10)
    assert soft.sum(1).tolist() == pytest.approx([1.0] * 6)
    assert soft.min() >= 0
    assert torch.equal(x, kept)


@pytest.mark.parametrize("kind", MIXERS)
@pytest.mark.parametrize("seed", range(8))
def test_empty_samples_give_no_nan(kind, seed):
    x = frames()
    x[::2] = 0
    mixed, soft = mix(kind(10, prob=1.0, beta=0.2), x, torch.arange(6), seed)
    assert torch.isfinite(mixed).all()
    assert torch.isfinite(soft).all()
    assert soft.sum(1).tolist() == pytest.approx([1.0] * 6)


@pytest.mark.parametrize("kind", MIXERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_batch_of_empty_samples_is_labelled_by_area(kind, dtype):
    x = torch.zeros(SHAPE, dtype=dtype)
    mixed, soft = mix(kind(10, prob=1.0, rounds=2), x, torch.arange(6))
    assert not mixed.any()
    assert torch.isfinite(soft).all()
    assert soft.sum(1).tolist() == pytest.approx([1.0] * 6)
    assert not torch.equal(soft, torch.eye(10)[:6])


def test_eventmix_counts_signed_cells_by_their_size():
    x = torch.tensor([1.0, -1.0, 2.0, -2.0]).view(1, 1, 1, 1, 4)
    inside = torch.tensor([True, False, False, False]).view(1, 1, 1, 1, 4)
    # either sample has a sixth of its events inside
    assert EventMix._weight(x, x, inside).item() == pytest.approx(5 / 6)


@pytest.mark.parametrize("kind", MIXERS)
def test_same_generator_same_batch_and_another_seed_another(kind):
    mixer, x, target = kind(10, prob=1.0), frames(), torch.arange(6)
    first, second, third = (mix(mixer, x, target, seed) for seed in (1, 1, 2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], third[0])


@pytest.mark.parametrize("kind", MIXERS)
def test_no_probability_or_no_beta_changes_nothing(kind):
    x, target = frames(), torch.arange(6)
    for mixer in (kind(10, prob=0.0), kind(10, prob=1.0, beta=0.0)):
        mixed, soft = mix(mixer, x, target)
        assert torch.equal(mixed, x)
        assert torch.equal(soft, torch.eye(10)[:6])


@pytest.mark.parametrize("kind", MIXERS)
def test_soft_targets_are_taken_and_mixers_compose(kind):
    x, soft = mix(MixUp(10, prob=1.0), frames(), torch.arange(6))
    _, again = mix(kind(10, prob=1.0), x, soft)
    assert again.sum(1).tolist() == pytest.approx([1.0] * 6)


def test_probability_is_the_share_of_mixed_samples():
    x = torch.rand(400, 1, 1, 2, 2)
    mixed, _ = mix(MixUp(2, prob=0.5), x, torch.zeros(400, dtype=torch.long))
    share = (mixed != x).flatten(1).any(1).float().mean()
    assert 0.4 < share < 0.6


def test_mixup_mixes_frames_as_labels():
    x = torch.eye(6).view(6, 1, 1, 1, 6)
    mixed, soft = mix(MixUp(6, prob=1.0), x, torch.arange(6))
    assert mixed.flatten(1).numpy() == pytest.approx(soft.numpy(), abs=1e-6)


def _own(number):
    """Return samples whose every cell holds the sample's number plus one."""
    return torch.arange(1.0, number + 1).view(-1, 1, 1, 1, 1).expand(number, *SHAPE[1:]).clone()


def test_cutmix_labels_count_by_area_of_one_rectangle():
    mixed, soft = mix(CutMix(6, prob=1.0), _own(6), torch.arange(6), 3)
    cells = torch.stack([(mixed == number + 1).float().mean((1, 2, 3, 4)) for number in range(6)], 1)
    assert soft.numpy() == pytest.approx(cells.numpy(), abs=1e-6)
    assert (mixed == mixed[:, :1, :1]).all()
    foreign = mixed[:, 0, 0] != _own(6)[:, 0, 0]
    filled = foreign.any(1).sum(1) * foreign.any(2).sum(1)
    assert torch.equal(foreign.sum((1, 2)), filled)
    assert foreign.any()


def test_eventmix_weight_follows_the_events_in_the_mask():
    x, other = torch.zeros(1, 1, 2, 1, 4), torch.zeros(1, 1, 2, 1, 4)
    x[0, 0, 0, 0] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    other[0, 0, 0, 0] = torch.tensor([1.0, 1.0, 1.0, 1.0])
    inside = torch.tensor([True, False, False, False]).view(1, 1, 1, 1, 4)
    # r1 = 4 / 10, r2 = 1 / 4: 1 - 0.25 / (1 - 0.4 + 0.25)
    assert EventMix._weight(x, other, inside).item() == pytest.approx(1 - 0.25 / 0.85)


def test_eventmix_weight_of_an_empty_sample_is_its_share_of_the_cells():
    x, inside = torch.zeros(1, 1, 2, 1, 4), torch.tensor([True, False, False, False]).view(1, 1, 1, 1, 4)
    assert EventMix._weight(x, x, inside).item() == pytest.approx(0.75)


def test_eventmix_replaces_the_drawn_share_in_both_polarities():
    mixed, _ = mix(EventMix(6, components=3, prob=1.0), _own(6), torch.arange(6))
    foreign = mixed != _own(6)
    assert torch.equal(foreign[:, :, 0], foreign[:, :, 1])
    assert 0.2 < foreign.float().mean() < 0.8


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MixUp(0), "must be 1 or more; got 0, 1"),
        (lambda: CutMix(10, prob=1.5), "from 0 to 1; got 1.5"),
        (lambda: EventMix(10, components=0), "components must be 1 or more; got 0"),
        (lambda: MixUp(10)(torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.long)), r"must be \(B, T, P, H, W\)"),
    ],
)
def test_wrong_values_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
