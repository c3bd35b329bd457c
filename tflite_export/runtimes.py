"""Since which TensorFlow its runtime runs the operators of students, as measured.

The runtimes of TensorFlow, `tflite-runtime` and LiteRT are one code.
`benchmarks/runtimes.py` runs a file with each operator in many of them and compares
outputs with the simulation. What the converter itself tells as `min_runtime_version` is
too little: it knows neither kernels of INT4 nor FULLY_CONNECTED with one scale for each
channel, which earlier runtimes take and compute as if it had but one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import Operator, TFLiteModel
from tflite_export.names import shown

_Version = tuple[int, int, int]
_ENTRY = "min_runtime_version"
_NUM_BYTES = 16  # of the entry, as the converter has it

OLDEST: _Version = (2, 5, 3)  # of those that were tried; earlier ones may do as well
# Operator, its version, type of its kernel if it has one -> the first runtime that
# computes it within 1 LSB, where `OLDEST` does not.
FIRST_RUNTIMES: Mapping[tuple[str, int, str], _Version] = {
    ("CONV_2D", 6, "INT8"): (2, 9, 1),
    ("CONV_2D", 7, "INT4"): (2, 12, 0),
    ("CONV_2D", 7, "INT8"): (2, 12, 0),
    ("DEPTHWISE_CONV_2D", 7, "INT4"): (2, 13, 0),
    ("DEPTHWISE_CONV_2D", 7, "INT8"): (2, 13, 0),
    ("FULLY_CONNECTED", 4, "INT8"): (2, 10, 0),
    ("FULLY_CONNECTED", 10, "INT4"): (2, 19, 0),
    ("GELU", 2, ""): (2, 9, 1),
}
# Of int16 activations the only one that was tried, which computes them exactly.
FIRST_WITH_INT16: _Version = (2, 21, 0)
_WITH_KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def first_runtime(model: TFLiteModel) -> str:
    """The first TensorFlow whose runtime runs a file, such as "2.19.0"."""
    versions = [
        FIRST_RUNTIMES.get(_key(model, operator), OLDEST)
        for operator in model.operators
    ]
    if any(tensor.dtype == "INT16" for tensor in model.tensors):
        versions.append(FIRST_WITH_INT16)
    return ".".join(map(str, max(versions, default=OLDEST)))


def tell_runtime(model: schema.ModelT, version: str) -> None:
    """Has a file's object tree tell its first runtime, in place of the converter's."""
    for entry in model.metadata or ():
        if entry.name == _ENTRY.encode():
            content = version.encode().ljust(_NUM_BYTES, b"\0")
            model.buffers[entry.buffer].data = np.frombuffer(content, np.uint8)


def runtime_offences(model: TFLiteModel) -> Iterator[str]:
    """Another first runtime than the operators need, or none."""
    expected = first_runtime(model)
    found = model.metadata.get(_ENTRY, b"").rstrip(b"\0")
    if found != expected.encode():
        yield f"first runtime {shown(found)} instead of {expected}"


def _key(model: TFLiteModel, operator: Operator) -> tuple[str, int, str]:
    kernel = ""
    if operator.name in _WITH_KERNELS:
        kernel = model.tensors[operator.inputs[1]].dtype
    return operator.name, operator.version, kernel
