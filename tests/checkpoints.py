"""Checkpoints in memory, which end a stage where a test wants."""

from __future__ import annotations

import json

import numpy as np


class KilledError(Exception):
    """The process is gone."""


class MemoryCheckpoints:
    """Keeps every state that it is offered, and is killed after so many of them."""

    def __init__(self, num_keeps: int | None = None) -> None:
        self.num_keeps = num_keeps
        self.states: dict[str, tuple[bool, dict[str, np.ndarray]]] = {}

    def of(self, stage, **facts):
        key = f"{stage} {json.dumps(facts, sort_keys=True, default=str)}"
        return _MemoryCheckpoint(self, key)


class _MemoryCheckpoint:
    def __init__(self, of: MemoryCheckpoints, key: str) -> None:
        self._of, self._key = of, key

    def finished(self):
        finished, state = self._of.states.get(self._key, (False, None))
        return state if finished else None

    def unfinished(self):
        finished, state = self._of.states.get(self._key, (True, None))
        return None if finished else state

    def keep(self, state):
        self._of.states[self._key] = (False, _copied(state()))
        if self._of.num_keeps is not None:
            self._of.num_keeps -= 1
            if self._of.num_keeps < 0:
                raise KilledError

    def finish(self, state):
        self._of.states[self._key] = (True, _copied(state))


def _copied(state):
    """As a file holds it, whatever becomes of the arrays."""
    return {name: np.array(array) for name, array in state.items()}
