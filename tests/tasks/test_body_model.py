"""Bodies: the geometry's vector, the user's file in its formats, damaged ones, and skeletons that are fitted."""

import contextlib
import io
import json
import pickle
import struct
import sys
import types

import numpy as np
import pytest
import torch
from safetensors import safe_open

from braincog_transformers.data.formats.body_models import BODY_FIELDS, read_body_model
from braincog_transformers.errors import UserError
from braincog_transformers.models.body_model import JOINT_NAMES, PARENTS, SMPL, Skeleton, joint_positions
from braincog_transformers.models.rotations import Camera, matrices_from_axis_angles, matrices_from_six, project
from braincog_transformers.models.spiking_pose_transformer import between_steps

VALUE = 1e-9
COUNT = 30
PARENTS_OF_FILE = np.array([[2**32 - 1, *PARENTS[1:]], range(24)], np.uint32)


def fields(seed=0):
    """Return the arrays of a body that resembles SMPL in nothing but its shapes."""
    draw = np.random.default_rng(seed)
    regressor = draw.random((24, COUNT)) * (draw.random((24, COUNT)) < 0.3)
    weights = draw.random((COUNT, 24))
    return {
        "v_template": draw.normal(size=(COUNT, 3)), "shapedirs": draw.normal(size=(COUNT, 3, 10)) / 50,
        "posedirs": draw.normal(size=(COUNT, 3, 207)) / 100, "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True), "kintree_table": PARENTS_OF_FILE,
    }  # fmt: skip


def poses(count=50, seed=0):
    draw = torch.Generator().manual_seed(seed)
    rotations = matrices_from_axis_angles(torch.randn(count, 24, 3, generator=draw))
    return rotations, torch.randn(count, 10, generator=draw), torch.randn(count, 3, generator=draw)


# The geometry's vector


@pytest.fixture(scope="module")
def geometry(pytestconfig):
    path = pytestconfig.getoption("--golden-dir") / "spiking_pose_transformer_geometry.safetensors"
    if not path.exists():
        pytest.skip(f"{path.name} is not in --golden-dir")
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the handle is no mapping
        return {**tensors, "meta": {name: json.loads(file.metadata()[name]) for name in ("kwargs", "smpl")}}


def test_rotations_and_projection_match(geometry):
    camera = Camera(*geometry["meta"]["kwargs"]["cam_intr"], 256, 256)
    for found, name in (
        (matrices_from_six(geometry["rot6d.input"].unflatten(-1, (24, 6))), "rot6d.rotmats"),
        (matrices_from_axis_angles(geometry["rodrigues.theta"].unflatten(-1, (24, 3))), "rodrigues.rotmats"),
        (project(geometry["projection.xyz"], camera), "projection.uv"),
        (project(geometry["projection.xyz"], Camera()), "projection.uv"),
        (between_steps(geometry["pool.input"].mean((3, 4)).permute(2, 0, 1)), "pool.output"),
    ):
        assert (found - geometry[name]).abs().max() < VALUE, name


def test_the_body_matches(geometry):
    own, count = {name[5:]: value for name, value in geometry.items() if name.startswith("smpl.")}, 15
    body = SMPL(
        v_template=own["v_template"], shapedirs=own["shapedirs"].T.reshape(count, 3, 10), weights=own["weight"][0],
        posedirs=own["posedirs"].T.reshape(count, 3, 207), J_regressor=own["J_regressor"].T,
        kintree_table=geometry["meta"]["smpl"]["parents"],
    ).double()  # fmt: skip
    beta = geometry["smpl_run.beta"].flatten(0, 1)
    turned = matrices_from_axis_angles(geometry["rodrigues.theta"].unflatten(-1, (24, 3)))
    for name, rotations in (("smpl_run", geometry["smpl_run.rotmats"]), ("smpl_run_theta", turned)):
        found = body(rotations.flatten(0, 1), beta)
        assert (found.joints3d - geometry[f"{name}.joints"].flatten(0, 1)).abs().max() < VALUE
        assert (found.vertices - geometry[f"{name}.verts"].flatten(0, 1)).abs().max() < VALUE


# Rotations


def test_rotations_turn_by_the_angle_about_the_axis():
    quarter = matrices_from_axis_angles(torch.tensor([[0.0, 0.0, torch.pi / 2], [0.0, 0.0, 0.0]]))
    expected = torch.tensor([[[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]])
    torch.testing.assert_close(quarter, expected, rtol=0, atol=1e-6)


def test_six_numbers_are_the_first_column_and_the_plane_of_the_second():
    rotations = poses()[0]
    numbers = torch.cat((3 * rotations[..., 0], rotations[..., 1] - 2 * rotations[..., 0]), -1)
    torch.testing.assert_close(matrices_from_six(numbers), rotations, rtol=0, atol=1e-5)


def test_no_turn_has_a_finite_gradient():
    turns = torch.zeros(2, 3, requires_grad=True)
    matrices_from_axis_angles(turns).sum().backward()
    assert turns.grad.isfinite().all()


def test_a_camera_sees_its_axis_in_the_middle():
    seen = project(torch.tensor([[0.0, 0.0, 2.0], [1.0, 0.5, 2.0]]), Camera(100, 200, 50, 25, 100, 50))
    torch.testing.assert_close(seen, torch.tensor([[0.5, 0.5], [1.0, 1.5]]), rtol=0, atol=1e-4)


# Bodies


def test_a_chain_is_turned_joint_by_joint():
    rotations, offsets = poses(3)[0].double(), torch.rand(3, 24, 3).double()
    turned, places = joint_positions(rotations, offsets)
    for joint, parent in enumerate(PARENTS):
        above = turned[:, parent] if joint else torch.eye(3).double().expand(3, 3, 3)
        start = places[:, parent] if joint else torch.zeros(3, 3).double()
        torch.testing.assert_close(turned[:, joint], above @ rotations[:, joint])
        torch.testing.assert_close(places[:, joint], start + torch.einsum("nij,nj->ni", above, offsets[:, joint]))
    assert (len(JOINT_NAMES), JOINT_NAMES[PARENTS[20]]) == (24, "left_elbow")


def test_a_body_at_rest_is_its_template_and_turns_as_a_whole():
    body = SMPL(**fields())
    rest = torch.eye(3).expand(1, 24, 3, 3)
    found = body(rest, torch.zeros(1, 10))
    torch.testing.assert_close(found.vertices[0], body.v_template, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.joints3d[0], body.J_regressor @ body.v_template, rtol=0, atol=1e-5)
    turned = rest.clone()
    turned[:, 0] = poses(1)[0][:, 0]
    moved, root = body(turned, torch.zeros(1, 10)), found.joints3d[:, :1]
    expected = (found.vertices - root) @ turned[:, 0].transpose(1, 2) + root
    torch.testing.assert_close(moved.vertices, expected, rtol=0, atol=1e-5)


def test_bodies_follow_their_inputs_gradients():
    rotations, beta, _ = poses(2)
    for body in (SMPL(**fields()), Skeleton(torch.rand(24, 3), torch.rand(10, 24, 3))):
        leaves = [value.clone().requires_grad_() for value in (rotations, beta)]
        sum(value.square().sum() for value in body(*leaves).tensors()).backward()
        assert all(leaf.grad.abs().sum() > 0 for leaf in leaves)
        assert not body.state_dict()


def test_a_skeleton_that_is_fitted_to_a_body_has_its_joints():
    body, (rotations, beta, trans) = SMPL(**fields()), poses()
    joints = body(rotations, beta).joints3d + trans.unsqueeze(1)
    skeleton = Skeleton.fit(rotations, beta, joints, trans)
    assert skeleton.error < 1e-5
    other = poses(20, seed=1)
    found, expected = (model(*other[:2]).joints3d for model in (skeleton, body))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shapes", [1, 3])
def test_few_shapes_give_their_own_bones_and_their_mean_for_others(shapes):
    body, (rotations, beta, _) = SMPL(**fields()), poses()
    beta = beta[:shapes].repeat(50, 1)[:50]
    skeleton = Skeleton.fit(rotations, beta, body(rotations, beta).joints3d)
    assert skeleton.error < 1e-5
    middle = beta[:shapes].mean(0, keepdim=True)
    unseen = torch.linalg.svd(beta[:shapes] - middle, full_matrices=True)[2][shapes - 1 :]
    rest = torch.eye(3).expand(1, 24, 3, 3)
    at_middle, beside = skeleton(rest, middle).joints3d, skeleton(rest, middle + unseen[-1:]).joints3d
    torch.testing.assert_close(at_middle, beside, rtol=0, atol=1e-4)


def test_joints_that_do_not_follow_show_in_the_error():
    rotations, beta, _ = poses()
    assert Skeleton.fit(rotations, beta, torch.randn(50, 24, 3)).error > 0.3


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"joints3d": torch.zeros(50, 25, 3)}, "joints3d must be (50, 24, 3); got (50, 25, 3)"),
        ({"beta": torch.zeros(49, 10)}, "beta must be (50, 10); got (49, 10)"),
        ({"trans": torch.full((50, 3), torch.nan)}, "trans holds numbers that are not finite"),
    ],
    ids=["joints", "beta", "nan"],
)
def test_poses_that_do_not_fit_are_named(changed, problem):
    rotations, beta, trans = poses()
    given = {"rotations": rotations, "beta": beta, "joints3d": torch.zeros(50, 24, 3), "trans": trans} | changed
    with pytest.raises(UserError) as caught:
        Skeleton.fit(**given)
    assert problem in str(caught.value)


def test_no_pose_fits_no_skeleton():
    with pytest.raises(UserError, match="there are none"):
        Skeleton.fit(torch.zeros(0, 24, 3, 3), torch.zeros(0, 10), torch.zeros(0, 24, 3))


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"weights": np.zeros((COUNT, 23))}, f"weights must be ({COUNT}, 24); got ({COUNT}, 23)"),
        ({"v_template": np.zeros((COUNT, 2))}, f"v_template must be ({COUNT}, 3); got ({COUNT}, 2)"),
        ({"v_template": np.array(3.0)}, "v_template must be (0, 3); got ()"),
        ({"shapedirs": np.zeros((COUNT, 3, 9))}, f"shapedirs must be ({COUNT}, 3, 10); got ({COUNT}, 3, 9)"),
        ({"posedirs": np.full((COUNT, 3, 207), np.inf)}, "posedirs holds numbers that are not finite"),
        ({"J_regressor": np.array(["a"])}, "J_regressor must be numbers"),
        ({"kintree_table": np.zeros((3, 4))}, "kintree_table must be (2, 24) or (24,); got (3, 4)"),
        ({"kintree_table": np.arange(24)}, "kintree_table must give each joint an earlier parent"),
    ],
    ids=["weights", "template", "no-axis", "shapes", "infinite", "text", "table", "parents"],
)
def test_fields_that_do_not_fit_are_named(changed, problem):
    with pytest.raises(UserError) as caught:
        SMPL(**fields() | changed)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_more_shapes_the_first_ten_are_taken():
    given = fields()
    more = np.concatenate((given["shapedirs"], np.ones((COUNT, 3, 290))), 2)
    assert torch.equal(SMPL(**given | {"shapedirs": more}).shapedirs, SMPL(**given).shapedirs)


# The user's file


class _Python2(pickle._Pickler):
    """Writes texts and bytes as Python 2 wrote its one kind of text."""

    dispatch = {**pickle._Pickler.dispatch}  # noqa: RUF012 - as the base class has it

    def _text(self, value):
        raw = value if isinstance(value, bytes) else value.encode("latin-1")
        if self.proto:
            self.write(b"T" + struct.pack("<i", len(raw)) + raw)
        else:
            self.write(b"S" + repr(raw)[1:].encode("ascii") + b"\n")
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = _text


def _python2(content, protocol):
    file = io.BytesIO()
    _Python2(file, protocol).dump(content)
    return file.getvalue()


@pytest.fixture
def foreign(monkeypatch):
    """Return a function that makes objects of classes that are not installed, by their module, name and attributes."""
    stood = {}

    def make(module, name, **state):
        parts = module.split(".")
        for inner in (".".join(parts[: count + 1]) for count in range(len(parts))):
            if inner not in stood:
                stood[inner] = types.ModuleType(inner)
                monkeypatch.setitem(sys.modules, inner, stood[inner])
        if not hasattr(stood[module], name):
            setattr(stood[module], name, type(name, (), {"__module__": module}))
        made = getattr(stood[module], name)()
        made.__dict__.update(state)
        return made

    return make


def _sparse(matrix, foreign, kind="csc", module="scipy.sparse.csc"):
    lines = matrix.T if kind == "csc" else matrix
    lengths = (lines != 0).sum(1)
    return foreign(
        module, f"{kind}_matrix", _shape=matrix.shape, data=lines[lines != 0], maxprint=50,
        indices=np.concatenate([row.nonzero()[0] for row in lines]).astype(np.int32),
        indptr=np.concatenate(([0], lengths.cumsum())).astype(np.int32),
    )  # fmt: skip


def official(foreign):
    """Return the content of an official file: chumpy's arrays and a sparse matrix among plain ones."""
    given = fields()
    held = foreign("chumpy.ch", "Ch", x=given["shapedirs"], _dirty_vars=set(), _itr=None, dterms=("x",))
    flat = foreign("chumpy.ch", "Ch", x=np.concatenate((np.zeros(5), given["posedirs"].ravel())))
    chosen = np.arange(5, 5 + given["posedirs"].size)
    return given | {
        "shapedirs": held, "J_regressor": _sparse(given["J_regressor"], foreign), "bs_type": "lrotmin",
        "posedirs": foreign("chumpy.reordering", "Select", a=flat, idxs=chosen, preferred_shape=(COUNT, 3, 207)),
        "f": np.zeros((9, 3), np.uint32), "weights": np.asfortranarray(given["weights"]),
    }  # fmt: skip


def _same(found):
    assert list(found) == list(BODY_FIELDS)
    for name, expected in fields().items():
        np.testing.assert_array_equal(found[name], expected, err_msg=name)


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_the_official_file_is_read_without_what_it_names(tmp_path, foreign, protocol):
    path = tmp_path / "SMPL_MALE.pkl"
    path.write_bytes(_python2(official(foreign), protocol))
    _same(found := read_body_model(path))
    assert SMPL(**found)(*poses(2)[:2]).vertices.shape == (2, COUNT, 3)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_of_python_3_is_read(tmp_path, foreign, protocol):
    path = tmp_path / "body.pkl"
    rows = _sparse(fields()["J_regressor"], foreign, kind="csr", module="scipy.sparse._csr")
    path.write_bytes(pickle.dumps(fields() | {"J_regressor": rows}, protocol))
    _same(read_body_model(path))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])
def test_an_npz_is_read(tmp_path, save):
    save(tmp_path / "body.npz", **fields(), f=np.zeros((9, 3)))
    _same(read_body_model(tmp_path / "body.npz"))


class _Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def _bad(foreign, ran):
    given = fields()
    less = {name: value for name, value in given.items() if name != "posedirs"}
    sparse = _sparse(given["J_regressor"], foreign)
    sparse.indices = sparse.indices + 24
    large = _sparse(given["J_regressor"], foreign)
    large._shape = (24, 10**9)
    whole = pickle.dumps(given, 4)
    file = io.BytesIO()
    np.savez(file, **less)
    objects = io.BytesIO()
    np.savez(objects, **given | {"J_regressor": np.array([None])})
    term = foreign("chumpy.ch_ops", "add", a=1, b=2)
    return {
        "empty": (b"", "not a complete pickle of a body model"),
        "truncated": (whole[:-500], "not a complete pickle of a body model"),
        "text": (b"smpl\n", "not a complete pickle of a body model"),
        "list": (pickle.dumps([1, 2]), "no body model, but a list"),
        "lacking": (pickle.dumps(less), "has no posedirs, which a body model needs"),
        "lacking-npz": (file.getvalue(), "has no posedirs, which a body model needs"),
        "objects-npz": (objects.getvalue(), "Python objects, which are not loaded"),
        "truncated-npz": (file.getvalue()[:-30], "not a complete"),
        "code": (
            pickle.dumps(given | {"weights": _Runs(ran)}),
            "weights is io.open, which can't be read",
        ),
        "code-alone": (pickle.dumps(_Runs(ran)), "no body model, but io.open"),
        "term": (pickle.dumps(given | {"weights": term}), "weights is chumpy.ch_ops.add, which can't be read"),
        "outside": (pickle.dumps(given | {"J_regressor": sparse}), "J_regressor is no complete array"),
        "huge": (pickle.dumps(given | {"J_regressor": large}), "unpacks to"),
        "number": (pickle.dumps(given | {"weights": 3}), "weights is a int"),
    }


KINDS = ("empty", "truncated", "text", "list", "lacking", "lacking-npz", "objects-npz", "truncated-npz", "code")
KINDS += ("code-alone", "term", "outside", "huge", "number")


@pytest.mark.parametrize("kind", KINDS)
def test_bad_files_are_one_line_with_their_name(tmp_path, foreign, kind):
    content, problem = _bad(foreign, tmp_path / "ran")[kind]
    path = tmp_path / "SMPL_MALE.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_body_model(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_missing_file_says_where_it_is_from(tmp_path):
    with pytest.raises(UserError, match=r"SMPL_MALE.pkl: no such file; the body model SMPL is the user's own"):
        read_body_model(tmp_path / "SMPL_MALE.pkl")
    with pytest.raises(UserError, match="it is no file"):
        read_body_model(tmp_path)


def test_damaged_bytes_never_end_otherwise(tmp_path, foreign, fuzz_cases):
    whole, draw = _python2(official(foreign), 2), np.random.default_rng(0)
    path = tmp_path / "body.pkl"
    for _ in range(fuzz_cases):
        damaged = bytearray(whole)
        for place in draw.integers(0, 400 if draw.random() < 0.5 else len(whole), 3):
            damaged[place] = draw.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(UserError):
            SMPL(**read_body_model(path))
