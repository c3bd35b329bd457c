"""Tests of the command `firmware`."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.command import refusal, run_command
from tests.tiny_network import NetworkBuilder
from tflite_export.student_file import save_network
from tflite_export.tflm.package import FILES


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    b = NetworkBuilder()
    b.kernel("logits", "dense", b.flatten("image"), bits=4)
    save_network(b.build_ops(), folder / "net_w4a8_student.npz")
    (folder / "net_w4a8.tflite").write_bytes(b"its bytes do not matter")
    return folder / "net_w4a8_student.npz"


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_one_compiler_and_the_self_test_passes(student, tmp_path):
    output = tmp_path / "fw"
    arguments = [f"--output_dir={output}", "--num_tests=3", "--labels=a,b,c,d,e"]
    code, stdout, stderr = run_command(
        "firmware", str(student.with_name("net_w4a8.tflite")), *arguments
    )
    assert code == 0, stderr
    assert "3 inputs in the self-test" in stdout
    assert "classes: a, b, c, d, e." in (output / "model.h").read_text()
    done = subprocess.run(
        ["make", "-C", str(output), "test"], capture_output=True, text=True
    )
    assert "3 of 3 inputs give the expected bytes" in done.stdout
    # What make built is no reason to refuse.
    code, _, stderr = run_command("firmware", str(student), *arguments, "--overwrite")
    assert code == 0, stderr
    message = refusal("firmware", str(student), *arguments, folder=tmp_path)
    assert "--overwrite" in message


def test_files_for_tflm(student, tmp_path):
    output, target = f"--output_dir={tmp_path / 'fw'}", "--target=tflm"
    code, stdout, stderr = run_command("firmware", str(student), output, target)
    assert code == 0, stderr
    assert sorted(x.name for x in (tmp_path / "fw").iterdir()) == sorted(FILES)
    assert "16 inputs in the self-test" in stdout and "verified by " in stdout
    assert "! layer 'logits' is dense, 256 to 5" in stdout
    operators = (tmp_path / "fw" / "model_operators.h").read_text()
    # As INT4 kernels of several scales may not be those of a FULLY_CONNECTED.
    assert "AddConv2D" in operators and "AddFullyConnected" not in operators


@pytest.mark.parametrize(
    ("model", "named"),
    [("{folder}", "is a directory"), ("{folder}/nothing.tflite", "nothing_student")],
)
def test_what_is_no_student_is_refused_in_one_line(student, tmp_path, model, named):
    path = model.format(folder=student.parent)
    output = f"--output_dir={tmp_path / 'fw'}"
    assert named in refusal("firmware", path, output, folder=tmp_path)
    assert not (tmp_path / "fw").exists()


def test_files_and_functions_have_the_name(student, tmp_path):
    output = f"--output_dir={tmp_path / 'fw'}"
    code, _, stderr = run_command("firmware", str(student), output, "--name=Eye_2")
    assert code == 0, stderr
    header = (tmp_path / "fw" / "Eye_2.h").read_text()
    assert "void Eye_2_invoke(const int8_t input[EYE_2_INPUT_SIZE]," in header
    message = refusal("firmware", str(student), output, "--name=2", folder=tmp_path)
    assert "--name=2 cannot begin names in C" in message


def test_layouts_have_folders(student, tmp_path):
    arguments = [str(student), f"--output_dir={tmp_path / 'fw'}", "--layout=zephyr"]
    code, _, stderr = run_command("firmware", *arguments, "--name=eye")
    assert code == 0, stderr
    kconfig = (tmp_path / "fw" / "Kconfig").read_text()
    assert kconfig.startswith("config EYE\n")
    assert "kconfig: Kconfig" in (tmp_path / "fw" / "zephyr" / "module.yml").read_text()
    again = [*arguments, "--name=eye", "--overwrite"]
    code, _, stderr = run_command("firmware", *again)
    assert code == 0, stderr
    (tmp_path / "fw" / "src" / "mine.c").write_text("")
    assert "it holds src/mine.c" in refusal("firmware", *again, folder=tmp_path)
    message = refusal("firmware", *arguments, "--target=tflm", folder=tmp_path)
    assert "--layout=zephyr is for firmware in C99" in message


def test_other_files_stay(student, tmp_path):
    (tmp_path / "fw").mkdir()
    (tmp_path / "fw" / "main.c").write_text("mine")
    output = f"--output_dir={tmp_path / 'fw'}"
    message = refusal(
        "firmware", str(student), output, "--overwrite", folder=tmp_path / "fw"
    )
    assert "it holds main.c" in message
    assert (tmp_path / "fw" / "main.c").read_text() == "mine"
