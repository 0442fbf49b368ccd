"""Masked pre-training: what its vectors can't show."""

import pytest
import timm
import torch
from families import masked
from torch import nn

from braincog_transformers import UserError
from braincog_transformers.checkpoints import identify, load_state
from braincog_transformers.layers.visible import VisiblePatches, show_visible_only
from braincog_transformers.models.masked import MaskedAutoencoder, encoder_weights

SMALL = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}
NETWORKS = ["spikformer_v2_8_384", "sdt_v3_83m"]
TINY = {"embed_dim": 16, "depth": 1, "num_heads": 2, "img_size": 64, "step": 2}


def _network(name, **kwargs):
    torch.manual_seed(0)
    network = timm.create_model(name, **{**TINY, **kwargs})
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.constant_(module.bias, 0.7)
    return network


def _autoencoder(name, **kwargs):
    encoder = _network(name, num_classes=0, **timm.create_model(name, **TINY).masking.arguments)
    return MaskedAutoencoder(encoder, **{**SMALL, **kwargs})


@pytest.fixture(params=NETWORKS)
def autoencoder(request):
    return _autoencoder(request.param)


@pytest.mark.parametrize(("name", "kwargs", "count", "idle"), masked.PARAMETERS.values(), ids=masked.PARAMETERS)
def test_parameters_are_the_official_ones(name, kwargs, count, idle):
    with torch.device("meta"):
        encoder = timm.create_model(name, num_classes=0, layer_scale=0.0, **kwargs)
        model = MaskedAutoencoder(encoder)
    learnt = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert learnt == count - idle
    assert model.decoder.position.shape == (1, 196, 256)


def test_a_layer_that_sees_everything_visible_is_the_layer():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4)).double()
    x = torch.randn(4, 3, 8, 12, dtype=torch.float64)
    expected = layers(x)
    before = {name: buffer.clone() for name, buffer in layers[1].named_buffers()}
    layers[1].reset_running_stats()
    visible = VisiblePatches((2, 3))
    show_visible_only(layers, visible)
    visible.patches = torch.rand(2, 6).argsort(1)
    torch.testing.assert_close(layers(x), expected)  # four maps of two pictures: two steps
    for name, buffer in layers[1].named_buffers():
        torch.testing.assert_close(buffer, before[name])


def test_hidden_patches_reach_no_convolution(autoencoder):
    """Whatever is in the hidden patches, the tokens are the same; and they stay so at every resolution."""
    model, noise = autoencoder.eval(), torch.rand(2, 16)
    x, seen = torch.rand(2, 3, 64, 64), []
    for layer in model.encoder.patch_embed.modules():
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
            layer.register_forward_hook(lambda layer, inputs, y: seen.append((y != 0).any(1)))
    latent, ranks = model.encode(x, noise)
    assert seen
    for fired in seen:
        patches = fired.unflatten(2, (4, -1)).unflatten(1, (4, -1)).any(4).any(2).flatten(1)
        hidden = (ranks >= model.kept).repeat(len(patches) // 2, 1)
        assert not patches[hidden].any()
    other = torch.where(model.visible.mask(x).bool(), x, torch.rand_like(x))
    assert not torch.equal(x, other)
    assert torch.equal(model.encode(other, noise)[0], latent)
    assert not torch.equal(model(other, noise), model(x, noise))


def test_only_hidden_patches_count(autoencoder):
    model, x, noise = autoencoder.eval(), torch.rand(1, 3, 64, 64), torch.rand(1, 16)
    found = []
    model.decoder.register_forward_hook(lambda layer, inputs, y: found.append(y))
    loss, ranks = model(x, noise), model.encode(x, noise)[1]
    patches = nn.functional.unfold(x, 16, stride=16).unflatten(1, (3, 256)).permute(0, 3, 2, 1).flatten(2)
    target = (patches - patches.mean(2, keepdim=True)) / (patches.var(2, keepdim=True) + 1e-6).sqrt()
    hidden = ranks >= 8
    assert hidden.sum() == 8
    torch.testing.assert_close(loss[0], (found[0] - target)[hidden].square().mean())


def test_every_parameter_learns(autoencoder):
    autoencoder.train()(torch.rand(4, 3, 64, 64)).mean().backward()
    for name, parameter in autoencoder.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, name


def test_the_released_fault_changes_the_loss_and_is_restored():
    right, wrong = _autoencoder("sdt_v3_83m").eval(), _autoencoder("sdt_v3_83m", as_released=True).eval()
    wrong.decoder.load_state_dict(right.decoder.state_dict())
    x, noise = torch.rand(2, 3, 64, 64), torch.rand(2, 16)
    assert not torch.allclose(right(x, noise), wrong(x, noise))
    right.load_state_dict(wrong.state_dict())
    assert right.as_released


@pytest.mark.parametrize("name", NETWORKS)
def test_the_encoder_starts_a_classifier(name):
    trained = _autoencoder(name)
    for parameter in trained.parameters():
        nn.init.normal_(parameter) if parameter.requires_grad else None
    classifier = _network(name, num_classes=7)
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    said = load_state(classifier, trained.state_dict(), replace_classifier=True)
    assert "from masked pre-training" in said
    assert "head.weight" in said
    after, fresh = classifier.state_dict(), []
    for key, value in after.items():
        source = trained.encoder.state_dict().get(key)
        fresh += [key] if source is None else []
        assert torch.equal(value, before[key] if source is None else source), key
    scales = [f"blocks.0.scales.{i}.factors" for i in range(2)] if name == "sdt_v3_83m" else []
    assert sorted(fresh) == sorted([*scales, "head.weight", "head.bias"])


def test_without_replacing_its_classifier_the_encoder_is_refused():
    with pytest.raises(UserError, match=r"head\.bias, head\.weight; it is an encoder from masked pre-training"):
        load_state(_network("spikformer_v2_8_384"), _autoencoder("spikformer_v2_8_384").state_dict())


def test_what_does_not_fit_a_classifier_is_named():
    state = _autoencoder("spikformer_v2_8_384").state_dict()
    with pytest.raises(UserError, match=r"unexpected: blocks\.1\.attn.* and \d+ more"):
        load_state(
            _network("spikformer_v2_8_384", img_size=32),
            {**state, **{name.replace("blocks.0", "blocks.1"): value for name, value in state.items()}},
            replace_classifier=True,
        )


def test_weights_of_others_are_no_encoder():
    assert encoder_weights(_network("spikformer_v2_8_384").state_dict()) is None


@pytest.mark.slow
def test_identify_names_the_network_of_an_encoder():
    with torch.device("meta"):
        encoder = timm.create_model("spikformer_v2_8_384", num_classes=0)
        state = MaskedAutoencoder(encoder, **SMALL).state_dict()
    fit, *others = identify({name: torch.zeros(value.shape) for name, value in state.items()})
    assert (fit.name, fit.num_classes, others) == ("spikformer_v2_8_384", 0, [])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MaskedAutoencoder(timm.create_model("spikformer_digits")), "Spikformer can't be pre-trained masked"),
        (lambda: _autoencoder("spikformer_v2_8_384", mask_ratio=1e-17), "shows 16 of 16 patches"),
        (lambda: _autoencoder("spikformer_v2_8_384", mask_ratio=0.99), "shows 0 of 16 patches"),
        (lambda: _autoencoder("spikformer_v2_8_384", decoder_dim=18), "multiple of 4 and of its 2 heads; got 18"),
        (
            lambda: MaskedAutoencoder(timm.create_model("spikformer_v2_digits", patch_size=1, num_classes=0), **SMALL),
            "nothing to predict in patches of a single number",
        ),
    ],
)
def test_what_cannot_be_is_refused(build, message):
    with pytest.raises(UserError, match=message):
        build()


def test_the_branch_of_pretraining_has_no_layer_scale():
    with pytest.raises(UserError, match=r"rep_branch is for layer_scale=0\.0"):
        _network("sdt_v3_83m", rep_branch=True)
