"""The code that the report shows is run as it stands there."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess

import ai_edge_litert.interpreter
import numpy as np
import pytest
from PIL import Image

from gdfq_tf.preprocessing import (
    Preprocessing,
    make_preprocessing,
    preprocessing_of_features,
)
from gdfq_tf.report.snippets import less, snippets
from tflite_export.c99.firmware import Description, make_firmware
from tflite_export.student_file import load_network

# Name -> preprocessing, input type of the file, shape of an example.
CASES = {
    "int8": (make_preprocessing("tf", 3), "int8", (8, 6, 3)),
    "uint8": (make_preprocessing("unit", 3), "uint8", (8, 6, 3)),
    "by-channel": (make_preprocessing("torch", 3), "int8", (8, 6, 3)),
    "bgr": (make_preprocessing("caffe", 3), "uint8", (8, 6, 3)),
    "gray": (
        make_preprocessing("custom", 1, mean=[0.2], std=[0.3]),
        "int8",
        (8, 6, 1),
    ),
    "features": (preprocessing_of_features([-3, 5], 4), "int8", (7, 1, 4)),
    "features-by-channel": (
        preprocessing_of_features([-3, 5, 0, 1], 2),
        "uint8",
        (7, 1, 2),
    ),
    "many-channels": (make_preprocessing("tf", 5), "int8", (8, 6, 5)),
}
OUTPUT = {"scale": 0.25, "zero_point": -3}


def of_case(summary: dict, name: str) -> tuple[dict, Preprocessing]:
    """The summary as if its network had that input, and the preprocessing."""
    preprocessing, input_type, shape = CASES[name]
    classifier = summary["classifier"]
    classifier["preprocessing"] = dataclasses.asdict(preprocessing)
    classifier["input_shape"] = classifier["image_shape"] = list(shape)
    classifier["input_type"] = input_type
    summary["models"][-1]["int8_output"] = OUTPUT
    return summary, preprocessing


def code(summary: dict, language: str) -> str:
    (found,) = (
        x.code
        for x in snippets(summary, summary["models"][-1])
        if x.language == language
    )
    return found


def example(preprocessing: Preprocessing, shape) -> tuple[np.ndarray, np.ndarray]:
    """Pixels or features of a shape, and the int8 input that they are to become."""
    rng = np.random.default_rng(0)
    if preprocessing.input_range is None:
        pixels = rng.integers(0, 256, shape).astype(np.uint8)
        return pixels, preprocessing.to_integers(pixels)
    low, high = np.transpose(preprocessing.input_range)
    values = rng.uniform(low - 1, high + 1, shape).astype(np.float32)
    return values, preprocessing.to_integers(preprocessing.levels(values))


class Interpreter:
    """Notes what it is fed and gives the same bytes each time."""

    fed: np.ndarray

    def __init__(self, path):
        assert path == "tiny_w4a8.tflite"

    def allocate_tensors(self):
        pass

    def get_input_details(self):
        return [{"index": 0, "shape": [1, *self.shape]}]

    def get_output_details(self):
        return [{"index": 1}]

    def set_tensor(self, index, values):
        assert index == 0
        type(self).fed = values

    def invoke(self):
        pass

    def get_tensor(self, index):
        assert index == 1
        return np.array([[-5, 7, 1]], np.int8)


@pytest.mark.parametrize("name", CASES)
def test_python_feeds_what_the_file_takes(summary, name, tmp_path, monkeypatch, capsys):
    summary, preprocessing = of_case(summary, name)
    _, input_type, shape = CASES[name]
    values, expected = example(preprocessing, shape)
    if shape[-1] in (1, 3):
        Image.fromarray(values.squeeze()).save(tmp_path / "image.png")
    file = "pixels" if preprocessing.input_range is None else "features"
    np.save(tmp_path / f"{file}.npy", values)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Interpreter, "shape", shape, raising=False)
    monkeypatch.setattr(ai_edge_litert.interpreter, "Interpreter", Interpreter)
    names: dict = {}
    exec(code(summary, "Python"), names)
    assert Interpreter.fed.dtype == input_type
    fed = Interpreter.fed.astype(np.int16) - (128 if input_type == "uint8" else 0)
    assert fed.shape == (1, *shape)
    assert np.abs(fed[0] - expected).max() <= (preprocessing.input_range is not None)
    assert np.mean(fed[0] != expected) < 0.02  # halves, of features
    np.testing.assert_allclose(names["values"], [-0.5, 2.5, 1.0])
    assert capsys.readouterr().out == "dog 2.5\n"


MODEL_H = """
#include <stdint.h>
#define MODEL_INPUT_SIZE {size}
#define MODEL_OUTPUT_SIZE 3
#define MODEL_INPUT_SCALE {scale!r}f
#define MODEL_INPUT_ZERO_POINT ({zero_point})
#define MODEL_OUTPUT_SCALE 0.25f
#define MODEL_OUTPUT_ZERO_POINT (-3)
void model_invoke(const int8_t *input, int8_t *output);
"""
MAIN_C = """
#include <stdio.h>
{code}
void model_invoke(const int8_t *input, int8_t *output) {{
  for (int i = 0; i < MODEL_INPUT_SIZE; ++i) printf("%d ", input[i]);
  output[0] = -5; output[1] = 7; output[2] = 1;
}}
static const {type} x[] = {{ {values} }};
int main(void) {{
  float values[3];
  printf("%d ", classify(x, values));
  printf("%g %g %g", values[0], values[1], values[2]);
  return 0;
}}
"""


def compiled(folder, *sources: str) -> list[str]:
    """What the program prints."""
    flags = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O1"]
    subprocess.run(["cc", *flags, *sources, "-lm", "-o", "x"], cwd=folder, check=True)
    done = subprocess.run(["./x"], cwd=folder, capture_output=True, text=True)
    return done.stdout.split()


needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@needs_cc
@pytest.mark.parametrize("name", CASES)
def test_c_feeds_what_the_network_takes(summary, name, tmp_path):
    summary, preprocessing = of_case(summary, name)
    values, expected = example(preprocessing, CASES[name][2])
    taken = preprocessing.input_quantization()
    header = MODEL_H.format(size=values.size, **dataclasses.asdict(taken))
    (tmp_path / "model.h").write_text(header)
    program = MAIN_C.format(
        code=code(summary, "C"),
        type="uint8_t" if values.dtype == np.uint8 else "float",
        values=", ".join(map(str, values.ravel())),
    )
    (tmp_path / "main.c").write_text(program)
    *fed, best, a, b, c = compiled(tmp_path, "main.c")
    fed = np.array(fed, int) - expected.ravel()
    assert np.abs(fed).max() <= (preprocessing.input_range is not None)
    assert np.mean(fed != 0) < 0.02
    assert (best, a, b, c) == ("1", "-0.5", "2.5", "1")


@needs_cc
def test_c_runs_what_gdfq_firmware_writes(directory, summary, tmp_path, monkeypatch):
    """The same class and values as Python's code, from the files of the run."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    for file in directory.glob("*.tflite"):
        shutil.copy(file, tmp_path)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code(summary, "Python"), names)
    network = load_network(directory / "tiny_w4a8_student.npz")
    made = make_firmware(network, Description("tiny"), np.zeros((1, 8, 8, 3), np.int8))
    for name in ("model.h", "model.c"):
        (tmp_path / name).write_text(made.files[name])
    program = MAIN_C.format(
        code=code(summary, "C"), type="uint8_t", values=", ".join(map(str, pixels.flat))
    )
    start, end = program.index("void model_invoke"), program.index("static const")
    (tmp_path / "main.c").write_text(program[:start] + program[end:])
    best, *values = compiled(tmp_path, "main.c", "model.c")
    np.testing.assert_allclose(np.array(values, float), names["values"], rtol=1e-4)
    assert int(best) == np.argmax(names["values"])


@pytest.mark.parametrize("name", CASES)
def test_kotlin_has_the_numbers_of_the_file(summary, name):
    """As nothing compiles it here, its numbers are looked at."""
    summary, preprocessing = of_case(summary, name)
    found = code(summary, "Kotlin")
    assert "0.25f * (output[it] + 3)" in found
    assert found.count("{") == found.count("}")
    if not preprocessing.is_uniform:
        taken, offset = preprocessing.input_quantization(), CASES[name][1] == "uint8"
        zero_point = taken.zero_point + 128 * offset
        assert f"/ {taken.scale}f) + {zero_point}" in found
        assert f"coerceIn({-128 + 128 * offset}f, {127 + 128 * offset}f)" in found
    elif CASES[name][1] == "uint8":
        assert "input.put((Math.round(x)).toByte())" in found
    else:
        assert "input.put((Math.round(x) - 128).toByte())" in found
    if name == "bgr":
        places = [found.index(f"Color.{x}(pixel)") for x in ("blue", "green", "red")]
        assert places == sorted(places)


def test_unsigned_outputs_are_read_as_such(summary):
    summary["classifier"]["output_type"] = "uint8"
    row = summary["models"][-1]
    row["uint8_output"] = {"scale": 0.5, "zero_point": 4}
    found = code(summary, "Kotlin")
    assert "0.5f * ((output[it].toInt() and 0xFF) - 4)" in found


def test_numbers_are_taken_away_without_two_signs():
    assert (less(3), less(-3), less(0)) == ("- 3", "+ 3", "- 0")


HOSTILE = "x'); import os #*/\n\"$(rm)"


@needs_cc
def test_names_cannot_leave_their_place(summary, tmp_path):
    summary["class_names"] = [HOSTILE, "b", "c"]
    summary["models"][-1]["file"] = HOSTILE
    compile(code(summary, "Python"), "snippet", "exec")
    assert repr(HOSTILE) in code(summary, "Python")
    (tmp_path / "model.h").write_text(MODEL_H.format(size=3, scale=1.0, zero_point=0))
    (tmp_path / "main.c").write_text(code(summary, "C"))
    flags = ["-std=c99", "-Wall", "-Werror", "-fsyntax-only"]
    subprocess.run(["cc", *flags, "main.c"], cwd=tmp_path, check=True)
    kotlin = code(summary, "Kotlin").splitlines()
    (line,) = (x for x in kotlin if "import os" in x)
    assert line.startswith("// ")
