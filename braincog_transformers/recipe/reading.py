"""Read a recipe: a YAML file of option names and values, within bounds, each value as its option needs it."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError, quoted, shown
from .groups import ENTRIES

__all__ = ["published", "read_recipe"]

# A recipe lists some two hundred options at most, each with a value or a short list.
_MOST_BYTES = 2**20
_MOST_NAMES = 1000
_MOST_DEPTH = 8
_MOST_ALIASES = 100

# YAML 1.1 reads 1:30 as 90 and 010 as 8; nobody who writes them means that for certain.
_SIXTIES = re.compile(r"[-+]?\d[\d_]*(:[0-5]?\d)+(\.\d*)?")
_OCTAL = re.compile(r"[-+]?0[0-7_]*[1-7][0-7_]*")


def published() -> dict[str, Path]:
    """Return the recipes of the papers by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "published").glob("*.yaml"))}


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Read a recipe: a YAML file of option names and values.

    Args:
        path: of the file, or the name of one that is `published`.

    Raises:
        UserError: no such file, not YAML, not a list of names and values, a name twice, a value that YAML reads as
            something else than it looks like, or a file beyond all bounds.
    """
    path = published().get(str(path), Path(path))
    text = _text(path)
    try:
        loader, pairs = _compose(text)
        if any(_name(key) == "config" for key, _ in pairs):
            raise UserError("a recipe can't name another one with config; copy its lines")
        return {_name(key): _value(loader, _name(key), value) for key, value in pairs}
    except UserError as error:
        raise UserError(f"--config {shown(path)}: {error}") from None


def _compose(text: str) -> tuple[Any, list[tuple[Any, Any]]]:
    """Return YAML's loader, and the nodes of names and values; merged ones (`<<`) first."""
    import yaml

    try:
        _check_bounds(yaml.parse(text, Loader=yaml.SafeLoader))
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None or _is_null(root):
            return loader, []
        if not isinstance(root, yaml.MappingNode):
            kind = "list" if isinstance(root, yaml.SequenceNode) else shown(root.tag.rpartition(":")[2], 40)
            raise UserError(f"needs lines of 'option: value'; got {kind}")
        if len(root.value) > _MOST_NAMES:
            raise UserError(f"more than {_MOST_NAMES} options are no recipe")
        own = _once(_name(key) for key, _ in root.value)
        loader.flatten_mapping(root)
        _once(name for key, _ in root.value if (name := _name(key)) not in own)  # the recipe's own override merged ones
    except UserError:
        raise
    except Exception as error:  # PyYAML's scanner raises what its conversions do, beside its own errors
        raise UserError(f"not valid YAML: {shown(error, 200)}") from None
    return loader, root.value


def _once(names: Iterable[str]) -> set[str]:
    """Return the names as a set; raise `UserError` for those that come twice."""
    counts = Counter(names)
    if repeated := sorted(name for name, count in counts.items() if count > 1):
        raise UserError(f"given twice: {', '.join(shown(name, 60) for name in repeated[:5])}")
    return set(counts)


def _is_null(node: Any) -> bool:
    """Tell whether nothing is written, not even something that a tag calls null."""
    return node.tag.endswith(":null") and node.value in ("", "~", "null", "Null", "NULL")


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            where = f"no file {shown(path)!r} (looked for in {Path.cwd()})"
            raise UserError(f"--config: {where}; give the path of a recipe, or the name of a published one")
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"--config: {shown(path)} can't be read ({shown(error, 120)})") from None
    if len(content) > _MOST_BYTES:
        raise UserError(f"--config {shown(path)}: more than {_MOST_BYTES:,} bytes are no recipe")
    utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"--config {shown(path)}: not valid YAML: {shown(error, 120)}") from None


def _check_bounds(events: Iterator[Any]) -> None:
    """Refuse deep nesting and many aliases before anything is built of them."""
    depth = aliases = 0
    for event in events:
        kind = type(event).__name__
        depth += kind.endswith("StartEvent") - kind.endswith("EndEvent")
        aliases += kind == "AliasEvent"
        if depth > _MOST_DEPTH + 2:  # the stream and the document count, too
            line = event.start_mark.line + 1
            raise UserError(f"more than {_MOST_DEPTH} lists and mappings in each other, in line {line}, are no recipe")
        if aliases > _MOST_ALIASES:
            raise UserError(f"more than {_MOST_ALIASES} aliases are no recipe")


def _name(key: Any) -> str:
    if not isinstance(key.value, str):
        line = key.start_mark.line + 1
        raise UserError(f"needs lines of 'option: value'; line {line} has a list or a mapping in the option's place")
    return key.value


def _value(loader: Any, name: str, node: Any) -> Any:
    """Build the value of an option: a text where the option takes one, else what YAML makes of it."""
    entry = ENTRIES.get(name.replace("-", "_"))
    flag = entry.flag if entry else shown(name, 60)
    if node.id == "sequence" and node.tag.endswith(":seq") and all(one.id == "scalar" for one in node.value):
        return [_scalar(loader, flag, entry, one) for one in node.value]
    return _scalar(loader, flag, entry, node)


def _scalar(loader: Any, flag: str, entry: Any, node: Any) -> Any:
    kind = node.tag.rpartition(":")[2]
    scalar = node.id == "scalar"
    plain = scalar and node.style is None and loader.resolve(type(node), node.value, (True, False)) == node.tag
    written = quoted(node.value, 100) if scalar else "what is written there"
    if entry is not None and entry.kind is str and plain and kind in ("int", "float"):
        return node.value  # 1.10 and 010 stay as they are written
    if plain and kind in ("int", "float") and (_SIXTIES.fullmatch(node.value) or _OCTAL.fullmatch(node.value)):
        value = loader.construct_object(node)
        raise UserError(f"{flag} is written {written}, which YAML reads as {value}; write {value}, or what is meant")
    try:
        value = loader.construct_object(node, deep=True)
    except Exception:  # PyYAML's constructors raise what their conversions do
        raise UserError(f"{flag}: YAML can't make a {shown(kind, 40)} of {written}") from None
    if value is None and not _is_null(node):
        raise UserError(f"{flag} is written {written}, which the tag {shown(node.tag, 40)} makes nothing of")
    if entry is not None and entry.kind is not bool and plain and isinstance(value, bool):
        raise UserError(f"{entry.needs(value)}, YAML's reading of {node.value}; put it in quotes if it is meant")
    return value
