"""The record of a run: which stages there were, and their losses step by step.

Curves, TensorBoard's events and summary.json are all made from it. A run that was
killed has one record of all its processes: each takes up what those before it left.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gdfq_tf.progress import Advance, ExpectedStage, Progress

# Enough for any curve on a page; longer stages are recorded every so many steps.
_MOST_POINTS = 400


@dataclasses.dataclass(frozen=True)
class Point:
    """What a stage told of one step.

    Attributes:
      step: how many steps had gone by.
      seconds: of work on the stage by then.
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
      seconds: how long it took, in all processes that worked on it.
      earlier_seconds: of those, what earlier processes took.
      processes: those that worked on it, each by when it began, seconds since 1970.
      points: those of its steps that told metrics, in order.
    """

    name: str
    total: int
    images_per_step: float
    started: float
    seconds: float = 0.0
    earlier_seconds: float = 0.0
    processes: list[float] = dataclasses.field(default_factory=list)
    points: list[Point] = dataclasses.field(default_factory=list)

    @classmethod
    def of_dict(cls, fields: Mapping[str, Any]) -> StageRecord:
        """What `dataclasses.asdict` made of one."""
        points = [Point(**point) for point in fields["points"]]
        return cls(**{**fields, "points": points})

    def follow(self, earlier: StageRecord) -> None:
        """Makes it the rest of a stage that an earlier process worked on."""
        self.started = earlier.started
        self.seconds += earlier.seconds
        self.earlier_seconds += earlier.seconds
        self.processes = [*earlier.processes, *self.processes]
        self.points = [*earlier.points, *self.points]


class RecordingProgress:
    """Hands everything on to another `Progress` and remembers it.

    Attributes:
      stages: those that have begun so far, in this process and in those that it goes on
        from.
    """

    def __init__(self, shown: Progress) -> None:
        """Takes the one that people see."""
        self.stages: list[StageRecord] = []
        self._shown = shown
        self._began = time.time()
        self._open: StageRecord | None = None
        self._opened = 0.0
        self._unfinished: list[StageRecord] = []

    def mark(self) -> int:
        """Stands for now, or for when the stage began that is open now."""
        return len(self.stages) - (self._open is not None)

    def since(self, mark: int) -> list[StageRecord]:
        """The stages since a moment; the seconds of one that is open are those so far.

        Args:
          mark: what `mark` gave then.
        """
        self._count_seconds()
        return self.stages[mark:]

    def take_up(self, left: Iterable[StageRecord], *, finished: bool) -> None:
        """Goes on with what an earlier process recorded.

        Args:
          left: its stages, as `since` gave them there.
          finished: whether they will not begin again; of those that do, each is
            followed by the next of its name.
        """
        known = {(stage.name, stage.started) for stage in self.stages}
        for stage in left:
            stage.earlier_seconds = stage.seconds
            if (stage.name, stage.started) in known:
                continue
            if self._open is not None and self._open.name == stage.name:
                self._open.follow(stage)
            elif finished:
                self.stages.append(stage)
            else:
                self._unfinished.append(stage)

    def expect(self, stages: Sequence[ExpectedStage]) -> None:
        """See `Progress.expect`."""
        self._shown.expect(stages)

    def _count_seconds(self) -> None:
        if self._open is not None:
            seconds = self._open.earlier_seconds + time.monotonic() - self._opened
            self._open.seconds = seconds

    @contextlib.contextmanager
    def stage(
        self, name: str, total: int, images_per_step: float = 0.0
    ) -> Iterator[Advance]:
        """See `Progress.stage`."""
        record = StageRecord(
            name, total, images_per_step, time.time(), processes=[self._began]
        )
        for earlier in self._unfinished:
            if earlier.name == name:
                self._unfinished.remove(earlier)
                record.follow(earlier)
                break
        self.stages.append(record)
        self._open, self._opened = record, time.monotonic()
        done, due = 0, 0.0
        between = max(1, math.ceil(total / _MOST_POINTS))
        with self._shown.stage(name, total, images_per_step) as shown:

            def advance(n: int = 1, **metrics: float) -> None:
                nonlocal done, due
                done += n
                if metrics and (done >= due or done >= total):
                    due = done + between
                    self._count_seconds()
                    point = Point(done, record.seconds, dict(metrics))
                    record.points.append(point)
                shown(n, **metrics)

            try:
                yield advance
            finally:
                self._count_seconds()
                self._open = None


def times_resumed(stages: Sequence[StageRecord]) -> int:
    """How many processes have worked on a run that the last one went on with."""
    return max(0, len({x for stage in stages for x in stage.processes}) - 1)


def titles(names: Sequence[str]) -> list[str]:
    """Names of stages with a number where one comes again: refinement 2."""
    counted: collections.Counter[str] = collections.Counter()
    found = []
    for name in names:
        counted[name] += 1
        found.append(name if counted[name] == 1 else f"{name} {counted[name]}")
    return found
