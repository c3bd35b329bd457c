from __future__ import annotations

import io
import itertools
import os
import pathlib
import subprocess
import sys
import types
import warnings

import pytest
import rich.console
from absl import flags
from absl.testing import flagsaver

from gdfq_tf.cli import runner
from gdfq_tf.errors import UserError
from tests import ROOT
from tflite_export.errors import ExportError


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs `main` as a tool: (exit code, stdout, stderr)."""
    for name in flags.FLAGS:  # tools imported by other tests require theirs
        monkeypatch.setattr(flags.FLAGS[name], "validators", [])
    flags.DEFINE_integer("test_count", 1, "How many.", lower_bound=1)
    flags.DEFINE_enum("test_kind", "a", ["a", "b"], "Which.")
    flags.DEFINE_string("test_model", None, "A file.", required=True)
    flags.DEFINE_string("test_other", None, "Another file.")

    def call(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["tool", *arguments])
        with pytest.raises(SystemExit) as done:
            runner.run(main)
        return done.value.code or 0, *capsys.readouterr()

    with flagsaver.flagsaver():
        yield call
    for name in ("test_count", "test_kind", "test_model", "test_other"):
        delattr(flags.FLAGS, name)


def fails_with(error):
    def main():
        raise error

    return main


def test_main_sees_the_flags(run):
    def main():
        print(flags.FLAGS.test_count, flags.FLAGS.test_model)

    result = run(main, "--test_model=m.keras", "--test_count=3")
    assert result == (0, "3 m.keras\n", "")


@pytest.mark.parametrize("kind", [UserError, ExportError])
def test_users_mistakes_are_one_line(run, kind):
    result = run(fails_with(kind("got 3, expected 4")), "--test_model=m")
    assert result == (1, "", "error: got 3, expected 4\n")


def test_what_the_file_system_refuses_is_one_line(run):
    def main():
        pathlib.Path("m" * 300).read_bytes()

    code, stdout, stderr = run(main, "--test_model=m")
    assert (code, stdout) == (1, "")
    assert stderr == f"error: {'m' * 300}: File name too long; check the path\n"


def test_other_errors_of_the_system_are_bugs(run):
    with pytest.raises(OSError, match="a bug"):
        run(fails_with(OSError("a bug")), "--test_model=m")


def test_help_is_no_failure():
    done = subprocess.run(
        [sys.executable, "tools/convert.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--student" in done.stdout


def test_warnings_are_one_line(run):
    def main():
        warnings.simplefilter("always")
        warnings.warn("less than hoped", stacklevel=1)

    with warnings.catch_warnings():
        result = run(main, "--test_model=m")
    assert result == (0, "", "warning: less than hoped\n")


def test_bugs_keep_their_traceback(run):
    with pytest.raises(ValueError, match="a bug"):
        run(fails_with(ValueError("a bug")), "--test_model=m")


def test_interrupt(run):
    result = run(fails_with(KeyboardInterrupt()), "--test_model=m")
    assert result == (130, "", "error: interrupted\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--test_model=m", "--test_cuont=3"], "test_cuont"),
        (["--test_model=m", "--test_count=x"], "--test_count=x"),
        (["--test_model=m", "--test_count=0"], "positive integer"),
        (["--test_model=m", "--test_kind=c"], "a|b"),
        ([], "--test_model must have a value"),
        (["--test_model=m", "m.keras"], "unexpected argument 'm.keras'"),
    ],
)
def test_wrong_flags_are_one_line(run, arguments, message):
    code, stdout, stderr = run(lambda: print("ran"), *arguments)
    assert (code, stdout) == (2, "")
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert message in stderr


def test_several_missing_flags_are_one_line(run):
    flags.mark_flag_as_required("test_other")
    code, _, stderr = run(lambda: None)
    assert code == 2
    assert stderr.count("\n") == 1
    assert "--test_model must" in stderr
    assert "--test_other must" in stderr


def test_tensorflow_starts_quietly():
    program = "import gdfq_tf.cli.quiet_tensorflow, tensorflow as tf; print(tf.ones(1))"
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("tf.Tensor([1.]")
    assert done.stderr == ""


def show_stage(console: rich.console.Console) -> str:
    with runner.RichProgress(console).stage("fine-tune [w4a8]", 4) as advance:
        advance(loss=0.5)
        advance(3, loss=0.123456, share=1)
    return console.file.getvalue()


def test_progress_without_terminal_is_a_line_at_each_end():
    lines = show_stage(rich.console.Console(file=io.StringIO(), width=20)).splitlines()
    assert lines[0] == "fine-tune [w4a8]: 4 steps"
    assert lines[1].startswith("fine-tune [w4a8]: 0.")
    assert lines[1].endswith(" s loss=0.1235 share=1")
    assert len(lines) == 2


def test_progress_on_a_terminal_is_a_bar():
    console = rich.console.Console(
        file=io.StringIO(), width=120, force_terminal=True, color_system=None
    )
    (last,) = (line for line in show_stage(console).splitlines() if "4/4" in line)
    assert "fine-tune [w4a8]" in last
    assert "loss=0.1235 share=1" in last


def test_stages_follow_each_other_after_an_error():
    console = rich.console.Console(
        file=io.StringIO(), width=120, force_terminal=True, color_system=None
    )
    progress = runner.RichProgress(console)
    with pytest.raises(ValueError, match="stopped"), progress.stage("one", 1):
        raise ValueError("stopped")
    with progress.stage("two", 1) as advance:
        advance()
    assert "two" in console.file.getvalue()


def test_a_stage_without_a_bar_says_how_long_it_will_take(monkeypatch):
    # The first step takes 60 s, building its graph; each after it 2 s.
    times = iter([0.0, 60.0, 78.0, 240.0])
    monkeypatch.setattr(runner.time, "monotonic", lambda: next(times))
    text = io.StringIO()
    console = rich.console.Console(file=text)
    with runner.RichProgress(console).stage("generator", 100) as advance:
        for _ in range(100):
            advance()
    # 9 steps in 18 s: 90 more take 180 s.
    assert text.getvalue().splitlines()[1] == "generator: about 3.0 min to go"


@pytest.mark.parametrize("force_terminal", [False, True])
def test_the_first_stage_says_once_how_long_the_run_will_take(
    monkeypatch, force_terminal
):
    clock = itertools.count(step=2.0)
    monkeypatch.setattr(
        runner, "time", types.SimpleNamespace(monotonic=lambda: next(clock))
    )
    text = io.StringIO()
    console = rich.console.Console(
        file=text, width=120, force_terminal=force_terminal, color_system=None
    )
    progress = runner.RichProgress(console)
    progress.expect(360)
    for name in ("generator", "refinement"):
        with progress.stage(name, 20) as advance:
            for _ in range(20):
                advance()
    # The clock is read after steps 1 and 10: 2 s for 9 steps, 80 s for 360.
    found = [line for line in text.getvalue().splitlines() if "whole run" in line]
    assert len(found) == 1
    assert found[0].strip().endswith("whole run: about 80 s")
