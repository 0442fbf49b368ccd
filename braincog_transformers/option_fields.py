"""How an option is declared: a dataclass field whose metadata the parser, the recipes and the checks read."""

from dataclasses import field
from typing import Any

__all__ = ["option"]


def option(
    default: Any,
    text: str,
    *aliases: str,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    count: tuple[int, ...] = (),
    empty: bool = False,
    saved: bool = True,
) -> Any:
    """Declare one option.

    Args:
        default: value when neither the recipe nor the command line sets it.
        text: help text; says what the option does.
        aliases: further spellings on the command line, dashes included.
        choices: allowed values; empty for any.
        low: smallest allowed value.
        above: bound that the value has to exceed.
        high: largest allowed value.
        count: allowed numbers of values of an option that takes several; empty for one or more.
        empty: whether an empty text means something, as it does wherever it is the default.
        saved: whether the option belongs into `args.yaml`, and counts when two sets of options are compared.
    """
    metadata = {
        "help": text,
        "aliases": aliases,
        "choices": choices,
        "low": low,
        "above": above,
        "high": high,
        "count": count,
        "empty": empty,
        "saved": saved,
    }
    return field(default=default, metadata=metadata, compare=saved)
