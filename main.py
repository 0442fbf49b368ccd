"""Start the command line from a checkout: `python main.py --dataset digits --model spikformer_digits`."""

import sys

from braincog_transformers_main import main

if __name__ == "__main__":
    sys.exit(main())
