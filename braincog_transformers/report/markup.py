"""HTML from Python calls; whatever is not markup already is escaped."""

import re
from html import escape

__all__ = ["Markup", "join", "tag"]

_VOID = {"img", "link", "meta"}
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def _escaped(text: object) -> str:
    """Escape text, characters that HTML does not allow being replaced."""
    return text if isinstance(text, Markup) else escape(_FORBIDDEN.sub("\ufffd", str(text)))


def join(*parts: object) -> Markup:
    """Put markup and text together, the text escaped; None is left out."""
    return Markup("".join(_escaped(part) for part in parts if part is not None))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """Build one element, of HTML or SVG.

    Args:
        name: of the element.
        children: markup or text; None is left out.
        attributes: a trailing underscore is dropped, others become hyphens; None and False leave an attribute out, True
            leaves it without a value.
    """
    given = [(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items()]
    written = "".join(
        f" {key}" if value is True else f' {key}="{_escaped(value)}"'
        for key, value in given
        if value is not None and value is not False
    )
    return Markup(f"<{name}{written}>" if name in _VOID else f"<{name}{written}>{join(*children)}</{name}>")
