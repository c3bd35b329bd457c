"""The record of a run: which stages there were, and their losses step by step.

Curves, TensorBoard's events and summary.json are all made from it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Sequence

from gdfq_tf.progress import Advance, ExpectedStage, Progress

# Enough for any curve on a page; longer stages are recorded every so many steps.
_MOST_POINTS = 400


@dataclasses.dataclass(frozen=True)
class Point:
    """What a stage told of one step.

    Attributes:
      step: how many steps had gone by.
      seconds: since the stage began.
      metrics: scalars by name, such as losses.
    """

    step: int
    seconds: float
    metrics: dict[str, float]


@dataclasses.dataclass
class StageRecord:
    """One stage.

    Attributes:
      name: as progress calls it.
      total: its steps.
      images_per_step: how many images a step works on, on average; 0: not told.
      started: when it began, seconds since 1970.
      seconds: how long it took.
      points: those of its steps that told metrics, in order.
    """

    name: str
    total: int
    images_per_step: float
    started: float
    seconds: float = 0.0
    points: list[Point] = dataclasses.field(default_factory=list)


class RecordingProgress:
    """Hands everything on to another `Progress` and remembers it.

    Attributes:
      stages: those that have begun so far.
    """

    def __init__(self, shown: Progress) -> None:
        """Takes the one that people see."""
        self.stages: list[StageRecord] = []
        self._shown = shown

    def expect(self, stages: Sequence[ExpectedStage]) -> None:
        """See `Progress.expect`."""
        self._shown.expect(stages)

    @contextlib.contextmanager
    def stage(
        self, name: str, total: int, images_per_step: float = 0.0
    ) -> Iterator[Advance]:
        """See `Progress.stage`."""
        record = StageRecord(name, total, images_per_step, time.time())
        self.stages.append(record)
        started, done, due = time.monotonic(), 0, 0.0
        between = max(1, math.ceil(total / _MOST_POINTS))
        with self._shown.stage(name, total, images_per_step) as shown:

            def advance(n: int = 1, **metrics: float) -> None:
                nonlocal done, due
                done += n
                if metrics and (done >= due or done >= total):
                    due = done + between
                    seconds = time.monotonic() - started
                    record.points.append(Point(done, seconds, dict(metrics)))
                shown(n, **metrics)

            yield advance
        record.seconds = time.monotonic() - started


def titles(names: Sequence[str]) -> list[str]:
    """Names of stages with a number where one comes again: refinement 2."""
    counted: collections.Counter[str] = collections.Counter()
    found = []
    for name in names:
        counted[name] += 1
        found.append(name if counted[name] == 1 else f"{name} {counted[name]}")
    return found
