"""How the official state dicts name their tensors, by the class that they fit here.

A table: `checkpoints` does the work. Patterns are regular expressions on official names, applied in order.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

__all__ = ["FAMILIES", "Family", "describe_foreign"]


class Family(NamedTuple):
    """How official names become ours.

    Args:
        rename: pairs of a pattern and its replacement, applied in order, each wherever it matches.
        dead: patterns of keys that the official network never uses, with the reason.
    """

    rename: tuple[tuple[str, str | Callable[[re.Match], str]], ...]
    dead: tuple[tuple[str, str], ...]


def _stage(match: re.Match) -> str:
    """Number Spikformer's first four convolutions: `proj_conv` is 0, `proj_conv3` is 3."""
    return f"patch_embed.stages.{match[2] or 0}.{match[1]}."


def _old_tokenizer(match: re.Match) -> str:
    """Bring the names of Spikingformer's first release to those of the later ones: `proj_conv3` to `proj3_conv`."""
    return f"patch_embed.proj{match[2]}_{match[1]}."


def _tokenizer(match: re.Match) -> str:
    """Number Spikingformer's convolutions: `proj_conv` and `block0_conv` are the first, `proj4_conv` the last."""
    number = int(match[1] or match[2] or 0)
    return f"patch_embed.{f'stages.{number - 1}' if number else 'first'}.{match[3]}."


def _cml_stage(match: re.Match) -> str:
    """Number CML-Spikformer's first four convolutions: `block1_conv` is 0."""
    return f"patch_embed.stages.{int(match[1]) - 1}.{match[2]}."


def _resformer_part(match: re.Match) -> str:
    """Number SpikingResformer's blocks: officially attention and feed-forward network count one each."""
    stage, part = int(match[1]), int(match[2])
    return f"stages.{stage}.{(part + 1) // 2 if stage else part // 2}."


def _qk_embedding(match: re.Match) -> str:
    """Number QKFormer's convolutions: the stem's from 0 on, the later embeddings' `proj3` (or `proj`) and `proj4`."""
    level, number, kind = int(match[1]) - 1, match[2], match[3]
    place = f"stages.{level}.embed" if level else "patch_embed"
    if number == "_res":
        return f"{place}.shortcut.{kind}."
    return f"{place}.convs.{int(number == '4') if level else number or 0}.{kind}."


def _qk_block(match: re.Match) -> str:
    """Number QKFormer's stages from 0."""
    return f"stages.{int(match[1]) - 1}.blocks."


def _sdt_stage(match: re.Match) -> str:
    """Number Spike-driven Transformer's first four convolutions; the neuron `proj_lif3` stands before the fifth."""
    kind, number = match[1], int(match[2] or 0)
    if kind == "lif":
        return "patch_embed.rpe.node." if number == 3 else f"patch_embed.stages.{number}.node."
    return f"patch_embed.stages.{number}.{kind}."


def _meta_place(match: re.Match) -> str:
    """Number Meta-SpikeFormer's downsamplings and blocks within their stages."""
    name, number = match[1], int(match[2] or 0)
    if name == "downsample":
        return f"stages.{number - 1}.0."
    return f"stages.{int(name) - 1}.{number + 1}."


def _meta_rep(match: re.Match) -> str:
    """Number the last three parts of a projection's stack, which officially has stacks inside."""
    return f"_conv.0.body.{int(match[1]) + 2}."


def _sgl_convolution(match: re.Match) -> str:
    """Number SGLFormer's convolutions: `stem.conv` and `proj` are the first."""
    return f"patch_embed.convs.{match[1] or 0}."


def _sgl_block(match: re.Match) -> str:
    """Number SGLFormer's blocks for ImageNet behind the local one."""
    return f"blocks.{int(match[1]) + 1}.{match[2]}."


# What several papers' code names alike; a network takes its own names and no more, so that `identify` tells them apart.
_BLOCK = (r"^block\.", "blocks.")
_POSITION = (r"^patch_embed\.rpe_(conv|bn)\.", r"patch_embed.rpe.\1.")
_MLP = (r"\.mlp(\d)_(?=conv|bn)", r".fc\1_")
_LINEAR = (r"\.(q|k|v|proj|fc1|fc2)_conv\.", r".\1.linear.")
_BN = (r"\.(q|k|v|proj|fc1|fc2)_bn\.", r".\1.bn.")
_NORM = (r"^block\.\d+\.norm[12]\.(weight|bias)$", "layer norm that the block never calls")

# SpikingJelly's Spike-driven Transformer is the same network. Its stem is numbered, with a convolution and a
# normalisation in each stage.
_JELLY_SDT = (
    (r"^patch_embed\.stages\.(\d)\.0\.", r"patch_embed.stages.\1.conv."),
    (r"^patch_embed\.stages\.(\d)\.1\.", r"patch_embed.stages.\1.bn."),
    (r"^patch_embed\.final_stage\.0\.", "patch_embed.stages.3.conv."),
    (r"^patch_embed\.final_stage\.1\.", "patch_embed.stages.3.bn."),
    (r"\.mlp\.fc(\d)\.(weight|bias)$", r".mlp.fc\1.linear.\2"),
    (r"\.mlp\.bn(\d)\.", r".mlp.fc\1.bn."),
)

_SGLFORMER = Family(
    rename=(
        (r"^(?:stem\.conv|tokenizer\.conv(\d))\.", _sgl_convolution),
        (r"^patch_embed\.proj(\d?)_(?=conv|bn)", _sgl_convolution),
        (r"^blocks\.(\d+)\.(attn|mlp)\.", _sgl_block),
        (r"^blocks\.(\d+)\.(?=(?:loc|ssa\d|mlp\d)\.)", r"blocks.\1.branches."),
        (r"^localblock\.0\.local1\.", "blocks.0.branches.loc."),
        (r"^localblock\.0\.local2_SSA\.", "blocks.0.branches.ssa1."),
        (r"^localblock\.0\.local2_MLP\.", "blocks.0.branches.mlp1."),
        (r"\.(q|k|v|proj)_conv\.(?:conv1x1\.)?(?=weight|bias)", r".\1.linear."),
        (r"\.(q|k|v|proj)_(?:conv\.)?bn\.", r".\1.bn."),
        (r"\.(fc1|fc2)_conv\.", r".\1.linear."),
        (r"\.(fc1|fc2)_bn\.", r".\1.bn."),
        (r"\.mlp([12])\.conv1x1\.", r".fc\1.linear."),
        (r"\.mlp([12])\.bn\.", r".fc\1.bn."),
        (r"\.conv[13]x[13]\.weight$", ".conv.weight"),
        (r"^full_size_conv\.", "pool.conv."),
        (r"^bn\.", "pool.bn."),
    ),
    dead=((r"^blocks\.\d+\.norm[12]\.(weight|bias)$", "layer norm that the block never calls"),),
)

FAMILIES = {
    "Spikformer": Family(
        rename=(
            (r"^patch_embed\.proj_(conv|bn)(\d?)\.", _stage),
            (r"^patch_embed\.block(\d)_(conv|bn)\.", _cml_stage),
            _POSITION,
            _BLOCK,
            (r"\.(q|k|v|proj|fc1|fc2)_(?:linear|conv)\.", r".\1.linear."),
            _BN,
        ),
        dead=(
            _NORM,
            (r"^norm\.(weight|bias)$", "layer norm that the network never calls"),
            (r"^pos_embed$", "position table that is never added"),
        ),
    ),
    "Spikingformer": Family(
        rename=(
            (r"^patch_embed\.proj_(conv|bn)(\d)\.", _old_tokenizer),
            (r"^patch_embed\.rpe_(conv|bn)\.", r"patch_embed.proj4_\1."),
            (r"^patch_embed\.(?:proj(\d?)|block(\d))_(conv|bn)\.", _tokenizer),
            _BLOCK,
            _MLP,
            _LINEAR,
            _BN,
        ),
        dead=(_NORM,),
    ),
    "SpikingResformer": Family(
        rename=(
            (r"^prologue\.0\.", "patch_embed.conv."),
            (r"^prologue\.1\.bn\.", "patch_embed.bn."),
            (r"^layers\.([1-9])\.0\.norm\.bn\.", r"stages.\1.0.bn."),
            (r"^layers\.([1-9])\.0\.activation\.", r"stages.\1.0.node."),
            (r"^layers\.(\d)\.(\d+)\.", _resformer_part),
            (r"\.(up|down|conv\.0)\.0\.", r".mlp.\1.node."),
            (r"\.(up|down|conv\.0)\.1\.", r".mlp.\1.conv."),
            (r"\.(up|down|conv\.0)\.2\.bn\.", r".mlp.\1.bn."),
            (r"\.mlp\.conv\.0\.", ".mlp.conv."),
            (r"\.W\.", ".attn.dual.conv."),
            (r"\.norm\.bn\.", ".attn.dual.bn."),
            (r"\.Wproj\.", ".attn.proj.conv."),
            (r"\.norm_proj\.bn\.", ".attn.proj.bn."),
            (r"\.activation_in\.", ".attn.node."),
            (r"\.activation_attn\.", ".attn.attn_node."),
            (r"\.activation_out\.", ".attn.proj.node."),
            (r"\.firing_rate_(x|attn)$", r".attn.rate_\1.rate"),
            (r"^classifier\.", "head."),
        ),
        dead=(),
    ),
    "QKFormer": Family(
        rename=(
            (r"^patch_embed(\d)\.proj(\d?|_res)_(conv|bn)\.", _qk_embedding),
            (r"^stage(\d)\.", _qk_block),
            (r"\.t?ssa\.", ".attn."),
            _MLP,
            _LINEAR,
            _BN,
        ),
        dead=(),
    ),
    "SpikeDrivenTransformer": Family(
        rename=(
            (r"^patch_embed\.proj_(conv|bn|lif)(\d?)\.", _sdt_stage),
            _POSITION,
            _BLOCK,
            _LINEAR,
            _BN,
            (r"\.(q|k|v|fc1|fc2)_lif\.", r".\1.node."),
            (r"\.shortcut_lif\.", ".node."),
            (r"\.talking_heads_lif\.", ".gate_node."),
            (r"^head_lif\.", "head_node."),
            *_JELLY_SDT,
        ),
        dead=(
            (r"^block\.\d+\.attn\.talking_heads\.weight$", "convolution over heads that the attention never calls"),
            (r"^block\.\d+\.attn\.attn_lif\.w$", "leak of a neuron that the attention never calls"),
            (r"^patch_embed\.rpe_lif\.w$", "leak of a neuron that the stem never calls"),
        ),
    ),
    "MetaSpikeformer": Family(
        rename=(
            (r"^downsample1_1\.encode_", "patch_embed."),
            (r"^downsample1_2\.encode_", "stages.0.1."),
            (r"^(downsample)(\d)\.encode_", _meta_place),
            (r"^ConvBlock1_1\.0\.", "stages.0.0."),
            (r"^ConvBlock1_2\.0\.", "stages.0.2."),
            (r"^ConvBlock2_(\d)\.0\.", r"stages.1.\1."),
            (r"^block([34])\.(\d+)\.", _meta_place),
            (r"\.Conv\.(?:pwconv1|(bn)1)\.", lambda match: f".attn.expand.{match[1] or 'conv'}."),
            (r"\.Conv\.(?:pwconv2|(bn)2)\.", lambda match: f".attn.project.{match[1] or 'conv'}."),
            (r"\.Conv\.dwconv\.", ".attn.depthwise."),
            (r"\.(conv|bn)([12])\.", r".mlp.fc\2.\1."),
            (r"\.fc([12])_(conv|bn)\.", r".fc\1.\2."),
            (r"_conv\.0\.body\.2\.(\d)\.", _meta_rep),
            (r"_conv\.1\.", "_conv.0.body.5."),
            (r"\.([qkv])_conv\.0\.", r".\1.0."),
            (r"\.proj_conv\.0\.", ".proj."),
            (r"^head_kd\.", "head_dist."),
        ),
        dead=(),
    ),
    "SGLFormer": _SGLFORMER,
    "SGLFormerImageNet": _SGLFORMER,
    "TIMSpikformer": Family(
        rename=(
            (r"^patch_embed\.proj_(conv|bn|lif)(\d?)\.", _stage),
            (r"^patch_embed\.rpe_(conv|bn|lif)\.", r"patch_embed.rpe.\1."),
            _BLOCK,
            (r"\.TIM\.interactor\.", ".tim.conv."),
            (r"\.TIM\.(in|out)_lif\.", r".tim.\1_node."),
            (r"\.attn_lif\.", ".attn_node."),
            _LINEAR,
            (r"\.(q|k|v|proj|fc1|fc2)_(bn|lif)\.", r".\1.\2."),
            (r"\.lif\.", ".node."),
        ),
        dead=(
            _NORM,
            (r"\.res_lif\.(threshold|act_fun\.alpha)$", "neuron that the attention never calls"),
        ),
    ),
}

_ONE_PROJECTION = "one projection makes its queries, keys and values, where the paper's network has"
# Networks of other libraries that resemble ours: a name that no other has, what they are, and why they don't load.
_FOREIGN = (
    (
        r"(^|\.)patch_embed\.stages\.0\.conv_bn\.block\.0\.",
        "SpikingJelly's Spikformer, another network: its stem pools in front of the neurons, "
        f"{_ONE_PROJECTION} several, and its projections and MLPs have no biases",
    ),
    (
        r"(^|\.)stage1\.0\.attn\.qk_conv_bn\.0\.",
        "SpikingJelly's QKFormer, another network: "
        f"{_ONE_PROJECTION} several, and its attention's projections have no biases",
    ),
    (
        r"(^|\.)stage1\.0\.dwconv\.",
        "SpikingJelly's MaxFormer, of which this package has no network: its first stages have depthwise convolutions "
        "in the place of attention",
    ),
)


def describe_foreign(names: Iterable[str]) -> str:
    """Say of which other library's network these are the weights, and what differs; "" for none that is known."""
    names = list(names)
    return next((text for pattern, text in _FOREIGN if any(re.search(pattern, name) for name in names)), "")
