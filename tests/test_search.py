"""The training-free search: sizes and operations by formula, the evolution, what is refused."""

import random
from collections import Counter

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from braincog_transformers import UserError
from braincog_transformers.models import AutoST
from braincog_transformers.search import SPACES, Architecture, Evolution, Space, Task, macs, parameters, search
from braincog_transformers.search import _cross as cross
from braincog_transformers.search import _mutate as mutate
from braincog_transformers.search import _Window as Window

SMALL = Space((16, 32), (1, 2, 3), (2, 3.5), (1, 2, 4))


def alike(dim, depth, ratio, heads=4):
    return Architecture(dim, (heads,) * depth, (ratio,) * depth)


def build(architecture, task, **kwargs):
    return AutoST(
        **architecture.arguments(), patch_size=task.patch_size, img_size=task.img_size, in_chans=task.in_chans,
        num_classes=task.num_classes, **kwargs,
    )  # fmt: skip


def size_of(network):
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("architecture", "in_chans", "expected"),
    [
        (alike(192, 1, 3), 3, 926_444),
        (alike(384, 10, 5), 3, 22_964_483),
        (alike(256, 2, 3), 3, 2_304_827),
        (alike(512, 12, 5), 3, 48_141_985),
        (alike(384, 4, 3), 3, 8_140_505),
        (alike(768, 15, 6), 3, 150_744_790),
        (alike(384, 4, 4), 3, 9_324_761),
        (Architecture(256, (4, 8, 8, 4), (4, 3, 5, 4)), 3, 4_155_209),
        (alike(256, 2, 4), 2, 2_568_219),
    ],
    ids=lambda value: f"{value.embed_dim}-{value.depth}" if isinstance(value, Architecture) else "",
)
def test_parameters_are_those_of_the_official_class(architecture, in_chans, expected):
    task = Task(in_chans=in_chans)
    assert parameters(architecture, task) == expected
    with torch.device("meta"):
        assert size_of(build(architecture, task)) == expected


@pytest.mark.parametrize("patch_size", [1, 2, 4, 8, 16])
def test_formulas_agree_with_the_network(patch_size):
    # at most as many tokens as channels of a head: there the network too multiplies Q by K first
    side = {1: 4}.get(patch_size, 2 * patch_size)
    task = Task((side, 2 * side), in_chans=2, num_classes=7, patch_size=patch_size)
    architecture = Architecture(64, (2, 1), (3, 2.3))
    network = build(architecture, task, step=1).eval()
    assert parameters(architecture, task) == size_of(network)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.rand(1, 2, *task.img_size))
    assert 2 * macs(architecture, task) == counter.get_total_flops()


@pytest.mark.parametrize(
    ("space", "window", "dim", "ratios", "size", "gmac"),
    [("small", (11, 12), 512, (3, 3, 3), 11_818_594, 1.348), ("tiny", (4, 5), 384, (5,), 4_281_284, 0.604)],
    ids=["small", "tiny"],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_best_of_the_official_spaces(space, window, dim, ratios, size, gmac, seed):
    best = search(SPACES[space], window, how=Evolution(seed=seed))[0]
    assert (best.architecture.embed_dim, best.architecture.mlp_ratio, best.parameters) == (dim, ratios, size)
    assert best.macs / 1e9 == pytest.approx(gmac, abs=5e-4)


@pytest.mark.parametrize(("name", "window"), [("tiny", (4, 5)), ("small", (11, 12)), ("base", (28, 30))])
def test_the_registered_variants_are_what_the_search_finds(name, window):
    best = search(SPACES[name], window)[0]
    with torch.device("meta"):
        registered = timm.create_model(f"autost_{name}")
        found = timm.create_model("autost", **best.architecture.arguments())
    assert str(registered) == str(found)
    assert size_of(registered) == best.parameters


def test_the_seed_decides_everything():
    first, again, other = (search(SPACES["small"], (11, 12), how=Evolution(seed=seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_all_that_was_scored_fits_into_the_window_and_the_space():
    found = search(SPACES["base"], (15, 16.5))
    assert len(found) > 500
    assert len({one.architecture for one in found}) == len(found)
    assert [one.macs for one in found] == sorted((one.macs for one in found), reverse=True)
    for one in found:
        assert 15e6 <= one.parameters <= 16.5e6
        assert one.architecture.embed_dim in SPACES["base"].embed_dim
        assert one.architecture.depth in SPACES["base"].depth
        assert len(one.architecture.mlp_ratio) == one.architecture.depth
        assert {*one.architecture.mlp_ratio} <= {3, 4, 5, 6}
        assert {*one.architecture.num_heads} <= {4, 8}


def test_a_window_with_few_candidates_is_searched_to_its_end():
    task = Task()
    size = parameters(alike(32, 2, 3.5), task) / 1e6
    found = search(SMALL, (size, size), task)
    assert {one.architecture for one in found} == {
        Architecture(32, (a, b), (3.5, 3.5)) for a in (1, 2, 4) for b in (1, 2, 4)
    }


def test_random_candidates_are_uniform_on_condition_of_the_window():
    window, rng = Window(SMALL, (0.01, 0.03), Task()), random.Random(0)
    drawn = Counter(window.draw(rng) for _ in range(5_000))
    expected = Counter()
    while expected.total() < 5_000:
        depth = rng.choice(SMALL.depth)
        heads, ratios = (tuple(rng.choices(from_, k=depth)) for from_ in (SMALL.num_heads, SMALL.mlp_ratio))
        one = Architecture(rng.choice(SMALL.embed_dim), heads, ratios)
        expected[one] += one in window

    def shares(counts):
        return Counter((one.embed_dim, one.mlp_ratio) for one in counts.elements())

    ours, theirs = shares(drawn), shares(expected)
    assert ours.keys() == theirs.keys()
    assert all(abs(ours[key] - theirs[key]) < 5 * theirs[key] ** 0.5 for key in ours)
    assert window.count == len({*drawn, *+expected})


def test_a_mutation_appends_blocks_or_cuts_them():
    parent, how = Architecture(16, (1, 2, 4), (2, 3.5, 2)), Evolution(layer_prob=0, size_prob=1)
    children = [mutate([parent], SMALL, how, random.Random(seed)) for seed in range(60)]
    assert {child.depth for child in children} == {1, 2, 3}
    for child in children:
        assert child.num_heads == parent.num_heads[: child.depth]
        assert child.mlp_ratio == parent.mlp_ratio[: child.depth]
    grown = [mutate([Architecture(16, (4,), (3.5,))], SMALL, how, random.Random(seed)) for seed in range(60)]
    assert {child.num_heads[1:] for child in grown if child.depth == 2} == {(1,), (2,), (4,)}
    kept = Evolution(layer_prob=0, size_prob=0)
    assert mutate([parent], SMALL, kept, random.Random(0)) == parent


def test_parents_of_different_depths_have_no_child():
    rng = random.Random(0)
    parents = [Architecture(16, (1,), (2,)), Architecture(32, (4, 2), (3.5, 2))]
    children = {cross(parents, rng) for _ in range(100)}
    assert children == set(parents)  # each with itself only
    twins = [Architecture(16, (1, 1), (2, 2)), Architecture(32, (4, 4), (3.5, 3.5))]
    children = {cross(twins, rng) for _ in range(2000)}
    assert len(children) == 2**5


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ((0.1, 0.2), "0.1 to 0.2 million parameters: the smallest has 0.926444, the largest 22.9645; choose"),
        ((30, 40), "the smallest has 0.926444, the largest 22.9645; choose another window"),
        ((5.0001, 5.0002), "and none in between fits"),
        ((12, 11), "must be the smallest and the largest"),
        ((-1, 11), "must be the smallest and the largest"),
        ((1, float("nan")), "must be the smallest and the largest"),
        ((1,), "must be the smallest and the largest"),
    ],
)
def test_a_window_without_candidates_is_refused_before_the_search(window, message):
    def unreachable(generations):
        raise AssertionError("the search began")

    with pytest.raises(UserError, match=message):
        search(SPACES["tiny"], window, progress=unreachable)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Space((20,), (1,), (4,), (4,)), r"embed_dim must be multiples of 8; got 20"),
        (lambda: Space((32,), (1,), (4,), (5,)), r"embed_dim must be multiples of 5 \(num_heads\); got 32"),
        (lambda: Space((32,), (0,), (4,), (4,)), "depth must be whole numbers from 1 to 64; got 0"),
        (lambda: Space((32,), (1.0,), (4,), (4,)), "depth must be whole numbers from 1 to 64; got 1.0"),
        (lambda: Space((32, 32), (1,), (4,), (4,)), r"embed_dim needs 1 to 64 different values; got \[32, 32\]"),
        (lambda: Space((32,), (1,), (), (4,)), "mlp_ratio needs 1 to 64 different values"),
        (lambda: Space((32,), (1,), (0.01,), (4,)), "mlp_ratio times embed_dim must be 1 to"),
        (lambda: Task((30, 32)), "img_size must be multiples of patch_size=4; got 30"),
        (lambda: Task(patch_size=3), "patch_size must be 1, 2, 4, 8 or 16; got 3"),
        (lambda: Task(num_classes=0), "num_classes must be a whole number from 1 on; got 0"),
        (lambda: Evolution(population=0), "population must be a whole number from 1"),
        (lambda: Evolution(crossovers=-1), "crossovers must be a whole number from 0"),
        (lambda: Evolution(size_prob=1.5), "size_prob must be a probability, 0 to 1; got 1.5"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_a_space_with_too_many_sums_is_refused_at_once():
    ratios = [1 + i / 97 for i in range(64)]
    with pytest.raises(UserError, match="too many to count"):
        search(Space((65_536,), (64,), ratios, (8,)), (1, 1e9))
