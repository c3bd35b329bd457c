"""The files of a folder for TensorFlow Lite for Microcontrollers.

The model as a constant array, the operators that it needs and no others, the size of
the arena, and a self-test.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
from collections.abc import Mapping

import numpy as np

from tflite_export.c99.firmware import Description
from tflite_export.c99.literals import array, comment
from tflite_export.convert import convert_network
from tflite_export.flatbuffer import read_model
from tflite_export.integer_network import IntegerNetwork
from tflite_export.operator_forms import at_8_bits
from tflite_export.quantization_params import storage_bits
from tflite_export.target_kernels import infer
from tflite_export.tflm.runtime import INSTALL, TFLMClassifier, is_installed, version

FILES = (
    "model_data.h",
    "model_data.cc",
    "model_operators.h",
    "test_model.cc",
    "test_vectors.h",
    "README.md",
)
# What a runtime maps in place has to begin here.
_ALIGNMENT = 16
_BYTES_IN_LINE = 12
# The arena of other versions of TFLM, with other records of its own.
_ARENA_MARGIN, _ARENA_UNIT = 1.05, 1024
# Operator -> how a MicroMutableOpResolver takes it.
_REGISTRATIONS: Mapping[str, str] = {
    "ADD": "AddAdd",
    "AVERAGE_POOL_2D": "AddAveragePool2D",
    "CONCATENATION": "AddConcatenation",
    "CONV_2D": "AddConv2D",
    "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
    "DEPTH_TO_SPACE": "AddDepthToSpace",
    "ELU": "AddElu",
    "FULLY_CONNECTED": "AddFullyConnected",
    "HARD_SWISH": "AddHardSwish",
    "L2_NORMALIZATION": "AddL2Normalization",
    "LEAKY_RELU": "AddLeakyRelu",
    "LOGISTIC": "AddLogistic",
    "MAXIMUM": "AddMaximum",
    "MAX_POOL_2D": "AddMaxPool2D",
    "MEAN": "AddMean",
    "MINIMUM": "AddMinimum",
    "MUL": "AddMul",
    "PAD": "AddPad",
    "PADV2": "AddPadV2",
    "PRELU": "AddPrelu",
    "RELU": "AddRelu",
    "RELU6": "AddRelu6",
    "RESHAPE": "AddReshape",
    "RESIZE_BILINEAR": "AddResizeBilinear",
    "RESIZE_NEAREST_NEIGHBOR": "AddResizeNearestNeighbor",
    "SLICE": "AddSlice",
    "SOFTMAX": "AddSoftmax",
    "SUB": "AddSub",
    "TANH": "AddTanh",
    "TRANSPOSE": "AddTranspose",
}


@dataclasses.dataclass(frozen=True)
class Package:
    """A network for TFLM.

    Attributes:
      files: name -> text.
      num_bytes: of the model.
      arena: what is set aside for its tensors; None where TFLM is not installed.
      arena_at_8_bits: the same if all of its kernels had 8 bits; None if they do.
      num_tests: inputs of the self-test.
    """

    files: Mapping[str, str]
    num_bytes: int
    arena: int | None
    arena_at_8_bits: int | None
    num_tests: int


def make_package(
    network: IntegerNetwork,
    tflite: bytes,
    description: Description,
    examples: np.ndarray,
) -> Package:
    """All files for one network.

    Args:
      network: for a target with TFLM's kernels.
      tflite: its file.
      description: of it.
      examples: int8 inputs of the self-test (N, *input_shape); what they give is
        computed by the simulation of TFLM's reference kernels.
    """
    arena, arena_at_8_bits = _arena_size(tflite), None
    few = [x.name for x in network.ops if x.kernel and storage_bits(x.kernel.bits) == 4]
    if few and arena is not None:
        arena_at_8_bits = _arena_size(convert_network(at_8_bits(network, few)))
    title = comment(f"{description.name}: made by gdfq firmware, not to be edited.")
    operators = sorted({operator.name for operator in read_model(tflite).operators})
    texts = (
        _data_header(title, network, description, len(tflite), arena),
        _data(title, tflite),
        _operators(title, operators),
        _resource("test_model.cc"),
        _vectors(examples, infer(network, examples)),
        _resource("README.md").format(
            name=description.name,
            num_bytes=f"{len(tflite):,}",
            arena=_arena_in_words(arena),
            num_tests=len(examples),
            formula=description.input_formula or "see `model_data.h`",
        ),
    )
    files = dict(zip(FILES, texts, strict=True))
    return Package(files, len(tflite), arena, arena_at_8_bits, len(examples))


def _arena_size(tflite: bytes) -> int | None:
    """What is to be set aside: what TFLM takes on this machine, and a margin."""
    if not is_installed():
        return None
    size = int(TFLMClassifier(tflite).arena_bytes * _ARENA_MARGIN)
    return -(-size // _ARENA_UNIT) * _ARENA_UNIT


def _arena_in_words(arena: int | None) -> str:
    if arena is None:
        return (
            "`MODEL_ARENA_SIZE` was not measured, as tflite-micro was not installed "
            f"(`{INSTALL}`): define it when you compile"
        )
    return (
        f"`MODEL_ARENA_SIZE`, {arena:,}, is what tflite-micro {version()} took on a "
        "64-bit processor, whose pointers are longer, and a margin"
    )


def _data_header(
    title: str,
    network: IntegerNetwork,
    description: Description,
    num_bytes: int,
    arena: int | None,
) -> str:
    given, result = network.input_quant_params, network.ops[-1].quant_params
    names = ", ".join(description.class_names)
    lines = [
        title,
        *([comment(f"classes: {names}.")] if names else []),
        "#ifndef MODEL_DATA_H_",
        "#define MODEL_DATA_H_",
        "",
        f"#define MODEL_INPUT_SIZE {int(np.prod(network.input_shape))}",
        f"#define MODEL_INPUT_SCALE {given.scale!r}f",
        f"#define MODEL_INPUT_ZERO_POINT ({given.zero_point})",
    ]
    if not network.softmax:
        lines += [
            f"#define MODEL_OUTPUT_SCALE {result.scale!r}f",
            f"#define MODEL_OUTPUT_ZERO_POINT ({result.zero_point})",
        ]
    if arena is not None:
        lines += [
            "#ifndef MODEL_ARENA_SIZE",
            f"#define MODEL_ARENA_SIZE {arena}",
            "#endif",
        ]
    lines += [
        "",
        f"constexpr unsigned int kModelSize = {num_bytes};",
        "extern const unsigned char kModel[kModelSize];",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def _data(title: str, tflite: bytes) -> str:
    digits = [f"0x{byte:02x}" for byte in tflite]
    starts = range(0, len(digits), _BYTES_IN_LINE)
    rows = ("  " + ", ".join(digits[i : i + _BYTES_IN_LINE]) for i in starts)
    body = "{\n" + ",\n".join(rows) + "\n}"
    return (
        f'{title}\n#include "model_data.h"\n\n'
        f"alignas({_ALIGNMENT}) const unsigned char kModel[kModelSize] = {body};\n"
    )


def _operators(title: str, operators: list[str]) -> str:
    calls = "\n".join(
        f"  if (resolver.{_REGISTRATIONS[name]}() != kTfLiteOk) return kTfLiteError;"
        for name in operators
    )
    return f"""{title}
#ifndef MODEL_OPERATORS_H_
#define MODEL_OPERATORS_H_

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

using ModelOperators = tflite::MicroMutableOpResolver<{len(operators)}>;

inline TfLiteStatus AddModelOperators(ModelOperators& resolver) {{
{calls}
  return kTfLiteOk;
}}

#endif
"""


def _vectors(examples: np.ndarray, expected: np.ndarray) -> str:
    return (
        "#include <stdint.h>\n\n"
        f"#define NUM_TESTS {len(examples)}\n"
        f"#define MODEL_OUTPUT_SIZE {expected.shape[1]}\n\n"
        + array("int8_t", "test_inputs", examples).text
        + "\n"
        + array("int8_t", "test_outputs", expected).text
    )


def _resource(name: str) -> str:
    return (importlib.resources.files(__package__) / "files" / name).read_text()
