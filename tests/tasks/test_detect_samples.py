"""Samples, networks and figures of detection."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from test_backbone import creator
from test_detect_files import CONTENT, changed, gen1_folder, of, read, written

from braincog_transformers.data.build import FrameRule
from braincog_transformers.data.registry import lookup
from braincog_transformers.errors import UserError
from braincog_transformers.recipe.options import Options
from braincog_transformers.runtime.batch import Batch
from braincog_transformers.tasks import find_task
from braincog_transformers.tasks.backbone import build_backbone
from braincog_transformers.tasks.detection.coco import read_coco
from braincog_transformers.tasks.detection.detectors import DetectionLoss, build_detector
from braincog_transformers.tasks.detection.meter import DetectionMeter
from braincog_transformers.tasks.detection.samples import Frames, Photos, Samples, Variation
from braincog_transformers.tasks.detection.scene import scene_folder
from braincog_transformers.tasks.detection.settings import DetectionSettings

SMALL = DetectionSettings(channels=16, box_channels=16)


@pytest.fixture
def annotations(tmp_path):
    """Two pictures whose boxes are white on black."""
    found, _ = read_coco(written(tmp_path / "a.json", CONTENT))
    (tmp_path / "sub").mkdir()
    for i, name in enumerate(found.names):
        height, width = found.sizes[i]
        picture = np.zeros((height, width, 3), np.uint8)
        for (x, y, w, h), crowd in zip(found.of(i).corner, found.of(i).crowd, strict=True):
            picture[round(y) : round(y + h), round(x) : round(x + w)] = 0 if crowd else 255
        Image.fromarray(picture).save(tmp_path / name)
    return found


def photos(annotations, folder, chans=3):
    return Photos(folder, annotations, (0.0,) * chans, (1.0,) * chans, 10_000)


def test_a_test_sample_is_as_large_as_fits_and_says_where_its_boxes_are(annotations, tmp_path):
    x, target = Samples(annotations, photos(annotations, tmp_path), (64, 80))[0]  # 30 x 40 becomes 60 x 80
    assert (x.shape, target.boxes.shape, target.labels.tolist()) == ((3, 64, 80), (2, 4), [1, -1])
    torch.testing.assert_close(target.boxes[0], torch.tensor([20.0, 20, 30, 32]))
    torch.testing.assert_close(target.scale, torch.tensor([2.0, 2.0]))
    assert x[:, 60:].abs().max() == 0
    assert x[0, 22:30, 22:28].min() > 0.9
    assert x[0, :18].max() == x[0, 34:].max() == 0
    grey, _ = Samples(annotations, photos(annotations, tmp_path, 1), (64, 80))[0]
    torch.testing.assert_close(grey[0], x[0], atol=2e-2, rtol=0)


@pytest.mark.parametrize("jitter", [(1.0, 1.0), (0.3, 0.5), (1.5, 2.5)], ids=str)
def test_varied_samples_move_boxes_with_the_picture(annotations, tmp_path, jitter):
    samples = Samples(annotations, photos(annotations, tmp_path), (64, 80), Variation(0.5, jitter))
    torch.manual_seed(0)
    seen, flipped = 0, set()
    for _ in range(20):
        x, target = samples[0]
        for x1, y1, x2, y2 in target.boxes[target.labels >= 0].tolist():
            assert 0 <= x1 < x2 <= 80
            assert 0 <= y1 < y2 <= 64
            mask = torch.zeros(64, 80)
            mask[round(y1) : round(y2), round(x1) : round(x2)] = 1
            assert ((x[0] > 0.5).float() - mask).abs().sum() <= 0.3 * mask.sum() + 8
            seen, flipped = seen + 1, flipped | {x1 > 40}
    assert seen >= 5
    assert len(flipped) == 2 or jitter[1] < 1  # a shrunken picture lies in the left half


def test_a_picture_that_is_damaged_or_of_another_size_is_named(annotations, tmp_path):
    samples = Samples(annotations, photos(annotations, tmp_path), (64, 80))
    Image.new("RGB", (41, 30)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: has 41 x 30 pixels, and .*a\.json says 40 x 30"):
        samples[0]
    (tmp_path / "a.png").write_bytes(b"PNG")
    with pytest.raises(UserError, match=r"a\.png: not a complete picture"):
        samples[0]


def test_frames_hold_the_events_in_front_of_a_moment_in_equal_times(tmp_path):
    found, stretches, _ = read(gen1_folder(tmp_path / "test"))
    rule = FrameRule(sensor=(240, 304), size=(240, 304), steps=5, by="time")
    samples = Samples(found, Frames(stretches, rule), (240, 304))
    x, target = samples[0]
    assert x.shape == (5, 2, 240, 304)
    assert x.sum((1, 2, 3)).tolist() == [10] * 5
    torch.testing.assert_close(target.boxes[1], torch.tensor([0.0, 20, 25, 80]))  # the part on the sensor
    half, target = Samples(found, Frames(stretches, rule), (120, 152))[0]
    assert half.shape == (5, 2, 120, 152)
    torch.testing.assert_close(target.boxes[0], torch.tensor([5.0, 5, 35, 25]))
    empty = gen1_folder(tmp_path / "empty", events=np.array([[10, 0], [900_000, 0]]))
    x, _ = Samples(found, Frames(read(empty)[1], rule), (240, 304))[0]
    assert x.shape == (5, 2, 240, 304)
    assert x.abs().max() == 0


def detector(name, kind="retinanet", head_time="mean", size=(64, 64), settings=SMALL, **arguments):
    body = build_backbone(creator(name, **arguments), head_time, size)
    return build_detector(kind, body, 4, settings)


def target_of(count):
    boxes = torch.tensor([[4.0, 4, 30, 28], [20, 8, 60, 50]]).repeat(count, 1, 1)
    labels = torch.tensor([[0, 3]] * (count - 1) + [[-1, -1]])  # the last has no box
    return Batch(boxes=boxes, labels=labels, image=torch.arange(count), scale=torch.ones(count, 2))


@pytest.mark.parametrize("size", [(224, 224), (160, 224)], ids=str)
@pytest.mark.parametrize("name", ["sdt_v2_digits", "sdt_v3_digits", "qkformer_10_384", "spikingresformer_ti"])
@pytest.mark.parametrize("kind", ["retinanet", "fasterrcnn"])
def test_one_training_step_changes_every_part(kind, name, size):
    torch.manual_seed(0)
    # narrower, PyTorch 2.14 damages memory on some processors: in the backward pass of Conv2d(8, 16, 1, stride=2)
    wider = {"embed_dim": 128} if name.startswith("qkformer") else {}
    network = detector(name, kind, size=size, step=1, **wider).train()
    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    loss = DetectionLoss()(network(torch.randn(2, 3, *size), target_of(2)), target_of(2))
    loss.backward()
    assert loss.isfinite()
    for part in ("backbone.body", "backbone.fpn", "head" if kind == "retinanet" else "roi_heads"):
        assert any(p.grad.abs().sum() > 0 for p in network.model.get_submodule(part).parameters() if p.grad is not None)
    optimizer.step()
    with torch.no_grad():
        found = network.eval()(torch.randn(1, 3, *size))
    assert [set(one) for one in found] == [{"boxes", "labels", "scores"}]


@pytest.mark.parametrize("kind", ["retinanet", "fasterrcnn"])
def test_heads_that_read_each_step_average_what_they_predict(kind):
    torch.manual_seed(0)
    each, mean = (detector("sdt_v2_digits", kind, time, step=2).eval() for time in ("each", "mean"))
    mean.load_state_dict(each.state_dict())
    for network in (each, mean):  # a box for each anchor, whatever its score
        (network.model if kind == "retinanet" else network.model.roi_heads).score_thresh = 0.0
    still = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for name, module in each.body.inner.named_modules():
            if name.endswith("bn"):
                module.running_var.fill_(0.05)  # so that neurons fire, and steps differ
        mean.load_state_dict(each.state_dict())
        maps = each.body(still)["0"].unflatten(0, (2, -1))
        assert not torch.equal(maps[0], maps[1])
        found, other = each(still), mean(still)
    assert [len(one["boxes"]) for one in found] == [len(one["boxes"]) for one in other]
    assert not torch.equal(found[0]["scores"], other[0]["scores"])  # a head is not linear
    if kind == "retinanet":
        head = each.model.head
        with torch.no_grad():
            levels = list(each.model.backbone(still).values())
            both = head(levels)
            head.steps = 1
            first, second = (head([one.unflatten(0, (2, -1))[i] for one in levels]) for i in range(2))
        for key, values in both.items():
            torch.testing.assert_close(values, (first[key] + second[key]) / 2)
    assert DetectionLoss()(each.train()(still, target_of(2)), target_of(2)).isfinite()


def test_heads_of_faster_r_cnn_average_what_they_predict():
    torch.manual_seed(0)
    model = detector("sdt_v2_digits", "fasterrcnn").model
    predictor, rpn, align = model.roi_heads.box_predictor, model.rpn.head, model.roi_heads.box_roi_pool
    x, maps, boxes = torch.randn(6, 16), torch.randn(4, 16, 8, 8), torch.tensor([[0.0, 0, 16, 16], [4, 4, 30, 20]])

    def predicted(steps, x, maps, regions):
        predictor.steps = rpn.steps = align.steps = steps
        both = predictor(x), tuple(one[0] for one in rpn([maps]))
        return *both, align({"0": maps}, regions, [(32, 32)] * len(regions))

    with torch.no_grad():
        both = predicted(2, x, maps, [boxes, boxes + 2])
        first, second = (predicted(1, x[i : i + 3], maps[j : j + 2], [boxes, boxes + 2]) for i, j in ((0, 0), (3, 2)))
    for heads in range(2):
        for one, a, b in zip(both[heads], first[heads], second[heads], strict=True):
            torch.testing.assert_close(one, (a + b) / 2)
    torch.testing.assert_close(both[2], torch.cat([first[2], second[2]]))  # steps outermost


def test_the_background_is_no_class_for_others():
    class Told(torch.nn.Module):
        def forward(self, images, targets):
            self.labels = None if targets is None else [one["labels"].tolist() for one in targets]
            return [{"labels": torch.tensor([1, 4])}]

    network = detector("sdt_v2_digits", "fasterrcnn")
    told = Told()
    told.backbone = network.model.backbone
    network.model = told
    (found,) = network(torch.zeros(2, 3, 64, 64), target_of(2))
    assert (found["labels"].tolist(), told.labels) == ([0, 3], [[1, 4], []])


def test_frames_of_events_are_read_and_sides_may_be_odd():
    network = detector("sdt_v2_digits", size=(100, 90), in_chans=2).train()
    frames = torch.rand(2, 3, 2, 100, 90)
    losses = network(frames, target_of(2))
    assert set(losses) == {"classification", "bbox_regression"}
    with torch.no_grad():
        (found,) = network.eval()(frames[:1])
    assert found["boxes"].numel() == 0 or (found["boxes"] <= torch.tensor([90.0, 100, 90, 100])).all()


def test_a_flat_network_and_levels_that_it_has_not():
    levels = detector("spikformer_digits", patch_size=16, img_size=64).model.backbone
    assert levels.strides == [8, 16, 32, 64, 128]
    levels = detector("sdt_v3_digits", "fasterrcnn").model.backbone
    assert levels.strides == [4, 8, 16, 32, 64]
    with torch.no_grad():
        sides = [tuple(one.shape[-2:]) for one in levels.eval()(torch.zeros(1, 3, 64, 128)).values()]
    assert sides == [(16, 32), (8, 16), (4, 8), (2, 4), (1, 2)]
    with pytest.raises(UserError, match="first_stride=32: the backbone has maps of stride 4, 8, 16"):
        detector("sdt_v3_digits", settings=DetectionSettings(first_stride=32))


def given(boxes, labels, scores):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.long),
        "scores": torch.tensor(scores, dtype=torch.float32),
    }  # fmt: skip


def measured(annotations, found, threshold=0.3, parts=1):
    """Return meter and figures of boxes given in pixels of the pictures, which the canvas has doubled."""
    meter = DetectionMeter(annotations, threshold)
    doubled = [{**one, "boxes": one["boxes"] * 2} for one in found]
    target = Batch(image=torch.arange(2), scale=torch.full((2, 2), 2.0))
    meter.update(lambda x: doubled, torch.zeros(2, 3, 64, 80), target)
    return meter, meter.compute(lambda mine: [mine] * parts)


def test_figures_are_those_of_coco(annotations, tmp_path):
    exact = [given([[10, 10, 15, 16]], [1], [0.9]), given([[2, 3, 6.5, 8]], [1], [0.8])]
    meter, figures = measured(annotations, exact)
    assert figures == {"map": 100, "map50": 100, "map75": 100, "map_small": 100}  # no box is larger, apart from a group
    assert measured(annotations, exact, parts=2)[1] == figures  # what two ranks have seen counts once
    # intersection 25 over union 30 + 30 - 25: 0.714, found at the overlaps of 0.5 to 0.7
    shifted = [given([[11, 10, 16, 16]], [1], [0.9]), given([[2, 3, 6.5, 8]], [1], [0.8])]
    _, figures = measured(annotations, shifted)
    assert figures["map50"] == 100
    assert 0.45 * 100 < figures["map"] < 80
    nothing = [given([], [], [])] * 2
    assert set(measured(annotations, nothing)[1].values()) == {0.0}
    wrong = [given([[10, 10, 15, 16]], [0], [0.9]), given([[50, 50, 60, 60]], [1], [0.8])]
    assert measured(annotations, wrong)[1]["map"] == 0
    (path,) = meter.write(tmp_path)
    rows = json.loads(path.read_text(encoding="utf-8"))
    assert rows[0] == {"image_id": 7, "category_id": 5, "bbox": [10, 10, 5, 6], "score": 0.9}
    assert len(json.loads(measured(annotations, exact, 0.85)[0].write(tmp_path)[0].read_text())) == 1


def options(**fields):
    return Options.from_dict({"task": "detect", "dataset": "detect_scene", "model": "sdt_v3_digits", **fields})


def test_the_scene_is_a_set_in_cocos_format_and_a_run_of_the_task_reads_it(tmp_path):
    task = find_task("detect")(options(task_kwargs=["channels=16"]))
    info = lookup("detect_scene")
    bundle = task.build_data(info, tmp_path)
    assert (len(bundle.train), len(bundle.test), bundle.input_shape) == (200, 60, (3, 96, 96))
    assert bundle.classes == info.classes
    assert scene_folder(info, tmp_path) == tmp_path / "detect_scene"
    assert not list(tmp_path.glob(".*"))
    for samples in (bundle.train, bundle.test):
        for i in range(3):
            x, target = samples[i]
            box = target.boxes[0].round().int().tolist()
            inside = x[:, box[1] + 2 : box[3] - 2, box[0] + 2 : box[2] - 2]
            assert (inside.mean((1, 2)) - x[:, 0, 0]).abs().max() > 0.2  # there is a shape
    create = creator("sdt_v3_digits", img_size=96)
    network = task.build_network(bundle, create, print).eval()
    meter = task.meter(bundle)
    x, target = bundle.test[0]
    with torch.no_grad():
        meter.update(network, x[None], Batch.stack([target]))
        figures = meter.compute(lambda mine: [mine])
        (path,) = task.draw(network, bundle, tmp_path, lambda x, target: (x, target))
    assert figures["map"] >= 0
    assert Image.open(path).size[0] > 500


def test_a_set_of_your_own_and_what_differs_between_its_halves(annotations, tmp_path):
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "pics" / "sub").mkdir(parents=True)
    for name in annotations.names:
        (tmp_path / name).rename(root / "pics" / name)
    written(root / "mine.json", changed(of("annotations", 0, category_id=2)))
    written(root / "test.json", CONTENT)
    kwargs = ["train_json=mine.json", "val_json=test.json", "images=pics"]
    made = options(dataset="coco", task_kwargs=[*kwargs, "size=(64, 96)"])
    bundle = find_task("detect")(made).build_data(lookup("coco"), tmp_path)
    assert (bundle.input_shape, bundle.classes) == ((3, 64, 96), ("cat", "dog"))
    other = {"id": 1, "name": "x"}
    written(root / "mine.json", changed(lambda c: c["annotations"].pop(1) and c["categories"].append(other)))
    with pytest.raises(UserError, match="only one of both has x"):
        find_task("detect")(made).build_data(lookup("coco"), tmp_path)
    written(root / "test.json", changed(lambda c: c["categories"].append({"id": 1, "name": "x"})))
    with pytest.warns(UserWarning, match=r"mine\.json: no box has the class x"):
        find_task("detect")(made).build_data(lookup("coco"), tmp_path)


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        (["window_us=5"], "window_us: for sets in the layout of gen1, not for detect_scene"),
        (["jitter=(2.0, 1.0)"], "jitter: must be the smaller and the larger factor"),
        (["channels=1"], "channels: must be from 2"),
        (["first_stride=3"], "first_stride: must be 1, 2, 4"),
        (["channel=3"], "channel: detect has no such option"),
    ],
    ids=["layout", "jitter", "channels", "stride", "name"],
)
def test_options_that_do_not_fit_are_refused(kwargs, said, tmp_path):
    with pytest.raises(UserError, match=said):
        find_task("detect")(options(task_kwargs=kwargs)).build_data(lookup("detect_scene"), tmp_path)


def test_gen1_is_read_with_the_steps_of_the_network(tmp_path):
    for part in ("train", "test"):
        gen1_folder((tmp_path / "gen1").mkdir(exist_ok=True) or tmp_path / "gen1" / part)
    task = find_task("detect")(options(dataset="gen1", model="sdt_v2_digits", frames_by="time"))
    bundle = task.build_data(lookup("gen1"), tmp_path)
    own = timm.create_model("sdt_v2_digits").step
    assert bundle.input_shape == (own, 2, 240, 304)
    assert bundle.classes == ("car", "pedestrian")
    network = task.build_network(bundle, creator("sdt_v2_digits", step=own, in_chans=2, img_size=(240, 304)), print)
    assert network.body.inner.in_chans == 2
