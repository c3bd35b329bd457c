"""Checkpoints of a run of several processes: one keeps them, all go on from them."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from gdfq_tf.checkpoints import Arrays, Checkpoint, Checkpoints
from gdfq_tf.distribution.strategies import Strategy, from_chief, num_processes


def shared_checkpoints(checkpoints: Checkpoints, strategy: Strategy) -> Checkpoints:
    """Checkpoints of which all processes of a run have the chief's.

    Those of the others need keep nothing.
    """
    if num_processes(strategy) == 1:
        return checkpoints
    return _SharedCheckpoints(checkpoints, strategy)


@dataclasses.dataclass(frozen=True)
class _SharedCheckpoints:
    own: Checkpoints
    strategy: Strategy

    def of(self, stage: str, **facts: object) -> _SharedCheckpoint:
        """See `Checkpoints.of`."""
        return _SharedCheckpoint(self.own.of(stage, **facts), self.strategy)


@dataclasses.dataclass(frozen=True)
class _SharedCheckpoint:
    """The methods of all processes exchange something: they call the same ones."""

    own: Checkpoint
    strategy: Strategy

    def finished(self) -> Arrays | None:
        """See `Checkpoint.finished`."""
        return self._of_chief(self.own.finished())

    def unfinished(self) -> Arrays | None:
        """See `Checkpoint.unfinished`."""
        return self._of_chief(self.own.unfinished())

    def is_due(self) -> bool:
        """See `Checkpoint.is_due`."""
        return bool(from_chief(self.strategy, b"due" if self.own.is_due() else b""))

    def keep(self, state: Callable[[], Arrays]) -> None:
        """See `Checkpoint.keep`; states of replicas are gathered in all processes."""
        if self.is_due():
            kept = state()
            self.own.keep(lambda: kept)

    def finish(self, state: Arrays) -> None:
        """See `Checkpoint.finish`."""
        self.own.finish(state)

    def _of_chief(self, state: Arrays | None) -> Arrays | None:
        written = io.BytesIO()
        if state is not None:
            arrays: dict[str, Any] = dict(state)
            np.savez(written, **arrays)
        read = from_chief(self.strategy, written.getvalue())
        if not read:
            return None
        with np.load(io.BytesIO(read), allow_pickle=False) as read_arrays:
            return dict(read_arrays)
