"""Answer `--help` and mistakes at once, although the package imports torch and braincog, which takes seconds.

Importing any module of a package runs the package's `__init__` first. So the package is put into `sys.modules` before
it has run: its submodules can be found, the torch-free ones among them read and check the options, and only a command
line that holds up runs the `__init__`, on the very same module object.
"""

import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec, module_from_spec

__all__ = ["main"]

_PACKAGE = "braincog_transformers"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on `argv` (default: the process's own) and return the exit status."""
    load = None
    if _PACKAGE not in sys.modules:
        spec = find_spec(_PACKAGE)
        package = sys.modules[_PACKAGE] = module_from_spec(spec)
        load = partial(spec.loader.exec_module, package)
    from braincog_transformers import cli

    return cli.main(argv, load=load)
