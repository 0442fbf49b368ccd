"""The method of --convert, and its options as --convert-kwargs gives them."""

from dataclasses import fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..conversion import Method
from ..conversion.methods import find_method
from ..errors import UserError, quoted
from ..recipe import Options, keywords

__all__ = ["method_of"]


def method_of(options: Options) -> tuple[Method, dict[str, Any]]:
    """Return the method of a run, and the options that are given for it, checked.

    Raises:
        UserError: for options that the method does not have, or a value that it does not take.
    """
    method, given = find_method(options.convert.convert), keywords(options.convert.convert_kwargs)
    known = get_type_hints(method.options)
    if strange := [name for name in given if name not in known]:
        names = ", ".join(field.name for field in fields(method.options))
        raise UserError(f"--convert-kwargs {', '.join(strange)}: {method.name} has no such option; it has {names}")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    for name, value in given.items():
        if not _fits(value, known[name]):
            kind = getattr(known[name], "__name__", known[name])
            raise UserError(f"--convert-kwargs {name}: {method.name} takes {kind}; got {quoted(value, 60)}")
    try:
        method.chosen(given)
    except UserError as error:
        raise UserError(f"--convert-kwargs: {error}") from error
    return method, given


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value of the command line is of a type; a whole number is a number, too."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple and isinstance(value, tuple):
        kinds = inner[:1] * len(value) if inner[1:] == (...,) else inner
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return hint is Any or isinstance(value, origin or hint)
