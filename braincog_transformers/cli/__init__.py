"""Run the command line: resolve the options, then train, evaluate, or do one of the actions.

A mistake ends in one line and status 2.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache, partial
from typing import Any

from ..errors import Interrupted, NonFiniteLoss, UserError, shown, unknown
from ..plugins import installed, load_plugins
from ..recipe import Options
from .parser import Command, read, resolve

__all__ = ["main", "resolve"]

_LONGEST = 800
"""Characters of a message."""


def main(argv: Sequence[str] | None = None, *, load: Callable[[], object] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name (default: the process's own).
        load: imports torch, braincog and the models; called once the options hold up.

    Returns:
        The exit status: 0, 2 after a mistake of the user's making, 1 after numbers that are no longer finite, 130 after
        Ctrl-C, 141 where nobody reads the output any more.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    load = cache(load or (lambda: None))

    def start(plugins: Sequence[str]) -> None:
        load()
        load_plugins(plugins)

    try:
        _obey(read(argv), start)
    except (UserError, FileNotFoundError) as error:
        print("error:", shown(error, _LONGEST), file=sys.stderr)
        return 2
    except NonFiniteLoss as error:
        print("error:", error, file=sys.stderr)
        return 1
    except Interrupted as error:
        print(error, file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader has gone (`| head`); Python must not write the rest of its buffer at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130
    return 0


def _obey(command: Command, start: Callable[[Sequence[str]], object]) -> None:
    """Do what a command line says; `start` loads torch, the package and the plugins."""
    if action := _ACTIONS.get(command.action):
        given = command.named()
        print("\n".join(action(command.argument, given, partial(start, given.get("plugin") or ()))))
        return
    options = command.options(start)
    start(options.run.plugin or ())
    _check_names(options, command.values.get("model"))
    if command.action == "export":
        from ..training.exporting import export_trained

        print("\n".join(export_trained(options, command.argument)))
    else:
        _run(options)


def _list_models(pattern: str, given: Mapping[str, Any], load: Callable[[], object]) -> list[str]:
    """Return the lines of the table of networks that match a pattern."""
    load()
    from ..conversion import SOURCES
    from ..models import describe, list_models
    from ..models.task_networks import TASK_NETWORKS
    from .data_info import aligned

    for wanted in (pattern or "*", f"*{pattern}*"):
        names, others = list_models(wanted), [name for name in (*TASK_NETWORKS, *SOURCES) if fnmatchcase(name, wanted)]
        if names or others:
            break
    else:
        raise unknown("model", pattern, [*list_models(), *TASK_NETWORKS, *SOURCES])
    rows = [("name", "family", "year", "T", "input", "params", "status", "published top-1 (source)")]
    for info in (info for name in names for info in describe(name)):
        published = f"{', '.join(info.published)} ({info.ids})" if info.published else ""
        size, parameters = "x".join(map(str, info.input_size)), f"{info.parameters / 1e6:.2f} M"
        facts = str(info.year), str(info.step), size, parameters, info.status
        rows.append((info.name, info.family, *facts, published))
    rows += [_other_row(name) for name in others]
    return aligned(rows)


def _other_row(name: str) -> tuple[str, ...]:
    """Return the row of a network for a task, or of one that a paper made for its method of conversion, which has no
    steps by itself."""
    import timm
    import torch
    from braincog.base.node.node import BaseNode

    from ..conversion import SOURCES
    from ..models.task_networks import TASK_NETWORKS

    source = TASK_NETWORKS.get(name) or SOURCES[name]
    with torch.device("meta"):
        network = timm.create_model(name)
    count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    steps = str(getattr(network, "step", ""))
    if name in SOURCES:
        status = f"source of --convert {source.method}"
    else:
        spikes = any(isinstance(module, BaseNode) for module in network.modules())
        status = f"for --task {source.task}" + ("" if spikes else ", does not spike")
    found = source.entry.variant.cfgs.values()
    size = "x".join(map(str, next(iter(found))["input_size"]))
    notes = ", ".join(note for cfg in found for note in cfg.get("notes") or ())
    facts = source.paper.name, source.paper.venue.split()[-1], steps, size, f"{count:.2f} M"
    published = f"{notes} ({source.paper.ids})" if notes else ""
    return name, *facts, status, published


def _identify(path: str, given: Mapping[str, Any], load: Callable[[], object]) -> list[str]:
    """Return the lines that say which registered variants a checkpoint fits."""
    if not path:
        raise UserError("--identify needs a file: --identify FILE")
    load()
    from ..checkpoints import identify
    from ..conversion import SOURCES, is_converted
    from ..conversion.saving import read_settings

    if is_converted(path):
        found = read_settings(path)
        source = found["source"].get("model") or found["source"].get("class")
        return [f"{source}, converted by {found['method']}, T={found['step']}; --eval_checkpoint {path} evaluates it"]
    return [str(fit) for fit in identify(path, further={name: source.entry for name, source in SOURCES.items()})]


def _data_info(_: object, given: Mapping[str, Any], load: Callable[[], object]) -> list[str]:
    """Return the lines about the data set that was named, or about all of them."""
    from .data_info import data_info, data_table

    if given.get("plugin") or installed():
        load()
    return data_info(given["dataset"], given.get("data_dir"), load=load) if "dataset" in given else data_table()


def _search(family: str, given: Mapping[str, Any], load: Callable[[], object]) -> list[str]:
    """Return the lines of the table of architectures that a search has found."""
    from .searching import search_lines

    if given.get("plugin") or installed():
        load()
    return search_lines(family, given)


_ACTIONS = {"list_models": _list_models, "identify": _identify, "data_info": _data_info, "search": _search}


def _run(options: Options) -> None:
    from ..training.run import run

    run(options)


def _check_names(options: Options, model: str | None = None) -> None:
    """Raise `UserError` for a network or an optimizer that can't be had, or that a converted one contradicts.

    Args:
        options: of the run.
        model: the network that is named, None where it is the default.
    """
    from ..conversion import SOURCES
    from ..models import REGISTERED
    from ..models.task_networks import TASK_NETWORKS
    from ..models.timm_networks import list_timm
    from ..training.converted_file import converted_file, require_model
    from ..training.optim import check_optimizer

    check_optimizer(options.optim.opt)
    name, _, tag = options.model.model.partition(".")
    if options.task.task:
        _check_task(options, name)
        return
    if (file := converted_file(options)) is not None:
        require_model(file, model)
        return
    if options.convert.convert:
        from ..training.method import method_of
        from ..training.source import find_source

        find_source(options.model.model, method_of(options)[0].name)
        return
    if name in TASK_NETWORKS:
        raise UserError(f"--model {name} is for --task {TASK_NETWORKS[name].task}; give that too")
    if name not in REGISTERED:
        ordinary = name in SOURCES or name in list_timm()
        remedy = f"--model {name} is an ordinary network, which --convert METHOD makes a spiking one"
        raise UserError(remedy) if ordinary else unknown("model", name, list(REGISTERED))
    if tag and tag not in (tags := REGISTERED[name].variant.cfgs):
        raise unknown(f"configuration of {name}", tag, list(filter(None, tags)) or ["(it has one, without a name)"])


def _check_task(options: Options, name: str) -> None:
    """Raise `UserError` for --task-kwargs that the task does not take, or a network of another task."""
    from ..models import REGISTERED
    from ..models.task_networks import TASK_NETWORKS
    from ..tasks import find_task

    task = options.task.task
    find_task(task)(options)
    known = [own for own, one in TASK_NETWORKS.items() if one.task == task] or list(REGISTERED)
    if name not in known:
        raise unknown(f"network of --task {task}", name, known)
