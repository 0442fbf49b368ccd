"""Run the command line: resolve the options, then train or evaluate; mistakes end in one line and status 2."""

import os
import sys
from collections.abc import Callable, Sequence

from .errors import UserError, shown, unknown
from .options import Options, named_options, resolve
from .training.outcome import Interrupted, NonFiniteLoss

__all__ = ["main"]

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
    try:
        if (filter := _asked_for("--list-models", argv)) is not None:
            _load(load)
            print("\n".join(_model_table(filter)))
            return 0
        if (path := _asked_for("--identify", argv)) is not None:
            _load(load)
            print("\n".join(_identify(path)))
            return 0
        if _asked_for("--data-info", argv) is not None:
            print("\n".join(_data_info(argv, load)))
            return 0
        target = _asked_for("--export", argv)
        options = resolve(argv)
        _load(load)
        _check_names(options)
        if target is not None:
            print("\n".join(_export(options, target)))
            return 0
        _run(options)
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


def _load(load: Callable[[], object] | None) -> None:
    if load is not None:
        load()


def _export(options: Options, path: str) -> list[str]:
    """Return the lines about the exported network."""
    from .training.export import export_trained

    return export_trained(options, path)


def _run(options: Options) -> None:
    from .training.run import run

    run(options)


def _check_names(options: Options) -> None:
    """Raise `UserError` for a network or an optimizer that nobody has registered."""
    from timm.optim import list_optimizers

    from .models import REGISTERED

    name, _, tag = options.model.model.partition(".")
    if name not in REGISTERED:
        raise unknown("model", name, list(REGISTERED))
    if tag and tag not in (tags := REGISTERED[name].variant.cfgs):
        raise unknown(f"configuration of {name}", tag, list(filter(None, tags)) or ["(it has one, without a name)"])
    if options.optim.opt.lower() not in (names := list_optimizers()):
        raise unknown("optimizer", options.optim.opt, names)


def _model_table(filter: str) -> list[str]:
    """Return the lines of the table of networks that match a pattern."""
    from .models import describe, list_models

    names = list_models(filter) or list_models(f"*{filter}*")
    if not names:
        raise unknown("model", filter, list_models())
    rows = [("name", "family", "year", "T", "input", "params", "published top-1 (source)")]
    for info in (info for name in names for info in describe(name)):
        published = f"{', '.join(info.published)} ({info.ids})" if info.published else ""
        size, parameters = "x".join(map(str, info.input_size)), f"{info.parameters / 1e6:.2f} M"
        rows.append((info.name, info.family, str(info.year), str(info.step), size, parameters, published))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _asked_for(option: str, argv: list[str]) -> str | None:
    """Return the value behind an option that ends the program, "" if it has none, None without the option."""
    spellings = (option, option.replace("-", "_").replace("__", "--", 1))
    for index, argument in enumerate(argv):
        name, _, value = argument.partition("=")
        if name in spellings:
            following = argv[index + 1] if index + 1 < len(argv) and not argv[index + 1].startswith("-") else ""
            return value or following
    return None


def _data_info(argv: list[str], load: Callable[[], object] | None) -> list[str]:
    """Return the lines about the data set that was named, or about all of them."""
    from .data_info import data_info, data_table

    given = named_options(argv)
    if "dataset" not in given:
        return data_table()
    return data_info(given["dataset"], given.get("data_dir"), load=lambda: _load(load))


def _identify(path: str) -> list[str]:
    """Return the lines that say which registered variants a checkpoint fits."""
    from .identify import identify

    if not path:
        raise UserError("--identify needs a file: --identify FILE")
    return [str(fit) for fit in identify(path)]
