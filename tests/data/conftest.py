"""Lets the tests in the folders below import the three modules of writers that lie beside this file."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
