"""Pickles read as descriptions, and arrays of objects in `.npy` files, which are pickles, in the layouts of recordings.

Bullying10K's files are an array of packets, each a structured array; N-Omniglot's, as BrainCog cuts them, one
dictionary of columns. Body models are pickles of Python 2 (`body_models`). Loading a pickle normally calls whatever it
names, and even NumPy's own types can be made to point anywhere in memory. Here nothing that a file names is looked up:
the pickle becomes simple values and descriptions of arrays, and arrays of numbers are made from those after their sizes
were compared.
"""

import codecs
import io
import math
import pickletools
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError, shown
from .arrays import npy_array, npy_heading
from .opening import complete, file_bytes, named

__all__ = ["ARRAY_PARTS", "Described", "Packet", "array_of", "load_npy", "packets_needed", "parsed"]

Packet = np.ndarray | dict[str, np.ndarray]

ARRAY_PARTS = {"numpy.ndarray": "ndarray", "numpy.dtype": "dtype"} | {
    f"numpy.{core}.{name}": name.split(".")[1]
    for core in ("core", "_core")  # of NumPy 1 and 2
    for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
}
"""Names that arrays ask for, and what descriptions call them."""
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
    "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "INT", "LONG", "FLOAT", "UNICODE", "STRING", "SHORT_BINSTRING", "BINSTRING",  # of Python 2
}  # fmt: skip
_TAKEN = {
    "EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "TUPLE": None, "APPEND": 1, "APPENDS": None, "SETITEM": 2,
    "SETITEMS": None, "STACK_GLOBAL": 2, "REDUCE": 2, "NEWOBJ": 2, "BUILD": 1, "LIST": None, "DICT": None, "POP": 1,
}  # fmt: skip
_KEYS = (str, int, float, bool, type(None))
"""How many values an instruction takes from the stack; None for all above the last mark."""
_COLUMNS = {"timestamp", "t", "x", "y", "polarity", "p"}
_SMALLEST = 32
"""Bytes of a packet without events, at least."""
_NUMBER = re.compile(r"[biuf](1|2|4|8)")


def packets_needed() -> AbstractContextManager[None]:
    """Turn whatever is raised within into the line that a file needs packets of columns."""
    return complete("packets of timestamp, x, y and polarity", "needs")


def load_npy(path: Path) -> list[Packet]:
    """Load a `.npy` file of packets of columns; of one of plain numbers, its array alone.

    Raises:
        UserError: for a file that is missing, foreign or truncated, or whose pickle names anything else.
    """
    with named(path):
        raw = file_bytes(path)
        _, _, dtype, start = npy_heading(raw)
        if not dtype.hasobject:
            return [npy_array(raw)]
        if dtype.kind != "O":
            raise UserError("not an array of objects or of plain numbers, but of a mixture; not loaded")
        file = io.BytesIO(raw)
        file.seek(start)
        with complete(".npy array"):
            stored = parsed(file, _known)
        with packets_needed():
            return list(_packets(array_of(stored), len(raw)))


def _packets(parts: Any, most: int) -> Iterator[Packet]:
    """Yield the packets of a list, as long as they aren't more than a file of so many bytes can hold."""
    total = 0
    for part in _of(parts, list):
        if type(part) is dict:
            packet = {name: array_of(column) for name, column in part.items() if name in _COLUMNS}
        else:
            packet = array_of(part)
        columns = packet.values() if type(packet) is dict else [packet]
        # The same bytes can be named any number of times, with two bytes each.
        total += _SMALLEST + sum(_of(column, np.ndarray).size for column in columns)
        if total > most:
            raise ValueError("they hold more numbers than the file has bytes")
        yield packet


class _Named(str):
    """Stand for something that a pickle names."""


@dataclass
class Described:
    """Stand for what a pickle would make by calling something that it names.

    Args:
        name: what is called.
        arguments: what with.
        state: what is then set.
    """

    name: str
    arguments: tuple
    state: Any = None


def _instructions(file: io.BytesIO) -> Iterator[tuple[str, Any]]:
    """Yield a pickle's instructions, each with its value. Texts of Python 2, which may be bytes, keep each byte."""
    while code := file.read(1):
        instruction = pickletools.code2op.get(code.decode("latin-1"))
        if instruction is None:
            raise ValueError(f"it has the instruction {code!r}")
        if instruction.name == "STRING":  # pickletools would refuse what is not ASCII
            yield "STRING", codecs.escape_decode(file.readline().strip()[1:-1])[0].decode("latin-1")
        else:
            yield instruction.name, instruction.arg and instruction.arg.reader(file)
    raise ValueError("it doesn't end")


def parsed(file: io.BytesIO, known: Callable[[str], str]) -> Any:
    """Follow a pickle's instructions; those that arrays and simple containers don't need are refused.

    Args:
        file: the pickle.
        known: gives a name that the pickle asks for as descriptions shall have it, or raises.

    Returns:
        Numbers, texts, lists, tuples and dictionaries, and a `Described` for whatever would be called.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    for name, value in _instructions(file):
        if name in _VALUES:
            stack.append(value)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else value] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[value])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            stack.append([] if name == "EMPTY_LIST" else {})
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "GLOBAL":
            stack.append(_Named(known(value.replace(" ", ".", 1))))
        elif name in _TAKEN:
            count = _TAKEN[name]
            place = marks.pop() if count is None else len(stack) - count
            if not 0 <= place <= len(stack):
                raise ValueError("it takes what is not there")
            taken = stack[place:]
            del stack[place:]
            _compose(name, taken, stack, known)
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"it has the instruction {name}")
    raise ValueError("it doesn't end")


def _compose(name: str, taken: list[Any], stack: list[Any], known: Callable[[str], str]) -> None:
    """Follow an instruction that makes a value of those taken from the stack, or adds them to its last one."""
    if "TUPLE" in name:
        stack.append(tuple(taken))
    elif "APPEND" in name:
        _of(stack[-1], list).extend(taken)
    elif name == "LIST":
        stack.append(taken)
    elif "SETITEM" in name or name == "DICT":
        if name == "DICT":
            stack.append({})
        _of(stack[-1], dict).update(zip(map(_key, taken[::2]), taken[1::2], strict=True))
    elif name == "STACK_GLOBAL":
        stack.append(_Named(known(".".join(_of(part, str) for part in taken))))
    elif name in ("REDUCE", "NEWOBJ"):
        called, arguments = taken
        stack.append(Described(str(_of(called, _Named)), _of(arguments, tuple)))
    elif name == "BUILD":
        _of(stack[-1], Described).state = taken[0]


def _key(value: Any) -> Any:
    if type(value) not in _KEYS:  # tuples in tuples would crash Python's hash
        raise ValueError(f"{type(value).__name__} in the place of a key")
    return value


def _of(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        got, wanted = (name.__name__.strip("_").lower() for name in (type(value), kind))
        raise ValueError(f"{got} in the place of {wanted}")
    return value


def _known(name: str) -> str:
    if name not in ARRAY_PARTS:
        raise UserError(f"asks for {shown(name, 120)}, which is no part of an array and might run code; not loaded")
    return ARRAY_PARTS[name]


def array_of(part: Any) -> Any:
    """Return the array that is described, one of objects as a list; a list of numbers becomes an array."""
    if type(part) in (list, tuple):
        if not all(type(number) in (bool, int, float) for number in part):
            raise ValueError("a list holds more than numbers")
        return np.array(part)
    described = _of(part, Described)
    if described.name == "_reconstruct":
        _, shape, dtype, fortran, content = _of(described.state, tuple)
        if type(content) is list:
            return content
        return _numbers(content, dtype, shape, "F" if fortran else "C")
    if described.name == "_frombuffer":
        content, dtype, shape, order = described.arguments
        return _numbers(content, dtype, shape, "F" if order == "F" else "C")
    if described.name == "scalar":
        dtype, content = described.arguments
        return _numbers(content, dtype, (), "C")
    raise ValueError(f"it describes no array, but {described.name}")


def _numbers(content: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    kind = _dtype(dtype)
    sides = [_of(side, int) for side in _of(shape, tuple)]
    content = _bytes(content)
    if type(content) not in (bytes, bytearray) or min(sides, default=0) < 0:
        raise ValueError("an array has no numbers")
    if math.prod(sides) * kind.itemsize != len(content):
        raise ValueError("an array has another number of bytes than its shape")
    return np.frombuffer(content, kind).reshape(sides, order=order)


def _bytes(content: Any) -> Any:
    """Return the bytes of Python 2, as which a text stands there, and those that Python 3 writes for it."""
    if type(content) is Described and content.name == "_codecs.encode":
        content = content.arguments[0]
    return content.encode("latin-1") if type(content) is str else content


def _dtype(part: Any, *, of_field: bool = False) -> np.dtype:
    """Return the type that is described, of numbers or, except for a field, of fields of numbers."""
    described = _of(part, Described)
    code, state = _of(described.arguments[0], str), _of(described.state, tuple)
    if described.name != "dtype":
        raise ValueError(f"{described.name} in the place of a type")
    if _NUMBER.fullmatch(code):
        return np.dtype((state[1] if state[1] in ("<", ">") else "=") + code)
    if of_field:
        raise ValueError("a field holds other things than numbers")
    fields = _of(state[4], dict)
    chosen = [(name, fields[name]) for name in _of(state[3], tuple) if name in _COLUMNS]
    # NumPy refuses fields that end behind the size of an item; other types than numbers are not made.
    return np.dtype(
        {
            "names": [name for name, _ in chosen],
            "formats": [_dtype(field[0], of_field=True) for _, field in chosen],
            "offsets": [_of(field[1], int) for _, field in chosen],
            "itemsize": _of(state[5], int),
        }
    )
