"""Export the network that a run's options describe, with trained weights."""

import torch

from ..errors import UserError
from ..export import agreement, export, form_of, load_exported, samples_for
from ..recipe import Options
from .distributed import Ranks, checked_device, device_of
from .network import build_network, find_shape
from .saving import load_weights

__all__ = ["export_trained"]


def export_trained(options: Options, path: str) -> list[str]:
    """Build the network for its data set, load its weights, export it, and compare file and network.

    The data themselves are not read: the samples that are compared are drawn at random.

    Args:
        options: of the run; its `--device` counts for .pt2 and .aot.pt2 (default: the CPU).
        path: the file to write; its ending names the form, see `export.export`.

    Returns:
        Lines that say what was loaded, written and found.

    Raises:
        UserError: for a mistake of the user's making.
    """
    form_of(path)  # a wrong ending shows before anything is built
    weights = options.run.eval_checkpoint or options.run.resume
    if not (weights or options.model.initial_checkpoint or options.model.pretrained):
        raise UserError("--export needs weights: --eval_checkpoint, --resume, --initial-checkpoint or --pretrained")
    lines: list[str] = []
    shape = find_shape(options)
    ranks = Ranks(torch.device(checked_device(device_of(options.run.device or "cpu"))))
    network = build_network(options, shape, ranks, say=lines.append).eval()
    if weights:
        load_weights(network, weights, lines.append, ema=options.run.use_ema)
    steps = shape.info.kind != "image" and not options.model.temporal_flatten
    batch = samples_for(network, steps=steps)
    written = export(network, path, batch=batch)
    sizes = ", ".join(map(str, ("B", *batch.shape[1:])))
    lines.append(f"{written}: {written.stat().st_size / 2**20:.1f} MiB, input ({sizes}), fused")
    lines.append(f"{agreement(network, load_exported(written), batch)}")
    return lines
