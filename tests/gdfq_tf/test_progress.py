"""Bars and lines, and the time to go by a clock of our own."""

from __future__ import annotations

import io

import pytest
import rich.console

from gdfq_tf import progress
from gdfq_tf.progress import ConsoleProgress, ExpectedStage, TimeToGo


def console(width: int = 120, *, terminal: bool = True) -> rich.console.Console:
    return rich.console.Console(
        file=io.StringIO(), width=width, force_terminal=terminal, color_system=None
    )


def show_stage(shown: rich.console.Console) -> str:
    with ConsoleProgress(shown).stage("fine-tune [w4a8]", 4) as advance:
        advance(loss=0.5)
        advance(3, loss=0.123456, share=1)
    return shown.file.getvalue()


def test_without_terminal_a_stage_is_a_line_at_each_end():
    lines = show_stage(console(20, terminal=False)).splitlines()
    assert lines[0] == "fine-tune [w4a8]: 4 steps"
    assert lines[1].startswith("fine-tune [w4a8]: 0.")
    assert lines[1].endswith(" s loss=0.1235 share=1")
    assert len(lines) == 2


def test_on_a_terminal_it_is_a_bar():
    *_, last = (x for x in show_stage(console()).splitlines() if "4/4" in x)
    assert "fine-tune [w4a8]" in last
    assert "loss=0.1235 share=1" in last


@pytest.mark.parametrize("width", [60, 80, 200])
def test_bars_fit_and_metrics_go_first(width):
    shown = console(width)
    reporter = ConsoleProgress(shown)
    reporter.expect([ExpectedStage("generator and student", 10.0)] * 2)
    with reporter.stage("generator and student", 1000) as advance:
        advance(1000, generator=123.4567, student=0.0001234)
    lines = shown.file.getvalue().replace("\x1b[2K", "").splitlines()
    last = [line for line in lines if "1000/1000" in line][-1]
    assert len(last.rstrip()) <= width
    assert "generator and student" in last
    assert ("generator=123.5" in last) == (width == 200)


def test_stages_follow_each_other_after_an_error():
    shown = console()
    reporter = ConsoleProgress(shown)
    with pytest.raises(ValueError, match="stopped"), reporter.stage("one", 1):
        raise ValueError("stopped")
    with reporter.stage("two", 1) as advance:
        advance()
    assert "two" in shown.file.getvalue()


class Clock:
    """`time.monotonic` that stands still unless told to go."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def run_stages(reporter: ConsoleProgress, clock: Clock) -> None:
    for name, of_step in (("generator", 2.0), ("refinement", 1.0)):
        with reporter.stage(name, 100) as advance:
            for _ in range(100):
                clock.now += of_step
                advance()


def test_lines_say_how_long_stage_and_run_will_take(clock):
    shown = console(terminal=False)
    reporter = ConsoleProgress(shown)
    # Twice as slow as expected: 200 s and 100 s.
    reporter.expect([ExpectedStage("generator", 100), ExpectedStage("refinement", 50)])
    run_stages(reporter, clock)
    assert shown.file.getvalue().splitlines() == [
        "generator: 100 steps",
        # 11 steps of 2 s have gone by instead of 11 s: 139 s times 27 / 16 are left.
        "generator: about 3.0 min to go; run: 3.9 min to go",
        "generator: 200.0 s",
        # 50 s times 205 / 105.
        "refinement: 100 steps; run: 1.6 min to go",
        # 44.5 s times 216 / 110.5.
        "refinement: about 89 s to go; run: 87 s to go",
        "refinement: 100.0 s",
    ]


def test_time_to_go_by_hand():
    stages = [ExpectedStage(name, 10.0) for name in ("a", "b", "c", "a")]
    to_go = TimeToGo(stages)
    assert to_go.seconds() is None
    to_go.begin("a")
    assert to_go.seconds() is None  # nothing has gone by
    to_go.advance(0.5)
    # 5 expected seconds took 20, and 5 are taken for granted: 35 * 25 / 10.
    assert to_go.seconds(20.0) == pytest.approx(87.5)
    to_go.end(30.0)
    assert to_go.seconds() == pytest.approx(30 * 35 / 15)
    to_go.begin("x")  # not expected: says nothing
    to_go.end(1000.0)
    assert to_go.seconds() == pytest.approx(30 * 35 / 15)
    to_go.begin("c")  # b was passed over
    to_go.end(10.0)
    assert to_go.seconds() == pytest.approx(10 * 45 / 25)
    to_go.begin("a")
    to_go.end(5.0)
    assert to_go.seconds() == 0.0
