"""Files of converted networks: the weights, the settings of the conversion, and what rebuilds the source.

One safetensors file. Its header holds a JSON text: the method, T, the method's options, the name and the arguments with
which timm builds the source, and the version that wrote it. Loading builds the source without weights, converts it
without data, and puts the file's values in. A file is only written once that has been tried.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from timm.layers import DropPath
from timm.models import is_model, is_model_pretrained
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._pytree import tree_leaves

from ..checkpoints.files import read_checkpoint, read_header
from ..checkpoints.state_dicts import refuse_broken, refuse_odd
from ..errors import UserError, listed, quoted, shown
from ..files import reason, write_whole
from ..models.timm_networks import find_timm, list_timm
from ..version import __version__
from .converted import Converted
from .methods import device_and_dtype, find_method, plain_copy

__all__ = ["is_converted", "load_converted", "read_settings", "save_converted"]

ENDING = ".safetensors"
_KEY = "braincog_transformers.converted"
# arguments of timm.create_model that make it read other files
_READING = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
_TYPES = ("float64", "float32", "bfloat16", "float16")
_INERT = (nn.Identity, nn.Dropout, DropPath)
"""What does nothing in evaluation, so that the one may stand for the other."""
_LARGE = 1 << 16
_PASSING = (
    *("training", "biased", "requires_fp", "requires_mem", "grad_checkpointing", "fused_attn", "input_dims", "stops"),
)
"""Attributes that say nothing about what a network computes from rest."""


def save_converted(
    converted: Converted, path: str | os.PathLike, source: Mapping[str, Any] | nn.Module | None = None
) -> Path:
    """Write a converted network, whole or not at all.

    Args:
        converted: what `convert` returned.
        path: the file, ending in .safetensors.
        source: how the network that was converted is built: `{"model": name with timm, "kwargs": {...}}`; or a network
            like it, if timm does not know it, which `load_converted` then needs, too. None for the name that timm left
            on it, and its number of classes; of a network that was loaded, for what its file said.

    Returns:
        `path`.

    Raises:
        UserError: if the file could not be read back, because `source` builds another network, a value is not finite
            or an option is no plain one; if it can't be written.
    """
    path = Path(path)
    if path.suffix != ENDING:
        raise UserError(f"the file of a converted network must end in {ENDING}; got {shown(path)}")
    if not isinstance(converted, Converted) or "method" not in converted.settings:
        raise UserError(f"only what convert() returned can be saved as such; got {type(converted).__name__}")
    dtype = str(device_and_dtype(converted)["dtype"]).removeprefix("torch.")
    described = _described(converted, source)
    settings = {**converted.settings, "step": converted.step, "dtype": dtype, "source": described}
    settings["input_dims"] = converted.input_dims
    state = {name: value.detach().cpu() for name, value in converted.state_dict().items()}
    refuse_broken(state)
    try:
        text = json.dumps({**settings, "version": __version__}, sort_keys=True)
        read = _settings(text)
        rebuilt = _rebuilt(read, source if isinstance(source, nn.Module) else None, state)
    except (UserError, TypeError, ValueError) as error:
        different = [str(error)]
    else:
        different = _misfits(rebuilt, state) + _differences(rebuilt, converted)
        different += [f"option {name}" for name, value in settings["options"].items() if read["options"][name] != value]
    if different:
        raise UserError(
            f"{shown(path)} is not written, as it could not be read back: {listed(different, 3)}; pass "
            "source={'model': its name with timm, 'kwargs': {...}} as the source was built, or the source itself"
        )
    # tensors that share memory, which such a file can't hold, are written each by itself
    apart = {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    try:
        write_whole(path, lambda beside: save_file(apart, beside, {_KEY: text}))
    except (OSError, SafetensorError) as error:
        raise UserError(f"can't write {shown(path)}: {reason(error)}") from error
    return path


def load_converted(path: str | os.PathLike, source: nn.Module | None = None) -> Converted:
    """Read a converted network, onto the CPU and in the type that it was written in.

    Args:
        path: a file of `save_converted`.
        source: for a file whose source timm does not build: a network like that which was converted, with any weights.

    Raises:
        UserError: if the file is missing, damaged or foreign, contradicts itself, or needs `source`.
    """
    settings, state = read_settings(path), read_checkpoint(path)["state_dict"]
    try:
        refuse_odd(state)
        refuse_broken(state)
        rebuilt = _rebuilt(settings, source, state)
        if different := _misfits(rebuilt, state):
            raise UserError(f"its weights are not those of the network that it names: {listed(different, 3)}")
        # a file's tensors lie anywhere in memory, and sums over such ones may differ in the last bit
        state = {name: value.clone() for name, value in state.items()}
        rebuilt.to(getattr(torch, settings["dtype"])).load_state_dict(state, assign=True)
    except UserError as error:
        raise UserError(f"{shown(path)}: {error}") from error
    return rebuilt.requires_grad_(False)


def read_settings(path: str | os.PathLike) -> dict[str, Any]:
    """Read what a file says about its network: `method`, `step`, `options`, `dtype`, `source` and `version`.

    Raises:
        UserError: if the file is missing, damaged or foreign.
    """
    text = read_header(path).get(_KEY)
    if text is None:
        raise UserError(f"{shown(path)} is no converted network: nothing in it says how it was converted")
    try:
        return _settings(text)
    except UserError as error:
        raise UserError(f"{shown(path)}: {error}") from error


def is_converted(path: str | os.PathLike) -> bool:
    """Tell from its header whether a file is one of `save_converted`; False for anything else."""
    try:
        return Path(path).suffix == ENDING and _KEY in read_header(path)
    except UserError:
        return False


def _described(converted: Converted, source: Mapping[str, Any] | nn.Module | None) -> dict[str, Any]:
    """Say what rebuilds the source."""
    if isinstance(source, nn.Module):
        return {"class": type(source).__name__}
    if source is not None:
        return {"kwargs": {}, **source}
    if known := converted.settings.get("source"):
        return known
    config = converted.pretrained_cfg or {}
    name, tag = config.get("architecture"), config.get("tag")
    if name and tag and is_model_pretrained(f"{name}.{tag}"):
        name = f"{name}.{tag}"
    kwargs = {} if converted.num_classes is None else {"num_classes": converted.num_classes}
    return {"model": name, "kwargs": kwargs}


def _settings(text: str) -> dict[str, Any]:
    """Return the settings in a header, their form checked."""
    try:
        settings = _with_tuples(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise UserError(f"its settings are damaged ({reason(error)})") from error
    kinds = {"method": str, "step": int, "options": dict, "dtype": str, "source": dict, "version": str}
    kinds["input_dims"] = int
    for name, kind in kinds.items():
        value = settings.get(name) if isinstance(settings, dict) else None
        if not isinstance(value, kind):
            raise UserError(f"its settings are damaged: {name} is {quoted(value, 60)}")
    if settings["dtype"] not in _TYPES:
        raise UserError(f"its settings are damaged: dtype is {quoted(settings['dtype'], 60)}")
    return settings


def _with_tuples(value: Any) -> Any:
    """Make lists tuples, which JSON does not know."""
    if isinstance(value, dict):
        return {name: _with_tuples(inner) for name, inner in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _rebuilt(settings: dict[str, Any], source: nn.Module | None, state: Mapping[str, Tensor]) -> Converted:
    """Build the network that the settings describe, with any weights."""
    method, described = find_method(settings["method"]), settings["source"]
    try:
        options = method.chosen(settings["options"])
        with torch.random.fork_rng(devices=[]), torch.no_grad(), _bounded(state):
            if source is None:
                source = _by_timm(described, sum(value.numel() for value in state.values()))
            elif described.get("class", type(source).__name__) != type(source).__name__:
                raise UserError(f"it was made from a {shown(described['class'], 60)}, not a {type(source).__name__}")
            limit = method.limit(plain_copy(source).cpu().eval(), options, None)
            kept = {name: settings[name] for name in ("method", "step", "options", "source")}
            rebuilt = method.spiking(limit.eval(), settings["step"], options, None, kept)
            rebuilt.input_dims = settings["input_dims"]
            return rebuilt
    except UserError:
        raise
    except Exception as error:  # whatever wrong names and sizes make of timm's networks
        raise UserError(f"what it names can't be built ({type(error).__name__}: {reason(error)})") from error


def _by_timm(described: dict[str, Any], size: int) -> nn.Module:
    """Build a source by name, without weights.

    Args:
        described: name and arguments.
        size: how many values its file holds; no argument is larger, but for those of small networks.
    """
    name, kwargs = described.get("model"), described.get("kwargs")
    if not isinstance(name, str) or not isinstance(kwargs, dict):
        known = f"a {shown(described['class'], 60)}, no network of timm" if "class" in described else "not named"
        raise UserError(f"its source is {known}; give a network like it as source=")
    if not is_model(name) or "/" in name or ":" in name:
        raise UserError(f"its source {quoted(name, 60)} is not known to timm {timm.__version__}")
    if reading := [argument for argument in _READING if argument in kwargs]:
        raise UserError(f"the arguments of its source hold {listed(reading)}, which would read other files")
    numbers = (value for value in tree_leaves(kwargs) if isinstance(value, int | float))
    if large := [value for value in numbers if not abs(value) <= max(size, _LARGE)]:
        raise UserError(f"the arguments of its source hold {quoted(large[0], 60)}, which no network of its size has")
    build, config = find_timm(name) if name.partition(".")[0] in list_timm() else (None, None)
    return timm.create_model(name, **kwargs) if build is None else build(pretrained_cfg=config, **kwargs)


@contextmanager
def _bounded(state: Mapping[str, Tensor]) -> Iterator[None]:
    """Refuse to build a network that is far larger than the weights which it is to hold."""
    most = 4 * len(state) + 1000, 4 * sum(value.numel() for value in state.values()) + 2**20
    count = size = 0

    def add(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        nonlocal count, size
        count, size = count + 1, size + (0 if parameter is None else parameter.numel())
        if count > most[0] or size > most[1]:
            raise UserError("its settings name a network that is far larger than its weights")

    hook = register_module_parameter_registration_hook(add)
    try:
        yield
    finally:
        hook.remove()


def _misfits(network: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Say what keeps a state dict from being exactly this network's."""
    own = network.state_dict()
    found = [f"{shown(name, 80)} is missing" for name in own if name not in state]
    found += [f"{shown(name, 80)} is too much" for name in state if name not in own]
    for name in own.keys() & state.keys():
        theirs, ours = state[name], own[name]
        if theirs.shape != ours.shape:
            found.append(f"{shown(name, 80)} is {tuple(theirs.shape)}, not {tuple(ours.shape)}")
        elif theirs.is_floating_point() != ours.is_floating_point():
            found.append(f"{shown(name, 80)} is {theirs.dtype}, not {ours.dtype}")
    return sorted(found)


def _differences(rebuilt: nn.Module, network: nn.Module) -> list[str]:
    """Say in which modules and which plain attributes of theirs two networks differ: no shape tells an epsilon."""
    one, other = _plain(rebuilt), _plain(network)
    return [
        f"{name} is {quoted(other.get(name), 60)}, there {quoted(one.get(name), 60)}"
        for name in {**other, **one}
        if one.get(name) != other.get(name)
    ]


def _plain(network: nn.Module) -> dict[str, Any]:
    """Return classes and plain attributes of all modules, by path."""
    found: dict[str, Any] = {}
    for path, module in network.named_modules():
        if isinstance(module, _INERT):
            continue
        path = path or "the network"
        found[path] = type(module).__name__
        attributes = {name: value for name, value in vars(module).items() if name[0] != "_" and name not in _PASSING}
        found |= {f"{path}.{name}": value for name, value in attributes.items() if _is_plain(value)}
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
