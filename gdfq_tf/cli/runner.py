"""What every command does alike: one-line errors and warnings, stages."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import NoReturn

from absl import flags
from absl import logging as absl_logging

from gdfq_tf.cli import session
from gdfq_tf.errors import UserError, as_flag
from gdfq_tf.progress import Advance, ConsoleProgress

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, the shells' convention


class CommandProgress(ConsoleProgress):
    """Tells the supervisor besides which stage a crash would be in."""

    @contextlib.contextmanager
    def stage(self, name: str, total: int) -> Iterator[Advance]:
        """See `Progress.stage`."""
        session.stage(name)
        with super().stage(name, total) as advance:
            yield advance
        session.stage(f"after {name}")


def run_module(name: str, values: flags.FlagValues) -> NoReturn:
    """Imports a command's module, which takes seconds, runs `main(values)`, exits."""
    # Of a crash, Python is to show a traceback where C++ libraries write: the
    # supervisor says in one line what is to be said.
    faulthandler.enable(2)

    def main() -> None:
        with CommandProgress().stage("starting TensorFlow", 1) as advance:
            module = importlib.import_module(name)
            advance()
        module.main(values)

    run(main)


def run(main: Callable[[], None]) -> NoReturn:
    """Calls `main()` and exits.

    Mistakes a user can fix (`UserError`) and Ctrl-C end in one line on standard error;
    any other exception is a bug and keeps its traceback. Warnings are one line as well.
    """
    warnings.showwarning = _print_warning  # type: ignore[assignment]
    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("tensorflow").setLevel("ERROR")
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


def _print_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _fail(message: str, exit_code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(exit_code)
