"""BrainCog's options that belong to its other models, or that timm and torchrun replace: known, and refused with the
reason unless they keep their defaults."""

from dataclasses import dataclass

from .option_fields import option

__all__ = ["REFUSED", "RefusedOptions"]


@dataclass(frozen=True, kw_only=True)
class RefusedOptions:
    """accepted for BrainCog's sake, at their defaults only"""

    gp: str | None = option(None, "global pooling", saved=False)
    adam_epoch: int = option(1000, "epoch that switches from Adam to SGD", saved=False)
    newton_maxiter: int = option(20, "iterations of Newton's method", saved=False)
    kernel_method: str = option("cuda", "implementation of the kernels", saved=False)
    conv_type: str = option("normal", "kind of convolution", saved=False)
    sew_cnf: str = option("ADD", "joining of the shortcut in SEW-ResNet", saved=False)
    adaptive_node: bool = option(False, "adaptive neurons", saved=False)
    critical_loss: bool = option(False, "criticality loss", saved=False)
    n_groups: int = option(1, "groups of time steps with own weights", "--n_groups", saved=False)
    n_encode_type: str = option("linear", "learnt encoding", saved=False)
    n_preact: bool = option(False, "neuron before the convolution", saved=False)
    spike_output: bool = option(False, "count spikes of output neurons", saved=False)
    apex_amp: bool = option(False, "mixed precision by apex", saved=False)
    drop_block: float | None = option(None, "rate of DropBlock", saved=False)
    drop_connect: float | None = option(None, "old name of --drop-path", saved=False)
    reset_drop: bool = option(False, "change of the drop rate in training", saved=False)
    node_resume: str = option("", "checkpoint of neurons alone", saved=False)
    num_gpu: int = option(1, "number of GPUs", saved=False)
    tta: int = option(0, "views by sample in evaluation", saved=False)
    aug_splits: int = option(0, "augmented copies of each image", saved=False)
    jsd: bool = option(False, "consistency loss between augmented copies", saved=False)
    split_bn: bool = option(False, "separate batch norms for augmented copies", saved=False)
    resplit: bool = option(False, "no random erasing in the first copy", saved=False)
    adaptation_info: bool = option(False, "statistics of adaptive neurons", saved=False)


_OTHER = "belongs to other models of BrainCog; no transformer has it"
_COPIES = "the loaders make one view of each image, as in every published recipe of the zoo"
REFUSED: dict[str, str] = {
    "gp": "spiking transformers average over tokens; there is no pooling to choose",
    "adam_epoch": "the optimizer is never switched; choose one with --opt",
    "newton_maxiter": _OTHER,
    "kernel_method": "the fastest kernel for the device is chosen by itself",
    "conv_type": _OTHER,
    "sew_cnf": _OTHER,
    "adaptive_node": _OTHER,
    "critical_loss": _OTHER,
    "n_groups": _OTHER,
    "n_encode_type": "the learnt encoder belongs to other models of BrainCog; use --encode",
    "n_preact": _OTHER,
    "spike_output": "transformers end in a linear head, not in output neurons",
    "apex_amp": "apex is no longer maintained; use --amp",
    "drop_block": "no transformer has DropBlock; use --drop-path",
    "drop_connect": "it is the old name; use --drop-path",
    "reset_drop": "the drop rate stays as --drop-path sets it",
    "node_resume": "neurons are saved with the network; use --resume or --initial-checkpoint",
    "num_gpu": "torchrun --nproc_per_node decides the number of processes",
    "tta": "evaluation sees each sample once, as the published accuracies do",
    "aug_splits": _COPIES,
    "jsd": _COPIES,
    "split_bn": _COPIES,
    "resplit": _COPIES,
    "adaptation_info": "it describes adaptive neurons, which no transformer has",
}
