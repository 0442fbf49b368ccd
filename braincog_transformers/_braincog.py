"""Make the installed braincog importable: quietly, and on Python 3.12 and later.

Importing `braincog.base.node.node` pulls in braincog's model zoo, its data sets and so the package `dv`, whose
FlatBuffers helper still imports `imp`, a standard module removed in Python 3.12. The helper reads nothing from it but
`find_module`, to see whether numpy is there. A stand-in with that one function makes the chain, N-Omniglot's reader
included, work as on 3.11.

The chain also prints pygame's banner and timm's warnings about names that braincog registers anew: both are held
back. Installed files stay as they are. This module is imported first by the package, for its effect.
"""

import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from .runtime.kernel_cache import ensure_folder

__all__: list[str] = []


def _find_module(name: str) -> None:
    """Answer as `imp.find_module` did for dv: return when `name` is installed, raise ImportError when not."""
    if importlib.util.find_spec(name) is None:
        raise ImportError(f"No module named {name!r}", name=name)


@contextmanager
def _stand_in_for_imp() -> Iterator[None]:
    """Provide `imp` for the duration of an import where Python no longer has it."""
    if sys.version_info < (3, 12) or "imp" in sys.modules:
        yield
        return
    stand_in = ModuleType("imp", "Stand-in for the removed standard module, as far as the package dv needs it.")
    stand_in.find_module = _find_module
    sys.modules["imp"] = stand_in
    try:
        yield
    finally:
        del sys.modules["imp"]


@contextmanager
def _without_banner() -> Iterator[None]:
    """Keep pygame's banner off the terminal, and the user's environment as it was."""
    before = os.environ.get("PYGAME_HIDE_SUPPORT_PROMPT")
    os.environ["PYGAME_HIDE_SUPPORT_PROMPT"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYGAME_HIDE_SUPPORT_PROMPT"]
        else:
            os.environ["PYGAME_HIDE_SUPPORT_PROMPT"] = before


ensure_folder()  # torchvision, which braincog imports, asks for it
with _stand_in_for_imp(), _without_banner(), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    importlib.import_module("braincog.base.node.node")
    importlib.import_module("braincog.model_zoo.base_module")
