"""What every command line shares: flags, one-line errors, progress bars."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import NoReturn

import rich.console
import rich.progress
from absl import app, flags
from absl import logging as absl_logging

from gdfq_tf.cli import session
from gdfq_tf.errors import UserError, as_flag
from gdfq_tf.progress import Advance

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, the shells' convention
# Steps after which a stage says how long it and the run will take.
_TIMED_STEPS = 10


def run(main: Callable[[], None]) -> NoReturn:
    """Parses the flags, calls `main()` and exits.

    Mistakes a user can fix (`UserError`, wrong flags) and
    Ctrl-C end in one line on standard error; any other exception is a bug and
    keeps its traceback. Warnings are one line as well.
    """
    warnings.showwarning = _print_warning  # type: ignore[assignment]
    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("tensorflow").setLevel("ERROR")
    try:
        app.run(lambda argv: main(), flags_parser=_parse_flags)
    except UserError as error:
        _fail(error.render(as_flag), EXIT_ERROR)
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}; check the path", EXIT_ERROR)
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    sys.exit(0)  # app.run has exited already; for the type checker


def run_module(module: ModuleType) -> NoReturn:
    """The same with `main()` of a module; --help shows it as if it were the program."""
    for flag in flags.FLAGS.get_key_flags_for_module(module):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    sys.modules["__main__"].__doc__ = module.__doc__

    def main() -> None:
        # Of a crash, absl has Python show a traceback. It goes where C++ libraries
        # write: the supervisor says in one line what is to be said.
        faulthandler.enable(2)
        module.main()

    run(main)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        arguments = flags.FLAGS(argv)
    except SystemExit:  # --help was given, which absl takes for a failure
        sys.exit(0)
    except flags.Error as error:
        # absl gives each missing flag a line of its own.
        message = " ".join(str(error).splitlines())
        _fail(f"{message}; --help lists all flags", EXIT_USAGE)
    if len(arguments) > 1:
        _fail(
            f"unexpected argument {arguments[1]!r}; flags are written --name=value, "
            "--help lists them",
            EXIT_USAGE,
        )
    return arguments


def _print_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _fail(message: str, exit_code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(exit_code)


class RichProgress:
    """A `gdfq_tf.progress.Progress` on the terminal.

    Each stage is a bar with elapsed and remaining time and the latest metrics.
    Where standard error is no terminal, a stage is one line at its start, one
    at its end, and one with the time to go. A few steps into the first stage, a
    line says how long the whole run takes.
    """

    def __init__(self, console: rich.console.Console | None = None) -> None:
        self._console = console or rich.console.Console(stderr=True)
        self._expected = 0.0

    def expect(self, work: float) -> None:
        """See `gdfq_tf.progress.Progress.expect`."""
        self._expected = work

    @contextlib.contextmanager
    def stage(self, name: str, total: int) -> Iterator[Advance]:
        """See `gdfq_tf.progress.Progress.stage`."""
        session.stage(name)
        show_stage = self._bar if self._console.is_terminal else self._lines
        with show_stage(name, total) as show:
            yield self._timed(name, total, show)
        session.stage(f"after {name}")

    def _timed(self, name: str, total: int, show: Advance) -> Advance:
        """`show`, saying once how long the stage and the run will take."""
        done, first_done = 0, 0.0

        def advance(n: int = 1, **metrics: float) -> None:
            nonlocal done, first_done
            show(n, **metrics)
            done += n
            if done == n:  # the first step builds its graph
                first_done = time.monotonic()
            elif done - n < _TIMED_STEPS <= done < total:
                seconds = (time.monotonic() - first_done) / (done - 1)
                if not self._console.is_terminal:
                    to_go = _format_duration(seconds * (total - done))
                    self._print(f"{name}: about {to_go} to go")
                if self._expected:
                    whole = _format_duration(seconds * self._expected)
                    self._print(f"whole run: about {whole}")
                    self._expected = 0.0

        return advance

    @contextlib.contextmanager
    def _bar(self, name: str, total: int) -> Iterator[Advance]:
        columns = (
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TextColumn("eta"),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.fields[metrics]}", markup=False),
        )
        with rich.progress.Progress(*columns, console=self._console) as bars:
            task = bars.add_task(name, total=total, metrics="")

            def show(n: int = 1, **metrics: float) -> None:
                bars.update(task, advance=n)
                if metrics:
                    bars.update(task, metrics=_format_metrics(metrics))

            yield show

    @contextlib.contextmanager
    def _lines(self, name: str, total: int) -> Iterator[Advance]:
        started = time.monotonic()
        latest: dict[str, float] = {}
        self._print(f"{name}: {total} {'step' if total == 1 else 'steps'}")
        yield lambda n=1, **metrics: latest.update(metrics)
        seconds = time.monotonic() - started
        self._print(f"{name}: {seconds:.1f} s {_format_metrics(latest)}".rstrip())

    def _print(self, line: str) -> None:
        # Nobody to show it to, or a full disk behind it, is no reason to stop.
        with contextlib.suppress(OSError):
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def _format_duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _format_metrics(metrics: Mapping[str, float]) -> str:
    return " ".join(f"{name}={float(value):.4g}" for name, value in metrics.items())
