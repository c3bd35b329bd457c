"""Runs of several processes: who writes, and what is said when one is lost."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.gdfq_tf.distribution.processes import cluster, start
from tests.tiny import build_tiny_classifier

pytestmark = pytest.mark.slow


@pytest.fixture
def quantize(tmp_path):
    """Starts `gdfq quantize` in each process of a cluster; ends them all."""
    build_tiny_classifier().save(tmp_path / "tiny.keras")
    processes = []

    def begin(task, *flags):
        processes.append(
            start(
                "tools.quantize",
                tmp_path / "tiny.keras",
                "--preprocessing=tf",
                "--bits=w8a8",
                f"--output_dir={tmp_path / 'run'}",
                "--distribution=multi_worker",
                *flags,
                task=task,
            )
        )
        return processes[-1]

    yield begin
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def read_until(process, text):
    """What the process writes to standard error, up to a line with that text."""
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"{text} never came")


def error_of(process):
    """The one line that ends it."""
    lines = process.stderr.read().splitlines()
    (error,) = (line for line in lines if line.startswith("error: "))
    assert not any("Traceback" in line for line in lines)
    return error


def test_one_process_writes(quantize, tmp_path):
    first, second = (quantize(task, "--num_steps=1") for task in cluster(2))
    assert "ship tiny_w8a8.tflite" in first.communicate(timeout=300)[0]
    assert "worker 1 of 2 processes: done" in second.communicate(timeout=300)[0]
    assert (first.returncode, second.returncode) == (0, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "tiny.keras"]


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_ends_the_others(quantize, tmp_path, lost):
    processes = [quantize(task, "--num_steps=100000") for task in cluster(2)]
    left = processes[1 - lost]
    read_until(left, "generator: 100000 steps")
    os.killpg(processes[lost].pid, signal.SIGKILL)
    killed = time.monotonic()
    assert left.wait(timeout=60) == 1
    assert time.monotonic() - killed < 60
    assert "another process of the run was lost" in error_of(left)
    assert not (tmp_path / "run").exists()
    if lost == 1:  # by a killed chief nobody is told
        assert (tmp_path / ".run.state").is_dir()


def test_processes_of_other_flags_are_told_so(quantize):
    first, second = cluster(2)
    processes = [quantize(first, "--seed=1"), quantize(second, "--seed=2")]
    assert [process.wait(timeout=300) for process in processes] == [1, 1]
    for process in processes:
        assert "the processes of the run have another seed each" in error_of(process)


def test_the_wait_for_others_can_be_ended(quantize):
    process = quantize(cluster(2)[1])
    read_until(process, "waiting for all processes")
    time.sleep(5)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert "SIGTERM" in error_of(process)
