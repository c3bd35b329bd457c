"""What every command does alike: one-line errors and warnings, stages."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from absl import flags
from absl import logging as absl_logging

from gdfq_tf.cli import session
from gdfq_tf.cli.flags import verbosity_of
from gdfq_tf.errors import UserError, as_flag
from gdfq_tf.progress import (
    Advance,
    ConsoleProgress,
    ExpectedStage,
    NullProgress,
    Progress,
)

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, the shells' convention


class CommandProgress:
    """Shows progress if that is asked for, and tells the supervisor of every stage.

    The supervisor is to know which stage a crash was in.
    """

    def __init__(self, values: flags.FlagValues) -> None:
        """Takes the command's flags."""
        self._shows = verbosity_of(values) <= logging.INFO
        self._shown: Progress = ConsoleProgress() if self._shows else NullProgress()

    def expect(self, stages: Sequence[ExpectedStage]) -> None:
        """See `Progress.expect`."""
        self._shown.expect(stages)

    @contextlib.contextmanager
    def stage(
        self, name: str, total: int, images_per_step: float = 0.0
    ) -> Iterator[Advance]:
        """See `Progress.stage`."""
        session.stage(name)
        with self._shown.stage(name, total, images_per_step) as advance:
            yield advance
        session.stage(f"after {name}")

    def note(self, message: str) -> None:
        """A line on standard error about what is no reason to worry."""
        if self._shows:
            print(f"note: {message}", file=sys.stderr)


def run_module(name: str, values: flags.FlagValues) -> NoReturn:
    """Imports a command's module, which takes seconds, runs `main(values)`, exits."""
    # Of a crash, Python is to show a traceback where C++ libraries write: the
    # supervisor says in one line what is to be said.
    faulthandler.enable(2)

    def main() -> None:
        with CommandProgress(values).stage("starting TensorFlow", 1) as advance:
            # What is imported stays, so that it need not be looked through again and
            # again: a collection would take longer than most of what it follows.
            gc.disable()
            module = importlib.import_module(name)
            gc.freeze()
            gc.enable()
            advance()
        module.main(values)

    run(main, verbosity_of(values))


def run(main: Callable[[], None], verbosity: int = logging.INFO) -> NoReturn:
    """Calls `main()` and exits.

    Mistakes a user can fix (`UserError`) and Ctrl-C end in one line on standard error;
    any other exception is a bug and keeps its traceback. Warnings are one line as well.

    Args:
      main: what is run.
      verbosity: the least severe level, of the module `logging`, of what is shown.
    """
    _show_messages(verbosity)
    try:
        main()
    except UserError as error:
        _fail(error.render(as_flag), EXIT_ERROR)
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}; check the path", EXIT_ERROR)
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    sys.exit(0)


def _show_messages(verbosity: int) -> None:
    """Warnings as lines, or not at all; what libraries log for those who debug."""
    if verbosity > logging.WARNING:
        warnings.simplefilter("ignore")
    warnings.showwarning = _print_warning  # type: ignore[assignment]
    if verbosity <= logging.DEBUG:
        logging.basicConfig(level=logging.INFO)
        return
    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("tensorflow").setLevel("ERROR")


def _print_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _fail(message: str, exit_code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(exit_code)
