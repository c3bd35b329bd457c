"""Live lines and those of logs, and the time to go by a clock of our own."""

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
    assert lines[1].endswith(" s, loss=0.1235 share=1")
    assert len(lines) == 2


def test_on_a_terminal_it_is_a_live_line():
    *_, last = (x for x in show_stage(console(160)).splitlines() if "4/4" in x)
    assert "fine-tune [w4a8]" in last
    assert "loss=0.1235 share=1" in last


@pytest.mark.parametrize("width", [60, 80, 105, 150])
def test_live_lines_fit_and_tell_the_loss_before_other_metrics(width, clock):
    shown = console(width)
    reporter = ConsoleProgress(shown)
    reporter.expect([ExpectedStage("generator and student", 10.0)] * 2)
    with reporter.stage("generator and student", 1000, 128) as advance:
        advance()
        clock.now += 60.0
        advance(999, loss=123.4567, generator=0.0001234)
    lines = shown.file.getvalue().replace("\x1b[2K", "").splitlines()
    last = [line for line in lines if "1000/1000" in line][-1]
    assert len(last.rstrip()) <= width
    assert "generator and student" in last
    assert "run " in last
    # 999 steps of 128 images in 60 s.
    assert ("2,131 images/s" in last) == (width >= 80)
    assert ("loss=123.5" in last) == (width >= 80)
    assert ("━━━" in last) == (width >= 105)
    assert ("generator=0.0001234" in last) == (width == 150)


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
    for name, of_step in (("generator", 2.0), ("refinement", 0.5)):
        with reporter.stage(name, 100, 8) as advance:
            for step in range(100):
                clock.now += of_step
                advance(loss=step)


def test_logs_get_a_line_a_minute_with_loss_speed_and_time_to_go(clock):
    shown = console(terminal=False)
    reporter = ConsoleProgress(shown)
    # Twice as slow as expected: 200 s and 50 s.
    reporter.expect([ExpectedStage("generator", 100), ExpectedStage("refinement", 25)])
    run_stages(reporter, clock)
    assert shown.file.getvalue().splitlines() == [
        "generator: 100 steps",
        # 30 steps of 2 s have gone by instead of 30 s: 95 s times 65 / 35 are left.
        "generator: 30/100, loss=29, 4.0 images/s, 2.3 min to go, run 2.9 min",
        "generator: 60/100, loss=59, 4.0 images/s, 80 s to go, run 2.1 min",
        "generator: 90/100, loss=89, 4.0 images/s, 20 s to go, run 68 s",
        "generator: 200.0 s, loss=99, 4.0 images/s",
        # 25 s times 205 / 105.
        "refinement: 100 steps, run 49 s",
        "refinement: 50.0 s, loss=99, 16 images/s",
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
