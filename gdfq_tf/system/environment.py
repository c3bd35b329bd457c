"""Environment variables that packages set when they are imported, put back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def kept_variable(name: str) -> Iterator[None]:
    """The variable is afterwards what it was before, set or not."""
    value = os.environ.get(name)
    try:
        yield
    finally:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
