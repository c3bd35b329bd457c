"""Measurements and long checks, run from a checkout; not installed."""

from __future__ import annotations

import sys


def command(module: str) -> str:
    """The command line that runs a module here as it runs now."""
    return " ".join(["python -m", module, *sys.argv[1:]])
