"""Other programs, run to their end."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tflite_export.errors import ExportError
from tflite_export.names import printable


def run_program(  # noqa: PLR0913 - what a process may be given
    command: Sequence[str],
    *,
    expected: str,
    name: str | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    text: str = "",
    seconds: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """What a program prints, which ends without an error.

    Args:
      command: the program and its arguments.
      expected: the end of errors: what it needs, or what to do.
      name: as errors call it; None: as it is called.
      folder: that it runs in; None: this one.
      environment: None: this process's.
      text: its standard input.
      seconds: that it may take; None: any number.

    Raises:
      ExportError: it cannot be started, takes too long or fails.
    """
    name = name or command[0]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except OSError as error:
        raise ExportError(
            f"{name} cannot be started ({error.strerror}); {expected}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"{name} takes more than {seconds} seconds; {expected}"
        ) from error
    if done.returncode:
        reason = last_line(done.stderr) or last_line(done.stdout) or "no reason given"
        raise ExportError(
            f"{name} fails with status {done.returncode} ({reason}); {expected}"
        )
    return done


def last_line(text: str) -> str:
    """The last line that says something; empty if none does."""
    (*_, last) = ["", *text.strip().splitlines()]
    return printable(last)
