"""The package's imports are those that the table in docs/architecture.md allows, and go in no circle."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

import braincog_transformers

PACKAGE = Path(braincog_transformers.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
MODULES = {path.relative_to(PACKAGE).with_suffix("").parts: path for path in sorted(PACKAGE.rglob("*.py"))}


def _target(module, level, name):
    """Return the module that `from` + `level` dots + `name` means in `module`, as its parts below the package."""
    folder = module[: len(module) - level]
    return (*folder, *name.split(".")) if name else folder


def _nodes(node, functions):
    """Yield all that is below a node, with or without what stands in functions."""
    for child in ast.iter_child_nodes(node):
        if functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from _nodes(child, functions)


def _imports(module, functions=True):
    """Yield the modules of the package that a module imports, with the line."""
    for node in _nodes(ast.parse(MODULES[module].read_text(encoding="utf-8")), functions):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = _target(module, node.level, node.module)
            for name in node.names:
                found = (*base, name.name)
                for target in (found, (*found, "__init__"), base, (*base, "__init__")):
                    if target in MODULES:
                        yield target, node.lineno
                        break
                else:
                    raise AssertionError(f"{MODULES[module]}:{node.lineno} imports what is not there")


def _place(module):
    return module[0]


def _table(text):
    """Return the places that each place may import from, as the page's first table says."""
    allowed = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[0].startswith("`"):
            places = [re.sub(r"/$|\.py$", "", name) for name in re.findall(r"`([^`]+)`", cells[0])]
            targets = re.findall(r"`([^`]+)`", cells[2])
            assert targets or cells[2] == "nothing", line
            allowed |= {place: set(targets) for place in places}
    return allowed


@pytest.fixture(scope="module")
def allowed():
    if not PAGE.exists():
        pytest.skip("docs/architecture.md is not beside the tests")
    return _table(PAGE.read_text(encoding="utf-8"))


def test_every_place_is_in_the_table(allowed):
    assert {_place(module) for module in MODULES} <= allowed.keys()
    assert set().union(*allowed.values()) <= allowed.keys()


def test_imports_are_those_that_the_table_allows(allowed):
    wrong = [
        f"{MODULES[module]}:{line} imports {_place(target)}"
        for module in MODULES
        for target, line in _imports(module)
        if _place(target) not in {_place(module), *allowed[_place(module)]}
    ]
    assert not wrong, "\n".join(wrong)


def test_places_import_downwards(allowed):
    """Those in the table stand above all that they import."""
    order = list(allowed)
    upwards = [(place, t) for place, targets in allowed.items() for t in targets if order.index(t) < order.index(place)]
    assert not upwards


def test_modules_do_not_import_each_other_in_a_circle():
    """What a function imports when it is called is left out."""
    graph = {m: {target for target, _ in _imports(m, functions=False) if target != m} for m in MODULES}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_the_root_holds_few_files():
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert files <= {
        "__init__.py", "__main__.py", "_braincog.py", "errors.py", "export.py", "files.py", "plugins.py", "py.typed",
        "search.py", "version.py",
    }  # fmt: skip
