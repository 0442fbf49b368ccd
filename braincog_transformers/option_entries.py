"""Describe each option as the parser, the recipes and the checks see it: made from the fields of `option_groups.py`."""

import ast
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args, get_origin, get_type_hints

from .errors import UserError
from .option_groups import GROUPS

__all__ = ["ENTRIES", "Entry", "arguments", "keywords"]

_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


@dataclass(frozen=True)
class Entry:
    """Describe one option: where it lives and what it takes (made from the fields of the groups)."""

    group: str
    name: str
    kind: type
    many: bool
    optional: bool
    default: Any
    metadata: Mapping[str, Any]

    @property
    def flag(self) -> str:
        """Spell the option as on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def opposite(self) -> str:
        """Spell the flag that undoes a switch."""
        return "--" + (self.flag[5:] if self.flag.startswith("--no-") else "no-" + self.flag[2:])

    def convert(self, value: Any) -> Any:
        """Turn a value of the command line or of a recipe into the option's type, or raise `UserError`."""
        if value is None and self.optional:
            return None
        if not self.many:
            return self._convert_one(value)
        values = value if isinstance(value, (list, tuple)) else [value]
        return tuple(self._convert_one(one) for one in values)

    def _convert_one(self, value: Any) -> Any:
        wrong = UserError(f"{self.flag} needs {_KINDS[self.kind]}; got {value!r}")
        if self.kind is bool or isinstance(value, bool):
            if not (self.kind is bool and isinstance(value, bool)):
                raise wrong
            return value
        if not isinstance(value, (int, float, str)) or (self.kind is int and isinstance(value, float)):
            raise wrong
        try:
            return self.kind(value)  # YAML reads 1e-3 as a text, so that texts are numbers here too
        except ValueError:
            raise wrong from None

    def problems(self, value: Any) -> Iterator[str]:
        """Yield each rule of the option that the value breaks."""
        if value is None and self.optional:
            return
        values = value if self.many else (value,)
        count = self.metadata["count"]
        if self.many and (not values or (count and len(values) not in count)):
            wanted = " or ".join(map(str, count)) or "one or more"
            yield f"{self.flag} needs {wanted} values; got {len(values)}"
        for one in values:
            if isinstance(one, float) and not math.isfinite(one):
                yield f"{self.flag} must be finite; got {one}"
            elif (rule := self._broken(one)) is not None:
                yield f"{self.flag} must be {rule}; got {one!r}"

    def _broken(self, value: Any) -> str | None:
        choices, low, above, high = (self.metadata[key] for key in ("choices", "low", "above", "high"))
        if choices and value not in choices:
            return "one of " + ", ".join(choice or "''" for choice in choices)
        if low is not None and value < low:
            return f"at least {low:g}"
        if above is not None and value <= above:
            return f"above {above:g}"
        if high is not None and value > high:
            return f"at most {high:g}"
        return None


def _entries() -> Iterator[Entry]:
    for group, cls in GROUPS.items():
        hints = get_type_hints(cls)
        for item in fields(cls):
            hint = hints[item.name]
            optional = type(None) in get_args(hint) and get_origin(hint) is not tuple
            if optional:
                hint = next(kind for kind in get_args(hint) if kind is not type(None))
            many = get_origin(hint) is tuple
            kind = get_args(hint)[0] if many else hint
            yield Entry(group, item.name, kind, many, optional, item.default, item.metadata)


ENTRIES: dict[str, Entry] = {entry.name: entry for entry in _entries()}


def keywords(texts: Sequence[str] | None) -> dict[str, Any]:
    """Turn `KEY=VALUE` texts into keyword arguments; a value that is no Python literal is a text."""
    found = {}
    for text in texts or ():
        name, _, value = text.partition("=")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def arguments(values: Mapping[str, Any]) -> list[str]:
    """Write options and their values as arguments of the command line."""
    found = []
    for name, value in values.items():
        entry = ENTRIES[name]
        if entry.kind is bool:
            found += [] if value is None else [entry.flag if value else entry.opposite]
        elif entry.many:
            found += [entry.flag, *map(str, value)]
        elif value is not None:
            # a text may begin with a dash
            found += [f"{entry.flag}={value}"] if str(value).startswith("-") else [entry.flag, str(value)]
    return found
