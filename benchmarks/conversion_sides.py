"""The sides of `conversion`: a source network, what our methods make of it, and what SpikingJelly's recipes do.

SpikingJelly 2.0's recipes for transformers take networks with other names than timm's. So their source is made here of
ours, and computes the same: `torchvision_vit` for STA, `official_qann` for SpikeZIP-TF.
"""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from braincog_transformers.conversion import convert
from braincog_transformers.conversion.attention import ExplicitAttention
from braincog_transformers.conversion.lsq import Quantiser

from .harness import OURS
from .sides import Unavailable

__all__ = ["LIMIT", "RECIPES", "SOURCE", "STEPPING", "Case", "Side", "build", "official_qann", "torchvision_vit"]

SOURCE, LIMIT = "source", "limit"
STEPPING = ", step by step"
"""Behind the name of a recipe: its network computes one step after the other, and not all steps of a layer at once."""


@dataclass
class Side:
    """A network that answers.

    Args:
        run: maps a batch to the answers after each step, `(T, B, K)`; an ordinary network has one step.
        neurons: its neurons, each with what turns that which it puts out into numbers of spikes.
    """

    run: Callable[[Tensor], Tensor]
    neurons: Sequence[tuple[nn.Module, Callable[[Tensor], Tensor]]] = ()

    def most_spikes(self, x: Tensor) -> int:
        """Return the most spikes of one neuron in one step, on a batch."""
        most = [0.0]

        def note(counts: Callable[[Tensor], Tensor], out: Tensor) -> None:
            most.append(counts(out).abs().max().item())

        hooks = [
            neuron.register_forward_hook(lambda _m, _i, out, counts=counts: note(counts, out))
            for neuron, counts in self.neurons
        ]
        try:
            self.run(x)
        finally:
            for hook in hooks:
                hook.remove()
        return round(max(most))


@dataclass(frozen=True)
class Case:
    """One method on one network.

    Args:
        method: name of the method.
        source: an ordinary network.
        limit: what `prepare` made of it, trained further where the method trains.
        data: calibration batches.
        options: the method's own options.
    """

    method: str
    source: nn.Module
    limit: nn.Module
    data: Sequence[Tensor]
    options: Mapping[str, Any] = field(default_factory=dict)


def torchvision_vit(case: Case) -> nn.Module:
    """Return torchvision's vision transformer with the weights of the source, which is timm's with 3 channels."""
    from torchvision.models.vision_transformer import VisionTransformer

    vit = case.source
    block, embed = vit.blocks[0], vit.patch_embed
    twin = VisionTransformer(
        image_size=embed.img_size[0], patch_size=embed.patch_size[0], num_layers=len(vit.blocks),
        num_heads=block.attn.num_heads, hidden_dim=vit.embed_dim, mlp_dim=block.mlp.fc1.out_features,
        num_classes=vit.num_classes,
    )  # fmt: skip
    rules = (
        (r"^cls_token", "class_token"), (r"^pos_embed", "encoder.pos_embedding"), (r"^patch_embed\.proj", "conv_proj"),
        (r"^blocks\.", "encoder.layers.encoder_layer_"), (r"\.norm(\d)", r".ln_\1"), (r"^norm\.", "encoder.ln."),
        (r"\.attn\.qkv\.", ".self_attention.in_proj_"), (r"\.attn\.proj", ".self_attention.out_proj"),
        (r"\.mlp\.fc1", ".mlp.0"), (r"\.mlp\.fc2", ".mlp.3"), (r"^head", "heads.head"),
    )  # fmt: skip
    state = {}
    for name, value in vit.state_dict().items():
        for pattern, theirs in rules:
            name = re.sub(pattern, theirs, name)
        state[name] = value
    twin.load_state_dict(state)
    return twin.eval()


def official_qann(case: Case) -> nn.Module:
    """Return a copy of our quantised network whose parts can be read by SpikeZIP-TF's official names, too."""
    twin = copy.deepcopy(case.limit)
    for module in twin.modules():
        if isinstance(module, Quantiser):
            module.sym, module.level = module.low < 0, module.high - module.low + 1
            module.neg_min, module.pos_max = float(module.low), float(module.high)
        elif isinstance(module, ExplicitAttention):
            module.head_dim = module.qkv.out_features // (3 * module.num_heads)
            module.quan_q, module.quan_k, module.quan_v = module.q_node, module.k_node, module.v_node
            module.attn_quan, module.after_attn_quan = module.weight_node, module.context_node
            module.quan_proj = module.proj_node
    return twin


def timm_network(case: Case) -> nn.Module:
    """Return the source itself."""
    return case.source


def _jelly(
    case: Case,
    step: int,
    *,
    recipe: str,
    source: Callable[[Case], nn.Module] = timm_network,
    once: bool = True,
    epochs: int = 1,
    stepping: bool = False,
    **options: Any,
) -> Side:
    """Convert by a recipe of SpikingJelly's.

    Args:
        recipe: its name there; `options` are its arguments.
        source: makes the network that it takes.
        once: the input enters at the first step only, and the answer is the sum of the outputs; else it enters at
            every step, and the answer is their mean.
        epochs: passes over the calibration data.
        stepping: compute one step after the other, and not all steps of a layer at once.
    """
    try:
        from spikingjelly.activation_based import ann2snn, functional
    except ImportError as error:
        raise Unavailable(f"spikingjelly does not import: {error}") from error
    quantised = recipe == "SpikeZIPTFQANNRecipe"
    if not quantised:
        options["dataloader"] = list(case.data) * epochs
    if once:
        options["time_steps"] = step
    converter = ann2snn.ModuleConverter if quantised else ann2snn.FXConverter
    try:
        spiking = converter(getattr(ann2snn, recipe)(**options)).convert(source(case))
    except ValueError as error:
        why = re.sub(r" at 0x\w+", "", str(error).splitlines()[0])
        raise Unavailable(f"it refuses the network: {why}") from error
    functional.set_step_mode(spiking, "s" if stepping else "m")

    def run(x: Tensor) -> Tensor:
        functional.reset_net(spiking)
        frames = x.new_zeros(step, *x.shape) if once else x.expand(step, *x.shape)
        if once:
            frames[0] = x
        out = torch.stack([spiking(frame) for frame in frames]) if stepping else spiking(frames)
        answers = out.cumsum(0)
        return answers if once else answers / torch.arange(1, step + 1).view(-1, 1, 1)

    return Side(run, [(module, counts) for module in spiking.modules() if (counts := _counts(module))])


def _counts(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Return what turns that which a neuron of SpikingJelly's puts out into numbers of spikes, None for no neuron."""
    if hasattr(module, "q_threshold"):  # ST-BIF
        return lambda out: out / module.q_threshold
    if isinstance(getattr(module, "v_threshold", None), Tensor):  # an encoder of STA, with a threshold per channel
        return lambda out: out / module.v_threshold
    return (lambda out: out) if hasattr(module, "v_threshold") else None


_RATE = partial(_jelly, recipe="RateCodingRecipe", once=False, mode="99.9%")
_STA = partial(_jelly, recipe="STATransformerRecipe", mode="spiking_encoder", threshold_scale=0.5)
_ZIP = partial(_jelly, recipe="SpikeZIPTFQANNRecipe", model_family="vit", source=official_qann)
RECIPES: dict[str, dict[str, Callable[..., Side]]] = {
    "rate": {
        "RateCodingRecipe": _RATE,
        "RateCodingRecipe, by channel": partial(_RATE, channel_wise=True, half_threshold=True),
        "LocalThresholdBalancingRecipe": partial(_jelly, recipe="LocalThresholdBalancingRecipe", once=False, epochs=50),
    },
    "sta": {
        "STATransformerRecipe": partial(_STA, source=torchvision_vit),
        "STATransformerRecipe, timm's network": _STA,
    },
    "spikezip": {"SpikeZIPTFQANNRecipe": _ZIP},
    "qcfs": {},
}
"""SpikingJelly's recipes for the source of each method, with the options of its own examples; QCFS has none there."""


def build(case: Case, name: str, step: int) -> Side:
    """Build a side for T steps; raises `Unavailable`, with the reason.

    Args:
        name: of the source, its limit, ours, or a recipe, which `STEPPING` may follow.
    """
    if name in (SOURCE, LIMIT):
        network = case.source if name == SOURCE else case.limit
        return Side(lambda x: network(x).unsqueeze(0))
    if name == OURS:
        options = {**case.options, "allow_silent": True}  # random weights may have silent layers
        spiking = convert(case.limit, case.method, step=step, data=case.data, **options)
        return Side(spiking.forward_sequence, [(node, node.counts) for node in spiking.nodes.values()])
    recipe = RECIPES[case.method][name.removesuffix(STEPPING)]
    return recipe(case, step, stepping=True) if name.endswith(STEPPING) else recipe(case, step)
