"""Run the command line as `python -m braincog_transformers`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
