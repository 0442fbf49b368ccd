"""Run the command line: resolve the options, then train or evaluate; mistakes end in one line and status 2."""

import os
import sys
from collections.abc import Callable, Sequence
from functools import cache

from ..errors import Interrupted, NonFiniteLoss, UserError, shown, unknown
from ..plugins import load_plugins
from ..recipe import Options
from . import actions
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
        # whoever read the output has gone (`| head`); what is left in the buffer must not be written at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130
    return 0


def _obey(command: Command, start: Callable[[Sequence[str]], object]) -> None:
    """Do what a command line says; `start` loads torch, the package and the plugins."""
    if command.action in actions.BY_NAME:
        print("\n".join(actions.BY_NAME[command.action](command, start)))
        return
    options = command.options(start)
    start(options.run.plugin or ())
    _check_names(options)
    if command.action == "export":
        print("\n".join(actions.export(options, command.argument)))
    else:
        _run(options)


def _run(options: Options) -> None:
    from ..training.run import run

    run(options)


def _check_names(options: Options) -> None:
    """Raise `UserError` for a network or an optimizer that nobody has registered."""
    from timm.optim import list_optimizers

    from ..models import REGISTERED

    name, _, tag = options.model.model.partition(".")
    if name not in REGISTERED:
        raise unknown("model", name, list(REGISTERED))
    if tag and tag not in (tags := REGISTERED[name].variant.cfgs):
        raise unknown(f"configuration of {name}", tag, list(filter(None, tags)) or ["(it has one, without a name)"])
    if options.optim.opt.lower() not in (names := list_optimizers()):
        raise unknown("optimizer", options.optim.opt, names)
