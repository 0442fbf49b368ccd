"""What the vectors can't show of the STS-Transformer: the corrected attention, its streaming, and what is refused."""

import copy

import pytest
import timm
import torch
from families import tiny, wake
from families.stsa import DEAD
from test_fidelity import VALUE, Vector

from braincog_transformers import UserError
from braincog_transformers.analysis.attention_maps import attention_maps
from braincog_transformers.analysis.audit import audit
from braincog_transformers.analysis.operations import count_operations
from braincog_transformers.checkpoints import load_state
from braincog_transformers.models.base import NodeOptions
from braincog_transformers.models.stsa import DropoutMLP, PositionBias, SpatialTemporalAttention

GRID = (2, 3)


@pytest.fixture(scope="module")
def vector(pytestconfig):
    return Vector(pytestconfig.rootpath / "tests/golden/stsa_oblong.safetensors")


def network(**kwargs):
    return wake(tiny("stsa_ndigits", **{"step": 3, "patch_size": 4, "img_size": (8, 12), **kwargs})).eval()


def frames(count=2, steps=3):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, steps, 2, 8, 12, generator=generator).mul(4).round()


def attention(step=3, threshold=0.2):
    torch.manual_seed(0)
    node = NodeOptions(threshold=threshold).constructor(step=step)
    module = SpatialTemporalAttention(8, 2, step, GRID, node=node).double().eval()
    torch.nn.init.normal_(module.bias.table)
    return module


# The attention


def test_bias_of_two_tokens_is_the_row_of_their_distance_in_time_rows_and_columns():
    step, (height, width) = 3, GRID
    bias = PositionBias(step, GRID, num_heads=2)
    found = bias(step)
    assert found.shape == (2, 6, 18)
    for n in range(6):
        for m in range(18):
            (y, x), (s, (v, u)) = divmod(n, width), (m // 6, divmod(m % 6, width))
            dt, dy, dx = step - 1 - s, y - v, x - u
            row = (dt + step - 1) * (2 * height - 1) * (2 * width - 1) + (dy + height - 1) * (2 * width - 1) + dx
            assert torch.equal(found[:, n, m], bias.table[row + width - 1])
    assert torch.equal(bias(1), found[..., -6:])


def test_attention_is_the_product_under_a_mask_with_the_bias_inside():
    module = attention()
    seen = {}
    module.qkv.register_forward_hook(lambda _m, _i, out: seen.update(qkv=out))
    module.attn_node.register_forward_pre_hook(lambda _m, inputs: seen.update(y=inputs[0]))
    with torch.no_grad():
        module(torch.rand(6, 6, 8, dtype=torch.float64) * 4)  # two samples
    q, k, v = seen["qkv"].view(3, 2, 6, 3, 2, 4).permute(3, 1, 4, 0, 2, 5).flatten(3, 4)
    assert 0.1 < q.mean() < 0.9
    biases = torch.zeros(2, 18, 18, dtype=torch.float64)
    for t in range(3):
        biases[:, 6 * t : 6 * t + 6, : 6 * t + 6] = module.bias(t + 1)
    mask = torch.ones(3, 3).tril().repeat_interleave(6, 0).repeat_interleave(6, 1)
    y = 0.125 * ((q @ k.transpose(-2, -1) + biases) * mask) @ v
    torch.testing.assert_close(seen["y"], y.unflatten(2, (3, 6)).permute(2, 0, 3, 1, 4).reshape(6, 6, 8))


def test_official_network_with_the_axes_permuted(vector):
    model = vector.network().eval()
    model.set_as_released(False)
    with torch.no_grad():
        released = vector.tensors["logits_eval"]
        assert (model(vector.input) - vector.tensors["corrected_eval"]).abs().max() < VALUE
        assert (vector.tensors["corrected_eval"] - released).abs().max() > 1e-3
        model.set_streaming()
        by_step = torch.cat([model(frame) for frame in vector.input.unbind(1)])
    assert (by_step - vector.tensors["corrected_eval"]).abs().max() < VALUE


def test_no_step_sees_a_later_one():
    model = network()
    model.output_steps = True
    x = frames()
    later = x.clone()
    later[:, 2] = 3 - later[:, 2]
    before, after = model(x), model(later)
    assert torch.equal(before[:2], after[:2])
    assert not torch.equal(before[2], after[2])


# As released


def test_only_as_released_a_sample_depends_on_its_neighbours():
    x = frames(4)
    for as_released in (False, True):
        model = network(as_released=as_released)
        assert torch.allclose(model(x)[:1], model(x[:1])) != as_released
    single = network(step=1)
    frame = x[:, :1]
    expected = single(frame)
    single.set_as_released()  # with one step the memory is that of the permutation
    assert torch.equal(single(frame), expected)


def test_as_released_it_can_not_run_one_step_at_a_time():
    model = network(as_released=True)
    reason = "can't run one step at a time: as released, the attention mixes all steps"
    with pytest.raises(UserError, match=reason):
        model.set_streaming()
    model.set_attr("layer_by_layer", False)
    with pytest.raises(UserError, match=reason):
        model(frames())
    model.set_as_released(False)
    model.set_streaming()
    assert model(frames()[:, 0]).shape == (2, 5)


def test_official_weights_switch_the_fault_on_and_our_own_say_what_they_are(vector):
    model = vector.network()
    assert model.as_released
    corrected = network(as_released=False)
    corrected.load_state_dict(network(as_released=True).state_dict())
    assert corrected.as_released


# State


def test_a_stream_longer_than_the_table_is_refused():
    model = network()
    model.set_streaming()
    for _ in range(2):
        for frame in frames().unbind(1):
            model(frame)
        with pytest.raises(UserError, match=r"position biases for T=3 steps, and saw more; call reset\(\)"):
            model(frame)
        model.reset()


def test_a_copy_in_the_middle_of_a_stream_goes_on_alike():
    model = network()
    model.set_streaming()
    first, second, _ = frames().unbind(1)
    model(first)  # with a graph
    other = copy.deepcopy(model)
    assert not any(past.requires_grad for past in other.blocks[0].attn.past)
    assert torch.equal(other(second), model(second))


# What is refused, and what is kept


@pytest.mark.parametrize(("steps", "expected"), [(10, 1_963_633), (16, 1_969_033), (20, 1_972_633)])
def test_the_table_grows_with_the_steps(steps, expected):
    with torch.device("meta"):
        model = timm.create_model("stsa_2_256", step=steps)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected - DEAD


def test_weights_of_another_number_of_steps_or_tokens_are_refused_with_the_reason():
    state = network().state_dict()
    for other, built in (({"step": 4}, r"T=4, img_size=\(8, 12\)"), ({"img_size": 16}, r"T=3, img_size=\(16, 16\)")):
        with pytest.raises(UserError, match=rf"bias\.table .*{built}.*position biases for T steps of HxW tokens"):
            load_state(network(**other), state)
    with pytest.raises(UserError) as caught:
        load_state(network(num_classes=7), state)
    assert "position biases" not in str(caught.value)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"embed_dim": 24}, "embed_dim must be a multiple of 16; got 24"),
        ({"num_heads": 3}, "embed_dim=32, num_heads=3"),
        ({"img_size": (8, 10)}, "multiple of 4; got .8, 10."),
        ({"mlp_drop_rate": 1.5}, "mlp_drop_rate must be at most 1; got 1.5"),
    ],
)
def test_impossible_networks_are_refused_with_the_numbers(kwargs, message):
    with pytest.raises(UserError, match=message):
        network(**kwargs)


def test_size_stays_as_built():
    model = network()
    with pytest.raises(UserError, match="img_size stays as built, because its attention has position biases"):
        model.set_input_size(img_size=16)
    assert model.img_size == (8, 12)


def test_dropout_stands_in_front_of_the_normalisation():
    torch.manual_seed(0)
    mlp = DropoutMLP(16, 2, 0.5, node=torch.nn.Identity)
    seen = []
    for unit in (mlp.fc1, mlp.fc2):
        unit.bn.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    mlp(torch.rand(8, 4, 16))
    assert all(0.3 < (x == 0).double().mean() < 0.7 for x in seen)
    mlp.eval()(torch.rand(8, 4, 16))
    assert not any((x == 0).any() for x in seen[2:])


# What an analysis says


def test_products_are_counted_without_what_the_mask_hides():
    model, x = network(), frames()
    rows = {row.name: row for row in count_operations(model, [x]).rows}
    pairs = 6 * 6 * (1 + 2 + 3) * 2  # of queries and keys, in two samples
    for name in ("match", "gather"):
        assert rows[f"blocks.0.attn.{name}"].total("macs") == pairs * model.embed_dim
    assert [values.kind for values in rows["blocks.0.attn.gather"].calls[0].operands] == ["binary"]  # of the values
    findings = {finding.name: finding for finding in audit(model, [x]).findings}
    assert findings["blocks.0.attn.gather"].meaning == "additions only"
    assert findings["blocks.0.attn.qkv.linear"].inputs == "integer"


def test_map_is_the_attention_that_each_place_receives_from_a_step():
    model, x = network(), frames()
    seen = []
    model.blocks[0].attn.gather.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(x[:1])
    (found,) = (found for found in attention_maps(model, x) if found.name == "blocks.0.attn")
    assert found.values.shape == (3, 2, 2, 3)
    for step, attended in enumerate(seen[:3]):
        expected = attended[0].mean(1).view(2, step + 1, 2, 3).sum(1)
        torch.testing.assert_close(torch.from_numpy(found.values[step]), expected)
