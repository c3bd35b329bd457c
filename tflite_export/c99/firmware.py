"""The files of a firmware folder: code, constants, a self-test, ways to build it."""

from __future__ import annotations

import dataclasses
import importlib.resources
from collections.abc import Mapping

import numpy as np

from tflite_export.c99.arena import ALIGNMENT
from tflite_export.c99.layouts import (
    CODE,
    DEFAULT_LAYOUT,
    HEADER,
    LAYOUTS,
    README,
    VECTORS,
)
from tflite_export.c99.literals import array, comment
from tflite_export.c99.program import Program, Tensor, make_program
from tflite_export.integer_network import IntegerNetwork
from tflite_export.litert.simulator import infer
from tflite_export.operator_forms import in_forms_of
from tflite_export.targets import TARGETS

_INCLUDES = """#include "@prefix@.h"

#include <float.h>
#include <stddef.h>
#include <string.h>
"""
# What fills in the files of parts of the code, in the order of a part's name.
_USUAL_BLANKS = ("@WEIGHTS@", "@FINISH@", "@PAIRS@")
_BLANKS = {
    "combine": ("@HOW@",),
    **dict.fromkeys(("store_four", "four_channels"), ("@FINISH@",)),
}
_FLAGS = "-std=c99 -pedantic -Wall -Wextra -Werror -O2"


@dataclasses.dataclass(frozen=True)
class Description:
    """What people have to know of a network, as far as it is known.

    Attributes:
      name: of the classifier.
      input_formula: how the int8 input is made.
      class_names: of its outputs, in order.
      prefix: of files, functions and macros, so that a program may have several
        networks.
    """

    name: str
    input_formula: str = ""
    class_names: tuple[str, ...] = ()
    prefix: str = "model"


@dataclasses.dataclass(frozen=True)
class Firmware:
    """A network as C99.

    Attributes:
      files: name -> text.
      program: that the code is of.
      num_tests: inputs of the self-test.
      num_weight_bytes: of kernels, biases, multipliers and tables.
    """

    files: Mapping[str, str]
    program: Program
    num_tests: int
    num_weight_bytes: int


def make_firmware(
    network: IntegerNetwork,
    description: Description,
    examples: np.ndarray,
    layout: str = DEFAULT_LAYOUT,
) -> Firmware:
    """All files for one network.

    Args:
      network: a student in integers, for any target.
      description: of it.
      examples: int8 inputs of the self-test (N, *input_shape); what they give is
        computed by the simulation of LiteRT.
      layout: a key of `LAYOUTS`.
    """
    network = in_forms_of(TARGETS["c99"], network)
    program = make_program(network)
    expected = infer(network, examples)
    made = {
        HEADER: _header(program, description),
        CODE: _code(program, description),
        VECTORS: _vectors(examples, expected),
        README: _readme(program, description, len(examples), LAYOUTS[layout].usage),
    }
    prefix = description.prefix
    files = {
        name.replace("@prefix@", prefix): (made.get(what) or _resource(what))
        .replace("@prefix@", prefix)
        .replace("@PREFIX@", prefix.upper())
        for name, what in LAYOUTS[layout].files.items()
    }
    num_bytes = sum(x.num_bytes for step in program.steps for x in step.constants)
    return Firmware(files, program, len(examples), num_bytes)


def _resource(name: str) -> str:
    text = (importlib.resources.files(__package__) / "files" / name).read_text()
    return text.replace("@FLAGS@", _FLAGS)


def _kernel(part: str) -> str:
    """A part of the code; see `program._NEEDS` for its name."""
    file, *filled = part.split(":")
    path = importlib.resources.files(__package__) / "kernels" / f"{file}.c"
    text = path.read_text()
    for blank, value in zip(_BLANKS.get(file, _USUAL_BLANKS), filled, strict=False):
        text = text.replace(blank, value)
    return text


def _header(program: Program, description: Description) -> str:
    names = description.class_names
    lines = [
        comment(f"{description.name}: made by gdfq firmware, not to be edited."),
        "#ifndef @PREFIX@_H",
        "#define @PREFIX@_H",
        "",
        "#include <stdint.h>",
        "",
        *_size_macros("INPUT", program.input),
        *_size_macros("OUTPUT", program.output),
        f"#define @PREFIX@_ARENA_SIZE {program.plan.size}",
        "",
        comment(
            f"input: int8 of shape {_shape(program.input)}, "
            f"{_format(program.input, 'the input')}. {description.input_formula}"
        ),
        comment(
            f"output: int8 of shape {_shape(program.output)}, "
            f"{_format(program.output, 'the output')}; the largest is the class."
        ),
        *([comment("classes: " + ", ".join(names) + ".")] if names else []),
        "#ifdef __cplusplus",
        'extern "C"',
        "#endif",
        "void @prefix@_invoke(const int8_t input[@PREFIX@_INPUT_SIZE],",
        "                  int8_t output[@PREFIX@_OUTPUT_SIZE]);",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _size_macros(name: str, tensor: Tensor) -> list[str]:
    quant_params = tensor.quant_params
    return [
        f"#define @PREFIX@_{name}_SIZE {tensor.size}",
        f"#define @PREFIX@_{name}_SCALE {quant_params.scale!r}f",
        f"#define @PREFIX@_{name}_ZERO_POINT ({quant_params.zero_point})",
    ]


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))


def _format(tensor: Tensor, what: str) -> str:
    scale, zero_point = tensor.quant_params.scale, tensor.quant_params.zero_point
    return f"{what} is {scale:g} * (q - {zero_point})"


def _code(program: Program, description: Description) -> str:
    parts = [
        comment(f"{description.name}: made by gdfq firmware, not to be edited."),
        _INCLUDES,
        _kernel("common"),
        *([f"#define MAX_TAPS {program.max_taps}\n"] if program.max_taps else []),
        *(_kernel(name) for name in program.sources),
    ]
    for step in program.steps:
        parts += [constant.text for constant in step.constants]
    if program.plan.size:
        parts.append(
            comment(f"Memory of all tensors, {ALIGNMENT}-byte aligned.")
            + f"\nstatic uint32_t memory[{program.plan.size // ALIGNMENT}];\n"
        )
    body = []
    if program.plan.size:
        body.append("  int8_t *const arena = (int8_t *)memory;")
    for step in program.steps:
        body += [f"  {comment(step.title)}", *(f"  {x}" for x in step.statements)]
    parts.append(
        "void @prefix@_invoke(const int8_t input[@PREFIX@_INPUT_SIZE],\n"
        "                  int8_t output[@PREFIX@_OUTPUT_SIZE]) {\n"
        + "\n".join(body)
        + "\n}\n"
    )
    return "\n".join(parts)


def _vectors(examples: np.ndarray, expected: np.ndarray) -> str:
    return (
        f"#define NUM_TESTS {len(examples)}\n\n"
        + array("int8_t", "test_inputs", examples).text
        + "\n"
        + array("int8_t", "test_outputs", expected).text
    )


def _readme(
    program: Program, description: Description, num_tests: int, usage: str
) -> str:
    plan = program.plan
    above = plan.size - plan.lower_bound
    bound = (
        f"its least possible ({plan.lower_bound:,} are needed at one time)"
        if not above
        else f"{above:,} above the {plan.lower_bound:,} that are needed at one time"
    )
    return _resource("README.md").format(
        name=description.name,
        prefix=description.prefix,
        num_tests=num_tests,
        arena=f"{plan.size:,}",
        bound=bound,
        formula=description.input_formula or f"see `{description.prefix}.h`",
        flags=_FLAGS,
        usage=usage,
    )
