"""Files for TensorFlow Lite for Microcontrollers."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest

from tests.tiny_network import NetworkBuilder, random_images
from tflite_export.c99.firmware import Description
from tflite_export.convert import convert_network
from tflite_export.operator_forms import in_forms_of
from tflite_export.targets import TARGETS
from tflite_export.tflm import package
from tflite_export.tflm.package import FILES, make_package
from tflite_export.tflm.runtime import is_installed
from tflite_export.tflm.simulator import infer
from tflite_export.verification.tflite_operators import TFLITE_OPERATORS

# What the header needs of TFLM; every operator is added once.
RESOLVER = """
enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };
namespace tflite {
template <unsigned int kCount>
struct MicroMutableOpResolver {
  unsigned int count = 0;
  TfLiteStatus Add() { return count++ < kCount ? kTfLiteOk : kTfLiteError; }
  TfLiteStatus AddConv2D() { return Add(); }
  TfLiteStatus AddReshape() { return Add(); }
  TfLiteStatus AddFullyConnected() { return Add(); }
};
}  // namespace tflite
"""
MAIN = """
#include <cstdint>
#include <cstdio>
#include "model_data.h"
#include "model_operators.h"
#include "test_vectors.h"
int main() {
  ModelOperators operators;
  if (AddModelOperators(operators) != kTfLiteOk || operators.count != 3) return 1;
  if (reinterpret_cast<std::uintptr_t>(kModel) % 16) return 1;
  if (sizeof(test_inputs) != NUM_TESTS * MODEL_INPUT_SIZE) return 1;
  if (sizeof(test_outputs) != NUM_TESTS * MODEL_OUTPUT_SIZE) return 1;
  return std::fwrite(kModel, 1, kModelSize, stdout) != kModelSize;
}
"""


def network(bits: int = 4):
    b = NetworkBuilder()
    x = b.kernel("conv", "conv", "image", bits=bits, relu=True, outputs=64, stride=4)
    b.kernel("logits", "dense", b.flatten(x), bits=8)
    return in_forms_of(TARGETS["tflm"], b.build_ops())


def made(of, count=3):
    tflite = convert_network(of)
    description = Description("tiny", "q = pixel - 128", ("cat", "a */ dog"))
    return tflite, make_package(of, tflite, description, random_images(count))


def test_files_say_what_the_network_is(monkeypatch):
    monkeypatch.setattr(package, "is_installed", lambda: False)
    of = network()
    tflite, found = made(of)
    assert tuple(found.files) == FILES
    header = found.files["model_data.h"]
    assert f"kModelSize = {len(tflite)};" in header
    assert "#define MODEL_INPUT_SIZE 256\n" in header
    assert "classes: cat, a * / dog." in header
    assert "MODEL_ARENA_SIZE" not in header
    assert "alignas(16) const unsigned char kModel[" in found.files["model_data.cc"]
    readme = found.files["README.md"]
    assert "was not measured" in readme and "pip install" in readme
    assert "q = pixel - 128" in readme
    numbers = re.search(
        r"test_outputs\[15\] = \{(.*?)\}", found.files["test_vectors.h"], re.S
    )
    expected = infer(of, random_images(3)).ravel()
    np.testing.assert_array_equal(np.fromstring(numbers[1], sep=","), expected)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_it_compiles_and_holds_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(package, "is_installed", lambda: False)
    tflite, found = made(network())
    for name, text in found.files.items():
        (tmp_path / name).write_text(text)
    folder = tmp_path / "tensorflow" / "lite" / "micro"
    folder.mkdir(parents=True)
    (folder / "micro_mutable_op_resolver.h").write_text(RESOLVER)
    (tmp_path / "main.cc").write_text(MAIN)
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I."]
    subprocess.run(
        ["g++", *flags, "main.cc", "model_data.cc", "-o", "main"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    done = subprocess.run([tmp_path / "main"], capture_output=True, check=True)
    assert done.stdout == tflite


def test_every_operator_can_be_registered():
    """But GELU, which it has not, and QUANTIZE, as its ends are int8."""
    known = set(TFLITE_OPERATORS) - {"GELU", "QUANTIZE"}
    assert set(package._REGISTRATIONS) == known


@pytest.mark.skipif(not is_installed(), reason="tflite-micro is not installed")
def test_the_arena_is_measured():
    _, found = made(network())
    assert f"#define MODEL_ARENA_SIZE {found.arena}\n" in found.files["model_data.h"]
    # The images of 256 bytes each, and the INT4 kernel's 2,304 unpacked.
    assert found.arena > 256 + 256 + 2304
    assert found.arena_at_8_bits < found.arena
    _, eight = made(network(8))
    assert eight.arena_at_8_bits is None
