"""QCFS: its values and gradients, its places in networks, and the spiking networks that they become."""

import copy
import dataclasses

import pytest
import timm
import torch
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from user_networks import NETWORKS, build, mlp, swin, vit

from braincog_transformers import UserError
from braincog_transformers.conversion import METHODS, convert, load_converted, prepare, save_converted
from braincog_transformers.conversion.increments import OfMean
from braincog_transformers.conversion.qcfs import QCFS, QCFSOptions, SpikeMask, set_masks
from braincog_transformers.nodes import SoftResetNode

KNOWN = (
    *("vit", "vit, relu", "vit, registers and scales", "vit, normalised queries", "vit, rms norm", "deit", "swin"),
    *("resnet", "mixer", "relu", "relu in place", "gelu", "weight norm", "relu in two places", "max pooling"),
)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# The activation


def test_qcfs_rounds_to_levels_and_has_the_gradients_of_the_paper():
    """With z = x/threshold and u = floor(4z + 1/2)/4: 1 and u - z where u is from 0 to 1, 0 and 1 above, 0 below."""
    site = QCFS(levels=4, threshold=2.0)
    x = torch.tensor([-1.0, -0.26, -0.25, 0.1, 0.3, 1.0, 2.2, 2.3, 5.0], requires_grad=True)
    out = site(x)
    assert out.tolist() == [0, 0, 0, 0, 0.5, 1.0, 2.0, 2.0, 2.0]
    out.sum().backward()
    assert x.grad.tolist() == [0, 0, 1, 1, 1, 1, 1, 0, 0]
    inside = torch.tensor([0 + 0.125, 0 - 0.05, 0.25 - 0.15, 0.5 - 0.5, 1 - 1.1])
    assert site.threshold.grad.item() == pytest.approx(inside.sum().item() + 2, abs=1e-6)


def test_qcfs_has_gradients_of_each_sample():
    site, x = QCFS(levels=4, threshold=0.8), noise(5, 3)

    def loss(parameters, one):
        return torch.func.functional_call(site, parameters, (one,)).square().sum()

    parameters = dict(site.named_parameters())
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)["threshold"]
    one_by_one = [torch.autograd.grad(site(one).square().sum(), site.threshold)[0] for one in x]
    assert torch.allclose(each, torch.stack(one_by_one))


def test_a_neuron_says_in_as_many_steps_as_levels_what_qcfs_says():
    site, x = QCFS(levels=8, threshold=1.5), noise(1000).double()
    spiking = convert(nn.Sequential(nn.Identity(), site), "qcfs", step=8, data=x[None])
    assert torch.allclose(spiking(x[None]), site.double()(x[None]), rtol=0, atol=1e-12)


# Any network


@pytest.fixture(params=KNOWN)
def known(request):
    torch.manual_seed(0)
    network, x = build(request.param)
    return network.eval(), x


def test_it_comes_near_its_limit_with_the_steps(known):
    network, x = known
    limit = prepare(network, "qcfs", data=x)
    spiking = convert(limit, "qcfs", step=64)
    with torch.no_grad():
        expected, means = limit(x), spiking.forward_sequence(x)
    far, near = ((means[t - 1] - expected).norm() / expected.norm() for t in (2, 64))
    assert near < 0.1
    assert near < far / 2


@pytest.mark.parametrize(("build_source", "side"), [(vit, 16), (swin, 32)])
def test_a_transformer_gives_more_and_more_of_its_limits_answers(build_source, side):
    torch.manual_seed(0)
    network, x = build_source().eval(), noise(48, 3, side, side)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    limit = prepare(network, "qcfs", data=x)
    with torch.no_grad():
        answers, means = limit(x).argmax(1), convert(limit, "qcfs", step=64).forward_sequence(x)
    agreement = [(means[t - 1].argmax(1) == answers).float().mean().item() for t in (1, 8, 64)]
    assert agreement[0] < agreement[1] < agreement[2]
    assert agreement[2] > 0.85


def test_calls_do_not_depend_on_each_other_or_on_neighbours(known):
    network, x = known
    spiking = convert(network, "qcfs", step=5, data=x, allow_silent=True)
    first = spiking(x)
    spiking(x + 1)
    assert torch.equal(spiking(x), first)
    assert torch.equal(copy.deepcopy(spiking)(x), first)
    assert torch.allclose(spiking(x[:1]), first[:1], atol=1e-5)
    assert torch.equal(spiking.forward_sequence(x)[-1], first)


def test_the_source_stays_and_the_structure_alone_takes_the_state(known):
    network, x = known
    before = copy.deepcopy(network.state_dict())
    spiking = convert(network, "qcfs", step=5, data=x, allow_silent=True)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    method, options = METHODS["qcfs"], QCFSOptions(**spiking.settings["options"])
    with torch.no_grad():
        bare = method.spiking(method.limit(copy.deepcopy(network), options, None), 5, options, None, {})
    bare.load_state_dict(spiking.state_dict())
    assert torch.equal(bare(x), spiking(x))
    assert not any(parameter.requires_grad for parameter in spiking.parameters())


def test_the_limit_trains(known):
    network, x = known
    limit = prepare(network, "qcfs", data=x).train()
    limit(x).square().sum().backward()
    thresholds = [module.threshold.grad for module in limit.modules() if isinstance(module, QCFS)]
    assert thresholds
    assert all(grad is not None and torch.isfinite(grad).all() for grad in thresholds)


@pytest.mark.parametrize(
    "name", [name for name in NETWORKS if name not in (*KNOWN, "vit, mean of tokens", "convnext", "vit, no classifier")]
)
def test_what_it_does_not_know_is_named(name):
    network, x = build(name)
    with pytest.raises(UserError, match=r"^conversion: qcfs doesn't know the "):
        prepare(network, "qcfs", data=x)


def test_a_trained_network_keeps_its_answers():
    """A small ReLU network that has learnt to tell the sign of a sum from its noise."""
    torch.manual_seed(0)
    network, x = mlp(), noise(512, 6)
    labels = (x.sum(1) > 0).long() + (x.sum(1) > 2).long()
    optimiser = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(150):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(x), labels).backward()
        optimiser.step()
    with torch.no_grad():
        means = convert(network.eval(), "qcfs", step=32, data=x).forward_sequence(x)
        agreement = [(means[t - 1].argmax(1) == network(x).argmax(1)).float().mean().item() for t in (1, 4, 32)]
    assert agreement[0] < agreement[1] < agreement[2]
    assert agreement[2] > 0.98


def test_pooling_passes_on_the_largest_rate():
    pool = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.MaxPool2d(2))
    nn.init.ones_(pool[0].weight)
    x = noise(2, 1, 8, 8).double().sigmoid()
    limit = prepare(pool.double(), "qcfs", data=x, percentile=1.0, levels=16)
    assert torch.allclose(convert(limit, "qcfs", step=16)(x), limit(x), atol=1e-12)


def test_a_network_with_qcfs_of_the_users_own_keeps_it():
    network, x = mlp(lambda: QCFS(levels=3, threshold=0.7)), noise(8, 6)
    limit = prepare(network, "qcfs", data=x)
    assert torch.equal(limit(x), network(x))
    assert convert(network, "qcfs", step=4, data=x).network[1].threshold.item() == pytest.approx(0.7)


def test_resnets_of_timm_are_taken():
    torch.manual_seed(0)
    network = ResNet(BasicBlock, (1, 1, 1, 1), num_classes=3, channels=(4, 4, 8, 8), stem_width=4).eval()
    x = noise(2, 3, 32, 32)
    spiking = convert(network, "qcfs", step=2, data=x, allow_silent=True)
    assert len(spiking.nodes) == sum(isinstance(module, nn.ReLU) for module in network.modules())


# timm's transformers


def test_a_vit_has_it_where_the_paper_has_it():
    sites = {name for name, module in prepare(vit(depth=1), "qcfs").named_modules() if isinstance(module, QCFS)}
    attention = {f"blocks.0.attn.{name}_node" for name in ("q", "k", "v", "score", "context", "proj")}
    others = ("norm1.node", "norm2.node", "mlp.act", "mlp.fc2.node")
    assert sites == {"patch_embed.norm", *attention, *(f"blocks.0.{name}" for name in others)}


def test_a_swin_has_as_many_as_the_papers_network():
    network = timm.create_model("swin_tiny_patch4_window7_224", embed_dim=12, img_size=56, num_classes=2)
    limit = prepare(network, "qcfs")
    assert sum(isinstance(module, QCFS) for module in limit.modules()) == 124
    assert limit.layers[1].downsample.reduction.node.levels == 16


@pytest.mark.parametrize("build_source", [vit, swin])
def test_the_layers_of_a_block_read_spikes(build_source):
    """Each reads 0 and one other value, the neuron's threshold."""
    torch.manual_seed(0)
    network, x = (
        build_source().eval(),
        noise(2, 3, 32 if build_source is swin else 16, 32 if build_source is swin else 16),
    )
    spiking = convert(network, "qcfs", step=3, data=x, allow_silent=True)
    seen = {}
    for name, module in spiking.named_modules():
        if isinstance(module, nn.Linear) and (".attn." in name or ".mlp." in name):
            module.register_forward_pre_hook(lambda _m, inputs, name=name: seen.update({name: inputs[0].unique()}))
    spiking(x)
    assert len(seen) == 4 * (2 if build_source is vit else 4)
    assert all(len(values) <= 2 and values[0] == 0 for values in seen.values())


def test_norms_read_the_mean_of_the_steps_or_each_step():
    network, x = vit().eval(), noise(2, 3, 16, 16)
    counts = {}
    for norms in ("mean", "step"):
        spiking = convert(network, "qcfs", step=2, data=x, norms=norms, allow_silent=True)
        counts[norms] = sum(isinstance(module, OfMean) for module in spiking.modules())
    assert counts == {"mean": 5, "step": 0}


def test_the_mean_of_what_leaves_is_the_norm_of_the_mean():
    norm, inputs = nn.LayerNorm(6).double(), noise(7, 3, 6).double()
    running = OfMean(norm)
    outputs = [running(x) for x in inputs]
    for t in range(1, 8):
        assert torch.allclose(torch.stack(outputs[:t]).mean(0), norm(inputs[:t].mean(0)), atol=1e-12)
    running.reset()
    assert torch.equal(running(inputs[0]), norm(inputs[0]))


def test_attention_of_a_vit_is_masked_in_training_and_in_inference():
    torch.manual_seed(0)
    network, x = vit(depth=1), noise(2, 3, 16, 16)
    nn.init.normal_(network.blocks[0].attn.qkv.weight)
    limit, plain = (prepare(network, "qcfs", data=x, masking_ratio=ratio) for ratio in (0.5, 0.0))
    plain.load_state_dict(limit.state_dict())
    assert sum(isinstance(module, SpikeMask) for module in limit.modules()) == 3
    assert not torch.equal(limit(x), limit(x))
    assert torch.equal(plain(x), plain(x))
    spiking = convert(limit, "qcfs", step=4)
    assert torch.equal(spiking(x), spiking(x))
    assert not torch.equal(spiking(x), convert(plain, "qcfs", step=4)(x))
    for masked in (limit, spiking):
        set_masks(masked, torch.ones_like)
    assert torch.equal(limit(x), plain(x))
    assert torch.equal(spiking(x), convert(plain, "qcfs", step=4)(x))


def test_a_file_holds_all(tmp_path):
    kwargs = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 3}
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", **kwargs).eval()
    x = noise(2, 3, 16, 16)
    spiking = convert(network, "qcfs", step=4, data=x, levels=8, masking_ratio=0.25, seed=5)
    source = {"model": "vit_tiny_patch16_224", "kwargs": kwargs}
    read = load_converted(save_converted(spiking, tmp_path / "net.safetensors", source))
    assert torch.equal(read(x), spiking(x))


# Levels, thresholds, options


@pytest.mark.parametrize("source", [vit, mlp])
def test_the_state_of_another_number_of_levels_is_refused(source):
    network = source()
    x = noise(2, 3, 16, 16) if source is vit else noise(2, 6)
    few, many = (prepare(network, "qcfs", data=x, levels=levels) for levels in (4, 16))
    assert torch.equal(few.state_dict()["qcfs_levels"], torch.tensor(4))
    with pytest.raises(UserError, match=rf"^{type(network).__name__}: .* levels=16, this network has levels=4; "):
        few.load_state_dict(many.state_dict())
    prepare(network, "qcfs", data=x, levels=16).load_state_dict(many.state_dict())
    without = {name: value for name, value in many.state_dict().items() if name != "qcfs_levels"}
    few.load_state_dict(without)
    copy.deepcopy(few).load_state_dict(without)


def test_thresholds_that_are_none_are_all_named():
    limit = prepare(nn.Sequential(*[nn.Linear(6, 6), nn.ReLU()] * 3), "qcfs", data=noise(4, 6))
    for site, value in zip((m for m in limit.modules() if isinstance(m, QCFS)), (0.0, float("nan"), -1.0), strict=True):
        site.threshold.data.fill_(value)
    with pytest.raises(UserError, match=r"thresholds must be finite and above 0, .*got .* 0, .* nan, .* -1"):
        convert(limit, "qcfs", step=4)


def test_a_layer_that_never_fires_is_named():
    network = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    network[0].bias.data.fill_(-100.0)
    with pytest.raises(UserError, match=r"never fire on .*network\.1 \(threshold 2\)"):
        convert(network, "qcfs", step=4, data=noise(4, 6))


def test_thresholds_are_above_the_given_share_of_the_positive_inputs():
    x = torch.arange(-100, 101.0).view(-1, 1)
    network = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    nn.init.ones_(network[0].weight), nn.init.zeros_(network[0].bias)
    for percentile, threshold in ((1.0, 100), (0.5, 50), (0.999, 100)):
        limit = prepare(network, "qcfs", data=x, percentile=percentile)
        assert limit[1].threshold.item() == threshold
    assert prepare(network, "qcfs", threshold=3.0)[1].threshold.item() == 3.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 0}, "levels must be a whole number from 1; got 0"),
        ({"levels": 2.5}, "levels must be a whole number from 1; got 2.5"),
        ({"threshold": 0.0}, "threshold must be above 0"),
        ({"threshold": float("inf")}, "threshold must be above 0"),
        ({"percentile": 0.0}, "percentile must be above 0"),
        ({"masking_ratio": 1.0}, "masking_ratio must be at least 0 and below 1"),
        ({"masking_ratio": 0.5}, "masking_ratio masks attention, and Sequential has none"),
        ({"norms": "none"}, "norms must be 'mean' or 'step'"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"level": 4}, "unknown option of qcfs 'level'; did you mean levels"),
    ],
)
def test_options_that_are_none_are_named(options, message):
    with pytest.raises(UserError, match=message):
        prepare(mlp(), "qcfs", data=noise(4, 6), **options)


def test_attention_of_other_blocks_is_refused():
    from timm.models.vision_transformer import ResPostBlock

    network = VisionTransformer(
        img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2, num_classes=3, block_fn=ResPostBlock
    )
    with pytest.raises(UserError, match=r"blocks\.0\.attn is the attention of a ResPostBlock"):
        prepare(network, "qcfs")


def test_types_stay():
    network, x = vit().double(), noise(2, 3, 16, 16).double()
    limit, spiking = prepare(network, "qcfs"), convert(network, "qcfs", step=2, data=x, allow_silent=True)
    assert all(parameter.dtype == torch.float64 for parameter in limit.parameters())
    assert all(node.threshold.dtype == torch.float64 for node in spiking.nodes.values())
    assert all(isinstance(node, SoftResetNode) and node.start == 0.5 for node in spiking.nodes.values())
    assert spiking(x).dtype == torch.float64


def test_options_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        QCFSOptions().levels = 3
