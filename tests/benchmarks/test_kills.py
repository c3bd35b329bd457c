"""Stages are read from the lines that progress writes; tables count by hand."""

from __future__ import annotations

import io

import rich.console

from benchmarks import fault_tables, kills
from gdfq_tf.progress import ConsoleProgress, ExpectedStage


def lines_of(*stages):
    stream = io.StringIO()
    progress = ConsoleProgress(rich.console.Console(file=stream, width=80))
    progress.expect([ExpectedStage(name, 1.0) for name, _ in stages])
    for name, total in stages:
        with progress.stage(name, total, 8.0) as advance:
            for _ in range(total):
                advance(loss=1.5, cross_entropy=0.25)
    return stream.getvalue().splitlines(keepends=True)


def test_lines_of_progress_are_understood():
    stages = (("generator", 12), ("generator and student", 3), ("LiteRT check", 1))
    told = []
    for line in lines_of(*stages):
        if ended := kills._ENDED.fullmatch(line):
            told.append((ended[1], "ends"))
        elif begun := kills._BEGUN.fullmatch(line):
            told.append((begun[1], "begins"))
    assert told == [(name, what) for name, _ in stages for what in ("begins", "ends")]


def test_other_lines_are_no_stages():
    for line in ("note: takes the 128 images\n", "warning: a.state is not used: x\n"):
        assert not kills._BEGUN.fullmatch(line)
        assert not kills._ENDED.fullmatch(line)


def test_kills_are_counted_by_stage(monkeypatch):
    rows = [
        {"stage": "refinement", "place": 4, "seconds_lost": 2.0, "faults": []},
        {"stage": "generator", "place": 3, "seconds_lost": 0.04, "faults": []},
        {"stage": "refinement", "place": 9, "seconds_lost": 31.26, "faults": ["x"]},
    ]
    monkeypatch.setattr(fault_tables, "_read", lambda name: {"kills": rows})
    assert fault_tables.kills().splitlines()[2:] == [
        "| generator | 1 | 1 | 0.0 s |",
        "| refinement | 2 | 1 | 31.3 s |",
        "| all | 3 | 2 | 31.3 s |",
    ]


def test_faults_are_commands_and_their_lines(monkeypatch):
    row = {"fault": "The disk is full", "command": "gdfq x", "lines": ["error: y"]}
    monkeypatch.setattr(fault_tables, "_read", lambda name: [row])
    assert fault_tables.faults() == (
        "The disk is full:\n\n```text\n$ gdfq x\nerror: y\n```"
    )
