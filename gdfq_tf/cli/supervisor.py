"""Runs a command in a child process, so that whatever ends it ends in one line.

A crash in native code and the system's killing for want of memory take the child; the
parent, which imports no TensorFlow, says in which stage, removes what the
child left and keeps what is worth keeping. SIGINT, SIGTERM and SIGHUP end the child at
once, in the midst of imports and native code, without any clean-up of its own: whatever
it leaves must be whole at every moment, as for SIGKILL.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from absl import flags

from gdfq_tf.cli import session
from gdfq_tf.cli.flags import verbosity_of
from gdfq_tf.cli.session import SIGNALS
from gdfq_tf.system.file_system import (
    LockedError,
    lock_directory,
    locked,
    move_aside,
    rename_to_free_name,
)
from gdfq_tf.system.processes import die_with_parent

EXIT_ERROR = 1
_TEMPORARY_PREFIX = "gdfq-tf-"
_SHOW_CURSOR = "\x1b[?25h"  # a progress bar hides it

# What to do about a crash in a stage, whose name starts like this.
_CRASH_ADVICE = {
    "loading": "the model file may be damaged: save it again from its source",
    "baselines": "the TFLite converter cannot take this network: please report it",
    "conversion": "the TFLite converter cannot take this network: please report it",
    "verification": "LiteRT cannot run the converted network: please report it",
    "LiteRT": "the file may be damaged: convert it again",
    "": "run it again; if it crashes again, please report it",
}
_OUT_OF_MEMORY_ADVICE = (
    "the system does so when memory runs out: close other programs, or take a machine "
    "with more memory or a model with smaller inputs"
)


def supervise(module: str, values: flags.FlagValues) -> NoReturn:
    """Runs `main(values)` of a module in a child process and exits.

    Called with `SIGNALS` blocked, see `main.run`: they stay so until parent and child
    both know what to do about them.

    The exit code is the child's; 1 after a crash, which is told in one line; 128 plus
    the signal's number after SIGINT, SIGTERM or SIGHUP.
    """
    child = 0

    stopped_by: signal.Signals | None = None

    def stop(number: int, frame: object) -> None:
        nonlocal stopped_by
        if child:
            stopped_by = signal.Signals(number)
            # The signal itself could be lost: TensorFlow takes SIGTERM in a cluster.
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    # One that is ignored, as SIGHUP is under nohup, stays so.
    stopping = [s for s in SIGNALS if signal.getsignal(s) != signal.SIG_IGN]
    for number in stopping:
        signal.signal(number, stop)
    try:
        temporary_directory = _make_temporary_directory()
    except OSError as error:
        _fail(f"no temporary directory can be made ({error}); set TMPDIR to one")
    receiver, sender = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if not child:
        os.close(receiver)
        for number in stopping:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        die_with_parent(parent)
        session.connect(sender, temporary_directory)
        _run(module, values)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    os.close(sender)
    messages = _messages(receiver)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    child = 0
    shutil.rmtree(temporary_directory, ignore_errors=True)
    if status >= 0:
        sys.exit(status)
    _tell_of_end(stopped_by or signal.Signals(-status), messages)


def _tell_of_end(killer: signal.Signals, messages: list[dict[str, Any]]) -> NoReturn:
    """What a command that a signal ended has come to, in one line; clears up."""
    kept = _clear(messages, keep=killer not in SIGNALS)
    if sys.stderr.isatty():
        sys.stderr.write(f"{_SHOW_CURSOR}\n")
    advice = _resuming(messages)
    if killer == signal.SIGINT:
        _fail(f"interrupted{advice}", 128 + killer)
    if killer in SIGNALS:
        _fail(f"stopped by {killer.name}{advice}", 128 + killer)
    _fail(_crash_message(killer, messages, kept) + advice)


def _run(module: str, values: flags.FlagValues) -> NoReturn:
    """The command's process."""
    wanted = verbosity_of(values) <= logging.DEBUG
    if not wanted and "TF_CPP_MIN_LOG_LEVEL" not in os.environ:
        _hide_native_notes()
    # What ~/.keras/keras.json says is for other programs.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    from gdfq_tf.cli import runner

    runner.run_module(module, values)


def _hide_native_notes() -> None:
    """Standard error for Python alone.

    C++ libraries write to the descriptor, while they are loaded whatever
    TF_CPP_MIN_LOG_LEVEL says, and when they abort.
    """
    sys.stderr.flush()
    sys.stderr = os.fdopen(
        os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace"
    )
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _make_temporary_directory() -> Path:
    """A directory that is locked while this process or its child lives.

    Those of processes that were killed are removed.
    """
    for path in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY_PREFIX}*"):
        with contextlib.suppress(LockedError, OSError):
            descriptor = lock_directory(path)
            if os.fstat(descriptor).st_uid == os.geteuid():
                shutil.rmtree(path, ignore_errors=True)
            os.close(descriptor)
    while True:
        path = Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX))
        # Between the two another start may take it for a killed process's.
        with contextlib.suppress(LockedError, FileNotFoundError):
            lock_directory(path)
            return path


def _messages(receiver: int) -> list[dict[str, Any]]:
    """What the command told, when it has ended."""
    with os.fdopen(receiver, "rb") as channel:
        return [json.loads(line) for line in channel if line.endswith(b"\n")]


def _clear(messages: list[dict[str, Any]], *, keep: bool) -> list[Path]:
    """Removes what a killed command left unfinished.

    Some may be to be kept and worth it: returns where that is.
    """
    names = {m["keep"]: m["as"] for m in messages if "keep" in m} if keep else {}
    kept = []
    for message in messages:
        if "lock" not in message:
            continue
        # Whoever holds the lock by now has cleared up already.
        with contextlib.suppress(LockedError, OSError), locked(Path(message["lock"])):
            for path in message["unfinished"]:
                if path in names and Path(path).exists():
                    kept.append(_rename(Path(path), Path(names[path])))
                else:
                    shutil.rmtree(path, ignore_errors=True)
    return kept


def _rename(path: Path, name: Path) -> Path:
    try:
        rename_to_free_name(path, name)
        return name
    except FileExistsError:
        return move_aside(path, name)


def _resuming(messages: list[dict[str, Any]]) -> str:
    """The command that goes on where this one was, if there is something to go on."""
    states = [Path(message["state"]) for message in messages if "state" in message]
    if not any(path.is_dir() for path in states):
        return ""
    program, *arguments = sys.orig_argv
    script = Path(sys.argv[0])
    if script.name == "gdfq":  # the console command, which runs Python by itself
        program, arguments = "gdfq", sys.argv[1:]
    return f"; to go on where it was: {shlex.join([program, *arguments])}"


def _crash_message(
    killer: signal.Signals, messages: list[dict[str, Any]], kept: list[Path]
) -> str:
    stages = [m["stage"] for m in messages if "stage" in m]
    stage = stages[-1] if stages else "start"
    if killer == signal.SIGKILL:
        message = f"killed in stage {stage!r} (SIGKILL); {_OUT_OF_MEMORY_ADVICE}"
    else:
        advice = next(a for name, a in _CRASH_ADVICE.items() if stage.startswith(name))
        message = f"native code crashed in stage {stage!r} ({killer.name}); {advice}"
    if not kept:
        return message
    return (
        f"{message}; the students and images finished by then are kept in {kept[0]}, "
        "from which `gdfq convert` makes .tflite files"
    )


def _fail(message: str, exit_code: int = EXIT_ERROR) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(exit_code)
