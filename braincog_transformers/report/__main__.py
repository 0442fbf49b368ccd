"""Write a report: `python -m braincog_transformers.report A [B ...] [--output FILE]`."""

import argparse
import sys
from collections.abc import Sequence

from ..errors import UserError
from .page import write_report

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on `argv` (default: the process's own) and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m braincog_transformers.report", description=write_report.__doc__.split("\n")[0]
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="output folder of a run, or a file in it")
    parser.add_argument(
        "--output", metavar="FILE", help="HTML file to write (default: RUN/report.html, or comparison.html)"
    )
    args = parser.parse_args(argv)
    try:
        path = write_report(args.runs, args.output)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
