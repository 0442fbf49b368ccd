"""The task pose: official losses, scores and augmentation, the sets' files, bad ones, and a run on its scene."""

import json
import pickle
import shutil
import warnings

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from test_body_model import fields

from braincog_transformers.cli import main
from braincog_transformers.data import DATASETS
from braincog_transformers.data.registry import TaskSet, lookup
from braincog_transformers.errors import NonFiniteLoss, UserError
from braincog_transformers.models.body_model import SMPL, Skeleton
from braincog_transformers.models.rotations import Camera, matrices_from_axis_angles, project
from braincog_transformers.recipe import Options
from braincog_transformers.runtime.batch import Batch
from braincog_transformers.tasks.pose import PoseEstimation, PoseSettings, scene
from braincog_transformers.tasks.pose.clips import merged, unpacked
from braincog_transformers.tasks.pose.files import Action, clips_of, find_actions, read_pose
from braincog_transformers.tasks.pose.geometry import aligned, crop_matrix, fit_translation, transform, warp
from braincog_transformers.tasks.pose.losses import PoseLoss
from braincog_transformers.tasks.pose.meter import PoseMeter
from braincog_transformers.tasks.pose.metrics import figures, joint_errors, right_joints
from braincog_transformers.training.optim import build_optimizer

VALUE = 1e-9
STEPS = 2


# Numbers of the official code


@pytest.fixture(scope="module")
def vector(pytestconfig):
    folder = pytestconfig.getoption("--golden-dir")
    paths = [folder / f"{name}.safetensors" for name in ("spiking_pose_transformer_geometry", "pose_scores")]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        pytest.skip("no vector of poses is in --golden-dir")
    tensors = load_file(path)
    pred, target = (
        {name[len(start) :]: value for name, value in tensors.items() if name.startswith(start)}
        for start in ("loss.pred.", "loss.target.")
    )
    pred["rotations"] = pred.pop("pred_rotmats")
    target["rotations"] = matrices_from_axis_angles(target.pop("theta").unflatten(-1, (24, 3)))
    return tensors, Batch(**pred), Batch(**target)


@pytest.mark.parametrize("kind", ["geodesic", "mse"])
def test_losses_match(vector, kind):
    tensors, pred, target = vector
    loss = PoseLoss(geodesic=kind == "geodesic")
    terms = loss.terms(pred, target)
    expected = {name: tensors[f"loss.value.{kind}.{name}"].item() for name in terms}
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=VALUE)
    assert loss(pred, target).item() == pytest.approx(sum(expected.values()), rel=VALUE)


def test_scores_match(vector):
    tensors, pred, target = vector
    errors = joint_errors(pred.joints3d, target.joints3d)
    for name, found in errors.items():
        torch.testing.assert_close(found, tensors[f"metric.{name}"], atol=VALUE, rtol=0)
    right = right_joints(pred.joints3d, target.joints3d)
    for name, key in (("pck", "pck"), ("pckh", "pck_head"), ("pck_torso", "pck_torso")):
        assert torch.equal(right[name], tensors[f"metric.{key}"].bool())
    found = figures(pred.joints3d, target.joints3d)
    assert found["pa_mpjpe"] == pytest.approx(1000 * tensors["metric.pa_mpjpe"].mean().item())
    assert found["pck"] == pytest.approx(100 * tensors["metric.pck"].double().mean().item())


def test_augmentation_matches(vector):
    tensors, _, _ = vector
    for row in tensors["aug.affine"]:
        x, y, width, height, to_width, to_height, degrees, *matrix = row.tolist()
        found = crop_matrix((x, y), (width, height), (to_width, to_height), degrees)
        # the official corners are float32
        torch.testing.assert_close(found.flatten(), row.new_tensor(matrix), atol=5e-5, rtol=0)
    found = transform(tensors["aug.points_in"], tensors["aug.affine"][1, 7:].view(2, 3))
    torch.testing.assert_close(found, tensors["aug.points_out"], atol=VALUE, rtol=0)
    camera = Camera(335.86, 335.86, 128.2, 128.2, 256, 256)
    found = fit_translation(tensors["aug.transl.joints3d"], tensors["aug.transl.joints2d"] / 256, camera)
    torch.testing.assert_close(found, tensors["aug.transl.value"], atol=VALUE, rtol=0)


def test_event_frames_match(vector):
    tensors, _, _ = vector
    found = unpacked(merged(list(tensors["events.packed"].numpy())), 8, 4)
    assert torch.equal(found.float(), tensors["events.frame"])


# Geometry


def test_pictures_move_as_points_do():
    frames = torch.zeros(1, 64, 64)
    frames[0, 20, 30] = 1
    matrix = crop_matrix((36.0, 28.0), (50.0, 50.0), (64.0, 64.0), 17.0)
    seen = warp(frames, matrix)[0].nonzero().float().mean(dim=0).flip(0)
    assert (seen - transform(torch.tensor([30.0, 20.0]), matrix)).abs().max() < 0.7
    beside = crop_matrix((60.0, 32.0), (64.0, 64.0), (64.0, 64.0), 0.0)
    assert warp(torch.ones(1, 64, 64), beside).sum() == 64 * 36  # 28 columns come from outside


def test_alignment_undoes_a_similarity_and_no_reflection():
    points = torch.randn(5, 24, 3, dtype=torch.float64)
    turn = matrices_from_axis_angles(torch.randn(5, 3, dtype=torch.float64))
    moved = 1.7 * points @ turn + torch.randn(5, 1, 3)
    torch.testing.assert_close(aligned(points, moved), moved)
    assert (aligned(points * torch.tensor([-1, 1, 1]), points) - points).norm(dim=-1).mean() > 0.1
    assert aligned(torch.zeros(1, 24, 3), points[:1].float()).isfinite().all()


# Files


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Two actions of the scene, one of which tests."""
    root = tmp_path_factory.mktemp("recorded")
    for subject in (1, 3):
        shape, rng = np.random.default_rng(subject).normal(size=5), np.random.default_rng((1, subject))
        scene._write_action(root / "mmhpsd_events" / f"subject{subject:02d}_group1_time1", shape, rng)
    return root


@pytest.fixture
def folder(recorded, tmp_path):
    """A copy, to be damaged."""
    shutil.copytree(recorded, tmp_path / "data")
    return tmp_path / "data"


def task(*kwargs, **options):
    options = {"step": STEPS, "task": "pose", "dataset": "mmhpsd", "model": "spiking_pose_transformer_small"} | options
    given = {"task_kwargs": list(kwargs)} if kwargs else {}
    return PoseEstimation(Options.from_dict({"event_size": 64, **options, **given}))


def built(root, *kwargs, dataset="mmhpsd", **options):
    return task(*kwargs, dataset=dataset, **options).build_data(lookup(dataset), root)


def first(root):
    return root / "mmhpsd_events" / "subject03_group1_time1"


@pytest.mark.parametrize("augment", [False, True])
def test_samples_agree_with_themselves(recorded, augment):
    """Joints are where the camera sees them and where the body has them, turned, cropped, mirrored or not."""
    bundle = built(recorded, f"augment={augment}")
    poses = [read_pose(clip.action.pose(clip.start)) for clip in bundle.train.clips]
    pose = {name: torch.from_numpy(np.stack([one[name] for one in poses])) for name in poses[0]}
    rotations = matrices_from_axis_angles(pose["body_pose"])
    body = Skeleton.fit(rotations, pose["beta"], pose["joints3d"], pose["trans"])
    assert body.error < 1e-5
    changed, plain = [], built(recorded, "augment=False").train
    for index in range(8):
        events, target = bundle.train[index]
        assert (tuple(events.shape), set(events.unique().tolist())) == ((STEPS, 4, 64, 64), {0.0, 1.0})
        assert [tuple(value.shape) for value in target.tensors()] == [
            (STEPS + 1, 24, 3, 3), (STEPS + 1, 3), (STEPS + 1, 10), (STEPS + 1, 24, 3), (STEPS + 1, 24, 2), ()
        ]  # fmt: skip
        joints = body(target.rotations, target.beta).joints3d + target.trans[:, None]
        torch.testing.assert_close(joints, target.joints3d, atol=1e-4, rtol=0)
        # a turned body seen from the same place is no turned picture: the translation is a fit
        seen = (project(target.joints3d, Camera()) - target.joints2d).norm(dim=-1)
        assert seen.max() < (0.1 if augment else 1e-5)
        place = target.joints2d[0] - plain[index][1].joints2d[0]  # of the first pose, which no gap changes
        changed.append(place.abs().max() > 0.01)
    assert any(changed) == augment


def test_events_are_where_the_joints_are(recorded):
    clips = built(recorded, "augment=False").train
    near = total = 0
    for index in range(0, len(clips), 3):
        events, target = clips[index]
        fired = torch.nn.functional.max_pool2d(events.amax(dim=1), 5, stride=1, padding=2)
        x, y = (target.joints2d[:-1] * 64).long().clamp(0, 63).unbind(-1)
        near, total = near + fired[torch.arange(STEPS)[:, None], y, x].sum(), total + x.numel()
    assert near / total > 0.9


def test_a_mirrored_clip_is_the_clip_in_a_mirror(recorded):
    plain, mirrored = (built(recorded, "augment=False", "largest_gap=1", hflip=p).train for p in (0.0, 1.0))
    other = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]
    for index in (0, 9):
        (events, target), (seen, reflected) = plain[index], mirrored[index]
        assert torch.equal(seen, events.flip(-1))
        x, y = target.joints2d[:, other].unbind(-1)
        expected = torch.stack([255 / 256 - x, y], dim=-1)
        torch.testing.assert_close(reflected.joints2d, expected, atol=1e-5, rtol=0)
        errors = joint_errors(reflected.joints3d, target.joints3d[:, other] * torch.tensor([-1, 1, 1]))
        assert errors["pa_mpjpe"].max() < 1e-4


def test_a_frame_has_the_events_of_all_frames_up_to_the_next_pose(recorded):
    test = built(recorded).test
    assert test.gaps == (2, 2)
    action, start = test.clips[1].action, test.clips[1].start
    stored = [np.load(action.events(start + frame))["events_frame"] for frame in range(2 * STEPS)]
    frames = [torch.from_numpy(np.unpackbits(one).reshape(256, 256, 4)).permute(2, 0, 1) for one in stored]
    merged_frames = torch.stack([frames[2 * step] | frames[2 * step + 1] for step in range(STEPS)])
    expected = merged_frames.view(STEPS, 4, 64, 4, 64, 4).amax(dim=(3, 5))
    assert torch.equal(test[1][0], expected.float())
    assert test.frames(1, 2) == [start, start + 2, start + 4]


def _published_clips(numbers, length, stride):
    """Clips as the published readers find them."""
    found = []
    for place in range(0, len(numbers) - length - 1, stride):
        if numbers[place] + length + 1 == numbers[place + length + 1]:
            found.append(numbers[place])
    return found


@pytest.mark.parametrize("gone", [(), (5,), (0, 1, 20, 33)])
def test_clips_skip_gaps_in_the_numbers(folder, gone):
    for frame in gone:
        (first(folder) / "poses" / f"pose_{frame:04d}.npz").unlink()
    numbers = [frame for frame in range(36) if frame not in gone]
    clips = built(folder).train.clips
    assert [clip.start for clip in clips] == _published_clips(numbers, 8, 1)
    assert [clip.start for clip in built(folder).test.clips] == _published_clips(list(range(36)), 4, 4)


def test_numbers_beyond_four_digits_are_in_order(folder):
    action = Action("a", folder / "a", 4, False)
    for part, kind in (("poses", "pose"), ("events_frame_04", "events")):
        (folder / "a" / part).mkdir(parents=True)
        for frame in range(9995, 10_010):
            (folder / "a" / part / f"{kind}_{frame:04d}.npz").touch()
    assert [clip.start for clip in clips_of([action], length=8, reach=6, stride=1)] == list(range(9995, 10_001))


def test_clips_without_events_are_left_out_with_a_warning(folder):
    (first(folder) / "events_frame_04" / "events_0007.npz").unlink()
    with pytest.warns(UserWarning, match=r"events_0007\.npz: missing; 6 of 27 clips of subject03_group1_time1"):
        clips = built(folder).train.clips
    assert [clip.start for clip in clips] == [0, 1, *range(8, 27)]


def _as_h36m(root, to):
    """Lay MMHPSD's files out as Human3.6M's."""
    for old, new in (("subject01_group1_time1", "s_09_act_02"), ("subject03_group1_time1", "s_01_act_02")):
        shutil.copytree(root / "mmhpsd_events" / old, to / "h36m_events_processed" / new)
    for path in (to / "h36m_events_processed").glob("*/poses/*.npz"):
        arrays = dict(np.load(path))
        arrays |= {"body_pose": arrays["body_pose"][0], "beta": arrays["beta"][0]}
        arrays["joints2d"] = np.concatenate([arrays["joints2d"], np.ones((24, 1))], axis=1)
        np.savez(path, **arrays)


def test_the_four_layouts_give_the_same_samples(recorded, tmp_path):
    expected = built(recorded, "augment=False")
    _as_h36m(recorded, tmp_path)
    names = {"subject01_group1_time1": "subject04_a", "subject03_group1_time1": "subject01_a"}
    for old, new in names.items():
        shutil.copytree(recorded / "mmhpsd_events" / old, tmp_path / "phspd_events" / new)
        shutil.copytree(recorded / "mmhpsd_events" / old, tmp_path / "amass_events" / "Set" / new / "walk")
    for dataset, kwargs in (
        ("h36m_events", ()), ("phspd", ()), ("amass_events", ("test_actions=['Set/subject04']",)),
    ):  # fmt: skip
        bundle = built(tmp_path, "augment=False", *kwargs, dataset=dataset)
        assert len(bundle.test) == len(expected.test) == 8
        for mine, known in zip(bundle.test[2], expected.test[2], strict=True):
            for one, other in zip(*(x.tensors() if isinstance(x, Batch) else (x,) for x in (mine, known)), strict=True):
                assert torch.equal(one, other)
    assert not any(clip.action.mirrored for clip in built(tmp_path, dataset="h36m_events").train.clips)
    with pytest.raises(UserError, match=r"amass_events has no test split; .*test_actions=\['Set/subject04_a'\]"):
        built(tmp_path, dataset="amass_events")


def test_actions_that_lack_mirrored_poses_are_named(folder):
    shutil.rmtree(first(folder) / "poses_flip")
    with pytest.warns(UserWarning, match="subject03_group1_time1 lack poses_flip, and are not mirrored"):
        assert not built(folder).train.clips[0].action.mirrored
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built(folder, "augment=False")
        built(folder, hflip=0.0)


# Bad files


def _without(path, **changed):
    arrays = dict(np.load(path)) | changed
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


BAD_POSES = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:700]), "damaged or foreign"),
    "empty": (lambda path: path.write_bytes(b""), "damaged or foreign"),
    "no zip": (lambda path: path.write_bytes(b"pose" * 300), "damaged or foreign"),
    "a missing array": (lambda path: _without(path, trans=None), "no item named 'trans.npy'"),
    "17 joints": (lambda path: _without(path, joints3d=np.zeros((17, 3))), r"joints3d is float64 \(17, 3\)"),
    "axes": (lambda path: _without(path, body_pose=np.zeros((24, 3))), r"body_pose .* shape \(1, 72\) or \(72,\)"),
    "text": (lambda path: _without(path, beta=np.full((1, 10), "1")), r"beta is <U1 \(1, 10\); it needs numbers"),
    "NaN": (lambda path: _without(path, trans=np.full((1, 3), np.nan)), "trans holds numbers that are not finite"),
    "objects": (lambda path: _without(path, beta=np.array([pickle], dtype=object).repeat(10)), "Python objects"),
    "gone": (lambda path: path.unlink(), r"can't be read \(No such file"),
}  # fmt: skip


@pytest.mark.parametrize("damage", BAD_POSES)
def test_a_bad_pose_is_named_in_one_line(folder, damage):
    path = first(folder) / "poses" / "pose_0002.npz"
    if damage == "objects":
        np.savez(path, **(dict(np.load(path)) | {"beta": np.array([{}] * 10)}))
    else:
        BAD_POSES[damage][0](path)
    bundle = None if damage == "gone" else built(folder, "augment=False", "largest_gap=1")
    with pytest.raises(UserError, match=BAD_POSES[damage][1]) as caught:
        read_pose(path) if bundle is None else bundle.train[1]
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.zeros(100, np.uint8), "events_frame has 100 numbers of type uint8; a frame of this set is 32768 bytes"),
        (np.zeros(32_768, np.int64), "32768 numbers of type int64"),
        (np.zeros(8192, np.uint8), "8192 numbers"),
    ],
)  # fmt: skip
def test_an_event_frame_of_another_size_is_named(folder, frame, words):
    path = first(folder) / "events_frame_04" / "events_0001.npz"
    np.savez(path, events_frame=frame)
    with pytest.raises(UserError, match=words) as caught:
        built(folder).train[1]
    assert str(caught.value).startswith(str(path))


def _raises(root, words, *kwargs, **options):
    with pytest.raises(UserError, match=words) as caught:
        built(root, *kwargs, **options)
    assert "\n" not in str(caught.value)


def test_bad_folders_are_named(folder, tmp_path):
    _raises(tmp_path / "nowhere", "data set mmhpsd not found; looked in .*--data-dir")
    (tmp_path / "hollow" / "mmhpsd_events").mkdir(parents=True)
    _raises(tmp_path / "hollow", "mmhpsd_events: holds no actions")
    _raises(folder, r"subject03_group1_time1: no training clip.* 42 frames in a row", step=10)
    wide = first(folder) / "poses" / "pose_00001.npz"
    wide.touch()
    _raises(folder, r"pose_00001\.npz: has more digits than pose_0001\.npz")
    wide.unlink()
    shutil.rmtree(first(folder) / "events_frame_04")
    _raises(folder, "events_frame_04: missing; an action has poses and events_frame_04")
    shutil.rmtree(first(folder) / "poses")
    _raises(folder, "poses: missing")


def test_bad_options_are_named(recorded):
    _raises(recorded, "--event-size 96: must divide the 256 pixels of a stored frame", event_size=96)
    for kwargs, words in (
        (("largest_gap=0",), "--task-kwargs largest_gap: takes a number of frames from 1"),
        (("theta_weight=-1",), "theta_weight: takes a number from 0 on"),
        (("beta_weight=1e999",), "beta_weight: takes a number from 0 on; got inf"),
        (tuple(f"{name}_weight=0" for name in ("trans", "theta", "beta", "joints3d", "joints2d")), "all other weights"),
        (("gap=1",), "pose has no such option"),
        (("test_actions=s_09",), "test_actions: takes"),
    ):
        with pytest.raises(UserError, match=words):
            task(*kwargs)
    strange = TaskSet(name="strange", task="pose", layout="bvh", size=(256, 256), in_chans=4, tree="none")
    with pytest.raises(UserError, match=r"layout of poses \(data set strange\) 'bvh'"):
        find_actions(strange, recorded, (), mirrored=False)


# The network, its body, and what is measured


def _network(made, bundle):
    lines = []
    return made.build_network(bundle, None, lines.append), lines


def test_without_a_body_model_a_skeleton_is_fitted(recorded):
    made = task("mean_start=True")
    bundle = made.build_data(lookup("mmhpsd"), recorded)
    network, lines = _network(made, bundle)
    assert isinstance(network.body, Skeleton)
    assert len(lines) == 1
    assert "no body model: joints are those of a skeleton, fitted to 27 training poses (0.0 mm" in lines[0]
    with torch.no_grad():
        network.decpose.weight.zero_(), network.dectrans.weight.zero_(), network.decbeta.weight.zero_()
        output = network(bundle.train[0][0][None])
    known = np.stack([read_pose(clip.action.pose(clip.start))["trans"] for clip in bundle.train.clips])
    torch.testing.assert_close(output.trans[0, 0].double(), torch.from_numpy(known.mean(0)), atol=1e-5, rtol=0)
    ankle = output.rotations[0, 0, 7]  # which the scene never turns
    torch.testing.assert_close(ankle, torch.eye(3), atol=1e-5, rtol=0)


def test_the_users_body_model_is_read_and_trained_with(recorded, tmp_path):
    np.savez(tmp_path / "body.npz", **fields())
    made = task(f"body_model={tmp_path / 'body.npz'}")
    bundle = made.build_data(lookup("mmhpsd"), recorded)
    network, lines = _network(made, bundle)
    assert isinstance(network.body, SMPL)
    assert lines == [f"joints are those of the body model {tmp_path / 'body.npz'}"]
    x, target = bundle.train[0]
    output = network(x[None])
    made.criterion()(output, target.map(lambda value: value[None])).backward()
    assert output.vertices.shape[2] == len(fields()["v_template"])
    np.savez(tmp_path / "body.npz", **(fields() | {"weights": np.zeros((4, 24))}))
    for path, words in ((tmp_path / "body.npz", "weights must be"), (tmp_path / "none.pkl", "no such file")):
        with pytest.raises(UserError, match=words) as caught:
            _network(task(f"body_model={path}"), bundle)
        assert str(caught.value).startswith(str(path))


def test_an_evaluation_needs_no_training_data(folder):
    shutil.rmtree(first(folder))
    made = task()
    bundle = made.build_data(lookup("mmhpsd"), folder)
    _, lines = _network(made, bundle)
    assert (len(bundle.train), "fitted to 8 test poses" in lines[0]) == (0, True)


def test_a_layer_decay_gives_the_regressors_their_own_rate():
    options = Options.from_dict({"opt": "adam", "layer_decay": 0.01, "weight_decay": 0.0})
    network = timm.create_model("spiking_pose_transformer_small")
    names = {id(parameter): name.partition(".")[0] for name, parameter in network.named_parameters()}
    scales = {}
    for group in build_optimizer(network, options.optim, lr=0.01).param_groups:
        scales.setdefault(group["lr_scale"], set()).update(names[id(parameter)] for parameter in group["params"])
    assert scales == {1.0: {"backbone", "layers"}, 0.01: {"decpose", "dectrans", "decbeta"}}


@pytest.mark.parametrize(
    ("kwargs", "options", "share"),
    [((), {}, 0.5), (("augment=False",), {}, 0), (("augment=False",), {"hflip": 0.3}, 0.3), ((), {"hflip": 0.0}, 0)],
    ids=["published", "plain", "mirrored alone", "never mirrored"],
)
def test_hflip_is_the_share_of_mirrored_clips(recorded, kwargs, options, share):
    bundle = built(recorded, *kwargs, **options)
    assert (bundle.train.mirrored, bundle.test.mirrored) == (share, 0)


def _outputs(clips, shift=0.0):
    samples = [clips[index][1] for index in range(len(clips))]
    target = Batch.stack(samples)
    names = ("joints3d", "rotations", "trans", "beta")
    return Batch(**{name: target[name] + (shift if name == "joints3d" else 0) for name in names}), target


def test_a_meter_counts_each_clip_once_and_writes_it(recorded, tmp_path):
    clips = built(recorded).test
    output, target = _outputs(clips, shift=0.05)
    meter, other = PoseMeter(clips), PoseMeter(clips)  # of two ranks, which both saw the last clip but one
    for one, part in ((meter, slice(0, -1)), (other, slice(-2, None))):
        some = output.map(lambda value, part=part: value[part])
        one.update(lambda x, some=some: some, None, target.map(lambda value, part=part: value[part]))
    found = meter.compute(lambda own: [own, other.found])
    assert found["mpjpe"] == pytest.approx(50 * 3**0.5, rel=1e-4)
    assert found["pel_mpjpe"] == pytest.approx(0, abs=1e-3)
    assert found["pa_mpjpe"] == pytest.approx(0, abs=1e-3)
    assert (found["pck"], len(meter.found)) == (100, len(clips))
    (written,) = meter.write(tmp_path)
    files = sorted(path.name for path in written.iterdir())
    assert files[:2] == ["subject01_group1_time1_0000.npz", "subject01_group1_time1_0004.npz"]
    second = np.load(written / files[1])
    assert second["frames"].tolist() == [4, 6, 8]
    assert np.array_equal(second["joints3d"], output.joints3d[1].numpy())


def test_predictions_that_are_not_finite_end_the_run(recorded):
    clips = built(recorded).test
    output, target = _outputs(clips, shift=float("nan"))
    meter = PoseMeter(clips)
    meter.update(lambda x: output, None, target)
    with pytest.raises(NonFiniteLoss, match="predicted joints are not finite"):
        meter.compute(lambda own: [own])


# A run


@pytest.fixture
def _short_scene(monkeypatch):
    monkeypatch.setattr(scene, "_SUBJECTS", (1, 3))
    monkeypatch.setattr(scene, "_GROUPS", 1)
    monkeypatch.setattr(scene, "_TEST_GROUPS", 1)
    monkeypatch.setattr(scene, "_FRAMES", 14)


@pytest.mark.usefixtures("_short_scene")
def test_the_scene_is_trained_scored_and_drawn(tmp_path, capsys):
    command = [
        *("--task", "pose", "--step", "2", "--epochs", "1", "-b", "4", "--data-dir", str(tmp_path), "--workers", "0"),
        *("--output", str(tmp_path), "--experiment", "one", "--warmup-epochs", "0", "--cooldown-epochs", "0"),
    ]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "no body model" in told
    results = json.loads((tmp_path / "one" / "results.json").read_text())
    assert {"test_mpjpe", "test_pel_mpjpe", "test_pa_mpjpe", "test_pck"} <= set(str(results).replace("'", " ").split())
    assert (tmp_path / "one" / "poses.png").stat().st_size > 20_000
    assert len(list((tmp_path / "one" / "poses").iterdir())) == 3
    assert sorted(path.name for path in (tmp_path / "pose_scene" / "mmhpsd_events").iterdir()) == [
        "subject01_group1_time1", "subject03_group1_time1"
    ]  # fmt: skip


@pytest.mark.usefixtures("_short_scene")
def test_the_scene_is_the_same_each_time_and_whole_or_not_there(tmp_path, monkeypatch):
    for name in "ab":
        scene.make_scene(tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.npz"))
    assert len(files) == 2 * 3 * 14
    for path in files:
        one, other = (np.load(tmp_path / name / path) for name in "ab")
        assert all(np.array_equal(one[key], other[key]) for key in one.files)
    calls = []

    def fails(*given):
        calls.append(given)
        if len(calls) == 2:
            raise OSError("disk full")
        given[0].mkdir(parents=True)

    monkeypatch.setattr(scene, "_write_action", fails)
    with pytest.raises(UserError, match=r"the scene can.t be written \(disk full\)"):
        scene.make_scene(tmp_path / "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_the_sets_are_listed_for_the_task():
    names = [name for name, info in DATASETS.items() if info.kind == "task" and info.task == "pose"]
    assert names == ["pose_scene", "mmhpsd", "h36m_events", "phspd", "amass_events"]
    assert PoseSettings().weights == {"trans": 50, "theta": 10, "beta": 1, "joints3d": 1, "joints2d": 10}
