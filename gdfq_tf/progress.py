"""How long-running library calls tell their caller how far they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Advance(Protocol):
    """Moves the current stage on by `n` steps and shows scalar metrics."""

    def __call__(self, n: int = 1, **metrics: float) -> None: ...


class Progress(Protocol):
    """Receives the stages of a run, one after the other (they do not nest)."""

    def expect(self, work: float) -> None:
        """Called before the first long stage of a run: the work from there on, in steps
        of that stage, so that a few of them tell how long the run takes."""

    def stage(
        self, name: str, total: int
    ) -> contextlib.AbstractContextManager[Advance]:
        """A context whose value is called as the stage's `total` steps go by."""


class NullProgress:
    """Shows nothing: the default of the library."""

    def expect(self, work: float) -> None:
        """See `Progress.expect`."""

    @contextlib.contextmanager
    def stage(self, name: str, total: int) -> Iterator[Advance]:
        """See `Progress.stage`."""
        yield lambda n=1, **metrics: None
