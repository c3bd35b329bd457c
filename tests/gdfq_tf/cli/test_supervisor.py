"""Commands as child processes, ended in every way there is."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# As `main.run` does it.
_START = """
import signal
from gdfq_tf.cli.session import SIGNALS
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
from gdfq_tf.cli.flags import COMMANDS
from gdfq_tf.cli.supervisor import supervise
supervise('command', COMMANDS["verify"].parse(["run"]))
"""
# The child's id comes first, so that a test knows it and that signals are set up.
_HEAD = """
import ctypes, os, signal, sys, tempfile, time, warnings
from pathlib import Path
from gdfq_tf.cli import session
from gdfq_tf.errors import UserError
from gdfq_tf.system.output_directory import claim

def wait():
    print(os.getpid(), flush=True)
    time.sleep(60)
"""
_CLAIM = """
def fill(directory):
    (directory / "student.npz").write_text("hours of work")

def main(values):
    path = Path("run")
    with claim(path, overwrite=False, foreign=lambda path: None) as output:
        session.holds(output.lock, output.partial, output.removed)
        output.save_early(fill)
        session.worth_keeping(output.partial, Path("run-unfinished"))
        {body}
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Starts a command with the body of its `main()`, in a folder of its own."""
    started = []
    folder, temporary = tmp_path / "folder", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()

    def start(body: str, *, program: str = _START, **popen) -> subprocess.Popen:
        if "def main" not in body:
            body = f"def main(values):\n    {body}\n"
        (tmp_path / "command.py").write_text(_HEAD + body)
        paths = [str(tmp_path), *sys.path]
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={
                **{k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"},
                "PYTHONPATH": os.pathsep.join(paths),
                "TMPDIR": str(temporary),
            },
            start_new_session=True,
            **popen,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    stdout, stderr = process.communicate(timeout=30)
    lines = stderr.splitlines(keepends=True)
    told = [line for line in lines if not line.startswith("starting TensorFlow")]
    return process.returncode, stdout, "".join(told)


def one_line(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code and the only line that has been written since."""
    code, _, stderr = finish(process)
    assert stderr.startswith("error: "), stderr
    assert stderr.count("\n") == 1, stderr
    return code, stderr.removeprefix("error: ").removesuffix("\n")


def child_of(process: subprocess.Popen) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def is_alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )
    return False


def until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("print('done')", (0, "done\n", "")),
        ("sys.exit(3)", (3, "", "")),
        ("raise UserError('got 3')", (1, "", "error: got 3\n")),
        ("warnings.warn('less')", (0, "", "warning: less\n")),
        ("raise KeyboardInterrupt", (130, "", "error: interrupted\n")),
    ],
)
def test_what_ends_by_itself_is_passed_on(command, tmp_path, body, expected):
    assert finish(command(body)) == expected
    assert entries(tmp_path / "temporary") == set()


def test_a_bug_keeps_its_traceback(command):
    code, _, stderr = finish(command("raise ValueError('a bug')"))
    assert code == 1
    assert stderr.startswith("Traceback")
    assert stderr.endswith("ValueError: a bug\n")


@pytest.mark.parametrize(
    ("stage", "crash", "expected"),
    [
        (
            "conversion",
            "ctypes.string_at(0)",
            "in stage 'conversion' (SIGSEGV)",
        ),
        (
            "baselines",
            "os.abort()",
            "'baselines' (SIGABRT); the TFLite",
        ),
        (
            "LiteRT on a.tflite",
            "os.abort()",
            "may be damaged: convert it again",
        ),
        ("loading", "os.abort()", "the model file may be damaged"),
        ("after loading", "os.abort()", "'after loading' (SIGABRT); run it again"),
        (
            "generator",
            "os.kill(os.getpid(), signal.SIGKILL)",
            "killed in stage 'generator' (SIGKILL); the system does so when memory",
        ),
    ],
)
def test_crashes_are_one_line_that_names_the_stage(
    command, tmp_path, stage, crash, expected
):
    code, message = one_line(command(f"session.stage({stage!r}); {crash}"))
    assert code == 1
    assert expected in message
    assert entries(tmp_path / "temporary") == set()


def test_crashes_before_the_first_stage(command):
    process = command("import os\nos.abort()\ndef main(values): pass")
    assert "in stage 'starting TensorFlow' (SIGABRT)" in one_line(process)[1]


def test_what_native_code_writes_is_not_shown(command):
    body = (
        "os.write(2, b'note'); sys.stderr.write('ours'); os.system('echo theirs >&2')"
    )
    assert finish(command(body)) == (0, "", "ours")


@pytest.mark.parametrize("to_all", [False, True])
@pytest.mark.parametrize("importing", [False, True])
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (signal.SIGINT, (130, "interrupted")),
        (signal.SIGTERM, (143, "stopped by SIGTERM")),
        (signal.SIGHUP, (129, "stopped by SIGHUP")),
    ],
)
def test_signals_end_in_one_line(
    command, tmp_path, number, expected, importing, to_all
):
    process = command("wait()\ndef main(values): pass" if importing else "wait()")
    child = child_of(process)
    # As a terminal does, and as `kill` does.
    (os.killpg if to_all else os.kill)(process.pid, number)
    assert one_line(process) == expected
    assert not is_alive(child)
    assert entries(tmp_path / "temporary") == set()


def test_a_signal_in_the_first_moment(command):
    """It waits until the supervisor has been imported."""
    program = (
        "import os, signal\n"
        "from gdfq_tf.cli import main\n"
        "block = signal.pthread_sigmask\n"
        "def pthread_sigmask(*args):\n"
        "    block(*args)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    signal.pthread_sigmask = block\n"
        "signal.pthread_sigmask = pthread_sigmask\n"
        "main.run('verify', ['none.tflite'])\n"
    )
    process = command("pass", program=program)
    assert one_line(process) == (130, "interrupted")


def test_a_signal_to_the_child_alone(command):
    process = command("wait()")
    os.kill(child_of(process), signal.SIGINT)
    assert one_line(process) == (130, "interrupted")


def test_signals_that_are_ignored_stay_so(command):
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    body = "print(os.getpid(), flush=True); time.sleep(1); print('done')"
    process = command(body, preexec_fn=ignore)
    child_of(process)
    os.killpg(process.pid, signal.SIGHUP)
    assert finish(process) == (0, "done\n", "")


def test_a_killed_supervisor_takes_the_child_with_it(command, tmp_path):
    process = command("Path(tempfile.gettempdir(), 'file').touch(); wait()")
    child = child_of(process)
    process.kill()
    process.wait()
    until(lambda: not is_alive(child))
    assert len(entries(tmp_path / "temporary")) == 1
    assert finish(command("print('next')")) == (0, "next\n", "")
    assert entries(tmp_path / "temporary") == set()


def test_temporary_directories_of_living_processes_stay(command, tmp_path):
    process = command("print(os.getpid(), flush=True); sys.stdin.read()", stdin=-1)
    child_of(process)
    (used,) = entries(tmp_path / "temporary")
    assert finish(command("pass")) == (0, "", "")
    assert entries(tmp_path / "temporary") == {used}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_nothing(command, tmp_path, number):
    process = command(_CLAIM.format(body="wait()"))
    child_of(process)
    assert len(entries(tmp_path / "folder")) == 2  # lock and partial directory
    process.send_signal(number)
    one_line(process)
    assert entries(tmp_path / "folder") == set()


@pytest.mark.parametrize("body", ["wait()", "os.abort()"])
@pytest.mark.parametrize("begun", [False, True])
def test_the_command_that_goes_on_is_told(command, tmp_path, body, begun):
    """There must be something to go on from."""
    state = tmp_path / "folder" / ".run.state"
    if begun:
        state.mkdir()
    arguments = ["/usr/bin/gdfq", "quantize", "a b.keras"]
    program = f"import sys; sys.argv = {arguments}\n{_START}"
    tell = "session.resumable(Path('.run.state').absolute())"
    process = command(f"{tell}; {body}", program=program)
    if body == "wait()":
        os.kill(child_of(process), signal.SIGTERM)
    _, message = one_line(process)
    told = "; to go on where it was: gdfq quantize 'a b.keras'"
    assert message.endswith(told) == begun
    assert ("go on" in message) == begun
    assert state.exists() == begun


@pytest.mark.parametrize("taken", [False, True])
def test_what_is_worth_it_outlives_a_crash(command, tmp_path, taken):
    folder = tmp_path / "folder"
    if taken:
        (folder / "run-unfinished").mkdir()
    _, message = one_line(command(_CLAIM.format(body="os.abort()")))
    name = "run-unfinished-1" if taken else "run-unfinished"
    assert f"are kept in {name}, from which `gdfq convert`" in message
    assert (folder / name / "student.npz").read_text() == "hours of work"
    assert entries(folder) == {name, *(["run-unfinished"] if taken else [])}


def test_an_earlier_run_is_not_taken_for_an_unfinished_one(command, tmp_path):
    body = "output.partial.rename(output.removed); os.abort()"
    _, message = one_line(command(_CLAIM.format(body=body)))
    assert "kept" not in message
    assert entries(tmp_path / "folder") == set()


def test_after_both_were_killed_the_next_run_clears_up(command, tmp_path):
    process = command(_CLAIM.format(body="wait()"))
    child = child_of(process)
    process.kill()
    process.wait()
    until(lambda: not is_alive(child))
    assert len(entries(tmp_path / "folder")) == 2
    assert finish(command(_CLAIM.format(body="output.publish(fill)"))) == (0, "", "")
    assert entries(tmp_path / "folder") == {"run"}


def test_where_the_system_does_not_tell_a_thread_looks(tmp_path):
    program = (
        "import os, sys, time\n"
        "sys.platform = 'other'\n"
        "from gdfq_tf.system.processes import die_with_parent\n"
        "parent = os.getpid()\n"
        "if child := os.fork():\n"
        "    print(child, flush=True)\n"
        "else:\n"
        "    die_with_parent(parent)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        child = child_of(process)
        time.sleep(0.2)
        assert is_alive(child)
        process.kill()
        until(lambda: not is_alive(child))
