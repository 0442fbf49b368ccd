"""Export the network that a run's options describe, with trained weights."""

import torch

from ..conversion.converted import device_and_dtype
from ..errors import UserError
from ..export import agreement, export, form_of, load_exported, samples_for
from ..recipe import Options
from .converted_file import converted_file, open_converted
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
    if options.convert.convert and converted_file(options) is None:
        raise UserError(
            "--export writes a network that is converted: run --convert, then name its folder with --eval_checkpoint"
        )
    if options.task.task:
        raise UserError(f"--export writes classifiers, not networks of --task {options.task.task}; leave one out")
    form_of(path)  # a wrong ending shows before anything is built
    weights = options.run.eval_checkpoint or options.run.resume
    if not (weights or options.model.initial_checkpoint or options.model.pretrained):
        raise UserError("--export needs weights: --eval_checkpoint, --resume, --initial-checkpoint or --pretrained")
    lines: list[str] = []
    ranks = Ranks(torch.device(checked_device(device_of(options.run.device or "cpu"))))
    if (file := converted_file(options)) is not None:
        options, shape, network = open_converted(options, file)
        network.to(ranks.device)
        lines.append(f"{options.model.model}, converted by {network.method}, from {file}")
        noise = torch.randn(8, shape.info.in_chans, *shape.size, generator=torch.Generator().manual_seed(0))
        batch, how = noise.to(**device_and_dtype(network)), f"{network.step} steps, written out"
    else:
        shape = find_shape(options)
        network = build_network(options, shape, ranks, say=lines.append).eval()
        if weights:
            load_weights(network, weights, lines.append, ema=options.run.use_ema)
        steps = shape.info.kind != "image" and not options.model.temporal_flatten
        batch, how = samples_for(network, steps=steps), "fused"
    written = export(network, path, batch=batch)
    sizes = ", ".join(map(str, ("B", *batch.shape[1:])))
    lines.append(f"{written}: {written.stat().st_size / 2**20:.1f} MiB, input ({sizes}), {how}")
    lines.append(f"{agreement(network, load_exported(written), batch)}")
    return lines
