"""What a command tells its supervisor, should it be killed or crash.

Without a supervisor, as in tests, nobody is told.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
from pathlib import Path

# What asks a command to end; the supervisor ends it.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_channel: int | None = None
_fallback_directory: Path | None = None


def connect(channel: int, temporary_directory: Path) -> None:
    """Called once, in the command's process.

    Args:
      channel: descriptor of the pipe to the supervisor.
      temporary_directory: for this process alone; the supervisor removes it.
    """
    global _channel, _fallback_directory
    _channel = channel
    _fallback_directory = Path(tempfile.gettempdir())
    os.environ["TMPDIR"] = str(temporary_directory)
    tempfile.tempdir = None  # to be found out anew


def fallback_directories() -> tuple[Path, ...]:
    """Where a finished run may go that cannot be written where it should."""
    directories = [_fallback_directory or Path(tempfile.gettempdir())]
    with contextlib.suppress(RuntimeError):  # there is no home
        directories.append(Path.home())
    return tuple(directories)


def stage(name: str) -> None:
    """What the command does from now on."""
    _tell({"stage": name})


def holds(lock: Path, *unfinished: Path) -> None:
    """A lock file and the directories that it guards, see `file_system.locked`.

    All are to be removed if the command is killed.
    """
    _tell({"lock": str(lock), "unfinished": [str(path) for path in unfinished]})


def worth_keeping(partial: Path, name: Path) -> None:
    """An unfinished output that holds what a crash should not take.

    It is to be kept as `name`, or behind it if that is taken.
    """
    _tell({"keep": str(partial), "as": str(name)})


def resumable(state: Path) -> None:
    """A directory from which the same command goes on where it was."""
    _tell({"state": str(state)})


def _tell(message: dict[str, str | list[str]]) -> None:
    if _channel is not None:
        with contextlib.suppress(OSError):
            os.write(_channel, json.dumps(message).encode() + b"\n")
