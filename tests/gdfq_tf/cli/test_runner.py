"""How commands end, and that TensorFlow is quiet about it."""

from __future__ import annotations

import logging
import os
import pathlib
import subprocess
import sys
import warnings

import pytest

from gdfq_tf.cli import runner
from gdfq_tf.cli.flags import COMMANDS
from gdfq_tf.errors import ExportError, UserError, option
from tests import ROOT


@pytest.fixture
def run(capsys):
    """Runs `main`: (exit code, stdout, stderr)."""

    def call(main, *verbosity):
        with pytest.raises(SystemExit) as done:
            runner.run(main, *verbosity)
        return done.value.code or 0, *capsys.readouterr()

    return call


def fails_with(error):
    def main():
        raise error

    return main


def test_what_main_prints_stays(run):
    assert run(lambda: print("done")) == (0, "done\n", "")


@pytest.mark.parametrize("kind", [UserError, ExportError])
def test_users_mistakes_are_one_line(run, kind):
    result = run(fails_with(kind("got 3, expected 4")))
    assert result == (1, "", "error: got 3, expected 4\n")


def test_options_are_flags_here(run):
    error = UserError(
        f"{option('weights', 'x.h5')} and {option('overwrite', True)}; "
        f"see {option('bits')}"
    )
    assert error.options == ("weights", "overwrite", "bits")
    assert str(error) == "weights='x.h5' and overwrite=True; see bits"
    _, _, stderr = run(fails_with(error))
    assert stderr == "error: --weights=x.h5 and --overwrite; see --bits\n"


def test_what_the_file_system_refuses_is_one_line(run):
    def main():
        pathlib.Path("m" * 300).read_bytes()

    code, stdout, stderr = run(main)
    assert (code, stdout) == (1, "")
    assert stderr == f"error: {'m' * 300}: File name too long; check the path\n"


def test_other_errors_of_the_system_are_bugs(run):
    with pytest.raises(OSError, match="a bug"):
        run(fails_with(OSError("a bug")))


def warns():
    warnings.warn("less than hoped", stacklevel=1)


def test_warnings_are_one_line(run):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = run(warns, logging.WARNING)
    assert result == (0, "", "warning: less than hoped\n")


def test_where_only_errors_are_shown_there_are_no_warnings(run):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = run(warns, logging.ERROR)
    assert result == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "shows"),
    [([], True), (["--verbosity=warning"], False), (["--quiet"], False)],
)
def test_progress_is_shown_from_info_on(capsys, arguments, shows):
    progress = runner.CommandProgress(COMMANDS["verify"].parse(["run", *arguments]))
    progress.expect([])
    with progress.stage("rules", 2) as advance:
        advance()
    assert ("rules: 2 steps" in capsys.readouterr().err) == shows


def test_quiet_and_another_verbosity_contradict_each_other():
    with pytest.raises(UserError, match=r"quiet=True and verbosity='debug' contradict"):
        COMMANDS["verify"].parse(["run", "--quiet", "--verbosity=debug"])


def test_bugs_keep_their_traceback(run):
    with pytest.raises(ValueError, match="a bug"):
        run(fails_with(ValueError("a bug")))


def test_interrupt(run):
    assert run(fails_with(KeyboardInterrupt())) == (130, "", "error: interrupted\n")


def test_tensorflow_starts_quietly():
    program = (
        "import gdfq_tf; gdfq_tf.load_classifier; "
        "import tensorflow as tf; from gdfq_tf.api import _start; "
        "_start('none'); print(tf.ones(1))"
    )
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
