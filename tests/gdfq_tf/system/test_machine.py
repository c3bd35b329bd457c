"""Tests of gdfq_tf.system.machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import tensorflow as tf

from gdfq_tf.errors import UserError
from gdfq_tf.system import machine
from gdfq_tf.system.machine import describe_machine, fix_num_threads

SCRIPT = """
import json, numpy as np, tensorflow as tf
from gdfq_tf.system.machine import describe_machine, fix_num_threads
fix_num_threads(3)
tf.constant(1) + 1
print(json.dumps(describe_machine()))
"""


def test_threads_are_fixed_and_told():
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    told = json.loads(result.stdout)
    assert told["intra_op_threads"] == told["inter_op_threads"] == 3
    assert {library["threads"] for library in told["blas"]} == {1}


def test_threads_cannot_be_fixed_once_they_run():
    tf.constant(1) + 1
    with pytest.raises(UserError, match="was to be 7, and TensorFlow has started"):
        fix_num_threads(7)


def test_threads_not_fixed_are_as_many_as_cpus():
    told = describe_machine()
    assert told["usable_cpus"] == len(os.sched_getaffinity(0))
    assert told["intra_op_threads"] == told["usable_cpus"]
    json.dumps(told)


def test_instruction_sets(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text(
        "processor : 0\nflags\t: fpu sse sse4_1 avx2 fma avx512f avx512_vnni amx_int8 "
        "aes\n\nprocessor : 1\nflags : avx\n"
    )
    expected = ["amx_int8", "avx2", "avx512_vnni", "avx512f", "fma", "sse4_1"]
    assert machine._instruction_sets(path) == expected
    path.write_text("Features : fp asimd asimddp aes\n")
    assert machine._instruction_sets(path) == ["asimd", "asimddp"]
    assert machine._instruction_sets(tmp_path / "none") == []
