"""Runs commands as people do, inside this process."""

from __future__ import annotations

import contextlib
import importlib
import io
import pathlib
import signal
import sys

import pytest

from gdfq_tf.cli import main, runner, session, supervisor
from gdfq_tf.cli.flags import COMMANDS


def run_command(name: str, *arguments: object, **patches: object):
    """(exit code, stdout, stderr) of `gdfq NAME ARGUMENTS`.

    Args:
      patches: attributes of the command's module, replaced meanwhile.
    """
    stdout, stderr = io.StringIO(), io.StringIO()

    def supervise(module, values):
        runner.run(lambda: importlib.import_module(module).main(values))

    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        texts = [str(argument) for argument in arguments]
        patch.setattr(sys, "argv", ["gdfq", name, *texts])
        patch.setenv("COLUMNS", "160")
        patch.setattr(supervisor, "supervise", supervise)
        for attribute, value in patches.items():
            module = importlib.import_module(COMMANDS[name].module)
            patch.setattr(module, attribute, value)
        with pytest.raises(SystemExit) as done:
            main.run(name, texts)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, session.SIGNALS)
    return done.value.code or 0, stdout.getvalue(), stderr.getvalue()


def refusal(
    name: str, *arguments: object, folder: pathlib.Path, code: int = 1, **patches
):
    """The one line that ends a command; nothing in `folder` may have changed."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    exit_code, stdout, stderr = run_command(name, *arguments, **patches)
    assert (exit_code, stdout) == (code, ""), stderr
    lines = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert lines == stderr.splitlines()[-1:], stderr
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    return stderr
