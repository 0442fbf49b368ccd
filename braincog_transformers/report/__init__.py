"""One HTML file about a run, or about several side by side, that needs no network and no other file."""

from .page import write_report

__all__ = ["write_report"]
