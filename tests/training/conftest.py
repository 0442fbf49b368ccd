"""What the tests of training share."""

import pytest
from tiny_run import Run


@pytest.fixture
def run(tmp_path):
    """Return a maker of runs in folders of their own."""

    def make(name: str, **options) -> Run:
        return Run(tmp_path / name, **options)

    return make
