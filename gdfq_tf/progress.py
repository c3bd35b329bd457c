"""How long-running calls tell how far they are, and the lines that people see."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import rich.console
    import rich.progress

# So much weight has the guess that this machine is as fast as the one measured on.
_PRIOR_SECONDS = 5.0
# Logs get one line about a stage in so much time, besides its first and last.
_SECONDS_BETWEEN_LINES = 60.0
# Terminals show as much as they have room for, what says least goes first.
_WIDTH_WITH_LOSS = 80
_WIDTH_WITH_BAR = 105
_WIDTH_WITH_METRICS = 150
_LOSS = "loss"


# Shows the current stage as it stands, with the latest metrics.
_Show = Callable[[Mapping[str, float]], None]


class Advance(Protocol):
    """Moves the current stage on by `n` steps and shows scalar metrics.

    Those with a slash in their name, such as one of each layer, are for records: lines
    leave them out.
    """

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
        self, name: str, total: int, images_per_step: float = 0.0
    ) -> contextlib.AbstractContextManager[Advance]:
        """A context whose value is called as the stage's `total` steps go by.

        Args:
          name: of the stage.
          total: its steps.
          images_per_step: how many images a step works on, on average; 0: its speed is
            not told in images.
        """


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
    def stage(
        self, name: str, total: int, images_per_step: float = 0.0
    ) -> Iterator[Advance]:
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


class Pace:
    """How far a stage is and how fast it goes.

    Its first step, which builds graphs, does not count as one of its speed.

    Attributes:
      done: steps that have gone by, of `total`.
    """

    def __init__(self, total: int, images_per_step: float) -> None:
        """Begins now."""
        self.done, self.total = 0, total
        self._images_per_step = images_per_step
        self._started = time.monotonic()
        self._first, self._first_ended = 0, self._started

    def advance(self, n: int) -> None:
        """So many steps more have gone by."""
        if not self.done:
            self._first, self._first_ended = n, time.monotonic()
        self.done += n

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._started

    @property
    def images_per_second(self) -> float | None:
        """Images worked on; None while there is no telling."""
        speed = self._steps_per_second()
        if speed is None or not self._images_per_step:
            return None
        return speed * self._images_per_step

    @property
    def seconds_to_go(self) -> float | None:
        """Seconds that its other steps will take; None while there is no telling."""
        speed = self._steps_per_second()
        return None if speed is None else (self.total - self.done) / speed

    def _steps_per_second(self) -> float | None:
        seconds = time.monotonic() - self._first_ended
        counted = self.done - self._first
        return counted / seconds if counted and seconds > 0 else None


class ConsoleProgress:
    """Shows a live line per stage on a terminal or in a notebook, else a log's lines.

    All goes to standard error. The live line has, as far as there is room, a bar, the
    stage's steps, the time to go of stage and run, images per second and the latest
    metrics, the loss before all others. A log has a line where a stage begins and ends
    and at most one a minute between them.
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
    def stage(
        self, name: str, total: int, images_per_step: float = 0.0
    ) -> Iterator[Advance]:
        """See `Progress.stage`."""
        show_stage = self._live_line if self._is_live() else self._lines
        self._time_to_go.begin(name)
        pace = Pace(total, images_per_step)
        with show_stage(name, pace) as show:

            def advance(n: int = 1, **metrics: float) -> None:
                pace.advance(n)
                self._time_to_go.advance(pace.done / total)
                show(metrics)

            yield advance
        self._time_to_go.end(pace.elapsed)

    def _is_live(self) -> bool:
        if self._console.is_jupyter:
            return _has_widgets()
        return self._console.is_terminal

    @contextlib.contextmanager
    def _live_line(self, name: str, pace: Pace) -> Iterator[_Show]:
        import rich.progress

        columns = _columns(self._console.width)
        with rich.progress.Progress(*columns, console=self._console) as bars:
            task = bars.add_task(
                name, total=pace.total, run="", speed="", loss="", metrics=""
            )

            def show(metrics: Mapping[str, float]) -> None:
                bars.update(
                    task,
                    completed=pace.done,
                    run=self._run(pace.elapsed),
                    speed=_format_speed(pace),
                )
                if metrics:
                    loss = {k: v for k, v in metrics.items() if k == _LOSS}
                    bars.update(
                        task,
                        loss=_format_metrics(loss),
                        metrics=_format_metrics(metrics),
                    )

            yield show
            bars.refresh()  # in notebooks nothing else shows the last step

    @contextlib.contextmanager
    def _lines(self, name: str, pace: Pace) -> Iterator[_Show]:
        latest: dict[str, float] = {}
        told = 0.0

        def show(metrics: Mapping[str, float]) -> None:
            nonlocal told
            latest.update(metrics)
            elapsed = pace.elapsed
            if pace.done < pace.total and elapsed - told >= _SECONDS_BETWEEN_LINES:
                told = elapsed
                to_go = pace.seconds_to_go
                self._print(
                    f"{name}: {pace.done}/{pace.total}",
                    _format_metrics(latest),
                    _format_speed(pace),
                    "" if to_go is None else f"{format_duration(to_go)} to go",
                    self._run(elapsed),
                )

        steps = "" if pace.total == 1 else f": {pace.total} steps"
        self._print(f"{name}{steps}", self._run(0.0))
        yield show
        self._print(
            f"{name}: {pace.elapsed:.1f} s",
            _format_metrics(latest),
            _format_speed(pace),
        )

    def _run(self, elapsed: float) -> str:
        seconds = self._time_to_go.seconds(elapsed)
        return "" if seconds is None else f"run {format_duration(seconds)}"

    def _print(self, *parts: str) -> None:
        # Nobody to show it to, or a full disk behind it, is no reason to stop.
        with contextlib.suppress(OSError):
            line = ", ".join(part for part in parts if part)
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def format_duration(seconds: float) -> str:
    """Seconds, or minutes from one and a half on, for people."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _columns(width: int) -> list[rich.progress.ProgressColumn]:
    """What fits into so many characters."""
    import rich.progress
    import rich.table

    def text(field: str) -> rich.progress.ProgressColumn:
        column = rich.table.Column(no_wrap=True, overflow="ellipsis")
        return rich.progress.TextColumn(
            f"{{task.{field}}}", markup=False, table_column=column
        )

    with_metrics = width >= _WIDTH_WITH_METRICS
    of_widths: list[tuple[int, rich.progress.ProgressColumn]] = [
        (0, text("description")),
        (_WIDTH_WITH_BAR, rich.progress.BarColumn(bar_width=None)),
        (0, rich.progress.MofNCompleteColumn()),
        (0, rich.progress.TimeRemainingColumn()),
        (0, text("fields[run]")),
        (_WIDTH_WITH_LOSS, text("fields[speed]")),
        (_WIDTH_WITH_LOSS, text("fields[metrics]" if with_metrics else "fields[loss]")),
    ]
    return [column for needed, column in of_widths if width >= needed]


def _has_widgets() -> bool:
    """Whether bars can move in a notebook; rich asks for ipywidgets there."""
    import importlib.util

    return importlib.util.find_spec("ipywidgets") is not None


def _format_speed(pace: Pace) -> str:
    speed = pace.images_per_second
    if speed is None:
        return ""
    return f"{speed:,.0f} images/s" if speed >= 10 else f"{speed:.1f} images/s"


def _format_metrics(metrics: Mapping[str, float]) -> str:
    shown = {name: float(x) for name, x in metrics.items() if "/" not in name}
    return " ".join(f"{name}={value:.4g}" for name, value in shown.items())
