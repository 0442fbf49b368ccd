"""SpikeZIP-TF: the official vectors, and equality of the spiking network with the quantised one once it has drained."""

import copy
import functools
import json
import subprocess
import sys

import pytest
import timm
import torch
from safetensors import safe_open
from timm.layers import RmsNorm
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from timm.optim import create_optimizer_v2
from torch import nn

from braincog_transformers import UserError
from braincog_transformers.checkpoints import load_state
from braincog_transformers.conversion import convert, load_converted, prepare, save_converted
from braincog_transformers.conversion.lsq import Quantiser
from braincog_transformers.conversion.text import RobertaEncoder
from braincog_transformers.nodes.valued import STBIFNode

VALUE, GRADIENT = 1e-9, 1e-6
TINY = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 5}
ENOUGH = 400


def spread_out(network):
    """Give a fresh network weights in which all that it has makes a difference."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, mean=0.5 * (parameter.dim() == 1), std=0.3)
    return network.double().eval()


def vit(cls=VisionTransformer, **kwargs):
    return spread_out(cls(**{**TINY, **kwargs}))


def images(count=3, size=16):
    return torch.randn(count, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def quantised(network=None, data=None, levels=8, **options):
    network = vit() if network is None else network
    return prepare(network, "spikezip", data=images() if data is None else data, levels=levels, **options)


@pytest.fixture(autouse=True)
def without_graph():
    with torch.no_grad():
        yield


# The official vectors


class Vector:
    def __init__(self, path):
        with safe_open(path, "pt") as file:
            self.meta = file.metadata()
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        self.input = self.tensors["input"].double()

    def __getitem__(self, prefix):
        start = f"{prefix}."
        return {name.removeprefix(start): value for name, value in self.tensors.items() if name.startswith(start)}

    def prepared(self):
        sizes, official = json.loads(self.meta["kwargs"]), json.loads(self.meta["options"])
        norm = functools.partial(nn.LayerNorm, eps=sizes.pop("ln_eps"))
        pool = "avg" if sizes.pop("global_pool") else "token"
        source = VisionTransformer(**sizes, global_pool=pool, act_layer=nn.ReLU, norm_layer=norm)
        options = {"levels": official["level"], "weight_bits": official["weight_bit"]}
        options |= {"coding": {"analog": "once", "rate": "spread"}[official["encoding"]]}
        network = prepare(source.double(), "spikezip", **options, remove_softmax=not official["is_softmax"])
        load_state(network, self["state"])
        return network, network.official_names.translate


def pytest_generate_tests(metafunc):
    paths = sorted(metafunc.config.getoption("--golden-dir").glob("spikezip_tf_*.safetensors"))
    for name in {"vector", "neurons"} & {*metafunc.fixturenames}:
        chosen = [path for path in paths if ("neuron" in path.stem) == (name == "neurons")]
        metafunc.parametrize(name, [Vector(path) for path in chosen], ids=[path.stem for path in chosen])


def test_there_are_vectors(pytestconfig):
    assert len(list(pytestconfig.getoption("--golden-dir").glob("spikezip_tf_*.safetensors"))) >= 2


def test_first_training_batch_initialises_the_scales_of_the_vector(vector):
    network, names = vector.prepared()
    for quantiser in (module for module in network.modules() if isinstance(module, Quantiser)):
        quantiser.initialised.fill_(False)
        quantiser.s.fill_(1)
        quantiser._ready = False
    network.train()(vector.tensors["lsq_batch"].double())
    assert len(vector["lsq_init"]) > 10
    for name, expected in vector["lsq_init"].items():
        assert network.get_parameter(names(name)).item() == pytest.approx(expected.item(), rel=GRADIENT), name


@torch.enable_grad()
def test_quantised_network_in_training_matches_the_vector_in_value_and_gradient(vector):
    network, names = vector.prepared()
    out = network.train()(vector.input)
    assert (out - vector.tensors["qann_out"]).abs().max() < VALUE
    (out * vector.tensors["probe"]).sum().backward()
    for name, expected in vector["grad"].items():
        error = (network.get_parameter(names(name)).grad - expected).norm() / expected.norm()
        assert error < GRADIENT, name
    for name, norm in json.loads(vector.meta["grad_norms"]).items():
        assert network.get_parameter(names(name)).grad.norm().item() == pytest.approx(norm, rel=1e-5), name


def test_each_step_of_the_spiking_network_matches_the_vector(vector):
    steps = int(vector.meta["timesteps"])
    spiking = convert(vector.prepared()[0].eval(), "spikezip", step=steps)
    by_step = spiking.forward_sequence(vector.input)
    assert (by_step - vector.tensors["snn_accumulated"]).abs().max() < VALUE
    spiking.step = ENOUGH
    assert (spiking(vector.input) - vector.tensors["qann_out"]).abs().max() < VALUE
    assert spiking.steps_used == steps


def test_tracers_end_where_those_of_the_vector_do(vector):
    network, names = vector.prepared()
    spiking = convert(network.eval(), "spikezip", step=ENOUGH)
    spiking.reset()
    for t in range(int(vector.meta["timesteps"])):
        spiking.forward_step(spiking.encode(vector.input, t))
    assert vector["acc_q"]
    for official, expected in vector["acc_q"].items():
        name = names(official.removeprefix("model.").replace("attn.q_IF", "attn.quan_q") + ".s").removesuffix(".s")
        assert torch.equal(spiking.network.get_submodule(name).tracer, expected.double()), name


def test_neurons_and_quantisers_match_the_vector(neurons):
    for name, spikes in neurons["spikes"].items():
        levels, signed = int(name[5:].split(".")[0]), name.endswith("1")
        quantiser = Quantiser(levels, signed=signed, dtype=torch.float64)
        quantiser.s.copy_(neurons["scale"][name])
        quantiser.initialised.fill_(True)
        node = STBIFNode(quantiser.s, low=quantiser.low, high=quantiser.high)
        ours = torch.stack([node(x) for x in neurons.input])
        assert (ours - spikes).abs().max() < VALUE
        assert (quantiser(neurons.input.sum(0)) - neurons["quantised_sum"][name]).abs().max() < VALUE


# The quantiser


def test_halves_are_rounded_up_and_bounds_are_the_official_ones():
    quantiser = Quantiser(15, signed=True)
    quantiser.start(torch.tensor(6**0.5 / 2))  # a scale of 1
    x = torch.tensor([-9.0, -1.5, -0.5, 0.5, 1.5, 2.5, 9.0])
    assert quantiser(x).tolist() == [-8, -1, 0, 1, 2, 3, 6]
    assert (quantiser.low, quantiser.high) == (-8, 6)


@torch.enable_grad()
def test_training_moves_the_scale_by_the_rule_of_lsq():
    quantiser = Quantiser(8, signed=True, dtype=torch.float64)
    x = torch.tensor([-3.0, -0.3, 0.2, 0.9, 5.0], dtype=torch.float64, requires_grad=True)
    quantiser.start(torch.tensor(0.25 * 3**0.5, dtype=torch.float64))  # a scale of 1/2
    quantiser(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
    slope = -4 + (-1 + 0.6) + (0 - 0.4) + (2 - 1.8) + 3
    assert quantiser.s.grad.item() == pytest.approx(slope / (3 * 5) ** 0.5)


@torch.enable_grad()
def test_training_in_half_precision_sums_the_gradient_of_the_scale_in_single():
    quantiser = Quantiser(8, signed=True)
    quantiser.start(torch.tensor(1.0))
    x = torch.full((70000,), 5.0, dtype=torch.float16, requires_grad=True)
    out = quantiser(x)
    assert out.dtype == torch.float16
    out.float().sum().backward()
    assert quantiser.s.grad.item() == pytest.approx(3 * 70000 / (3 * 70000) ** 0.5)


def test_a_scale_below_zero_means_its_size():
    quantiser, mirrored, x = Quantiser(8, signed=True).eval(), Quantiser(8, signed=True).eval(), torch.randn(50)
    for one, sign in ((quantiser, 1), (mirrored, -1)):
        one.start(torch.tensor(0.5))
        with torch.no_grad():
            one.s.mul_(sign)
        with torch.enable_grad():
            one(x).square().sum().backward()
    assert torch.equal(quantiser(x), mirrored(x))
    assert torch.equal(quantiser.s.grad, -mirrored.s.grad)
    official = {"s": torch.tensor(-0.5)}
    with pytest.raises(UserError, match=r"s is -0.5; the scale of a quantiser is above 0"):
        mirrored.load_state_dict(official, strict=False)


def test_nothing_but_zeros_leaves_the_scale_at_one():
    quantiser = Quantiser(8, signed=True)
    quantiser(torch.zeros(4))
    assert quantiser.s == 1


def test_several_batches_of_calibration_data_count_alike():
    batches = [images(2), 3 * images(2)]
    joined = quantised(data=torch.cat(batches)).patch_embed.proj[1].s
    assert quantised(data=batches).patch_embed.proj[1].s.item() == pytest.approx(joined.item())


RANK = """
import sys, torch
from braincog_transformers.conversion.lsq import Quantiser
rank, store = int(sys.argv[1]), torch.distributed.FileStore(sys.argv[2], 2)
torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
quantiser = Quantiser(8, signed=True)
quantiser(torch.full((4,), 1.0 + rank))
print(float(quantiser.s.detach()))
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_processes_begin_with_the_same_scale(tmp_path):
    command = [sys.executable, "-c", RANK]
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    scales = [float(rank.communicate(timeout=120)[0]) for rank in ranks]
    assert scales[0] == scales[1] == pytest.approx(2 * 1.5 / 3**0.5)


def test_resumed_training_goes_on_with_the_scales():
    network = quantised(relu=True).train()
    resumed = prepare(vit(), "spikezip", levels=8, relu=True).train()
    resumed.load_state_dict(network.state_dict())
    resumed(2 * images())
    assert torch.equal(resumed.patch_embed.proj[1].s, network.patch_embed.proj[1].s)


def test_timm_lets_no_scale_decay():
    optimizer = create_optimizer_v2(quantised(weight_bits=4), "adamw", weight_decay=0.05)
    decaying = [p for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]]
    assert decaying
    assert all(parameter.dim() > 1 for parameter in decaying)


@torch.enable_grad()
def test_training_lowers_the_loss_of_the_quantised_network():
    network, target = quantised(levels=16).train(), torch.tensor([0, 1, 2])
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(20):
        losses.append(nn.functional.cross_entropy(network(images()), target))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


# Equality


VARIANTS = {
    "gelu": {},
    "relu": {"act_layer": nn.ReLU},
    "silu": {"act_layer": nn.SiLU},
    "two blocks": {"depth": 2},
    "layer scale": {"init_values": 0.1},
    "normalised queries and keys": {"qk_norm": True},
    "registers": {"reg_tokens": 3, "no_embed_class": True},
    "mean pooling": {"global_pool": "avg", "class_token": False},
    "max pooling": {"global_pool": "max"},
    "mean and max pooling, of all tokens": {"global_pool": "avgmax", "pool_include_prefix": True},
    "no pooling": {"global_pool": ""},
    "norm in front": {"pre_norm": True},
    "norm in the MLP": {"scale_mlp_norm": True},
    "norm in the stem": {"embed_norm_layer": nn.LayerNorm},
    "RMS norm": {"norm_layer": RmsNorm},
    "dynamic size": {"dynamic_img_size": True},
    "no biases": {"qkv_bias": False, "proj_bias": False},
    "no positions": {"pos_embed": "none"},
    "no classifier": {"num_classes": 0},
    "DeiT": {"cls": VisionTransformerDistilled},
}


@pytest.mark.parametrize("kwargs", VARIANTS.values(), ids=VARIANTS)
def test_drained_network_equals_the_quantised_one(kwargs):
    network = quantised(vit(**kwargs))
    spiking = convert(network, "spikezip", step=ENOUGH)
    x = images()
    assert (spiking(x) - network(x)).abs().max() < VALUE
    assert 1 < spiking.steps_used < ENOUGH
    assert (spiking(x[:1]) - network(x[:1])).abs().max() < VALUE


@pytest.mark.parametrize(
    "options",
    [{"coding": "spread"}, {"remove_softmax": True}, {"weight_bits": 4}, {"relu": True}, {"levels": 5}],
    ids=lambda options: next(iter(options)),
)
def test_drained_network_equals_the_quantised_one_with_each_option(options):
    network = quantised(**options)
    assert (network(images()) - quantised()(images())).abs().max() > 1e-3 or "coding" in options
    assert (convert(network, "spikezip", step=ENOUGH)(images()) - network(images())).abs().max() < VALUE


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["vit_small_patch16_224", "deit_small_patch16_224", "deit_small_distilled_patch16_224"]
)
def test_drained_network_equals_the_quantised_one_at_its_published_size(name):
    torch.manual_seed(0)
    x = images(1, 224)
    network = quantised(timm.create_model(name).double().eval(), data=x, levels=32)
    spiking = convert(network, "spikezip", step=ENOUGH)
    assert (spiking(x) - network(x)).abs().max() < VALUE
    assert spiking.steps_used < ENOUGH


def test_image_may_differ_in_size_where_the_source_allows_it():
    network = quantised(vit(dynamic_img_size=True))
    x = images(2, 24)
    assert (convert(network, "spikezip", step=ENOUGH)(x) - network(x)).abs().max() < VALUE


def test_epsilon_of_the_source_counts():
    network = quantised(vit(norm_layer=functools.partial(nn.LayerNorm, eps=0.5)))
    spiking = convert(network, "spikezip", step=ENOUGH)
    assert (spiking(images()) - network(images())).abs().max() < VALUE
    assert (network(images()) - quantised()(images())).abs().max() > 1e-2


# The run


@pytest.fixture
def spiking():
    return convert(quantised(), "spikezip", step=ENOUGH)


def test_stopping_early_equals_running_on(spiking):
    early = spiking(images())
    spiking.step = spiking.steps_used + 20
    by_step = spiking.forward_sequence(images())
    assert len(by_step) == spiking.step == spiking.steps_used
    assert (by_step[-1] - early).abs().max() < VALUE


def test_nothing_fires_in_the_last_step_but_in_the_one_before(spiking):
    spiking(images())
    used, fired = spiking.steps_used, []
    spiking.reset()
    for t in range(used):
        spiking.forward_step(spiking.encode(images(), t))
        fired.append(any(bool(node.spike.any()) for node in spiking.nodes.values()))
    assert fired == [True] * (used - 1) + [False]


def test_network_does_not_stop_while_the_picture_still_enters():
    network = quantised(vit(pre_norm=True), coding="spread", levels=64)
    convolution, quantiser = network.patch_embed.proj
    x = images(1)
    x *= 0.51 * quantiser.s / convolution(x).abs().max()  # a neuron fires when 50/51 of it have entered
    spiking = convert(network, "spikezip", step=ENOUGH)
    fired = []
    spiking.nodes["network.patch_embed.proj.1"].register_forward_hook(lambda _m, _i, out: fired.append(bool(out.any())))
    assert (spiking(x) - network(x)).abs().max() < VALUE
    assert fired.index(True) > 60


def test_frames_are_all_read_whatever_fires(spiking):
    x = torch.zeros(3, 120, 3, 16, 16, dtype=torch.float64)
    x[:, 80] = images()
    expected = spiking(images())
    assert (spiking(x) - expected).abs().max() < VALUE
    assert spiking.steps_used == 120


def test_second_call_depends_on_nothing(spiking):
    first = spiking(images())
    spiking(2 * images(1))
    assert torch.equal(spiking(images()), first)
    spiking.forward_step(images())
    assert torch.equal(spiking(images()), first)


def test_samples_do_not_depend_on_each_other(spiking):
    together = spiking(images())
    apart = torch.cat([spiking(x[None]) for x in images()])
    assert (together - apart).abs().max() < VALUE


def test_parameters_stay_as_they_are(spiking):
    before = copy.deepcopy(spiking.state_dict())
    spiking(images())
    assert all(torch.equal(value, before[name]) for name, value in spiking.state_dict().items())


def test_copy_in_the_middle_of_a_run_goes_on_alike(spiking):
    spiking.forward_step(images())
    twin = copy.deepcopy(spiking)
    nothing = torch.zeros_like(images())
    assert all(torch.equal(twin.forward_step(nothing), spiking.forward_step(nothing)) for _ in range(5))
    assert torch.equal(twin(images()), spiking(images()))


def test_neurons_put_out_one_spike_of_either_sign_at_most(spiking):
    seen = set()
    for node in spiking.nodes.values():
        node.register_forward_hook(lambda node, _inputs, out: seen.update(node.counts(out).unique().tolist()))
    spiking(images())
    assert seen == {-1, 0, 1}


def test_every_quantiser_is_a_neuron_with_its_scale_and_bounds():
    network = quantised(vit(act_layer=nn.ReLU, depth=2), levels=16)
    spiking = convert(network, "spikezip")
    quantisers = {name: module for name, module in network.named_modules() if isinstance(module, Quantiser)}
    assert len(quantisers) == 10 * 2 + 2
    assert spiking.nodes.keys() == {f"network.{name}" for name in quantisers}
    for name, quantiser in quantisers.items():
        node = spiking.nodes[f"network.{name}"]
        assert (node.threshold, node.low, node.high) == (quantiser.s, quantiser.low, quantiser.high)


def test_normalised_queries_and_scaled_branches_have_one_quantiser_each():
    network = quantised(vit(qk_norm=True, init_values=0.1))
    names = {name.removeprefix("blocks.0.") for name, m in network.named_modules() if isinstance(m, Quantiser)}
    attention = {f"attn.{value}_node" for value in ("q", "k", "v", "weight", "context")}
    block = {"norm1.1", "norm2.1", "mlp.act.1", "ls1.1", "ls2.1"}
    assert names == {"patch_embed.proj.1", "norm.1", *attention, *block}


def test_without_softmax_the_weights_are_divided_by_the_number_of_tokens():
    attention = quantised(remove_softmax=True).blocks[0].attn
    seen = {}
    attention.weight_node.register_forward_hook(lambda _m, _i, out: seen.__setitem__("node", out))
    attention.context.register_forward_pre_hook(lambda _m, inputs: seen.__setitem__("context", inputs[0]))
    attention(torch.randn(2, 5, 16, dtype=torch.float64))
    assert seen["node"].any()
    assert torch.equal(seen["context"], seen["node"] / 5)


# Files


def test_weights_bring_the_thresholds_along():
    spiking = convert(quantised(weight_bits=6), "spikezip", step=ENOUGH)
    other = convert(quantised(data=3 * images(2), weight_bits=6), "spikezip", step=ENOUGH)
    assert not torch.equal(other(images()), spiking(images()))
    other.load_state_dict(spiking.state_dict())
    assert torch.equal(other(images()), spiking(images()))


def test_file_gives_the_same_answers(tmp_path):
    source = timm.create_model("vit_tiny_patch16_224", **TINY)
    spiking = convert(spread_out(source), "spikezip", step=50, data=images(), levels=8)
    spiking(images())
    path = save_converted(spiking, tmp_path / "net.safetensors", {"model": "vit_tiny_patch16_224", "kwargs": TINY})
    assert torch.equal(load_converted(path)(images()), spiking(images()))


def test_scales_of_official_files_are_taken_in_both_shapes():
    network = quantised()
    state = {name: v for name, v in network.state_dict().items() if not name.endswith((".levels", ".initialised"))}
    state = {name: v[None] if name.endswith("norm1.1.s") else v for name, v in state.items()}
    loaded = prepare(vit(), "spikezip", levels=8).eval()
    loaded.load_state_dict(state, strict=False)
    assert torch.equal(loaded(images()), network(images()))


def test_other_levels_are_refused_before_anything_is_loaded():
    state, network = quantised().state_dict(), quantised(levels=16)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(UserError, match=r"trained with 8 levels, patch_embed.proj.1.levels has 16") as caught:
        load_state(network, {**state, "head.bias": 2 * state["head.bias"]})
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(UserError, match="trained with 8 levels"):
        convert(network, "spikezip").load_state_dict(convert(quantised(), "spikezip").state_dict())


# Text


TOKENS = torch.tensor([[0, 7, 8, 9, 2, 6], [0, 5, 4, 2, 1, 1], [0, 2, 1, 1, 1, 1]])


def encoder(**kwargs):
    sizes = {"embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_dim": 24, "max_tokens": 8}
    return spread_out(RobertaEncoder(12, **{"num_classes": 3, **sizes, **kwargs}))


@pytest.mark.parametrize(
    ("kwargs", "options"),
    [
        ({}, {}),
        ({"activation": "gelu", "head_activation": "tanh"}, {}),
        ({"padding": 0}, {}),
        ({"num_classes": 0}, {}),
        ({}, {"weight_bits": 6}),
    ],
)
def test_drained_encoder_of_text_equals_the_quantised_one(kwargs, options):
    network = quantised(encoder(**kwargs), TOKENS, levels=16, **options)
    spiking = convert(network, "spikezip", step=ENOUGH)
    assert (spiking(TOKENS) - network(TOKENS)).abs().max() < VALUE
    assert 1 < spiking.steps_used < ENOUGH
    assert (spiking(TOKENS[:1]) - network(TOKENS[:1])).abs().max() < VALUE


def test_quantisers_of_text_are_those_of_the_paper():
    network = quantised(encoder(depth=1), TOKENS)
    found = {name: m.low < 0 for name, m in network.named_modules() if isinstance(m, Quantiser)}
    attention = "encoder.layer.0.attention."
    assert found == {
        **{f"{attention}self.{value}_node": True for value in ("q", "k", "v", "context")},
        f"{attention}self.weight_node": False,
        f"{attention}output.dense.1": True,
        "encoder.layer.0.intermediate.act.0": False,
        "encoder.layer.0.output.dense.1": True,
        "classifier.act.0": False,
    }


def test_padding_changes_no_answer():
    network = encoder()
    assert (network(TOKENS)[1] - network(TOKENS[1:2, :4])[0]).abs().max() < VALUE
    spiking = convert(quantised(network, TOKENS), "spikezip", step=ENOUGH)
    assert (spiking(TOKENS)[1] - spiking(TOKENS[1:2, :4])[0]).abs().max() < VALUE


def test_padding_is_at_the_place_of_its_own_number():
    parts = encoder().embeddings
    expected = (
        parts.word_embeddings.weight[1] + parts.position_embeddings.weight[1] + parts.token_type_embeddings.weight
    )
    assert torch.equal(parts(TOKENS)[1, 4], parts.LayerNorm(expected)[0])


def test_attention_mask_takes_the_place_of_padding():
    network, attended = encoder(), torch.ones_like(TOKENS)
    attended[:, 3:] = 0
    assert (network(TOKENS[:2], attended[:2]) - network(TOKENS[:2, :3])).abs().max() < VALUE


def test_weights_have_the_names_of_hugging_face():
    network = encoder()
    state = {k if k.startswith("classifier.") else f"roberta.{k}": v for k, v in network.state_dict().items()}
    unread = {"roberta.embeddings.position_ids": torch.arange(10)[None], "lm_head.bias": torch.ones(12)}
    assert "roberta.encoder.layer.1.attention.self.query.weight" in state
    assert "roberta.embeddings.token_type_embeddings.weight" in state
    fresh = RobertaEncoder(12, 3, embed_dim=16, depth=2, num_heads=2, mlp_dim=24, max_tokens=8).double().eval()
    load_state(fresh, {**state, **unread})
    assert torch.equal(fresh(TOKENS), network(TOKENS))


def test_file_of_an_encoder_gives_the_same_answers(tmp_path):
    spiking = convert(quantised(encoder(), TOKENS), "spikezip", step=ENOUGH)
    path = save_converted(spiking, tmp_path / "text.safetensors", encoder())
    assert torch.equal(load_converted(path, encoder())(TOKENS), spiking(TOKENS))


def test_tokens_after_the_first_step_are_refused():
    spiking = convert(quantised(encoder(), TOKENS), "spikezip", step=4)
    with pytest.raises(UserError, match="tokens enter at the first step only"):
        spiking(torch.stack([TOKENS, TOKENS], dim=1))


# Bad input


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: timm.create_model("swin_tiny_patch4_window7_224"),
            r"takes VisionTransformer, .*, not SwinTransformer, and doesn't know the layer norm in patch_embed.norm",
        ),
        (lambda: VisionTransformer(**TINY, global_pool="map"), r"the fused attention in attn_pool"),
        (lambda: VisionTransformer(**TINY, act_layer=nn.Hardswish), r"the hardswish in blocks.0.mlp.act"),
        (lambda: VisionTransformer(**TINY, attn_layer="diff"), r"the softmax in blocks.0.attn .*rate knows it"),
        (lambda: VisionTransformer(**TINY, scale_attn_norm=True), r"blocks.0.attn has a normalisation at its output"),
        (lambda: VisionTransformer(**TINY, block_fn=ResPostBlock), r"doesn't know blocks.0 \(ResPostBlock\)"),
        (lambda: type("MyViT", (VisionTransformer,), {})(**TINY), "none derived from them; got MyViT"),
    ],
    ids=["swin", "pooling", "activation", "attention", "norm", "block", "subclass"],
)
def test_what_is_not_known_is_named(build, message):
    with pytest.raises(UserError, match=message) as caught:
        prepare(build(), "spikezip")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"levels": 3},
        {"levels": 512},
        {"levels": 8.0},
        {"levels": True},
        {"weight_bits": 1},
        {"weight_bits": 9},
        {"coding": "rate"},
        {"relu": 1},
        {"remove_softmax": None},
    ],
    ids=str,
)
def test_bad_options_are_refused(options):
    with pytest.raises(UserError, match=f"spikezip: {next(iter(options))} must be"):
        prepare(vit(), "spikezip", **options)


@pytest.mark.parametrize("options", [{"coding": "spread"}, {"remove_softmax": True}], ids=str)
def test_options_without_a_meaning_for_text_are_refused(options):
    with pytest.raises(UserError, match="for text"):
        prepare(encoder(), "spikezip", **options)


def test_encoder_of_text_is_prepared_without_data():
    network = prepare(encoder(padding=0), "spikezip").train()
    network(TOKENS)
    assert network.eval()(TOKENS).isfinite().all()


def test_evaluation_without_scales_is_refused():
    with pytest.raises(UserError, match="scales of the quantised network are not initialised"):
        prepare(vit(), "spikezip")(images())


def test_network_without_scales_is_converted_with_data_only():
    network = prepare(vit(), "spikezip", levels=8)
    with pytest.raises(UserError, match=r"calibrates network.patch_embed.proj.1, .* so it needs data"):
        convert(network, "spikezip")
    spiking = convert(network, "spikezip", step=ENOUGH, data=images())
    assert (spiking(images()) - quantised()(images())).abs().max() < VALUE


def test_encoder_of_text_says_what_it_takes():
    with pytest.raises(UserError, match="at most 8"):
        encoder()(torch.zeros(1, 9, dtype=torch.long))
    with pytest.raises(UserError, match="multiple of num_heads"):
        RobertaEncoder(12, embed_dim=10, num_heads=3)
    with pytest.raises(UserError, match="activation must be"):
        RobertaEncoder(12, activation="silu")


def test_source_stays_as_it_is():
    source = vit()
    before, classes = copy.deepcopy(source.state_dict()), [type(m) for m in source.modules()]
    convert(source, "spikezip", data=images(), levels=8)
    assert [type(m) for m in source.modules()] == classes
    assert all(torch.equal(value, before[name]) for name, value in source.state_dict().items())
