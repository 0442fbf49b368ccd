"""One test file over the registry: every variant at a small size answers timm's and BrainCog's calls."""

import pytest
import timm
import torch
from braincog.base.node import node as braincog_node
from families import DISTINCT, EXAMPLES, FAMILIES, NAMES, batch, family_of, tiny, wake

from braincog_transformers import UserError
from braincog_transformers.models import SGLFormer

PARAMETERS = {name: count for family in FAMILIES for name, count in family.PARAMETERS.items()}
# Tracing takes long: one network of the quick tests, all of them with --slow.
TRACED = [name if name.startswith("spikformer_4") else pytest.param(name, marks=pytest.mark.slow) for name in EXAMPLES]
ALIASES = {alias: name for family in FAMILIES for alias, name in family.ALIASES.items()}


@pytest.fixture(params=DISTINCT)
def model(request):
    return wake(tiny(request.param))


@pytest.mark.parametrize(("name", "expected"), PARAMETERS.items(), ids=PARAMETERS)
def test_trainable_parameters_are_the_official_ones(name, expected):
    with torch.device("meta"):
        network = timm.create_model(name)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == expected


def test_every_published_variant_has_its_count():
    counted = {name.split(".")[0] for name in PARAMETERS}
    assert counted | {*ALIASES}.union(*(family.SMALL for family in FAMILIES)) == set(NAMES)


@pytest.mark.parametrize(("alias", "name"), ALIASES.items(), ids=ALIASES)
def test_brain_cogs_names_are_aliases(alias, name):
    with torch.device("meta"):
        a, b = timm.create_model(alias), timm.create_model(name)
    assert str(a) == str(b)
    assert a.default_cfg == b.default_cfg


def test_default_configuration_describes_the_network():
    for name in NAMES:
        with torch.device("meta"):
            network = timm.create_model(name)
        cfg = network.default_cfg
        assert cfg["input_size"] == (network.in_chans, *network.img_size)
        assert cfg["num_classes"] == network.num_classes
        assert cfg["classifier"] == "head"
        last = network.feature_info[-1]["reduction"]
        pooled = None if network.has_tokens else tuple(side // last for side in network.img_size)
        assert cfg["pool_size"] == pooled
        if cfg["first_conv"]:  # a sequence is folded before its first convolution, so timm can't convert its channels
            assert network.get_submodule(cfg["first_conv"]).in_channels == network.in_chans
        assert cfg["architecture"] == ALIASES.get(name, name)


def test_forward_and_gradients(model):
    x = batch(model)
    logits = model(x)
    assert logits.shape == (2, 5)
    features = model.forward_features(x)
    assert features.shape[0] == 2 * model.unit_steps
    assert features.shape[2 if features.dim() == 3 else 1] == model.num_features
    assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


def test_logits_by_step_average_to_the_logits(model):
    model.eval()
    x = batch(model)
    expected = model(x)
    model.output_steps = True
    if isinstance(model, SGLFormer) or model.sums_steps:
        with pytest.raises(UserError, match="no logits by step"):
            model(x)
        return
    by_step = model(x)
    assert by_step.shape == (2, 2, 5)
    torch.testing.assert_close(by_step.mean(0), expected)


def test_a_sample_does_not_depend_on_its_neighbours(model):
    model.eval()
    x = batch(model, 3)
    torch.testing.assert_close(model(x)[:1], model(x[:1]))


def test_step_by_step_equals_all_steps_at_once(model):
    model.eval()
    x = batch(model)
    if model.mixes_time:
        with pytest.raises(UserError, match="one step at a time"):
            model.set_streaming()
        return
    expected = model(x)
    model.set_attr("layer_by_layer", False)
    torch.testing.assert_close(model(x), expected)
    frames = model.encoder(x).chunk(model.step)
    model.set_streaming()
    model.reset()
    torch.testing.assert_close(sum(model(frame) for frame in frames) / model.step, expected)
    with pytest.raises(ValueError, match="one step"):
        model(torch.stack(frames, 1))
    model.set_streaming(False)
    assert torch.equal(model(x), expected)


def test_state_between_steps_refuses_what_would_run_twice_or_at_once():
    model = tiny("spikformer_4_384_cifar")
    model.set_attr("layer_by_layer", False)
    with pytest.raises(UserError, match="layer_by_layer"):
        model.forward_intermediates(batch(model))
    model.set_grad_checkpointing()
    with pytest.raises(UserError, match="runs a block twice"):
        model(batch(model))
    with torch.no_grad():
        assert model(batch(model)).shape == (2, 5)


def test_other_step_changes_every_neuron(model):
    if model.joins_steps:
        with pytest.raises(UserError, match=r"step stays 2.* got 3 \(build the network with step=3\)"):
            model.set_attr("step", 3)
        assert {node.step for node in model.nodes.values()} == {2}
        model = wake(tiny(model.default_cfg["architecture"], step=3))
    model.set_attr("step", 3)
    assert model.step == model.encoder.step == 3
    assert {node.step for node in model.nodes.values()} == {3, 1 if model.sums_steps else 3}
    assert model(batch(model)).shape == (2, 5)


def test_checkpointed_gradients_and_statistics_equal_plain_ones(model):
    x = batch(model)
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def train():
        model.load_state_dict(state)
        model.zero_grad()
        model(x).square().sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.requires_grad], [b.clone() for b in model.buffers()]

    plain = train()
    model.set_grad_checkpointing()
    for expected, got in zip(plain, train(), strict=True):
        for a, b in zip(expected, got, strict=True):
            torch.testing.assert_close(a, b)


def test_state_dict_round_trip(model):
    other = tiny(model.default_cfg["architecture"])
    other.load_state_dict(model.state_dict())
    x = batch(model)
    assert torch.equal(other.eval()(x), model.eval()(x))


def test_brain_cogs_calls(model):
    model.eval()
    x = batch(model)
    model.set_requires_fp(True)
    model.set_requires_mem(True)
    with torch.no_grad():
        model(x)
    nodes = list(model.nodes.values())
    assert all(len(node.feature_map) == len(node.mem_collect) == node.step for node in nodes)
    assert all(node.feature_map[0].shape[0] == 2 for node in nodes)
    assert model.get_fire_rate().shape == (len(nodes),)
    spikes = sum(sum(node.feature_map).sum() for node in nodes)
    assert model.get_tot_spike() == spikes / 2
    average, variance, counts, per_step = model.get_spike_info()
    assert len(average) == len(variance) == len(counts) == len(per_step) == len(nodes)
    assert len(model.get_threshold()) == len(nodes)
    model.reset()
    assert all(node.feature_map == [] for node in nodes)
    with pytest.raises(UserError, match="neither the network nor"):
        model.set_attr("stpe", 3)


def _shallow(name):
    """Build the network twice, with as few blocks as it can have."""
    tiny_size = family_of(name).TINY
    depths = {"depth": 1, "depths": (1,) * len(tiny_size.get("depths", ()))}
    depths = {key: value for key, value in depths.items() if key in tiny_size}
    by_block = [key for key in ("num_heads", "mlp_ratio") if isinstance(tiny_size.get(key), tuple)]
    if "depth" in depths:
        depths |= {key: tiny_size[key][:1] for key in by_block}
    torch._dynamo.reset()
    return [wake(tiny(name, **depths)) for _ in range(2)]


@pytest.mark.kernels(compiler=False)
@pytest.mark.parametrize("name", TRACED)
def test_training_compiles_as_one_graph(name):
    plain, compiled = _shallow(name)
    plain.set_attr("integer_products", False)  # a compiled step has none
    x = batch(plain)
    # The backend that traces and differentiates without generating code: graph breaks show just the same.
    out, expected = torch.compile(compiled, fullgraph=True, backend="aot_eager")(x), plain(x)
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    for (key, a), b in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        if a.requires_grad:
            torch.testing.assert_close(b.grad, a.grad, msg=lambda m, k=key: f"{k}: {m}")
    for (key, a), b in zip(plain.named_buffers(), compiled.buffers(), strict=True):
        torch.testing.assert_close(b, a, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.kernels(compiler=False)
@pytest.mark.parametrize("name", TRACED)
def test_evaluation_compiles_as_one_graph(name):
    plain, compiled = (model.eval() for model in _shallow(name))
    x = batch(plain)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(compiled, fullgraph=True, backend="eager")(x), plain(x))


# What the architecture admits


@pytest.mark.parametrize("encode_type", ["rate", "ttfs", "phase"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_encodings(name, encode_type):
    model = wake(tiny(name, encode_type=encode_type))
    x = batch(model, events=False)
    assert model(x).shape == (2, 5)
    assert model.forward_features(x).shape[0] == 2 * model.unit_steps


@pytest.mark.parametrize("momentum", [0.1, None])
def test_static_image_shared_over_steps_equals_the_encoded_one(momentum):
    """Values, gradients and running statistics of the first layers, computed once and computed T times."""
    results = []
    for shared in (True, False):
        model = wake(tiny("spikformer_4_384_cifar")).double()
        model.patch_embed.stages[0].bn.momentum = momentum
        x = batch(model).double()
        tokens = model.patch_embed(x, copies=2) if shared else model.patch_embed(model.encoder(x))
        tokens.square().sum().backward()
        results.append((tokens, model.patch_embed.stages[0].conv.weight.grad, *model.patch_embed.buffers()))
    for shared, encoded in zip(*results, strict=True):
        torch.testing.assert_close(shared, encoded, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(16, 32), (48, 16)])
def test_sides_may_differ(size):
    model = tiny("spikformer_2_256_dvs", img_size=size)
    assert model(batch(model)).shape == (2, 5)
    assert model.patch_embed.grid_size == (size[0] // 16, size[1] // 16)


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_images_and_events_of_any_channels_through_any_network(name, channels):
    model = wake(tiny(name, in_chans=channels))
    image = batch(model, events=False)
    assert model(image).shape == model(batch(model, events=True)).shape == (2, 5)
    model.eval()
    repeated = image.unsqueeze(1).expand(-1, model.step, -1, -1, -1)
    torch.testing.assert_close(model(image), model(repeated))


@pytest.mark.parametrize(
    "node_type", ["PLIFNode", "IFNode", "PLIAFNode", "BiasLIFNode", "NoiseLIFNode", braincog_node.LIFNode]
)
@pytest.mark.parametrize("name", EXAMPLES)
def test_other_neurons(name, node_type):
    model = wake(tiny(name, node_type=node_type, act_fun="AtanGrad", alpha=2.0))
    model(batch(model)).sum().backward()


@pytest.mark.parametrize("name", EXAMPLES)
def test_neuron_options_reach_every_neuron_and_lower_thresholds_keep_their_ratio(name):
    own = {key: node.threshold.item() for key, node in tiny(name).nodes.items()}
    options = {"node_type": "LIFNode", "threshold": 0.8, "tau": 3.0, "act_fun": "AtanGrad", "alpha": 2.5}
    model = tiny(name, **options, requires_thres_grad=True)
    assert {key: node.threshold.item() for key, node in model.nodes.items()} == pytest.approx(
        {key: 0.8 * threshold for key, threshold in own.items()}
    )
    for node in model.nodes.values():
        assert node.tau == 3.0
        assert type(node.act_fun).__name__ == "AtanGrad"
        assert node.act_fun.alpha.item() == 2.5
        assert node.threshold.requires_grad


@pytest.mark.parametrize("name", EXAMPLES)
def test_fused_network_gives_the_same_logits(name):
    model = wake(tiny(name)).double()
    x = batch(model).double()
    model(x)  # running statistics that are not the initial ones
    with pytest.raises(UserError, match="eval"):
        model.fuse()
    expected = model.eval()(x)
    torch.testing.assert_close(model.fuse()(x), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(model.fuse()(x), expected, rtol=0, atol=1e-9)
    assert not [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)]


def test_drop_path_drops_all_steps_of_a_sample():
    from braincog_transformers.layers import StepDropPath

    drop = StepDropPath(0.5, step=3)
    out = drop(torch.ones(3 * 64, 4)).view(3, 64, 4)
    assert set(out.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(out[0], out[1])
    assert torch.equal(out[0], out[2])
    assert torch.equal(drop.eval()(torch.ones(3, 2)), torch.ones(3, 2))
    rates = [block.drop_path.drop_prob for block in tiny("spikformer_4_384_cifar", depth=3, drop_path_rate=0.2).blocks]
    assert rates == pytest.approx([0, 0.1, 0.2])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_heads": 3}, "embed_dim=16, num_heads=3 .try 2 or 4"),
        ({"img_size": 18}, "multiple of 4"),
        ({"patch_size": 5}, "patch_size must be"),
        ({"embed_dim": 12, "num_heads": 1}, "multiple of 8"),
        ({"step": 0}, "step"),
        ({"encode_type": "rte"}, "did you mean rate"),
        ({"node_type": "LIFNoed"}, "did you mean LIFNode"),
        ({"threshold": 0.0}, "threshold must be above 0"),
        ({"pretrained": True}, "no official weights"),
    ],
)
def test_impossible_networks_are_refused_with_the_numbers(kwargs, message):
    with pytest.raises(UserError, match=message):
        tiny("spikformer_4_384_cifar", **kwargs)


def test_misspelt_argument_raises():
    with pytest.raises(TypeError, match="embed_dmi"):
        tiny("spikformer_4_384_cifar", embed_dmi=3)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 8, 8), "img_size"),
        ((2, 1, 16, 16), "in_chans"),
        ((2, 3, 3, 16, 16), "3 steps"),
        ((3, 16, 16), "input must be"),
    ],
)
def test_input_that_does_not_fit_says_what_would(shape, message):
    with pytest.raises(ValueError, match=message):
        tiny("spikformer_4_384_cifar")(torch.zeros(shape))


def test_equations_of_a_papers_neuron_hold_for_the_neurons_that_have_them():
    options = {"strict": True, "decay_input": False, "detach_reset": False}
    for node in (*tiny("stsa_ndigits").nodes.values(), *tiny("spikformer_digits", **options).nodes.values()):
        assert (node.strict, node.decay_input, node.detach_reset) == (True, False, False)
    assert not hasattr(next(iter(tiny("stsa_ndigits", node_type="ALIFNode").nodes.values())), "decay_input")
    assert tiny("stsa_ndigits", node_type="ILIFNode").neurons.tau == 2
    with pytest.raises(UserError, match=r"ALIFNode has equations of its own, so it has no decay_input; LIFNode"):
        tiny("stsa_ndigits", node_type="ALIFNode", decay_input=False)
    with pytest.raises(UserError, match=r"BiasLIFNode has equations of its own, so it has no detach_reset"):
        tiny("spikformer_digits", node_type="BiasLIFNode", detach_reset=False)
