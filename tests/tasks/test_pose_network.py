"""The pose transformer: vectors of the official classes, counts, and what a call gives and refuses."""

import copy
import json
import math
import pickle
import zlib

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from torch import nn

from braincog_transformers.analysis.attention_maps import attention_maps
from braincog_transformers.analysis.audit import audit, format_audit
from braincog_transformers.analysis.operations import count_operations
from braincog_transformers.checkpoints import load_checkpoint, load_state
from braincog_transformers.errors import UserError
from braincog_transformers.layers import HammingProduct
from braincog_transformers.models import SpikingPoseTransformer
from braincog_transformers.models.base import NodeOptions
from braincog_transformers.models.body_model import SMPL, Skeleton
from braincog_transformers.models.rotations import matrices_from_six
from braincog_transformers.models.sew_resnet import BasicBlock, Bottleneck
from braincog_transformers.models.spiking_pose_transformer import StepDropout, between_steps, position_table
from braincog_transformers.models.task_networks import TASK_NETWORKS

VALUE, GRADIENT = 1e-9, 1e-6
SMALL = {"backbone": "sew_resnet18", "widths": (4, 4, 4, 8), "n_layers": 1, "d_hidden": 16, "drop": 0.0, "img_size": 64}
NAMES = "spiking_pose_transformer_*.safetensors"


def _drawn(name, shape, draw):
    """Draw an official tensor as the small vectors' notes say."""
    if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
        return draw.uniform(0.5, 1.5, shape)
    if name.endswith("running_mean"):
        return draw.uniform(-0.2, 0.2, shape)
    if name.endswith(".w"):
        return draw.uniform(0, 2, shape)
    if name.endswith("bias"):
        return draw.uniform(0.2, 1.4, shape)
    return draw.standard_normal(shape) * math.sqrt(3 / np.prod(shape[1:]))


class Vector:
    """One file; the small ones hold seeds instead of weights."""

    def __init__(self, path):
        with safe_open(path, "pt") as file:
            self.meta = file.metadata()
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        self.kwargs = json.loads(self.meta["kwargs"])
        self.state = {name[6:]: value for name, value in self.tensors.items() if name.startswith("state.")}
        if "names" in self.tensors:
            self._draw()
        else:
            self.probe, self.input = self.tensors["probe"], self.tensors["input"].double()

    def _draw(self):
        draw = np.random.RandomState(int(self.meta["seed"]))
        for name, shape in json.loads(zlib.decompress(self.tensors["names"].numpy().tobytes())).items():
            counter = name.endswith("num_batches_tracked")
            self.state[name] = torch.tensor(0) if counter else torch.tensor(_drawn(name, shape, draw)).float()
        self.input = torch.from_numpy(draw.random_sample((1, self.kwargs["num_frames"], 4, 64, 64)) < 0.15).double()
        self.probe = torch.from_numpy(draw.random_sample(tuple(self.tensors["logits_train"].shape)) - 0.5)

    @property
    def body(self):
        """The synthetic body model, where there is one."""
        if "smpl.weight" not in self.state:
            return None
        count = len(self.state["smpl.v_template"])
        return SMPL(
            v_template=self.state["smpl.v_template"], shapedirs=self.state["smpl.shapedirs"].T.reshape(count, 3, 10),
            posedirs=self.state["smpl.posedirs"].T.reshape(count, 3, 207), weights=self.state["smpl.weight"][0],
            J_regressor=self.state["smpl.J_regressor"].T, kintree_table=json.loads(self.meta["smpl"])["parents"],
        )  # fmt: skip

    def network(self):
        kwargs = self.kwargs
        same = {name: kwargs[name] for name in ("n_layers", "d_hidden", "n_head", "cnf", "v_reset", "detach_reset")}
        network = SpikingPoseTransformer(
            backbone=kwargs["model_name"], widths=kwargs["backbone_widths"], in_chans=kwargs["channel"], drop=0.0,
            img_size=kwargs["img_size"], body_model=self.body, **same,
        )  # fmt: skip
        load_state(network, self.state)
        return network.double()


def regressed(network, x):
    """Return what the regressors give, as the vectors have it: `(B, T+1, 157)`."""
    features = network.forward_features(x)
    return torch.cat([layer(features) for layer in (network.decpose, network.dectrans, network.decbeta)], -1)


def pytest_generate_tests(metafunc):
    if "vector" in metafunc.fixturenames:
        paths = sorted(metafunc.config.getoption("--golden-dir").glob(NAMES))
        paths = [path for path in paths if path.stem.rpartition("_")[2] not in ("encoder", "geometry")]
        metafunc.parametrize("vector", paths, ids=[path.stem for path in paths], indirect=True, scope="module")


@pytest.fixture(scope="module")
def vector(request):
    return Vector(request.param)


@pytest.fixture(scope="module")
def lively():
    """Return a small network whose neurons fire, in evaluation mode; each test leaves it as it is."""
    torch.manual_seed(0)
    network = SpikingPoseTransformer(**SMALL, n_head=2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, 0.5, 1.5)
    for node in network.nodes.values():
        nn.init.constant_(node.w, 2.0)
    return network.eval()


def events(samples=2, steps=3, side=64):
    return (torch.rand(samples, steps, 4, side, side, generator=torch.Generator().manual_seed(1)) < 0.1).float()


# The vectors


def test_there_is_a_vector(pytestconfig):
    assert list(pytestconfig.getoption("--golden-dir").glob(NAMES))


def test_evaluation_matches(vector):
    network, seen = vector.network().eval(), {}
    product = network.layers[-1].attn.product
    product.register_forward_hook(lambda module, inputs, _out: seen.update(score=module.weights(*inputs[:2])))
    with torch.no_grad():
        assert (regressed(network, vector.input) - vector.tensors["logits_eval"]).abs().max() < VALUE
        out = network(vector.input)
    assert (seen["score"] - vector.tensors["score_eval"]).abs().max() < 1e-7  # kept in single precision
    for name, official in (
        *(("rotations", "rotmats_eval"), ("vertices", "verts_eval"), ("joints3d", "joints3d_eval")),
        ("joints2d", "joints2d_eval"),
    ):
        if official in vector.tensors:
            assert (out[name] - vector.tensors[official]).abs().max() < VALUE, name


def test_training_gradients_and_statistics_match(vector):
    network = vector.network().train()
    found = regressed(network, vector.input)
    assert (found - vector.tensors["logits_train"]).abs().max() < VALUE
    (found * vector.probe).sum().backward()
    translate, compared = network.official_names.translate, 0
    for name, expected in vector.tensors.items():
        if name.startswith("grad."):
            gradient, compared = network.get_parameter(translate(name[5:])).grad, compared + 1
            assert (gradient - expected).abs().max() <= GRADIENT * expected.abs().max(), name
    assert compared > 5
    official = "backbone.body.bn1.running_mean"
    mean = next(vector.tensors[f"{kind}.{official}"] for kind in ("running_after_train", "buffer")
                if f"{kind}.{official}" in vector.tensors)  # fmt: skip
    assert (network.get_buffer(translate(official)) - mean).abs().max() < VALUE


def fold(x):
    """Return tokens of three steps and two samples as the layers have them."""
    return x.reshape(6, 6, -1)


def test_layers_match_alone(pytestconfig):
    path = pytestconfig.getoption("--golden-dir") / "spiking_pose_transformer_encoder.safetensors"
    if not path.exists():
        pytest.skip(f"{path.name} is not in --golden-dir")
    vector = Vector(path)
    kwargs, tensors, seen = vector.kwargs, vector.tensors, {}
    network = SpikingPoseTransformer(
        backbone="sew_resnet18", widths=(4, 4, 4, kwargs["input_size"]), n_layers=kwargs["n_layers"], drop=0.0,
        d_hidden=kwargs["d_hidden"], n_head=kwargs["n_head"], img_size=(96, 64), step=3,
    )  # fmt: skip
    layers = network.layers.double()
    names = {f"layers.{name}": value for name, value in layers.state_dict().items()}
    state = {network.official_names.translate(f"tranformer_encoder.{name}"): v for name, v in vector.state.items()}
    assert state.keys() == {name for name in names if not name.endswith((".threshold", ".alpha"))}
    layers.load_state_dict({name.removeprefix("layers."): value for name, value in state.items()}, strict=False)
    first = layers[0].attn
    first.q.register_forward_hook(lambda _module, _inputs, out: seen.update(q=out))
    first.k.register_forward_hook(lambda _module, _inputs, out: seen.update(k=out))
    first.proj.register_forward_hook(lambda _module, inputs, out: seen.update(v_spikes=inputs[0], out=out))
    first.product.register_forward_hook(lambda module, inputs, out: seen.update(qkv=inputs, attended=out))
    x = fold(vector.input)

    def run():
        y = x
        for layer in layers:
            y = layer(y)
        return y

    layers.eval()
    with torch.no_grad():
        assert (run() - fold(tensors["logits_eval"])).abs().max() < VALUE
    for name, key in (("q", "q_spikes"), ("k", "k_spikes"), ("v_spikes", "v_spikes"), ("out", "out_spikes")):
        assert torch.equal(seen[name], fold(tensors[f"inner.layer0.{key}"]).double()), name
    assert (seen["qkv"][2] - tensors["inner.layer0.v"]).abs().max() < VALUE
    assert (seen["attended"] - tensors["inner.layer0.attn_v"]).abs().max() < VALUE
    assert (first.product.weights(*seen["qkv"][:2]) - tensors["inner.layer0.score"]).abs().max() < VALUE
    positions = position_table((3, 2), kwargs["d_hidden"]) / 3
    assert (positions - tensors["inner.pos"][0].view(6, -1)).abs().max() < 1e-7
    layers.train()
    found = run()
    assert (found - fold(tensors["logits_train"])).abs().max() < VALUE
    (found * fold(tensors["probe"])).sum().backward()
    for name, expected in tensors.items():
        if name.startswith("grad."):
            ours = network.official_names.translate(f"tranformer_encoder.{name[5:]}")
            gradient = network.get_parameter(ours).grad
            assert (gradient - expected).abs().max() <= GRADIENT * expected.abs().max(), name


# Sizes and names

COUNTS = [
    ("sew_resnet34", 2, 1024, 27_683_405), ("sew_resnet50", 2, 1024, 49_037_662), ("sew_resnet18", 2, 1024, 17_575_229),
    ("sew_resnet34", 1, 1024, 24_525_895), ("sew_resnet50", 1, 1024, 36_435_288), ("sew_resnet34", 0, 1024, 21_368_385),
    ("sew_resnet50", 0, 1024, 23_832_914), ("sew_resnet50", 2, 512, 36_445_534), ("sew_resnet50", 2, 2048, 74_221_918),
]  # fmt: skip


@pytest.mark.parametrize(("backbone", "layers", "hidden", "count"), COUNTS)
def test_parameters_are_as_many_as_those_of_the_official_class(backbone, layers, hidden, count):
    with torch.device("meta"):
        network = SpikingPoseTransformer(backbone=backbone, n_layers=layers, d_hidden=hidden)
    # BrainCog's nodes hold threshold and steepness as parameters too, which don't learn
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == count


def test_the_scripts_network_has_as_many_entries_as_the_official_state_dict():
    with torch.device("meta"):
        names = timm.create_model("spiking_pose_transformer_34").state_dict()
    learnt = [name for name in names if not name.endswith((".threshold", ".act_fun.alpha"))]
    assert len(learnt) == 352 - len(("v_template", "shapedirs", "J_regressor", "posedirs", "weight", "e3"))


def test_variants_are_registered_for_the_task_and_with_timm():
    names = [name for name, one in TASK_NETWORKS.items() if one.entry.cls is SpikingPoseTransformer]
    assert names == [f"spiking_pose_transformer_{kind}" for kind in ("small", "18", "34", "50")]
    assert {TASK_NETWORKS[name].task for name in names} == {"pose"}
    assert timm.create_model("spiking_pose_transformer_small", n_head=4).layers[0].attn.num_heads == 4


def _official(network):
    """Return a state dict as the official script saves it, and the body's tensors of some batch in it."""
    rules = (
        (".shortcut.conv.", ".downsample.0."), (".shortcut.bn.", ".downsample.1."),
        (".shortcut.node.", ".downsample_sn."),
        *((f".conv{i}.conv.", f".conv{i}.") for i in "123"), *((f".conv{i}.bn.", f".bn{i}.") for i in "123"),
        *((f".conv{i}.node.", f".sn{i}.") for i in "123"), ("backbone.stem.conv.", "backbone.body.conv1."),
        ("backbone.stem.bn.", "backbone.body.bn1."), ("backbone.stem.node.", "backbone.body.sn1."),
        *((f"backbone.stages.{i}.", f"backbone.body.layer{i + 1}.") for i in range(4)),
        ("layers.", "tranformer_encoder.encoder."),
        *((f".attn.{i}.linear.", f".attention.linear_{i}.") for i in "qk"),
        *((f".attn.{i}.bn.", f".attention.bn_{i}.") for i in "qk"),
        *((f".attn.{i}.node.", f".attention.sn_{i}.") for i in "qk"), (".attn.v.", ".attention.linear_v."),
        (".attn.bn.", ".attention.bn_v."), (".attn.node.", ".attention.sn_v."),
        (".attn.proj.linear.", ".attention.linear_out."), (".attn.proj.bn.", ".attention.bn_out."),
        (".attn.proj.node.", ".attention.sn_out."), *((f".mlp.fc{i}.linear.", f".ffn.linear{i}.") for i in "12"),
        *((f".mlp.fc{i}.bn.", f".ffn.bn{i}.") for i in "12"), *((f".mlp.fc{i}.node.", f".ffn.sn{i}.") for i in "12"),
    )  # fmt: skip
    state = {}
    for name, value in network.state_dict().items():
        if name.endswith((".threshold", ".act_fun.alpha")):
            continue
        name = f"regressor.{name}" if name.startswith("dec") else name
        for ours, theirs in rules:
            name = name.replace(ours, theirs)
        state[f"module.{name}"] = value
    return state | {"module.smpl.weight": torch.rand(72, 14, 24), "module.smpl.e3": torch.eye(3)}


def test_an_official_checkpoint_loads_without_its_body(lively, tmp_path):
    path = tmp_path / "model_snn_64steps.pth"
    torch.save({"epoch": 3, "model_state_dict": _official(lively)}, path)
    network = SpikingPoseTransformer(**SMALL, n_head=2).eval()
    assert "model_state_dict" in load_checkpoint(network, path)
    for name in ("rotations", "trans", "beta"):
        assert torch.equal(network(events())[name], lively(events())[name])


def test_a_checkpoint_of_another_size_is_refused(lively):
    with pytest.raises(UserError, match="of another shape"):
        load_state(SpikingPoseTransformer(**{**SMALL, "widths": (4, 4, 4, 12)}), lively.state_dict())


# A call


def test_steps_follow_from_the_input(lively):
    network = copy.deepcopy(lively)
    for steps in (1, 4, 2):
        out = network(events(steps=steps))
        assert out.rotations.shape == (2, steps + 1, 24, 3, 3)
        assert (out.trans.shape, out.beta.shape) == ((2, steps + 1, 3), (2, steps + 1, 10))
        assert {node.step for node in network.nodes.values()} == {steps} == {network.step}
    assert not hasattr(out, "joints3d")
    turned = out.rotations @ out.rotations.transpose(-2, -1)
    torch.testing.assert_close(turned, torch.eye(3).expand_as(turned), rtol=0, atol=1e-5)


def test_samples_do_not_depend_on_each_other_and_bytes_are_read_as_numbers(lively):
    x = events(3)
    alone, together = lively(x[1:2]), lively(x)
    torch.testing.assert_close(alone.rotations, together.rotations[1:2], rtol=0, atol=1e-5)
    assert torch.equal(lively(x.to(torch.uint8)).beta, together.beta)
    assert torch.equal(lively(x.bool()).beta, together.beta)


def test_earlier_steps_see_later_ones(lively):
    x = events(8)
    changed = x.clone()
    changed[:, -1] = 1 - changed[:, -1]
    assert not torch.equal(lively(x).beta[:, 0], lively(changed).beta[:, 0])
    without = SpikingPoseTransformer(**{**SMALL, "n_layers": 0}).eval()
    without.load_state_dict({n: v for n, v in lively.state_dict().items() if not n.startswith("layers.")})
    assert torch.equal(without(x).beta[:, 0], without(changed).beta[:, 0])


def test_a_body_gives_points_whose_losses_do_not_train_the_translation(lively):
    network = copy.deepcopy(lively).train()
    network.set_body(Skeleton(torch.rand(24, 3)))
    out = network(events())
    assert out.joints3d.shape == (2, 4, 24, 3)
    assert out.joints2d.shape == (2, 4, 24, 2)
    assert not hasattr(out, "vertices")
    assert torch.equal(out.joints3d[:, :, 0], network.body.offsets[0] + out.trans)
    x, y, z = out.joints3d.unbind(-1)
    torch.testing.assert_close(out.joints2d[..., 0], (x / (z + 1e-5) * 1679.3 + 641) / 1280)
    torch.testing.assert_close(out.joints2d[..., 1], (y / (z + 1e-5) * 1679.3 + 641) / 1280)
    out.joints3d.sum().backward()
    assert network.dectrans.weight.grad is None
    assert network.decpose.weight.grad.abs().sum() > 0


def test_a_body_is_no_part_of_the_state_dict_and_follows_the_network(lively):
    network = copy.deepcopy(lively)
    network.set_body(Skeleton(torch.rand(24, 3)))
    assert network.state_dict().keys() == lively.state_dict().keys()
    assert network.double().body.offsets.dtype is torch.float64
    assert torch.equal(pickle.loads(pickle.dumps(network)).body.offsets, network.body.offsets)


def test_a_picture_need_not_be_square():
    network = SpikingPoseTransformer(**{**SMALL, "img_size": (70, 100)}).eval()
    assert network(torch.zeros(1, 2, 4, 70, 100)).trans.shape == (1, 3, 3)
    assert network.layers[0].attn.positions.shape == (3 * 4, 16)


def test_gradient_checkpointing_changes_no_gradient(lively):
    gradients = []
    for enable in (False, True):
        network = copy.deepcopy(lively).double().train()
        network.set_grad_checkpointing(enable)
        network(events().double()).beta.square().sum().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0]["backbone.stages.1.0.conv1.node.w"].abs() > 0


def test_a_new_network_passes_on_what_its_stem_fires():
    network = SpikingPoseTransformer(**{**SMALL, "n_layers": 2}).train()
    x = network.backbone(network._steps(events()))
    tokens = x.flatten(2).transpose(1, 2)
    assert torch.equal(network.layers[1](network.layers[0](tokens)), tokens)


def test_leaks_do_not_decay(lively):
    names = lively.no_weight_decay()
    assert {name for name, _ in lively.named_parameters() if name.endswith(".w")} < names
    assert "decpose.weight" not in names


# Parts


@pytest.mark.parametrize(
    ("cnf", "basic", "bottleneck"),
    [
        ("ADD", lambda x, branch: x + branch, lambda x, branch: x + branch),
        ("AND", lambda x, branch: x * branch, lambda x, branch: x * branch),
        ("IAND", lambda x, branch: x * (1 - branch), lambda x, branch: branch * (1 - x)),
    ],
    ids=["add", "and", "iand"],
)
def test_blocks_join_shortcut_and_branch_as_their_name_says(cnf, basic, bottleneck):
    node = NodeOptions(threshold=0.1).constructor(1)
    x = (torch.rand(4, 8, 6, 6) < 0.5).float()
    for block, expected in ((BasicBlock(8, 8, 1, cnf=cnf, node=node), basic),
                            (Bottleneck(8, 2, 2, cnf=cnf, node=node), bottleneck)):  # fmt: skip
        branch = x
        for name in ("conv1", "conv2", "conv3"):
            branch = getattr(block, name)(branch) if hasattr(block, name) else branch
        shortcut = block.shortcut(x)
        assert 0 < branch.mean() < 1
        assert torch.equal(block(x), expected(shortcut, branch))


def test_hamming_weights_are_those_of_the_definition():
    q, k = ((torch.rand(2, 3, n, 8) < 0.5).double() for n in (5, 4))
    agreeing = (q.unsqueeze(-2) == k.unsqueeze(-3)).double().mean(-1)
    torch.testing.assert_close(HammingProduct().weights(q, k), agreeing.softmax(-1))
    by_sign = 0.5 * (1 + (2 * q - 1) @ (2 * k - 1).transpose(-2, -1) / 8)
    torch.testing.assert_close(agreeing, by_sign)
    v = torch.rand(2, 3, 4, 6).double()
    torch.testing.assert_close(HammingProduct()(q, k, v), by_sign.softmax(-1) @ v)


def test_positions_are_sines_of_even_and_cosines_of_odd_frequencies():
    table = position_table((3, 2), 8)
    periods = [10000 ** (2 * j / 8) for j in range(4)]
    for place, turns in enumerate((row, column) for row in (0, math.pi, 2 * math.pi) for column in (0, 2 * math.pi)):
        kinds = ((math.sin, 0), (math.sin, 2), (math.cos, 1), (math.cos, 3))
        expected = [function(turn / periods[j]) for turn in turns for function, j in kinds]
        torch.testing.assert_close(table[place], torch.tensor(expected), rtol=0, atol=1e-5)


def test_poses_lie_between_steps():
    x = torch.tensor([1.0, 3.0, 7.0])[:, None]
    assert between_steps(x).flatten().tolist() == [1, 2, 5, 7]
    assert between_steps(x[:1]).flatten().tolist() == [1, 1]


def test_dropout_has_one_mask_for_all_steps():
    drop = StepDropout(0.5)
    drop.step = 3
    out = drop(torch.ones(6, 5, 40)).unflatten(0, (3, 2))
    assert torch.equal(out[0], out[1])
    assert torch.equal(out[0], out[2])
    assert not torch.equal(out[:, 0], out[:, 1])
    assert set(out.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(drop.eval()(torch.ones(6, 5)), torch.ones(6, 5))


def test_rotations_of_degenerate_numbers_are_finite():
    numbers = torch.zeros(2, 6, requires_grad=True)
    found = matrices_from_six(numbers)
    found.sum().backward()
    assert found.isfinite().all()
    assert numbers.grad.isfinite().all()


# The analysis


def test_operations_are_counted_and_the_product_is_named(lively):
    x = events()
    counted = count_operations(lively, [x])
    rows = {row.name: row for row in counted.rows}
    tokens, width = 3 * 2 * 2, 8
    match, gather = rows["layers.0.attn.product.matmul"], rows["layers.0.attn.product.matmul1"]
    assert (match.kind, gather.kind) == ("binary", "real")
    assert match.total("macs") == gather.total("macs") == 2 * 2 * tokens**2 * width
    assert rows["backbone.stem.conv"].kind == "binary"
    assert rows["layers.0.attn.q.linear"].kind == "integer"
    assert (counted.steps, counted.events) == (3, True)
    found = audit(lively, [x])
    assert not found.spike_driven
    assert "softmax in layers.0.attn.product (1)" in format_audit(found)


def test_attention_has_a_map_for_each_step(lively):
    (found,) = attention_maps(lively, events())
    assert (found.name, found.values.shape) == ("layers.0.attn", (3, 2, 2, 2))
    weights, product = [], lively.layers[0].attn.product
    hook = product.register_forward_hook(lambda _module, inputs, _out: weights.append(product.weights(*inputs[:2])))
    lively(events()[:1])
    hook.remove()
    expected = weights[0][0].mean(1).unflatten(1, (3, 2, 2)).transpose(0, 1)
    np.testing.assert_allclose(found.values, expected.detach(), rtol=1e-4)
    assert found.values[0].sum() != pytest.approx(found.values[2].sum(), rel=1e-4)


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"img_size": 63}, "img_size must be at least 64 a side"),
        ({"img_size": (64, 32)}, "img_size must be at least 64 a side"),
        ({"backbone": "resnet34"}, "sew_resnet34"),
        ({"widths": (64, 128)}, "widths must be 4 values"),
        ({"widths": (64, 0, 1, 1)}, "widths must be at least 1"),
        ({"n_layers": -1}, "n_layers must be 0 to 1000"),
        ({"d_hidden": 30}, "d_hidden must be a multiple of 4 and of n_head"),
        ({"n_head": 3}, "d_hidden must be a multiple of 4 and of n_head"),
        ({"n_head": 0}, "d_hidden must be a multiple of 4 and of n_head"),
        ({"drop": 1.0}, "drop must be at least 0 and below 1"),
        ({"cnf": "OR"}, "cnf must be 'ADD' or 'AND' or 'IAND'"),
        ({"in_chans": 0}, "in_chans must be at least 1"),
        ({"camera": (1.0, 1.0, 1.0, 1.0, 0.0, 1.0)}, "camera (fx, fy, cx, cy, width, height) must be above 0"),
        ({"detach_reset": 2}, "detach_reset must be True or False"),
        ({"v_reset": 0.0, "node_type": "ALIFNode"}, "v_reset=0.0 is for LIFNode, PLIFNode and IFNode"),
        ({"body_model": "smpl.pkl"}, "body_model"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_bad_arguments_are_named(arguments, problem):
    with torch.device("meta"), pytest.raises(UserError) as caught:
        SpikingPoseTransformer(**{**SMALL, **arguments})
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_argument_is_named():
    with pytest.raises(TypeError, match="unexpected argument depth"):
        SpikingPoseTransformer(**SMALL, depth=3)


@pytest.mark.parametrize("shape", [(1, 4, 64, 64), (1, 0, 4, 64, 64), (1, 2, 3, 64, 64), (1, 2, 4, 64, 96)], ids=str)
def test_inputs_of_other_shapes_are_refused(lively, shape):
    with pytest.raises(ValueError, match="input must be"):
        lively(torch.zeros(shape))


@pytest.mark.parametrize("node_type", ["LIFNode", "IFNode", "ALIFNode"])
def test_other_neurons_take_its_place(node_type):
    network = SpikingPoseTransformer(**SMALL, node_type=node_type).train()
    network(events()).beta.sum().backward()
    assert {type(node).__name__ for node in network.nodes.values()} == {node_type}
