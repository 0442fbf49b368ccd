"""The method of --convert, and its options as --convert-kwargs gives them."""

from dataclasses import fields
from typing import Any, get_type_hints

from ..conversion import Method
from ..conversion.methods import find_method
from ..errors import UserError, quoted
from ..recipe import Options, keywords
from ..recipe.values import fits

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
        if not fits(value, known[name]):
            kind = known[name].__name__ if isinstance(known[name], type) else known[name]
            raise UserError(f"--convert-kwargs {name}: {method.name} takes {kind}; got {quoted(value, 60)}")
    try:
        method.chosen(given)
    except UserError as error:
        raise UserError(f"--convert-kwargs: {error}") from error
    return method, given
