"""The task of tracking: pairs, the loop over a sequence, its figures and files, and a run of the scene."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from braincog_transformers.cli import main
from braincog_transformers.errors import UserError
from braincog_transformers.runtime.batch import Batch
from braincog_transformers.tasks.tracking import TrackingSettings
from braincog_transformers.tasks.tracking.files import find_sequences, write_sequence
from braincog_transformers.tasks.tracking.meter import TrackingMeter
from braincog_transformers.tasks.tracking.samples import PairRules, Pairs
from braincog_transformers.tasks.tracking.scene import make_scene
from braincog_transformers.tasks.tracking.targets import Locations, TrackingLoss

RULES = {"penalty": 0.04, "influence": 0.21, "rate": 0.52, "context": 0.5, "smallest": 10.0}
Z, X, COUNT, STRIDE = 63, 127, 9, 8


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    """A bright square that moves over a dark ground, and a smaller one."""
    root = tmp_path_factory.mktemp("tracks")
    for name, side, step in (("one", 16, 2), ("two", 12, -1)):
        corners = np.array([[30 + step * n, 20 + n] for n in range(8)])
        frames = np.zeros((8, 2, 5, 72, 96), np.uint8)
        for frame, (x, y) in zip(frames, corners, strict=True):
            frame[..., y : y + side, x : x + side] = 255
        write_sequence(root, "train", name, frames, np.concatenate([corners, np.full((8, 2), side)], axis=1))
    (root / "img_120_split" / "train" / "list.txt").write_text("one\ntwo\n")
    return find_sequences(root, "train")


class Finder(nn.Module):
    """Stands for a network: it finds what is bright in the search region, and scores the nearest location."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.z_size, self.x_size, self.score_size, self.total_stride = Z, X, COUNT, STRIDE
        self.calls = []

    def reset(self):
        self.calls.append("reset")

    def embed_template(self, template):
        assert template.shape == (1, 2, 5, 3, Z, Z)
        self.calls.append("template")
        return template.float().mean()

    def track(self, search, kernels):
        assert search.shape == (1, 2, 5, 3, X, X)
        y, x = torch.nonzero(search[0, 0, 4, 0] > 127).double().T
        box = torch.stack([x.min(), y.min(), x.max(), y.max()])
        places = torch.arange(COUNT) * STRIDE + Locations(COUNT, STRIDE, X).offset
        rows, columns = torch.meshgrid(places, places, indexing="ij")
        away = (rows.flatten() - (box[1] + box[3]) / 2) ** 2 + (columns.flatten() - (box[0] + box[2]) / 2) ** 2
        logits = 10 - away / 4
        return Batch(cls=logits[None, :, None], ctr=torch.full((1, COUNT**2, 1), 9.0), boxes=box.expand(1, COUNT**2, 4))


def test_a_sequence_is_tracked_and_measured(sequences, tmp_path):
    network, meter = Finder().eval(), TrackingMeter(**RULES)
    for number, sequence in enumerate(sequences):
        meter.update(network, sequence, number)
    assert network.calls == ["reset", "template", "reset"] * 2
    found = meter.compute(lambda own: [own])
    assert found["precision"] == 100
    assert found["ao"] > 80
    paths = meter.write(tmp_path)
    lines = (tmp_path / "tracks" / "one.txt").read_text().splitlines()
    assert len(lines) == 8
    assert [float(one) for one in lines[0].split(",")] == sequences[0].boxes[0].tolist()
    assert json.loads((tmp_path / "tracks.json").read_text())["one"]["precision"] == 100
    assert paths == [tmp_path / "tracks", tmp_path / "tracks.json"]
    # two ranks see a sequence each
    parts = [TrackingMeter(**RULES) for _ in range(2)]
    for part, sequence in zip(parts, sequences, strict=True):
        part.update(network, sequence, 0)
    tracks = [part.tracks for part in parts]
    assert parts[0].compute(lambda own: tracks) == pytest.approx(found)


@pytest.mark.parametrize("spoiled", ["cls", "boxes"])
def test_a_network_that_gives_nan_is_named(sequences, spoiled):
    class Damaged(Finder):
        def track(self, search, kernels):
            found = super().track(search, kernels)
            parts = {name: found[name] for name in ("cls", "ctr", "boxes")}
            return Batch(**parts | {spoiled: parts[spoiled] * float("nan")})

    with pytest.raises(UserError, match="one: the tracker's boxes are not finite") as caught:
        TrackingMeter(**RULES).update(Damaged().eval(), sequences[0], 0)
    assert "\n" not in str(caught.value)


def rules(**other):
    given = {"context": 0.5, "most_apart": 2, "negative": 0.0, "scale": 1.3, "shift": 0.4} | other
    return PairRules(Z, X, Locations(COUNT, STRIDE, X), **given)


def test_a_pair_has_the_object_where_the_target_says(sequences):
    pairs = Pairs(sequences, rules(), 50, varied=True)
    torch.manual_seed(0)
    sides = set()
    for index in range(20):
        x, target = pairs[index]
        assert x.template.shape == (2, 5, 3, Z, Z)
        assert x.search.dtype == torch.uint8
        assert (target.cls == 1).any()
        box = target.boxes[target.cls[:, 0] == 1][0]
        bright = torch.nonzero(x.search[0, 4, 0] > 127).float()
        seen = torch.cat([bright.amin(0).flip(0), bright.amax(0).flip(0)])
        assert (seen - box).abs().max() < 2.5
        sides.add(round(float(box[2] - box[0])))
    assert len(sides) > 4  # scales vary


def test_pairs_of_two_objects(sequences):
    pairs = Pairs(sequences, rules(negative=1.0), 50, varied=True)
    torch.manual_seed(0)
    found = [pairs[index][1].cls for index in range(8)]
    assert all(cls.max() == 0 and cls.min() == -1 for cls in found)
    alone = Pairs(sequences[:1], rules(negative=1.0), 50, varied=True)
    assert (alone[0][1].cls == 1).any()  # there is no other object


def test_pairs_that_are_not_varied_are_the_same(sequences):
    pairs = Pairs(sequences, rules(), 6, varied=False)
    first, second = pairs[3], pairs[3]
    assert all(torch.equal(a, b) for a, b in zip(first[0].tensors(), second[0].tensors(), strict=True))


def test_boxes_that_nothing_can_be_learnt_of(sequences):
    thin = [type(one)(one.name, one.folder, one.frames, one.boxes.clone(), one.size) for one in sequences]
    for one in thin:
        one.boxes[:, 3] = 1
    with pytest.raises(UserError, match="nothing to learn from"):
        Pairs(thin, rules(), 5, varied=True)


def test_the_loss_has_a_gradient_without_positives():
    locations = Locations(COUNT, STRIDE, X)
    target = locations.targets(torch.tensor([-9.0, -9.0, -3.0, -3.0]))
    target = target.map(lambda value: value[None])
    shapes = {"cls": (1, COUNT**2, 1), "ctr": (1, COUNT**2, 1), "boxes": (1, COUNT**2, 4)}
    output = Batch(**{name: torch.zeros(shape, requires_grad=True) for name, shape in shapes.items()})
    TrackingLoss(1, 1, 3, 0.25, 2)(output, target).backward()
    assert all(torch.isfinite(one.grad).all() for one in output.tensors())


@pytest.mark.parametrize(
    "given", [{"pairs": 0}, {"negative": 1.5}, {"scale": 0.5}, {"cls_weight": -1.0}, {"smallest": 0.0},
              {"cls_weight": 0.0, "ctr_weight": 0.0, "box_weight": 0.0}, {"rate": float("nan")}],
)  # fmt: skip
def test_settings_are_checked(given):
    with pytest.raises(UserError, match=next(iter(given))):
        TrackingSettings(**given)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "track_scene"
    make_scene(root)
    return root


def test_the_scene_is_the_same_each_time(scene, tmp_path):
    make_scene(tmp_path / "again")
    files, again = (
        sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
        for root in (scene, tmp_path / "again")
    )
    assert files == again
    assert sum((scene / path).stat().st_size for path in files) < 8e6
    for path in files[:: len(files) // 50]:
        assert (scene / path).read_bytes() == (tmp_path / "again" / path).read_bytes()


def test_a_run_on_the_scene(scene, tmp_path, capsys):
    given = ["-c", "track_scene", "--data-dir", str(scene.parent), "--output", str(tmp_path), "--tensorboard-dir", ""]
    given += ["--task-kwargs", "pairs=8", "--epochs", "1", "--warmup-epochs", "0", "--experiment", "run"]
    assert main(given) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["task"]["metric"] == "auc"
    assert {"test_auc", "test_precision", "test_sr50"} <= results["results"].keys()
    assert results["results"]["firing_rate"] > 0
    for name in ("tracks.png", "success.png", "curves.png", "tracks.json", "tracks/pattern_test_01.txt"):
        assert (tmp_path / "run" / name).stat().st_size > 100
    assert "T=5" in capsys.readouterr().out
    assert main([*given[:-2], "--model", "spike_transformer_depth"]) == 2
    assert "unknown network of --task track" in capsys.readouterr().err
