"""`gdfq benchmark --device=cortex-m...`, in QEMU where it is installed."""

from __future__ import annotations

import shutil

import pytest

from gdfq_tf.cli.firmware_benchmark import emulate
from tests.tflite_export.litert.test_simulator import NETWORKS
from tflite_export.c99 import emulation
from tflite_export.errors import ExportError
from tflite_export.student_file import save_network


@pytest.fixture
def student(tmp_path):
    path = tmp_path / "x_w8a8_student.npz"
    save_network(NETWORKS["products"][0], path)
    return path


@pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in emulation.TOOLS),
    reason="there is no compiler or emulator of Cortex-M processors",
)
def test_students_and_files_beside_them_are_measured(student):
    file = student.with_name("x_w8a8.tflite")
    rows, tables = emulate([str(student), str(file)], "cortex-m4", profile=True)
    assert [row["model"] for row in rows] == [str(student), str(file)]
    first, second = ({**row, "model": ""} for row in rows)
    assert first == second
    assert first["num_wrong"] == 0
    assert first["arena_lower_bound"] <= first["arena_bytes"]
    steps = first["steps"]
    assert first["instructions"] == sum(step["instructions"] for step in steps) > 0
    assert first["multiply_adds"] == sum(step["multiply_adds"] for step in steps)
    assert [table.row_count for table in tables] == [len(steps), len(steps), 2]


def test_a_missing_tool_is_told(student, monkeypatch):
    monkeypatch.setattr(emulation.shutil, "which", lambda tool: None)
    with pytest.raises(ExportError, match="arm-none-eabi-gcc is not installed; Debian"):
        emulate([str(student)], "cortex-m4", profile=False)


def test_what_a_tool_says_is_told(tmp_path):
    with pytest.raises(ExportError, match=r"sh fails .*\(no such register\); expected"):
        emulation._call(["sh", "-c", "echo no such register >&2; exit 1"], tmp_path)
