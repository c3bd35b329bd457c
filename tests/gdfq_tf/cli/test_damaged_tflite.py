"""Damaged `.tflite` files through the commands that run them: a result or one line.

GDFQ_NUM_DAMAGED_FILES sets how many; the suite runs few.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tiny_tflite import classifier, convert

NUM_FILES = 3 * int(os.environ.get("GDFQ_NUM_DAMAGED_FILES", "10"))
SHAPE = (8, 8, 3)

# Processes that have imported a command, as that takes longest. Each line of standard
# input is the arguments of one start, each line of standard output its exit code.
_HEAD = """
import contextlib, importlib, json, os, resource, sys
command, folder = sys.argv[1:]
importlib.import_module(command)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
"""
# Forks a supervised command for each.
_SUPERVISED = f"""{_HEAD}
from gdfq_tf.cli.main import run
for line in sys.stdin:
    child = os.fork()
    if not child:
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            with open(f"{{folder}}/{{name}}", "w") as file:
                os.dup2(file.fileno(), descriptor)
        run(command.rpartition(".")[2], json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
# TensorFlow does not survive a fork: runs one after the other, until one crashes.
_UNSUPERVISED = f"""{_HEAD}
from gdfq_tf.cli import runner
from gdfq_tf.cli.flags import COMMANDS
for line in sys.stdin:
    values = COMMANDS[command.rpartition(".")[2]].parse(json.loads(line))
    with open(f"{{folder}}/stdout", "w") as out, open(f"{{folder}}/stderr", "w") as err:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runner.run(lambda: sys.modules[command].main(values))
            except SystemExit as end:
                code = end.code or 0
    print(code, flush=True)
"""


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """A copy with one to three bits or bytes changed, or with its end gone."""
    data = bytearray(content)
    if rng.integers(10) == 0:
        return bytes(data[: rng.integers(len(data))])
    for _ in range(rng.integers(1, 4)):
        position = rng.integers(len(data))
        if rng.integers(2):
            data[position] ^= 1 << rng.integers(8)
        else:
            data[position] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
    return bytes(data)


class Starter:
    """Starts a command again and again, on `folder`/model.tflite."""

    def __init__(self, program: str, command: str, folder: Path, arguments: list[str]):
        self._program = [sys.executable, "-c", program, f"gdfq_tf.cli.{command}"]
        self._folder = folder
        self._line = json.dumps([f"--model={folder / 'model.tflite'}", *arguments])
        self._process: subprocess.Popen | None = None

    def __call__(self, tflite: bytes) -> tuple[int, str, str]:
        """Exit code, or minus the number of a signal; standard output and error."""
        (self._folder / "model.tflite").write_bytes(tflite)
        process = self._process or self._start()
        print(self._line, file=process.stdin, flush=True)
        if not (code := process.stdout.readline()):
            self.close()
            self._process = None
            return process.returncode, "", ""
        stdout, stderr = (
            (self._folder / name).read_text() for name in ("stdout", "stderr")
        )
        told = [x for x in stderr.splitlines(True) if not x.startswith("starting ")]
        return int(code), stdout, "".join(told)

    def _start(self) -> subprocess.Popen:
        self._process = subprocess.Popen(
            [*self._program, str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self._process

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()


@pytest.mark.parametrize(
    ("command", "program", "arguments"),
    [
        ("benchmark", _SUPERVISED, ["--num_runs=1", "--warmup_runs=0"]),
        ("evaluate", _UNSUPERVISED, ["--preprocessing=tf", "--data={folder}/data.npz"]),
    ],
)
def test_damaged_files_end_in_a_result_or_one_line(
    request, tmp_path, command, program, arguments
):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, *SHAPE)).astype(np.uint8)
    np.savez(tmp_path / "data.npz", x_test=pixels, y_test=np.array([0, 1]))
    sound = convert(lambda x: classifier(x, bits=8), (1, *SHAPE))
    arguments = [text.format(folder=tmp_path) for text in arguments]
    start = Starter(program, command, tmp_path, arguments)
    request.addfinalizer(start.close)
    code, stdout, stderr = start(sound)
    assert (code, stderr) == (0, "")
    assert "model.tflite" in stdout
    refused = 0
    for _ in range(NUM_FILES):
        code, stdout, stderr = start(damaged(sound, rng))
        if code == 0:
            assert "model.tflite" in stdout
            assert stderr == ""
        elif code == 1:
            assert stdout == ""
            assert stderr.startswith("error: ")
            assert stderr.count("\n") == 1
            refused += 1
        else:  # a crash, which the supervisor would have told
            assert program is _UNSUPERVISED
            assert code < 0
    assert refused
