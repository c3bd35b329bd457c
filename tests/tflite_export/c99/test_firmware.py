"""The C code compiles cleanly and gives the bytes of the simulation of LiteRT."""

from __future__ import annotations

import dataclasses
import importlib.resources
import shutil
import subprocess

import numpy as np
import pytest

from tests.tflite_export.litert.test_simulator import NETWORKS, softmax_network
from tests.tiny_network import (
    INPUT_GRID,
    OUTPUT_GRID,
    NetworkBuilder,
    random_images,
)
from tflite_export.c99.firmware import Description, make_firmware
from tflite_export.c99.layouts import LAYOUTS
from tflite_export.c99.program import WRITERS, make_program
from tflite_export.litert.simulator import SIMULATIONS
from tflite_export.operator_forms import in_forms_of
from tflite_export.targets import TARGETS

CLEAN = "-std=c99 -pedantic -Wall -Wextra -Werror"
DESCRIPTION = Description("tiny", "q = pixel - 128", ("cat", "a */ dog"))

needs_compiler = pytest.mark.skipif(
    shutil.which("gcc") is None or shutil.which("make") is None,
    reason="there is no gcc or no make",
)


def built(network, folder, flags=f"{CLEAN} -O1", examples=None, edit=None):
    """What `make test` says of a network's firmware: (exit status, output)."""
    if examples is None:
        examples = random_images(16)
    made = make_firmware(network, DESCRIPTION, examples)
    for name, text in made.files.items():
        (folder / name).write_text(text if edit is None else edit(name, text))
    done = subprocess.run(
        ["make", "-C", str(folder), "test", "CC=gcc", f"CFLAGS={flags}"],
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def test_every_kind_of_operation_is_tried():
    kinds = {op.kind for network, _ in NETWORKS.values() for op in network.ops}
    assert kinds == set(SIMULATIONS) == set(WRITERS)


@needs_compiler
@pytest.mark.parametrize("name", NETWORKS)
def test_bytes_are_those_of_the_simulation(name, tmp_path):
    code, output = built(NETWORKS[name][0], tmp_path)
    assert code == 0, output
    assert "16 of 16 inputs give the expected bytes" in output


@needs_compiler
@pytest.mark.parametrize("name", ["kernels", "activations"])
def test_without_floating_point_bytes_are_the_same(name, tmp_path):
    network = NETWORKS[name][0]
    code, output = built(network, tmp_path, f"{CLEAN} -O1 -DMODEL_NO_FLOAT")
    assert code == 0, output


@needs_compiler
@pytest.mark.parametrize("name", ["movements", "kernels"])
def test_nothing_undefined_is_done(name, tmp_path):
    flags = "-std=c99 -O1 -fsanitize=undefined,address -fno-sanitize-recover"
    code, output = built(NETWORKS[name][0], tmp_path, flags)
    assert code == 0, output


@needs_compiler
@pytest.mark.parametrize("scale", [0.02, 0.2])
def test_softmax(scale, tmp_path):
    network = softmax_network(scale, 10)
    shape = (200, *network.input_shape)
    images = np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)
    code, output = built(network, tmp_path, examples=images)
    assert code == 0, output


def special_kernels_network():
    """Layers that have kernels of their own: few inputs, or planes of 3 x 3 taps.

    Returns it and its number of each sort.
    """
    b = NetworkBuilder(seed=3)
    gray = b.op("gray", "channel_mean", ["image"], (8, 8, 1), OUTPUT_GRID)
    number = {"conv_few": 0, "rows_few": 0, "depthwise_3x3": 0}
    for bits in (8, 4):
        for sort, kind, source, options in (
            ("conv_few", "conv", gray, {"outputs": 3, "relu": True}),
            ("conv_few", "conv", gray, {"outputs": 4, "dilation": 2}),
            ("conv_few", "conv", gray, {"outputs": 2, "size": 2, "padding": "valid"}),
            ("rows_few", "conv", "image", {"outputs": 5, "size": 1}),
            ("depthwise_3x3", "depthwise", "image", {"multiplier": 2}),
            ("depthwise_3x3", "depthwise", gray, {"relu": True}),
        ):
            name = f"{sort}_{number[sort]}_w{bits}"
            b.branch(b.kernel(name, kind, source, bits=bits, **options))
            number[sort] += 1
    # Pairs that lie beside the image as a whole.
    pads = {"pads": [[2, 1], [2, 2]]}
    padded = b.op("padded", "pad", ["image"], (11, 12, 4), attributes=pads)
    b.branch(b.kernel("margins", "depthwise", padded, bits=8, padding="valid"))
    return b.build()[0], number


@needs_compiler
@pytest.mark.parametrize("flags", ["", " -DMODEL_NO_FLOAT", " -fsanitize=undefined"])
def test_kernels_of_special_shapes(flags, tmp_path, monkeypatch):
    monkeypatch.setattr("tflite_export.c99.program._PLANE_POSITIONS", 1)
    network, number = special_kernels_network()
    text = "".join(x for step in make_program(network).steps for x in step.statements)
    number["depthwise_3x3"] += 1
    assert {name: text.count(name) for name in number} == number
    code, output = built(network, tmp_path, f"{CLEAN} -O1{flags}")
    assert code == 0, output
    assert "runtime error" not in output


@needs_compiler
def test_channels_without_weights_may_have_any_bias(tmp_path):
    """As those that never see anything but zeros in training have."""
    b = NetworkBuilder()
    x = b.kernel("conv", "conv", "image", bits=8, outputs=6, size=1, relu=True)
    b.kernel("logits", "dense", b.flatten(x), bits=8)
    network = b.build_ops()
    kernel = network.ops[0].kernel
    values, bias = kernel.values.copy(), kernel.bias.copy()
    values[..., 1:3] = 0
    bias[1:3] = -(2**23) - 5, 2**24
    network = with_kernel(network, "conv", values=values, bias=bias)
    assert "linear:long_int8" not in str(make_program(network).sources)
    code, output = built(network, tmp_path)
    assert code == 0, output


def with_kernel(network, name, **fields):
    """The network with other fields of one operation's kernel."""
    ops = tuple(
        dataclasses.replace(op, kernel=dataclasses.replace(op.kernel, **fields))
        if op.name == name
        else op
        for op in network.ops
    )
    return dataclasses.replace(network, ops=ops)


@needs_compiler
@pytest.mark.parametrize("flags", ["", " -DMODEL_NO_FLOAT"])
@pytest.mark.parametrize(
    ("sizes", "bias"),
    [
        ([3.0, 0.6, 1e-3, 2.0**-31, 2.0**-40, 2.0**-70], [5, -7, 2**30, 2**30, 9, 0]),
        ([0.6] * 6, [5, -7, 2**30, -(2**30), 2**24, -(2**25)]),
    ],
)
def test_multipliers_and_sums_may_be_of_any_size(sizes, bias, flags, tmp_path):
    b = NetworkBuilder()
    for bits in (8, 4):
        b.branch(b.kernel(f"conv_w{bits}", "conv", "image", bits=bits, outputs=6))
    network, _ = b.build()
    for bits in (8, 4):
        network = with_kernel(
            network,
            f"conv_w{bits}",
            scale=np.float32(sizes) * np.float32(OUTPUT_GRID.scale / INPUT_GRID.scale),
            bias=np.array(bias, np.int32),
        )
    code, output = built(network, tmp_path, f"{CLEAN} -O1 -fsanitize=undefined{flags}")
    assert code == 0, output
    assert "runtime error" not in output


SCALES = """
int main(void) {
  uint32_t bits;
  int wrong = 0, beside, half;
  for (bits = 0x30000000u; bits < 0x3F800000u; bits += 0x56789u) {
    float multiplier;
    memcpy(&multiplier, &bits, 4);
    for (half = -601; half <= 601; half += 2) {
      const double tie = half / 2.0 / multiplier;
      for (beside = -1; beside <= 1 && tie > -2e9 && tie < 2e9; ++beside) {
        const int32_t sum = (int32_t)tie + beside;
        volatile float product = (float)sum;
        product = product * multiplier;
        product = product + 12582912.0f; /* 1.5 * 2^23: rounds to an integer */
        wrong += (int32_t)(product - 12582912.0f) != scale_quickly(sum, multiplier);
      }
    }
  }
  return wrong != 0;
}
"""


@needs_compiler
def test_near_ties_sums_are_scaled_as_floats_are(tmp_path):
    folder = importlib.resources.files("tflite_export.c99") / "kernels"
    parts = [
        (folder / f"{name}.c").read_text()
        for name in ("scale_without_floats", "scale_quickly")
    ]
    includes = "#include <stdint.h>\n#include <string.h>\n"
    (tmp_path / "scales.c").write_text("".join([includes, *parts, SCALES]))
    flags = [*CLEAN.split(), "-O2", "-DMODEL_NO_FLOAT"]
    subprocess.run(["gcc", *flags, "scales.c"], cwd=tmp_path, check=True)
    assert subprocess.run(["./a.out"], cwd=tmp_path).returncode == 0


@needs_compiler
@pytest.mark.parametrize("bits", [8, 4])
def test_sums_are_exact_however_many_inputs(bits, tmp_path):
    b = NetworkBuilder()
    bright = b.kernel("bright", "conv", "image", bits=8, outputs=64)
    b.branch(b.kernel("conv", "conv", bright, bits=bits, outputs=3))
    b.branch(b.kernel("dense", "dense", b.flatten(bright), bits=bits, outputs=3))
    network, _ = b.build()
    # Pixels of 127 everywhere, and weights as large as they can be.
    network = with_kernel(network, "bright", bias=np.full(64, 10**6, np.int32))
    weight = 127 if bits == 8 else -8
    for name, shape in (("conv", (3, 3, 64, 3)), ("dense", (4096, 3))):
        num_inputs = np.prod(shape[:-1])
        largest = num_inputs * abs(weight) * (127 - OUTPUT_GRID.zero_point)
        network = with_kernel(
            network,
            name,
            values=np.full(shape, weight, np.int8),
            scale=np.full(3, 90 / largest, np.float32),
            bias=np.zeros(3, np.int32),
        )
    code, output = built(network, tmp_path)
    assert code == 0, output


@needs_compiler
def test_a_wrong_byte_is_found(tmp_path):
    b = NetworkBuilder()
    b.kernel("logits", "dense", b.flatten("image"), bits=4)

    def edit(name, text):
        if name != "model.c":
            return text
        return text.rstrip().removesuffix("}") + "  output[0] ^= 1;\n}\n"

    code, output = built(b.build_ops(), tmp_path, edit=edit)
    assert code != 0
    assert "input 0: other outputs" in output


@needs_compiler
def test_a_network_that_moves_nothing_gives_its_input(tmp_path):
    b = NetworkBuilder()
    b.flatten("image")
    code, output = built(b.build_ops(), tmp_path)
    assert code == 0, output


@needs_compiler
def test_a_program_may_have_two_networks(tmp_path):
    images = random_images(4)
    main = "#include <string.h>\n"
    for prefix, bits in (("one", 8), ("other", 4)):
        b = NetworkBuilder(seed=bits)
        b.kernel("logits", "dense", b.flatten("image"), bits=bits)
        description = dataclasses.replace(DESCRIPTION, prefix=prefix)
        made = make_firmware(b.build_ops(), description, images)
        for name, text in made.files.items():
            # Both have their inputs in arrays of the same names.
            text = text.replace("test_inputs", f"{prefix}_inputs")
            text = text.replace("test_outputs", f"{prefix}_outputs")
            (tmp_path / name).write_text(text.replace("#define NUM_TESTS 4", ""))
        main += f'#include "{prefix}.h"\n#include "test_{prefix}.h"\n'
    main += (
        "int main(void) {\n  int8_t out[ONE_OUTPUT_SIZE + OTHER_OUTPUT_SIZE];\n"
        "  one_invoke(one_inputs, out);\n"
        "  other_invoke(other_inputs, out + ONE_OUTPUT_SIZE);\n"
        "  return memcmp(out, one_outputs, ONE_OUTPUT_SIZE) ||\n"
        "    memcmp(out + ONE_OUTPUT_SIZE, other_outputs, OTHER_OUTPUT_SIZE);\n}\n"
    )
    (tmp_path / "main.c").write_text(main)
    sources = ["main.c", "one.c", "other.c"]
    subprocess.run(["gcc", *CLEAN.split(), *sources], cwd=tmp_path, check=True)
    assert subprocess.run(["./a.out"], cwd=tmp_path).returncode == 0


# What a sketch takes of Arduino's core.
SKETCH = """
#include <stdio.h>
struct { void begin(long) {} void print(int x) { printf("%d", x); }
  void print(const char *x) { printf("%s", x); }
  void println(const char *x) { printf("%s\\n", x); } } Serial;
#include "examples/self_test/self_test.ino"
int main() { setup(); loop(); }
"""


@needs_compiler
@pytest.mark.parametrize(
    ("layout", "include", "compiler", "test"),
    [
        ("arduino", "src", "g++", "sketch.cpp"),
        ("zephyr", "include", "gcc", "self_test/test_eye.c"),
    ],
)
def test_other_layouts_compile_as_they_lie(layout, include, compiler, test, tmp_path):
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    b = NetworkBuilder()
    b.kernel("logits", "dense", b.flatten("image"), bits=8)
    description = dataclasses.replace(DESCRIPTION, prefix="eye")
    made = make_firmware(b.build_ops(), description, random_images(3), layout)
    for name, text in made.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        assert "@" not in text
    (tmp_path / "sketch.cpp").write_text(SKETCH)
    commands = (
        ["gcc", *CLEAN.split(), "-c", f"-I{include}", "src/eye.c", "-o", "eye.o"],
        [compiler, f"-I{include}", "-Wall", test, "eye.o", "-o", "self_test/run"],
        ["self_test/run"],
    )
    (tmp_path / "self_test").mkdir(exist_ok=True)
    for command in commands:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "3 of 3 inputs give the expected bytes" in done.stdout


@needs_compiler
def test_rounding_is_not_left_to_fast_mathematics(tmp_path):
    b = NetworkBuilder()
    b.kernel("logits", "dense", b.flatten("image"), bits=8)
    code, output = built(b.build_ops(), tmp_path, "-std=c99 -ffast-math")
    assert code != 0
    assert "compile without -ffast-math" in output


def test_a_student_for_tflm_becomes_the_same_code():
    b = NetworkBuilder()
    x = b.kernel("conv", "conv", "image", bits=4, size=1, relu=True, outputs=4)
    b.kernel("logits", "dense", b.flatten(x), bits=4)
    network = in_forms_of(TARGETS["litert"], b.build_ops())
    for_tflm = in_forms_of(TARGETS["tflm"], network)
    made, other = (
        make_firmware(x, DESCRIPTION, random_images(4)) for x in (network, for_tflm)
    )
    assert for_tflm.ops[0].kind != network.ops[0].kind
    assert made.files == other.files


def test_windows_reach_over_the_edge_instead_of_padding():
    b = NetworkBuilder()
    pads = {"pads": [[1, 0], [0, 2]]}
    padded = b.op("padded", "pad", ["image"], (9, 10, 4), attributes=pads)
    x = b.kernel("conv", "conv", padded, bits=8, padding="valid", outputs=4)
    b.kernel("logits", "dense", b.flatten(x), bits=8)
    program = make_program(b.build_ops())
    assert "pad" not in program.sources
    # The convolution's output of 7 x 8 x 4, two patches of 3 x 3 x 4 with 2 bytes a
    # value, and one with a byte.
    assert program.plan.size == 7 * 8 * 4 + 2 * 36 * 2 + 36


def test_values_may_be_changed_in_place_unless_they_are_read_again():
    def size(*, again: bool) -> int:
        b = NetworkBuilder()
        x = b.kernel("conv", "conv", "image", bits=8, outputs=4, size=1)
        y = b.op("relu", "relu", [x], (8, 8, 4), relu=True)
        end = b.op("sum", "add", [y, x if again else y], (8, 8, 4))
        b.kernel("logits", "dense", b.flatten(end), bits=8)
        return make_program(b.build_ops()).plan.size

    assert size(again=False) == 8 * 8 * 4
    assert size(again=True) == 2 * 8 * 8 * 4


def test_the_folder_says_what_people_have_to_know():
    b = NetworkBuilder()
    b.kernel("logits", "dense", b.flatten("image"), bits=8)
    made = make_firmware(b.build_ops(), DESCRIPTION, random_images(3))
    assert tuple(made.files) == LAYOUTS["plain"].names("model")
    header = made.files["model.h"]
    assert "#define MODEL_INPUT_SIZE 256\n" in header
    assert "#define MODEL_INPUT_ZERO_POINT (5)\n" in header
    assert "q = pixel - 128" in header
    assert "classes: cat, a * / dog." in header
    assert made.num_weight_bytes == 256 * 6 + 8 * 6  # 5 outputs, in pairs
    assert "3 inputs" in made.files["README.md"]
