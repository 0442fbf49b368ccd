"""A converted network from its file, in the place of a network that the options name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..conversion import Converted, is_converted, load_converted
from ..conversion.saving import read_settings
from ..data.registry import DatasetInfo, lookup
from ..errors import UserError, shown
from ..recipe import ENTRIES, Options, keywords
from ..recipe.options import OF_ZOO, given_options
from .class_names import compare_classes
from .folder import CONVERTED
from .network import Shape

__all__ = ["converted_file", "open_converted", "require_classes", "require_model"]


def converted_file(options: Options) -> Path | None:
    """Return the file of a converted network that --eval_checkpoint names, itself or by its folder, or None."""
    path = Path(options.run.eval_checkpoint)
    if not options.run.eval_checkpoint:
        return None
    path = path / CONVERTED if path.is_dir() else path
    return path if is_converted(path) else None


def require_model(path: Path, name: str | None) -> None:
    """Raise `UserError` where a converted network was made of another one than --model names, if that is given."""
    known = read_settings(path)["source"].get("model")
    if name not in (None, known):
        raise UserError(f"--model {name}: {shown(path)} holds a network made of {known}; leave the option out")


def open_converted(options: Options, path: Path) -> tuple[Options, Shape, Converted]:
    """Load a converted network.

    Returns:
        The options, which name its source and T; its input and output; and the network.

    Raises:
        UserError: for a damaged file, or options that contradict it.
    """
    settings, info = read_settings(path), lookup(options.data.dataset)
    source = settings["source"]
    if options.model.model != ENTRIES["model"].default:
        require_model(path, options.model.model)
    _require_same(options, settings, path)
    if info.kind != "image":
        raise UserError(f"{shown(path)} holds a network of images, and {info.name} holds {info.kind} data")
    network = load_converted(path)
    if options.model.step is not None:
        network.step = options.model.step
    kwargs = source["kwargs"]
    if kwargs.get("in_chans", info.in_chans) != info.in_chans:
        raise UserError(
            f"{shown(path)} holds a network of images of {kwargs['in_chans']} channels, and those of {info.name} have "
            f"{info.in_chans}"
        )
    model = replace(options.model, model=source["model"], step=network.step)
    shape = Shape(info, _size(options, source, info), network.step, info.num_classes)
    return replace(options, model=model), shape, network


def _size(options: Options, source: Mapping[str, Any], info: DatasetInfo) -> tuple[int, int]:
    """Return height and width of the images: those that the network was converted for, where nothing is said."""
    side = options.data.img_size
    return tuple(source.get("size", info.size)) if side is None else (side, side)


def _require_same(options: Options, settings: Mapping[str, Any], path: Path) -> None:
    """Refuse options that say something else than the file, or that only a network of the zoo takes."""
    if given := given_options(options, OF_ZOO):
        raise UserError(f"{given}: {shown(path)} holds a converted network, which takes no such option; leave it out")
    made = options.convert
    told = {**keywords(made.convert_kwargs)} if made.convert else {}
    wrong = [name for name in told if settings["options"].get(name, told[name]) != told[name]]
    if made.convert not in ("", settings["method"]):
        raise UserError(f"--convert {made.convert}: {shown(path)} was converted by {settings['method']}")
    if wrong:
        was = settings["options"][wrong[0]]
        raise UserError(f"--convert-kwargs {wrong[0]}={told[wrong[0]]}: {shown(path)} was converted with {was}")
    built = settings["source"]["kwargs"]
    for name, value in keywords(options.model.model_kwargs).items():
        if built.get(name, value) != value:
            raise UserError(f"--model-kwargs {name}={value}: {shown(path)} holds a network with {built[name]}")


def require_classes(
    network: Converted, path: Path, classes: Sequence[str], options: Options, say: Callable[[str], object]
) -> None:
    """Raise `UserError` where the classes of the data are not those that a converted network was made for."""
    source = network.settings["source"]
    count = network.num_classes
    if count is not None and classes and count != len(classes):
        raise UserError(
            f"{shown(path)} holds a network of {count} classes, and {options.data.dataset} has {len(classes)}"
        )
    origin = {name: source.get(name) for name in ("dataset", "dataset_source")}
    content = {"classes": source.get("classes"), "options": origin}
    compare_classes(content, path, classes, options.data, refuses=True, say=say)
