"""Tests of the command `verify`."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import zipfile

import numpy as np
import pytest

from gdfq_tf.preprocessing import make_preprocessing
from gdfq_tf.run_directory import SUMMARY, write_summary
from tests.command import refusal, run_command
from tests.tiny_network import NetworkBuilder
from tflite_export.convert import convert_network
from tflite_export.flatbuffer import read_model
from tflite_export.interpreter import load_interpreter
from tflite_export.student_file import save_network


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A directory like a run's: a model, its student, the baselines, a summary."""
    folder = tmp_path_factory.mktemp("sound") / "run"
    folder.mkdir()
    b = NetworkBuilder()
    b.kernel("logits", "dense", b.flatten("image"), bits=8)
    network = b.build_ops()
    tflite = convert_network(network)
    save_network(network, folder / "net_w8a8_student.npz")
    names = ["net_float.tflite", "net_int8_noise.tflite", "net_w8a8.tflite"]
    for name in names:
        (folder / name).write_bytes(tflite)
    preprocessing = dataclasses.asdict(make_preprocessing("tf", 3))
    models: list[dict] = [{"file": name, "sha256": ""} for name in names]
    models[-1]["widths"] = {"weight_bits": 8}
    classifier = {"head": "logits", "preprocessing": preprocessing}
    write_summary(folder, {"classifier": classifier, "models": models})
    return folder


@pytest.fixture
def run(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "run")
    return tmp_path / "run"


def flip(path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


def test_a_sound_run(run):
    code, stdout, stderr = run_command("verify", f"--model={run}")
    assert code == 0, stderr
    assert "'net_float.tflite' as the run wrote it" in stdout
    assert "'net_w8a8_student.npz' as the run wrote it" in stdout
    assert stdout.count("every byte as the converter makes it of the student") == 1
    assert "outputs within 0 LSB of the student's" in stdout


def test_a_sound_file_finds_its_student(run):
    model = run / "net_w8a8.tflite"
    code, stdout, _ = run_command("verify", f"--model={model}")
    assert code == 0
    student = (run / "net_w8a8_student.npz").rename(run / "other.npz")
    code, _, stderr = run_command("verify", f"--model={model}")
    assert code == 1
    assert "net_w8a8_student.npz does not exist" in stderr
    code, again, _ = run_command("verify", f"--model={model}", f"--student={student}")
    assert (code, again) == (0, stdout)


@pytest.mark.parametrize("position", [0, 5, 300, -1])
def test_a_damaged_file_is_told_in_one_line(run, position):
    model = run / "net_w8a8.tflite"
    flip(model, position)
    code, stdout, stderr = run_command("verify", f"--model={model}")
    assert code == 1
    assert stderr.count("error: ") == 1
    assert "net_w8a8.tflite: every byte as the converter makes it" in stderr
    assert "instead of" in stdout


@pytest.mark.parametrize(
    "file", ["net_float.tflite", "net_int8_noise.tflite", "net_w8a8.tflite"]
)
def test_a_damaged_run_is_told_in_one_line(run, file):
    flip(run / file, 8)
    code, stdout, stderr = run_command("verify", f"--model={run}")
    assert code == 1
    assert stderr.count("error: ") == 1
    assert f"'{file}' as the run wrote it: found sha256" in stderr
    assert "each tensor computed once" in stdout


def test_a_missing_file_of_a_run(run):
    (run / "net_w8a8.tflite").unlink()
    code, _, stderr = run_command("verify", f"--model={run}")
    assert code == 1
    assert "'net_w8a8.tflite' as the run wrote it: found No such file" in stderr


def test_runs_whose_summary_has_digests_of_models_alone(run):
    summary = json.loads((run / SUMMARY).read_text())
    digests = summary.pop("sha256")
    for row in summary["models"]:
        row["sha256"] = digests[row["file"]]
    (run / SUMMARY).write_text(json.dumps(summary))
    code, stdout, _ = run_command("verify", f"--model={run}")
    assert code == 0
    assert stdout.count("as the run wrote it") == 3


def test_a_file_converted_for_another_target(run, tmp_path):
    b = NetworkBuilder()
    b.kernel("logits", "dense", b.flatten("image"), bits=4)
    student, output = tmp_path / "student.npz", tmp_path / "tflm.tflite"
    save_network(b.build_ops(), student)
    source, target = f"--student={student}", "--target=tflm"
    code, _, stderr = run_command("convert", source, f"--output={output}", target)
    assert code == 0, stderr
    operators = [o.name for o in read_model(output.read_bytes()).operators]
    assert "CONV_2D" in operators
    code, _, stderr = run_command("verify", f"--model={output}", source, target)
    assert code == 0, stderr
    code, _, stderr = run_command("verify", f"--model={output}", source)
    assert code == 1
    assert "is broken" in stderr


def test_a_file_converted_for_phones(run, tmp_path):
    labels, output = tmp_path / "labels.txt", tmp_path / "phone.tflite"
    labels.write_text("cat\ndog\npig\ncow\nape\n")
    source = f"--student={run / 'net_w8a8_student.npz'}"
    ends = ["--input_type=uint8", "--output_type=uint8", f"--labels={labels}"]
    code, stdout, stderr = run_command("convert", source, f"--output={output}", *ends)
    assert code == 0, stderr
    assert re.search(r"at most 0 LSB off, by LiteRT [^\n]*\nimage: uint8, ", stdout)
    details = load_interpreter(output.read_bytes()).get_input_details()
    assert details[0]["name"] == "image"
    assert details[0]["dtype"] == np.uint8
    with zipfile.ZipFile(output) as archive:
        assert archive.read("labels.txt").decode() == labels.read_text()
    code, _, stderr = run_command("verify", f"--model={output}", source, *ends)
    assert code == 0, stderr
    code, _, stderr = run_command("verify", f"--model={output}", source, *ends[:2])
    assert code == 1
    assert "metadata and labels as the student's: found labels ('cat', " in stderr
    labels.write_text("cat\n")
    code, _, stderr = run_command(
        "convert", source, f"--output={tmp_path / 'x'}", *ends
    )
    assert code == 1
    assert "--labels has 1 names, and the network has 5 outputs" in stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model={}", "--input_type=uint8"], "--input_type=uint8 is one file's"),
        (["--model={}", "--student=x.npz"], "--student=x.npz is one file's"),
        (["--model={}", "--target=tflm"], "drop --target"),
        (["--model={}/none.tflite"], "cannot read"),
        (["--model={}/net_w8a8.tflite", "--student={}/summary.json"], "not a student"),
        (["--model={}", "--num_images=0"], "num_images"),
    ],
)
def test_mistakes_are_one_line(run, flags, message):
    code = 2 if "--num_images=0" in flags else 1
    texts = (flag.format(run) for flag in flags)
    assert message in refusal("verify", *texts, folder=run, code=code)


def test_a_directory_of_no_run(tmp_path):
    code, _, stderr = run_command("verify", f"--model={tmp_path}")
    assert code == 1
    assert "summary.json is missing or damaged" in stderr
