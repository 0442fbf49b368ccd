"""What the vectors of Spike-driven Transformer can't show."""

import pytest
import timm
import torch
from families.sdt import TINY

from braincog_transformers import UserError
from braincog_transformers.checkpoints import load_state
from braincog_transformers.models.base import NodeOptions
from braincog_transformers.models.sdt import PooledSelfAttention


def tiny(name="sdt_2_256_dvs", **kwargs):
    torch.manual_seed(0)
    model = timm.create_model(name, **{**TINY, "threshold": 0.3, **kwargs})
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.momentum = 1.0
    model(events(4))  # the statistics of a batch, so that the neurons fire
    return model.eval()


def events(count):
    return torch.rand(count, 2, 2, 16, 16, generator=torch.Generator().manual_seed(1)).mul(3).round()


def official(model):
    """Give the weights one official name, so that they pass for the official network's."""
    state = {name: value for name, value in model.state_dict().items() if not name.endswith(("threshold", "alpha"))}
    state.pop("_extra_state")
    state["patch_embed.proj_conv.weight"] = state.pop("patch_embed.stages.0.conv.weight")
    return state


def test_pooling_stays_on_the_map_and_released_it_leaves_it():
    node = NodeOptions().constructor(step=4)
    attention = PooledSelfAttention(4, (2, 3), 2, node=node, gate_node=node)
    spike = torch.zeros(1, 6, 4)
    spike[0, 2, 1] = 1.0  # the end of the first row; the second channel of the first head

    def reached(tokens):
        return {tuple(place) for place in tokens[0].nonzero().tolist()}

    assert reached(attention._pool_map(spike)) == {(1, 1), (2, 1), (4, 1), (5, 1)}
    assert reached(attention._pool_released(spike)) == {(token, channel) for token in (1, 2, 3) for channel in (0, 1)}


def test_a_single_sample_tells_the_released_network_from_the_corrected_one():
    model, x = tiny(), events(1)
    corrected = model(x)
    model.set_as_released()
    released = model(x)
    assert not torch.equal(released, corrected)
    weights = model.state_dict()
    for other, state in ((tiny(), weights), (tiny(as_released=True), weights | {"_extra_state": None})):
        other.load_state_dict({name: value for name, value in state.items() if value is not None}, strict=False)
        assert torch.equal(other(x), released)
    model.set_as_released(False)
    assert torch.equal(model(x), corrected)


def test_heads_matter_to_the_released_pooling_only():
    x = events(1)
    for options, same in (({}, True), ({"attn_pool": False}, True), ({"as_released": True}, False)):
        assert torch.equal(tiny(num_heads=1, **options)(x), tiny(num_heads=4, **options)(x)) is same


def test_official_weights_switch_the_fault_on_only_where_there_is_one():
    pooling, plain = tiny(), tiny("sdt_2_256_gesture")
    assert "pools across channels" in load_state(pooling, official(pooling))
    assert pooling.as_released
    assert "released" not in load_state(plain, official(plain))
    assert not plain.as_released
    with pytest.raises(UserError, match="attn_pool=False"):
        tiny("sdt_2_256_gesture", as_released=True)


def test_one_pair_of_spikes_opens_a_gate_at_once():
    gate = timm.create_model("sdt_digits").blocks[0].attn.gate_node
    assert gate(torch.ones(gate.step, 1))[0] == 1  # half the sum meets half the threshold


def test_convolutions_start_narrow_and_the_classifier_as_pytorch_does():
    model = timm.create_model("sdt_digits", num_classes=500)
    for weight in (model.patch_embed.rpe.conv.weight, model.blocks[1].mlp.fc1.linear.weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    for head in (model.head, (model.reset_classifier(500), model.head)[1]):
        assert head.weight.std().item() == pytest.approx(64**-0.5 / 3**0.5, rel=0.1)
        assert head.bias.std().item() > 0


@pytest.mark.parametrize(("name", "side"), [("sdt_2_256_cifar", 4), ("sdt_2_256_gesture", 8), ("sdt_8_384", 16)])
def test_sides_that_the_poolings_do_not_divide_are_refused(name, side):
    with pytest.raises(UserError, match=f"multiple of {side}; got .{side + 1}, {side + 1}. .try {side}"):
        timm.create_model(name, img_size=side + 1)
