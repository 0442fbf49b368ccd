"""Run the command line: resolve the options, then train or evaluate; mistakes end in one line and status 2."""

import sys
from collections.abc import Callable, Sequence

from .errors import UserError, unknown
from .options import Options, resolve
from .training.outcome import Interrupted, NonFiniteLoss

__all__ = ["main"]


def main(argv: Sequence[str] | None = None, *, load: Callable[[], object] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name (default: the process's own).
        load: imports torch, braincog and the models; called once the options hold up.

    Returns:
        The exit status: 0, 2 after a mistake of the user's making, 1 after a loss that is no longer finite, 130 after
        Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        if "--list-models" in argv or "--list_models" in argv:
            _load(load)
            print("\n".join(_model_table()))
            return 0
        options = resolve(argv)
        _load(load)
        _check_names(options)
        _run(options)
    except (UserError, FileNotFoundError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except NonFiniteLoss as error:
        print("error:", error, file=sys.stderr)
        return 1
    except Interrupted as error:
        print(error, file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        return 130
    return 0


def _load(load: Callable[[], object] | None) -> None:
    if load is not None:
        load()


def _run(options: Options) -> None:
    from .training.run import run

    run(options)


def _check_names(options: Options) -> None:
    """Raise `UserError` for a network or an optimizer that nobody has registered."""
    from timm.optim import list_optimizers

    from . import list_models

    if options.model.model not in (names := list_models()):
        raise unknown("model", options.model.model, names)
    if options.optim.opt.lower() not in (names := list_optimizers()):
        raise unknown("optimizer", options.optim.opt, names)


def _model_table() -> list[str]:
    """Return the lines of the table of networks: name, family, steps, input, parameters, published accuracy."""
    from . import list_models

    rows = [("name", "family", "T", "input", "params", "published top-1")]
    rows += [_model_row(name) for name in list_models()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _model_row(name: str) -> tuple[str, ...]:
    import timm
    import torch
    from timm.models import get_arch_pretrained_cfgs

    with torch.device("meta"):  # sizes without memory
        model = timm.create_model(name)
    parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) / 1e6
    size = "x".join(map(str, model.default_cfg["input_size"]))
    configs = list(get_arch_pretrained_cfgs(name).values())
    notes = ", ".join(note for config in configs for note in config.notes or ())
    published = f"{notes} ({configs[0].paper_ids})" if notes else ""
    return name, type(model).__name__, str(model.step), size, f"{parameters:.2f} M", published
