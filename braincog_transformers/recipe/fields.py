"""An option: its declaration as a dataclass field, and the rules for its value that follow from it.

The parser, the recipes, the checks and the runs read what they need from the field's metadata.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from operator import ge, gt, le
from typing import Any, get_args, get_origin, get_type_hints

from ..errors import UserError, quoted

__all__ = ["FACTS", "Entry", "entries", "option"]

FACTS: dict[str, Any] = dict(
    aliases=(), choices=(), low=None, above=None, high=None, count=(), repeats=False, empty=False, named="",
    saved=True, kinds=(), tasks=(), needs="", numbers=True, refused="",
)  # fmt: skip
"""The facts of an option beside its help text, with their defaults."""

_LONGEST = 4096
"""Characters of a text; no path is longer."""
# no name of a file has these on purpose; surrogates encode bytes that are not text
_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff]")
_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
_BOUNDS = {"low": ("at least", ge), "above": ("above", gt), "high": ("at most", le)}


def option(default: Any, text: str, *aliases: str, **facts: Any) -> Any:
    """Declare one option.

    Args:
        default: value when neither the recipe nor the command line sets it.
        text: help text; says what the option does.
        aliases: further spellings on the command line, dashes included.
        **facts: any of
            choices: allowed values; empty for any.
            low, above, high: smallest allowed value, bound that the value has to exceed, largest allowed value.
            count: allowed numbers of values of an option that takes several; empty for one or more.
            repeats: whether an option that takes several may be given several times on the command line.
            empty: whether an empty text means something, as it does wherever it is the default.
            named: what the text names ("a recipe"). An empty text on the command line is then refused: it mostly comes
                from a variable that a script has not set.
            saved: whether the option belongs into `args.yaml`, and counts when two sets of options are compared.
            kinds: kinds of data ("image", "event", "sequence") that the option is for; empty for all.
            tasks: those of `--task` that a task's option is for; empty for all.
            needs: option without which this one has no effect.
            numbers: whether it may change a number of a training. Paths, speed and output don't, so a run may be
                resumed with another value of such an option.
            refused: why any value but the default is refused.

    Raises:
        TypeError: for a fact of another name.
    """
    if other := facts.keys() - FACTS.keys():
        raise TypeError(f"option() got unexpected facts: {', '.join(sorted(other))}")
    facts = {**FACTS, **facts, "help": text, "aliases": aliases}
    return field(default=default, metadata=facts, compare=facts["saved"])


@dataclass(frozen=True)
class Entry:
    """Describe one option: its group and the values that it takes (made from a field of the groups)."""

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
        known = isinstance(value, (int, float, str)) and isinstance(value, bool) == (self.kind is bool)
        try:
            if known and not (self.kind is int and isinstance(value, float)):
                return self.kind(value)  # YAML reads 1e-3 as a text, so a text may be a number here too
        except (ValueError, OverflowError):
            pass
        raise UserError(self.needs(value))

    def needs(self, value: Any) -> str:
        """Say what the option takes, and what came."""
        return f"{self.flag} needs {_KINDS[self.kind]}; got {quoted(value, 120)}"

    def problems(self, value: Any) -> Iterator[str]:
        """Yield each rule of the option that the value breaks."""
        if refused := self.metadata["refused"]:
            if value != self.default:
                yield f"{self.flag} is refused: {refused}"
            return
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
        choices = self.metadata["choices"]
        if isinstance(value, str) and (len(value) > _LONGEST or _CONTROL.search(value)):
            return f"a text of at most {_LONGEST} characters, none of them a control character"
        if value == "" and not (choices or self.metadata["empty"] or self.default == ""):
            return "a text that isn't empty"
        if isinstance(value, int) and abs(value) >= 2**63:
            return "below 2^63"
        if choices and value not in choices:
            return "one of " + ", ".join(filter(None, choices))
        for fact, (words, holds) in _BOUNDS.items():
            bound = self.metadata[fact]
            if bound is not None and not holds(value, bound):
                return f"{words} {bound:g}"
        return None


def entries(groups: Mapping[str, type]) -> dict[str, Entry]:
    """Describe the fields of all groups, by name."""
    return {
        item.name: _entry(group, item, hints[item.name])
        for group, cls in groups.items()
        for hints in [get_type_hints(cls)]
        for item in fields(cls)
    }


def _entry(group: str, item: Field, hint: Any) -> Entry:
    optional = type(None) in get_args(hint) and get_origin(hint) is not tuple
    if optional:
        hint = get_args(hint)[0]
    many = get_origin(hint) is tuple
    kind = get_args(hint)[0] if many else hint
    return Entry(group, item.name, kind, many, optional, item.default, item.metadata)
