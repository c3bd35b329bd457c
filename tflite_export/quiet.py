"""Keeps the notes of C++ libraries off standard error."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import BinaryIO


class Notes:
    """What was written inside a block of `captured_stderr` so far."""

    def __init__(self, sink: BinaryIO) -> None:
        """Takes where it is written to."""
        self._sink = sink
        self._closed = ""

    @property
    def text(self) -> str:
        """All of it, after the block as well."""
        if self._sink.closed:
            return self._closed
        # The descriptor that libraries write to shares this one's position.
        end = os.fstat(self._sink.fileno()).st_size
        return os.pread(self._sink.fileno(), end, 0).decode(errors="replace")

    def close(self) -> None:
        """Keeps the text when the file goes."""
        self._closed = self.text
        self._sink.close()


@contextlib.contextmanager
def captured_stderr() -> Iterator[Notes]:
    """Takes what is written to file descriptor 2 inside the block."""
    saved = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        notes = Notes(sink)
        os.dup2(sink.fileno(), 2)
        try:
            yield notes
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            notes.close()


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Discards what is written to file descriptor 2 inside the block."""
    with captured_stderr():
        yield
