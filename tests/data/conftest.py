"""Lets the tests in the folders below import `writers` and `event_writers`, which lie beside this file."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
