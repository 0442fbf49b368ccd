"""Import modules that register a user's own networks, neurons and data sets: `--plugin`, and installed packages.

A plugin is a module that calls `models.registry.register`, `nodes.register_node` or `data.register_dataset` when it is
imported. Installed packages name theirs in the entry point group `braincog_transformers.plugins`.
"""

import sys
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

from .errors import UserError, shown

__all__ = ["installed", "load_plugins"]

_GROUP = "braincog_transformers.plugins"


@cache
def installed() -> tuple[EntryPoint, ...]:
    """Return the plugins of installed packages."""
    return tuple(entry_points(group=_GROUP))


def load_plugins(names: Sequence[str] = ()) -> None:
    """Import plugins, each once: those of installed packages, and the named ones.

    Args:
        names: modules on the import path or in the current folder, or `.py` files.

    Raises:
        UserError: for a plugin that does not exist or fails at import.
    """
    for entry in installed():
        _tried(f"plugin {entry.name} of an installed package ({entry.value})", entry.load)
    for name in names:
        if name.endswith(".py"):
            _tried(f"--plugin {shown(name)}", lambda path=Path(name): _import_file(path))
        else:
            _import_module(name)


def _tried(what: str, load: Callable[[], object]) -> None:
    try:
        load()
    except UserError as error:
        raise UserError(f"{what}: {error}") from error
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}, line {last.lineno}"
        raise UserError(f"{what} fails at import: {type(error).__name__}: {shown(error, 200)} ({place})") from error


def _import_module(name: str) -> None:
    what, here = f"--plugin {shown(name)}", str(Path.cwd())
    if here not in sys.path:  # at the end, so that no file there replaces a module
        sys.path.append(here)
    try:
        missing = find_spec(name) is None
    except (ImportError, ValueError):  # no parent, or no name of a module
        missing = True
    if missing:
        raise UserError(f"{what}: no module of this name on the import path or in {here}; a file needs its .py")
    _tried(what, lambda: import_module(name))


def _import_file(path: Path) -> None:
    """Import a file as the module of its name, so that the processes that load data can import it too."""
    path = path.resolve()
    if not path.is_file():
        raise UserError(f"no file {shown(path)}")
    known = sys.modules.get(path.stem)
    if known is not None:
        if getattr(known, "__file__", None) and Path(known.__file__).resolve() == path:
            return
        raise UserError(f"another module is called {path.stem}; give the file another name")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
