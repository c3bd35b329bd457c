"""How long-running calls tell how far they are, and the bars and lines people see."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import rich.console
    import rich.progress

# Steps after which a stage says how long it will take: the first builds its graph.
_TIMED_STEPS = 10
# So much weight has the guess that this machine is as fast as the one measured on.
_PRIOR_SECONDS = 5.0
# Narrower terminals show no metrics, and then no time gone by.
_WIDTH_WITH_METRICS = 110
_WIDTH_WITH_ELAPSED = 80
_NARROW_BAR = 10


class Advance(Protocol):
    """Moves the current stage on by `n` steps and shows scalar metrics."""

    def __call__(self, n: int = 1, **metrics: float) -> None:
        """So many steps have gone by, with the latest metrics."""


@dataclasses.dataclass(frozen=True)
class ExpectedStage:
    """A stage that is still to come.

    Attributes:
      name: as it will be called.
      seconds: how long it takes on some machine; what counts is how it compares with
        the other stages.
    """

    name: str
    seconds: float


class Progress(Protocol):
    """Receives the stages of a run, one after the other (they do not nest)."""

    def expect(self, stages: Sequence[ExpectedStage]) -> None:
        """Called once, before the first of them, with all stages of a run in order."""

    def stage(
        self, name: str, total: int
    ) -> contextlib.AbstractContextManager[Advance]:
        """A context whose value is called as the stage's `total` steps go by."""


@contextlib.contextmanager
def whole_stage(progress: Progress, name: str) -> Iterator[None]:
    """A stage of one step: what is done within."""
    with progress.stage(name, 1) as advance:
        yield
        advance()


class NullProgress:
    """Shows nothing."""

    def expect(self, stages: Sequence[ExpectedStage]) -> None:
        """See `Progress.expect`."""

    @contextlib.contextmanager
    def stage(self, name: str, total: int) -> Iterator[Advance]:
        """See `Progress.stage`."""
        yield lambda n=1, **metrics: None


class TimeToGo:
    """How long a run will take from now on, told from what it took so far.

    The stages to come are compared with those gone by: the ratio of the time they took
    to the time expected of them is this machine's. It starts at 1, so that the first,
    short ones do not decide alone.
    """

    def __init__(self, stages: Sequence[ExpectedStage]) -> None:
        """Takes all stages in order."""
        self._to_come = list(stages)
        self._expected = 0.0  # of what has gone by
        self._taken = 0.0
        self._current: ExpectedStage | None = None
        self._share = 0.0

    def begin(self, name: str) -> None:
        """The stage of that name begins; stages passed over are not going to come."""
        names = [stage.name for stage in self._to_come]
        if name in names:
            place = names.index(name)
            self._current = self._to_come[place]
            del self._to_come[: place + 1]

    def advance(self, share: float) -> None:
        """So much of the current stage, 0..1, has gone by."""
        self._share = share

    def end(self, seconds: float) -> None:
        """The current stage has ended after so many seconds."""
        if self._current is not None:
            self._expected += self._current.seconds
            self._taken += seconds
        self._current, self._share = None, 0.0

    def seconds(self, elapsed: float = 0.0) -> float | None:
        """Seconds to go; None before anything is known.

        Args:
          elapsed: seconds since the current stage began.
        """
        expected, taken = self._expected, self._taken
        to_come = sum(stage.seconds for stage in self._to_come)
        if self._current is not None:
            expected += self._share * self._current.seconds
            taken += elapsed
            to_come += (1 - self._share) * self._current.seconds
        if expected <= 0:
            return None
        return (taken + _PRIOR_SECONDS) / (expected + _PRIOR_SECONDS) * to_come


class ConsoleProgress:
    """Shows bars on a terminal or in a notebook, lines elsewhere, on standard error.

    A bar has the stage's steps, the time to go of stage and run, and, where there is
    room, the latest metrics. Lines tell when a stage begins and ends and how long it
    and the run will take.
    """

    def __init__(self, console: rich.console.Console | None = None) -> None:
        """Takes the console to write to, or writes to standard error."""
        import rich.console

        self._console = console or rich.console.Console(stderr=True)
        self._time_to_go = TimeToGo([])

    def expect(self, stages: Sequence[ExpectedStage]) -> None:
        """See `Progress.expect`."""
        self._time_to_go = TimeToGo(stages)

    @contextlib.contextmanager
    def stage(self, name: str, total: int) -> Iterator[Advance]:
        """See `Progress.stage`."""
        show_stage = self._bar if self._shows_bars() else self._lines
        self._time_to_go.begin(name)
        started = time.monotonic()
        with show_stage(name, total) as advance:
            yield advance
        self._time_to_go.end(time.monotonic() - started)

    def _shows_bars(self) -> bool:
        if self._console.is_jupyter:
            return _has_widgets()
        return self._console.is_terminal

    @contextlib.contextmanager
    def _bar(self, name: str, total: int) -> Iterator[Advance]:
        import rich.progress

        started, done = time.monotonic(), 0
        columns = _columns(self._console.width)
        with rich.progress.Progress(*columns, console=self._console) as bars:
            task = bars.add_task(name, total=total, metrics="", run="")

            def advance(n: int = 1, **metrics: float) -> None:
                nonlocal done
                done += n
                self._time_to_go.advance(done / total)
                seconds = self._time_to_go.seconds(time.monotonic() - started)
                run = "" if seconds is None else f"run {format_duration(seconds)}"
                bars.update(task, advance=n, run=run)
                if metrics:
                    bars.update(task, metrics=_format_metrics(metrics))

            yield advance
            bars.refresh()  # in notebooks nothing else shows the last step

    @contextlib.contextmanager
    def _lines(self, name: str, total: int) -> Iterator[Advance]:
        started = time.monotonic()
        latest: dict[str, float] = {}
        done, first_step, first_ended = 0, 0, started
        told = total <= _TIMED_STEPS

        def advance(n: int = 1, **metrics: float) -> None:
            nonlocal done, first_step, first_ended, told
            latest.update(metrics)
            done += n
            self._time_to_go.advance(done / total)
            now = time.monotonic()
            if done == n:
                first_step, first_ended = n, now
            elif not told and done - first_step >= _TIMED_STEPS and done < total:
                told = True
                of_step = (now - first_ended) / (done - first_step)
                to_go = format_duration(of_step * (total - done))
                self._print(f"{name}: about {to_go} to go{self._run(now - started)}")

        steps = "" if total == 1 else f": {total} steps"
        self._print(f"{name}{steps}{self._run(0.0)}")
        yield advance
        seconds = time.monotonic() - started
        self._print(f"{name}: {seconds:.1f} s {_format_metrics(latest)}".rstrip())

    def _run(self, elapsed: float) -> str:
        seconds = self._time_to_go.seconds(elapsed)
        return "" if seconds is None else f"; run: {format_duration(seconds)} to go"

    def _print(self, line: str) -> None:
        # Nobody to show it to, or a full disk behind it, is no reason to stop.
        with contextlib.suppress(OSError):
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def format_duration(seconds: float) -> str:
    """Seconds, or minutes from one and a half on, for people."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _columns(width: int) -> list[rich.progress.ProgressColumn]:
    """What fits into so many characters; metrics go first."""
    import rich.progress
    import rich.table

    wide = width >= _WIDTH_WITH_ELAPSED
    columns: list[rich.progress.ProgressColumn] = [
        rich.progress.TextColumn("{task.description}", markup=False),
        rich.progress.BarColumn(bar_width=None if wide else _NARROW_BAR),
        rich.progress.MofNCompleteColumn(),
    ]
    if wide:
        columns.append(rich.progress.TimeElapsedColumn())
    columns += [
        rich.progress.TimeRemainingColumn(),
        rich.progress.TextColumn("{task.fields[run]}", markup=False),
    ]
    if width >= _WIDTH_WITH_METRICS:
        columns.append(
            rich.progress.TextColumn(
                "{task.fields[metrics]}",
                markup=False,
                table_column=rich.table.Column(no_wrap=True, overflow="ellipsis"),
            )
        )
    return columns


def _has_widgets() -> bool:
    """Whether bars can move in a notebook; rich asks for ipywidgets there."""
    import importlib.util

    return importlib.util.find_spec("ipywidgets") is not None


def _format_metrics(metrics: Mapping[str, float]) -> str:
    return " ".join(f"{name}={float(value):.4g}" for name, value in metrics.items())
