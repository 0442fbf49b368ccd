"""Modules that moved can be imported by their former names, and are loaded only when they are used."""

import importlib
import subprocess
import sys

import pytest

from braincog_transformers import analysis

MOVED = {
    "architecture": "pictures.architecture",
    "attention": "attention_maps",
    "dataflow": "pictures.dataflow",
    "diagram": "pictures.diagram",
    "diagram_layout": "pictures.diagram_layout",
    "look": "pictures.visualize",
    "plot_classes": "pictures.classes",
    "plot_maps": "pictures.maps",
    "plots": "pictures.plots",
}


@pytest.mark.parametrize("name", MOVED)
def test_a_former_name_gives_what_the_module_holds(name):
    old = importlib.import_module(f"{analysis.__name__}.{name}")
    new = importlib.import_module(f"{analysis.__name__}.{MOVED[name]}")
    assert getattr(analysis, name) is old
    assert all(getattr(old, public) is getattr(new, public) for public in new.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = old.nonsense


def test_scripts_that_import_from_former_names_work():
    from braincog_transformers.analysis.diagram import draw_architecture
    from braincog_transformers.analysis.plots import BLUE, save

    from braincog_transformers.analysis import look
    from braincog_transformers.analysis.pictures import diagram, plots, visualize

    assert (draw_architecture, save, BLUE) == (diagram.draw_architecture, plots.save, plots.BLUE)
    assert look.visualize is visualize.visualize


def test_former_names_load_nothing_by_themselves():
    script = (
        "import sys, inspect, braincog_transformers.analysis.diagram as d; inspect.getmodule(len); "
        "assert not hasattr(d, '__file__'); print([m for m in sys.modules if '.pictures' in m])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
