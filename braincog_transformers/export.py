"""Write a trained network for use without this package: ONNX, PyTorch's exported program, or a compiled package.

Each form is made of a fused copy in evaluation mode, keeps the batch's size open, and takes all T steps in one call:
images `(B, C, H, W)`, or event frames and sequences `(B, T, C, H, W)`. `load_exported` opens any of them.

A neuron compares its potential with a threshold. Another order of additions, in a folded normalisation or in another
library's convolution, moves a potential by some 1e-7, and the one in a million that lies so close to the threshold
falls on its other side: a spike flips, and that sample's logits move by far more than rounding. All others agree to
rounding. `Agreement` therefore looks at each sample by itself.

A converted network is written with its T steps one after the other, so that the file grows with T. It takes all of
them: where it could stop early depends on the data.
"""

import copy
import importlib.util
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .conversion import Converted
from .conversion.qcfs import SpikeMask
from .conversion.survey import example_input
from .errors import UserError
from .files import reason
from .models.base import SpikingTransformer
from .nodes import WrappedNode

__all__ = ["Agreement", "agreement", "compile_aot", "export", "export_onnx", "export_program", "form_of"]
__all__ += ["load_exported", "samples_for"]

Network = SpikingTransformer | Converted

TOLERANCE = 1e-4
"""Largest difference of a logit between two forms in which no spike differs, in float32."""
_EXTRA = "pip install 'braincog_transformers[onnx]'"


@dataclass(frozen=True)
class Agreement:
    """How the outputs of an exported network compare with the network's own.

    Args:
        samples: how many were compared.
        close: how many agree to `TOLERANCE` in every logit.
        largest: largest difference of a logit, over all samples.
        same_top1: whether each sample's first class is the same; classes within `TOLERANCE` count as equal.
    """

    samples: int
    close: int
    largest: float
    same_top1: bool

    @property
    def holds(self) -> bool:
        """Whether the differences are those of flipped spikes: a wrong network moves every sample."""
        return self.same_top1 and 4 * self.close >= self.samples

    def __str__(self) -> str:
        top1 = "equal" if self.same_top1 else "different"
        return (
            f"{self.close} of {self.samples} samples agree to {TOLERANCE:g}, top-1 {top1}, "
            f"largest difference of a logit {self.largest:.1e}"
        )


def agreement(model: Network, run: Callable[[Tensor], Tensor], batch: Tensor) -> Agreement:
    """Compare an exported network with the one that it was made of.

    Args:
        model: the network; its evaluation mode counts, whatever mode it is in.
        run: what `load_exported` returned.
        batch: samples as `model` takes them.
    """
    with torch.no_grad():
        expected = _copied(model)(batch).float().cpu()
        got = run(batch).float().cpu()
    differences = (got - expected).abs().amax(-1)
    chosen = expected.gather(-1, got.argmax(-1, keepdim=True)).squeeze(-1)
    close, same_top1 = differences <= TOLERANCE, (chosen >= expected.amax(-1) - TOLERANCE).all()
    return Agreement(differences.numel(), int(close.sum()), differences.max().item(), bool(same_top1))


def samples_for(model: Network, count: int = 8, *, steps: bool | None = None) -> Tensor:
    """Draw inputs of a network, always the same ones: noise for images, counts for event frames and sequences.

    A converted network gets noise in the form that its source takes, or the tokens of an example in other orders.

    Args:
        model: the network.
        count: number of samples B.
        steps: whether an input has an axis of time, `(B, T, C, H, W)` (default: with two channels or a height of 1).

    Raises:
        UserError: if a converted network does not say what its source takes.
    """
    generator = torch.Generator().manual_seed(0)
    if isinstance(model, Converted):
        return _samples_like(model, count, generator)
    shape = (model.in_chans, *model.img_size)
    if steps if steps is not None else model.in_chans == 2 or model.img_size[0] == 1:
        batch = torch.rand(count, model.step, *shape, generator=generator).mul(3).round()
    else:
        batch = torch.randn(count, *shape, generator=generator)
    parameter = next(model.parameters())
    return batch.to(parameter.device, parameter.dtype)


def _samples_like(model: Converted, count: int, generator: torch.Generator) -> Tensor:
    try:
        one = example_input(model.network)
    except UserError as error:
        name = type(model.network).__name__
        raise UserError(f"{name} doesn't say what it takes; give batch=, two samples or more") from error
    if one.is_floating_point():
        return torch.randn(count, *one.shape[1:], generator=generator).to(one)
    return torch.cat([one.roll(place, -1) for place in range(count)])


def export_onnx(
    model: Network, path: str | os.PathLike, *, batch: Tensor | None = None, check: bool = True
) -> Path:
    """Write a network as ONNX in float32, input `input` and output `logits`, in the opset of the installed PyTorch.

    Args:
        model: the network; it stays as it is.
        path: the file, ending in .onnx. Weights beyond ONNX's limit of 2 GiB go into a file beside it.
        batch: two samples or more, as the network takes them, to trace and check with (default: `samples_for`).
        check: run the file with onnxruntime and compare, see `Agreement`.

    Returns:
        `path`.

    Raises:
        UserError: without the packages; if the network has no such form; if the file's outputs are not the network's;
            if it can't be written. A file that was at `path` before is then still there.
    """
    path = _checked(path, ".onnx")
    _require("onnx", "onnxscript", *["onnxruntime"] * check)
    model = _copied(model).cpu().float()
    batch = samples_for(model) if batch is None else _as_float32(batch.cpu())
    program = _program(model, batch)  # which fuses: folding rounds, and the file must equal what it was made of
    with _written(path) as beside, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                program, (batch,), beside, dynamo=True, verbose=False, external_data=False,
                input_names=["input"], output_names=["logits"], dynamic_shapes=({0: "batch"},),
            )  # fmt: skip
        except torch.onnx.OnnxExporterError as error:
            why = str(error.__cause__ or error).strip().splitlines()[0]
            raise UserError(f"{type(model).__name__} has no form in ONNX: {why} (.pt2 has no such limit)") from error
        if check and not (found := agreement(model, load_exported(beside), batch)).holds:
            raise UserError(
                f"{path} is not written, because onnxruntime does not compute what the network does: {found} "
                "(batch= takes other samples, check=False writes it all the same)"
            )
    return path


def export_program(model: Network, path: str | os.PathLike, *, batch: Tensor | None = None) -> Path:
    """Write a network as PyTorch's exported program, for its own device and type.

    Args:
        model, batch: as in `export_onnx`.
        path: the file, ending in .pt2.

    Returns:
        `path`; `torch.export.load` reads it without this package.

    Raises:
        UserError: if the network can't be exported, or the file not written.
    """
    path = _checked(path, ".pt2")
    program = _program(_copied(model), batch)
    with _written(path) as beside:
        torch.export.save(program, beside)
    return path


def compile_aot(model: Network, path: str | os.PathLike, *, batch: Tensor | None = None) -> Path:
    """Compile a network ahead of time for this kind of machine, its own device and type.

    Args:
        model, batch: as in `export_onnx`.
        path: the file, ending in .aot.pt2.

    Returns:
        `path`; `torch._inductor.aoti_load_package` and its counterpart in C++ run it without this package.

    Raises:
        UserError: without a compiler; if the network can't be exported, or the file not written.
    """
    path = _checked(path, ".aot.pt2")
    program = _program(_copied(model), batch)
    with _written(path) as beside:
        try:
            torch._inductor.aoti_compile_and_package(program, package_path=str(beside))
        except RuntimeError as error:
            why = str(error).strip().splitlines()[0]
            raise UserError(f"{path} can't be compiled, which needs a C++ compiler, on a GPU Triton: {why}") from error
    return path


_FORMS = {".onnx": export_onnx, ".aot.pt2": compile_aot, ".pt2": export_program}


def form_of(path: str | os.PathLike) -> str:
    """Return the ending that tells a file's form, or raise `UserError`."""
    for ending in _FORMS:
        if Path(path).name.endswith(ending):
            return ending
    raise UserError(f"an exported network ends in {', '.join(_FORMS)}; got {str(path)!r}")


def export(model: Network, path: str | os.PathLike, *, batch: Tensor | None = None) -> Path:
    """Write a network in the form that the ending of `path` names, see the three functions above."""
    return _FORMS[form_of(path)](model, path, batch=batch)


def load_exported(path: str | os.PathLike) -> Callable[[Tensor], Tensor]:
    """Open an exported network as a function from inputs to logits.

    Args:
        path: a file of `export_onnx` (runs on the CPU), `export_program` or `compile_aot`.
    """
    ending = form_of(path)
    if not Path(path).is_file():
        raise UserError(f"no exported network at {str(path)!r}")
    if ending == ".aot.pt2":
        return torch._inductor.aoti_load_package(str(path))
    if ending == ".pt2":
        return torch.export.load(path).module()
    _require("onnxruntime")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"input": _as_float32(x).numpy(force=True)})[0])


def _as_float32(x: Tensor) -> Tensor:
    """Return real numbers in float32; tokens stay whole numbers."""
    return x.float() if x.is_floating_point() else x


def _require(*packages: str) -> None:
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise UserError(f"ONNX needs {', '.join(missing)}: {_EXTRA}")


def _checked(path: str | os.PathLike, ending: str) -> Path:
    """Return the path of a file that can be written, or raise `UserError`."""
    path = Path(path)
    if form_of(path) != ending:
        raise UserError(f"the file must end in {ending}; got {str(path)!r}")
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"can't write {str(path)!r}: " + ("it is a folder" if path.is_dir() else "no such folder"))
    return path


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """Give a path to write to, and move what is there to `path` once the block ends without an error."""
    try:
        # a folder, because ONNX names the file of large weights after the model's
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
            yield Path(folder) / path.name
            for file in Path(folder).iterdir():
                os.replace(file, path.with_name(file.name))
    except OSError as error:
        raise UserError(f"can't write {str(path)!r}: {reason(error)}") from error


def _copied(model: Network) -> Network:
    """Copy a network into evaluation mode, without what its neurons recorded; raise `UserError` if it can't leave."""
    _refuse(model)
    if isinstance(model, Converted):
        return copy.deepcopy(model)
    recorded = (value for node in model.nodes.values() for value in (node.feature_map, node.mem_collect, node.spike))
    # what a training step left there has a history, which can't be copied
    copied = copy.deepcopy(model, {id(value): 0.0 for value in recorded if isinstance(value, Tensor | list)})
    copied.set_attr("integer_products", False)  # an operation that no other runtime knows
    for node in copied.nodes.values():
        node.requires_fp = node.requires_mem = False
        node.n_reset()
    return copied.eval().requires_grad_(False)


def _refuse(model: nn.Module) -> None:
    """Raise `UserError` for a network whose outputs depend on more than a sample and its weights."""
    if not isinstance(model, Network):
        raise UserError(f"a network of this package can be exported, not {type(model).__name__}")
    name = type(model).__name__
    if isinstance(model, Converted):
        if any(isinstance(module, SpikeMask) and module.ratio for module in model.modules()):
            raise UserError(f"{name}: random spike masking draws its masks, which no file does; set masking_ratio to 0")
        return
    if not model.layer_by_layer:
        raise UserError(
            f"{name}: step by step, neurons keep a state that no file holds; call set_attr('layer_by_layer', True) "
            "(set_streaming(False) on a streaming network) first"
        )
    if model.spiking_inference:
        raise UserError(
            f"{name}: a file computes in whole numbers, not in binary planes; call set_spiking_inference(False) first"
        )
    if model.encoder.encode_type == "rate":
        raise UserError(f"{name}: encode_type 'rate' draws spikes at random, which no file repeats")
    if getattr(model, "as_released", False) and model.mixes_samples:
        raise UserError(f"{name}: as released, samples of a batch depend on each other; build it without as_released")
    wrapped = {type(module.node).__name__ for module in model.modules() if isinstance(module, WrappedNode)}
    if random := sorted(kind for kind in wrapped if kind.startswith("Noise")):
        raise UserError(f"{name}: {', '.join(random)} draws noise, which no file repeats")


def _program(model: Network, batch: Tensor | None) -> torch.export.ExportedProgram:
    """Fuse a copy, which a converted network needs not, and trace it with any number of samples."""
    batch = samples_for(model) if batch is None else batch
    if len(batch) < 2:
        raise UserError(f"batch= needs two samples, so that the batch's size stays open; got {len(batch)}")
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # BrainCog's own nodes leave their membrane behind, which is as well
        if isinstance(model, Converted):  # its code runs as it is, steps and all
            return torch.export.export(model, (batch,), dynamic_shapes=shapes, strict=False)
        return torch.export.export(model.fuse(), (batch,), dynamic_shapes=shapes)
