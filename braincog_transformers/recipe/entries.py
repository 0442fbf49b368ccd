"""Describe each option as the parser, the recipes and the checks see it: made from the fields of `groups.py`."""

import ast
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args, get_origin, get_type_hints

from ..errors import UserError, quoted, shown
from .groups import GROUPS

__all__ = ["ENTRIES", "REFUSED", "Entry", "arguments", "keyword_problems", "keywords"]

# timm takes these for itself; a checkpoint would be read there by other rules
_OF_TIMM = {"checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}

_LONGEST = 4096
"""Characters of a text; no path is longer."""
# no name of a file has them, but by accident; surrogates stand for bytes that are no text
_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff]")
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
        wrong = UserError(self.needs(value))
        if self.kind is bool or isinstance(value, bool):
            if not (self.kind is bool and isinstance(value, bool)):
                raise wrong
            return value
        if not isinstance(value, (int, float, str)) or (self.kind is int and isinstance(value, float)):
            raise wrong
        try:
            return self.kind(value)  # YAML reads 1e-3 as a text, so that texts are numbers here too
        except (ValueError, OverflowError):
            raise wrong from None

    def needs(self, value: Any) -> str:
        """Say what the option takes, and what came."""
        return f"{self.flag} needs {_KINDS[self.kind]}; got {quoted(value, 120)}"

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
                yield f"{self.flag} must be {rule}; got {quoted(one, 120)}"

    def _broken(self, value: Any) -> str | None:
        choices, low, above, high = (self.metadata[key] for key in ("choices", "low", "above", "high"))
        if isinstance(value, str) and (len(value) > _LONGEST or _CONTROL.search(value)):
            return f"a text of at most {_LONGEST} characters, none of them a control character"
        if value == "" and not (choices or self.metadata["empty"] or self.default == ""):
            return "a text that isn't empty"
        if isinstance(value, int) and abs(value) >= 2**63:
            return "below 2^63"
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
REFUSED: dict[str, str] = {
    name: entry.metadata["refused"] for name, entry in ENTRIES.items() if entry.metadata["refused"]
}
"""Why an option can't have another value than its default."""


def keywords(texts: Sequence[str] | None) -> dict[str, Any]:
    """Turn `KEY=VALUE` texts into keyword arguments; a value that is no Python literal is a text.

    Raises:
        UserError: for a name that is given twice, or a literal that Python can't build.
    """
    found: dict[str, Any] = {}
    for text in texts or ():
        name, _, value = text.partition("=")
        if name in found:
            raise UserError(f"{shown(name, 60)} is given twice")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
        except (TypeError, MemoryError, RecursionError) as error:
            raise UserError(f"{quoted(text, 100)} is no value that Python can build ({shown(error, 80)})") from None
    return found


def keyword_problems(entry: Entry, texts: Sequence[str] | None) -> Iterator[str]:
    """Yield what keeps an option's texts from being keyword arguments."""
    odd = [text for text in texts or () if not re.fullmatch(r"[A-Za-z_]\w*=.+", text)]
    if odd:
        yield f"{entry.flag} takes KEY=VALUE; got {quoted(odd[0], 100)}"
        return
    try:
        given = keywords(texts)
    except UserError as error:
        yield f"{entry.flag}: {error}"
        return
    if entry.name == "model_kwargs" and (timms := sorted(given.keys() & _OF_TIMM)):
        yield f"{entry.flag} {timms[0]}: belongs to timm, not to the network (--initial-checkpoint reads weights)"
    if entry.name == "model_kwargs" and (empty := [name for name, value in given.items() if value is None]):
        yield f"{entry.flag} {empty[0]}=None: timm reads None as the network's default; leave it out"


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
