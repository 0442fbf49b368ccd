"""BrainCog's options that belong to its other models, or that timm and torchrun replace: known, and refused with the
reason unless they keep their defaults."""

from dataclasses import dataclass
from typing import Any

from .fields import option

__all__ = ["RefusedOptions"]

_OTHER = "belongs to other models of BrainCog; no transformer has it"
_COPIES = "the loaders make one view of each image, as in every published recipe of the zoo"


def _refused(default: Any, text: str, reason: str, *aliases: str) -> Any:
    return option(default, text, *aliases, saved=False, refused=reason)


@dataclass(frozen=True, kw_only=True)
class RefusedOptions:
    """accepted for BrainCog's sake, at their defaults only"""

    gp: str | None = _refused(
        None, "global pooling", "spiking transformers average over tokens; there is no pooling to choose"
    )
    adam_epoch: int = _refused(
        1000, "epoch that switches from Adam to SGD", "the optimizer is never switched; choose one with --opt"
    )
    newton_maxiter: int = _refused(20, "iterations of Newton's method", _OTHER)
    kernel_method: str = _refused(
        "cuda", "implementation of the kernels", "the fastest kernel for the device is chosen by itself"
    )
    conv_type: str = _refused("normal", "kind of convolution", _OTHER)
    sew_cnf: str = _refused("ADD", "joining of the shortcut in SEW-ResNet", _OTHER)
    adaptive_node: bool = _refused(False, "adaptive neurons", _OTHER)
    critical_loss: bool = _refused(False, "criticality loss", _OTHER)
    n_groups: int = _refused(1, "groups of time steps with own weights", _OTHER, "--n_groups")
    n_encode_type: str = _refused(
        "linear", "learnt encoding", "the learnt encoder belongs to other models of BrainCog; use --encode"
    )
    n_preact: bool = _refused(False, "neuron before the convolution", _OTHER)
    spike_output: bool = _refused(
        False, "count spikes of output neurons", "transformers end in a linear head, not in output neurons"
    )
    apex_amp: bool = _refused(False, "mixed precision by apex", "apex is no longer maintained; use --amp")
    drop_block: float | None = _refused(None, "rate of DropBlock", "no transformer has DropBlock; use --drop-path")
    drop_connect: float | None = _refused(None, "old name of --drop-path", "it is the old name; use --drop-path")
    reset_drop: bool = _refused(
        False, "change of the drop rate in training", "the drop rate stays as --drop-path sets it"
    )
    node_resume: str = _refused(
        "", "checkpoint of neurons alone", "neurons are saved with the network; use --resume or --initial-checkpoint"
    )
    num_gpu: int = _refused(1, "number of GPUs", "torchrun --nproc_per_node decides the number of processes")
    tta: int = _refused(
        0, "views by sample in evaluation", "evaluation sees each sample once, as the published accuracies do"
    )
    aug_splits: int = _refused(0, "augmented copies of each image", _COPIES)
    jsd: bool = _refused(False, "consistency loss between augmented copies", _COPIES)
    split_bn: bool = _refused(False, "separate batch norms for augmented copies", _COPIES)
    resplit: bool = _refused(False, "no random erasing in the first copy", _COPIES)
    adaptation_info: bool = _refused(
        False, "statistics of adaptive neurons", "it describes adaptive neurons, which no transformer has"
    )
