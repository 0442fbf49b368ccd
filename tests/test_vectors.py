"""Test vectors that are not here: the network is told from the metadata of every documented official source."""

import pytest
import torch
from families import builder_of, vectors_in
from safetensors.torch import save_file

from braincog_transformers.models import MetaSpikeformer, SGLFormer, SGLFormerImageNet, Spikformer

IMAGES = {"img_size_h": 32, "img_size_w": 32, "in_channels": 3, "embed_dims": 48, "num_heads": 4, "num_classes": 10}
EVENTS = {**IMAGES, "in_channels": 2}
TIM = {
    "step": 2,
    "if_UCF": True,
    "img_size_h": 64,
    "img_size_w": 64,
    "in_channels": 2,
    "embed_dims": 32,
    "num_heads": 2,
}


def _meta(source, cls, layout="B,C,H,W", **more):
    repository, path = source.split(":")
    return {"source": f"{repository}@{'0' * 40}:{path}", "class": cls, "input_layout": layout, **more}


def _build(kwargs, meta):
    return builder_of(meta)(kwargs, meta)


@pytest.mark.parametrize(
    ("source", "cls", "kwargs", "expected"),
    [
        ("zhouchenlin2096/Spikingformer:cifar100/model.py", "vit_snn", IMAGES, {"patch_size": 4, "step": 4}),
        ("zhouchenlin2096/Spikingformer-CML:cifar100/model.py", "vit_snn", IMAGES, {"patch_size": 4}),
        ("zhouchenlin2096/Spikingformer:dvs128-gesture/model.py", "vit_snn", {**EVENTS, "T": 3}, {"patch_size": 16}),
        ("ZK-Zhou/spikformer:cifar100/model.py", "Spikformer", {**IMAGES, "T": 2}, {"patch_size": 4, "step": 2}),
        ("ZK-Zhou/spikformer:imagenet/model.py", "Spikformer", {**IMAGES, "norm_layer": "x"}, {"patch_size": 16}),
        ("zhouchenlin2096/QKFormer:cifar100/model.py", "spiking_transformer", {**IMAGES, "embed_dims": 64}, {}),
        ("ZhangHanN1/SGLFormer:cifar100/sglformer.py", "vit_snn", IMAGES, {"patch_size": 4}),
        ("ZhangHanN1/SGLFormer:dvs128-gesture/sglformer.py", "vit_snn", {**EVENTS, "T": 3}, {"patch_size": 16}),
        ("BICLab/Spike-Driven-Transformer:model/spikeformer.py", "sdt", {**IMAGES, "T": 1}, {"patch_size": 16}),
    ],
)  # fmt: skip
def test_documented_sources_are_built_with_their_defaults(source, cls, kwargs, expected):
    events = kwargs["in_channels"] == 2
    model = _build(kwargs, _meta(source, cls, "(B, T, C, H, W) event frames" if events else "BCHW"))
    assert {name: getattr(model, name) for name in expected} == expected
    assert (model.in_chans, model.img_size, model.num_classes) == (kwargs["in_channels"], (32, 32), 10)


def test_what_one_class_name_stands_for_is_told_from_repository_and_folder():
    cml = "zhouchenlin2096/Spikingformer-CML"
    pooled = _build(IMAGES, _meta(f"{cml}:cifar10/CML_Spikformer.py", "Spikformer"))
    assert isinstance(pooled, Spikformer)
    sgl = "ZhangHanN1/SGLFormer"
    late, early = (
        _build({**IMAGES, "depths": 3}, _meta(f"{sgl}:imagenet/{cls}.py", cls))
        for cls in ("sglformer_ima2", "sglformer_ima")
    )
    assert (type(late), late.late_pooling, early.late_pooling) == (SGLFormerImageNet, True, False)
    assert isinstance(_build(IMAGES, _meta(f"{sgl}:cifar10/sglformer.py", "vit_snn")), SGLFormer)
    qk = {**EVENTS, "embed_dims": 64, "num_heads": 8, "T": 2}
    hidden = [
        _build(qk, _meta(f"zhouchenlin2096/QKFormer:{folder}/model.py", "vit_snn", "BTCHW")).stages[0].blocks[0].mlp.fc1
        for folder in ("cifar10-dvs", "dvs128-gesture")
    ]
    assert [layer.linear.out_features for layer in hidden] == [32, 128]
    frames = {
        "in_channels": 2,
        "img_size_h": 32,
        "img_size_w": 32,
        "num_classes": 3,
        "embed_dim": [8, 8, 8, 16],
        "num_heads": 2,
    }
    meta = _meta(
        "BICLab/Spike-Driven-Transformer-V3:SDT_V3/DVS/Hardvs/models.py", "Spiking_vit_MetaFormer",
        "(T, B, C, H, W) event frames, time first", input_shape=(2, 3, 2, 32, 32),
    )  # fmt: skip
    model = _build(frames, meta)
    assert (type(model), model.step, len(model.stages[2])) == (MetaSpikeformer, 3, 1 + 4)


def test_frames_of_tim_are_averaged_inside_the_network_for_if_ucf():
    """As fed by official users: 90x120, whatever the constructor's sizes are."""
    path = "BrainCog-X/Brain-Cog:examples/TIM/models/spikformer_braincog_DVS.py"
    meta = _meta(path, "Spikformer", "B,T,C,H,W", input_shape=(2, 2, 2, 90, 120), classes=7)
    large = _build({**TIM, "num_classes": 7, "depths": 1}, meta).eval()
    small = _build(
        {**TIM, "if_UCF": False, "num_classes": 7, "depths": 1}, {**meta, "input_shape": (2, 2, 2, 64, 64)}
    ).eval()
    small.load_state_dict(large.state_dict())
    for network in (large, small):
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                torch.nn.init.constant_(module.bias, 0.7)
    x = torch.rand(2, 2, 2, 90, 120)
    averaged = torch.nn.functional.adaptive_avg_pool2d(x.flatten(0, 1), (64, 64)).unflatten(0, (2, 2))
    assert torch.equal(large(x), small(averaged))


def test_a_pooling_that_no_network_here_has_fails_by_name():
    meta = _meta("BICLab/Spike-Driven-Transformer:model/spikeformer.py", "sdt")
    with pytest.raises(ValueError, match="pooling_stat 0101 pools before a stage that is not pooled"):
        _build({**IMAGES, "depths": 1, "pooling_stat": "0101"}, meta)
    assert _build({**IMAGES, "depths": 1, "pooling_stat": "0011"}, meta).patch_size == 4


def test_an_argument_that_nobody_knows_and_a_folder_that_says_nothing_fail_by_name():
    meta = _meta("zhouchenlin2096/Spikingformer:cifar100/model.py", "vit_snn")
    with pytest.raises(ValueError, match=r"vit_snn of zhouchenlin2096/.*kwargs hold window, which .* does not know"):
        _build({**IMAGES, "window": 3}, meta)
    with pytest.raises(ValueError, match=r"the folder is none of"):
        _build(IMAGES, _meta("zhouchenlin2096/QKFormer:tiny/model.py", "vit_snn"))
    with pytest.raises(ValueError, match=r"kwargs have no 'planes'"):
        _build({"img_size": 32}, _meta("xyshi2000/SpikingResformer:models/spikingresformer.py", "SpikingResformer"))


@pytest.mark.parametrize(
    ("source", "cls"),
    [
        ("BrainCog-X/Brain-Cog:examples/Spiking-Transformers/models/spikformer.py", "Spikformer"),
        ("BICLab/Spike-Driven-Transformer-V3:SDT_V3/DVS/Hardvs/models.py", "Efficient_Spikeyolo_scaling"),
        ("somebody/else:model.py", "Spikformer"),
    ],
)  # fmt: skip
def test_other_networks_have_no_builder(source, cls):
    assert builder_of(_meta(source, cls)) is None
    assert builder_of({}) is None


def test_vectors_without_a_builder_are_found_too(tmp_path):
    for name, source in (
        ("odd", "somebody/else:model.py"),
        ("known", "zhouchenlin2096/Spikingformer:cifar100/model.py"),
    ):
        save_file({"input": torch.zeros(1)}, tmp_path / f"{name}.safetensors", _meta(source, "vit_snn"))
    save_file({"input": torch.zeros(1)}, tmp_path / "bare.safetensors")
    built, others = vectors_in(tmp_path)
    assert ([path.stem for path in built], [path.stem for path in others]) == (["known"], ["bare", "odd"])
