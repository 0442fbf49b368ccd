"""What the command line does instead of a training: each action returns the lines that it prints."""

from collections.abc import Callable, Sequence

from ..errors import UserError, unknown
from ..plugins import installed
from ..recipe import Options
from .data_info import aligned, data_info, data_table
from .parser import Command

__all__ = ["BY_NAME", "export"]

Start = Callable[[Sequence[str]], object]
"""Loads torch, the package, and the plugins that are named."""


def _list_models(command: Command, start: Start) -> list[str]:
    start(command.named().get("plugin") or ())
    return _model_table(command.argument)


def _identify(command: Command, start: Start) -> list[str]:
    """Return the lines that say which registered variants a checkpoint fits."""
    plugins = command.named().get("plugin") or ()
    if not command.argument:
        raise UserError("--identify needs a file: --identify FILE")
    start(plugins)
    from ..checkpoints import identify

    return [str(fit) for fit in identify(command.argument)]


def _data_info(command: Command, start: Start) -> list[str]:
    """Return the lines about the data set that was named, or about all of them."""
    given = command.named()
    plugins = given.get("plugin") or ()
    if plugins or installed():
        start(plugins)
    if "dataset" not in given:
        return data_table()
    return data_info(given["dataset"], given.get("data_dir"), load=lambda: start(plugins))


BY_NAME = {"list_models": _list_models, "identify": _identify, "data_info": _data_info}


def export(options: Options, path: str) -> list[str]:
    """Return the lines about the exported network."""
    from ..training.exporting import export_trained

    return export_trained(options, path)


def _model_table(filter: str) -> list[str]:
    """Return the lines of the table of networks that match a pattern."""
    from ..models import describe, list_models

    names = list_models(filter) or list_models(f"*{filter}*")
    if not names:
        raise unknown("model", filter, list_models())
    rows = [("name", "family", "year", "T", "input", "params", "published top-1 (source)")]
    for info in (info for name in names for info in describe(name)):
        published = f"{', '.join(info.published)} ({info.ids})" if info.published else ""
        size, parameters = "x".join(map(str, info.input_size)), f"{info.parameters / 1e6:.2f} M"
        rows.append((info.name, info.family, str(info.year), str(info.step), size, parameters, published))
    return aligned(rows)
