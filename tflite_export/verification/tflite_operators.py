"""TFLite's operators as integer students use them: one record each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from tflite_export.flatbuffer import Operator, TFLiteModel


@dataclasses.dataclass(frozen=True)
class TFLiteOperator:
    """One operator of TFLite.

    Attributes:
      name: the schema's, "CONV_2D".
      version: that the converter writes for int8 and int16; with INT8 kernels, if it
        has kernels.
      options_type: the schema's name of its options; empty without options.
      int4_version: with INT4 kernels; None for operators without kernels.
      int16_version: of int16, where it is another one.
      version_of_5d: of tensors of five dimensions, where it is another one.
      commutative: whether the order of its inputs is the converter's choice.
    """

    name: str
    version: int
    options_type: str = ""
    int4_version: int | None = None
    int16_version: int | None = None
    version_of_5d: int | None = None
    commutative: bool = False


TFLITE_OPERATORS: Mapping[str, TFLiteOperator] = {
    operator.name: operator
    for operator in (
        TFLiteOperator("ADD", 2, "AddOptions", commutative=True),
        TFLiteOperator("AVERAGE_POOL_2D", 2, "Pool2DOptions"),
        TFLiteOperator("CONCATENATION", 2, "ConcatenationOptions"),
        TFLiteOperator("CONV_2D", 3, "Conv2DOptions", int4_version=7),
        TFLiteOperator("DEPTH_TO_SPACE", 2, "DepthToSpaceOptions"),
        TFLiteOperator(
            "DEPTHWISE_CONV_2D", 3, "DepthwiseConv2DOptions", int4_version=7
        ),
        TFLiteOperator("ELU", 1),
        TFLiteOperator("FULLY_CONNECTED", 4, "FullyConnectedOptions", int4_version=10),
        TFLiteOperator("GELU", 2, "GeluOptions"),
        TFLiteOperator("HARD_SWISH", 1),
        TFLiteOperator("L2_NORMALIZATION", 2, "L2NormOptions"),
        TFLiteOperator("LEAKY_RELU", 1, "LeakyReluOptions", int16_version=2),
        TFLiteOperator("LOGISTIC", 2),
        TFLiteOperator("MAX_POOL_2D", 2, "Pool2DOptions"),
        TFLiteOperator("MAXIMUM", 2, commutative=True),
        TFLiteOperator("MEAN", 2, "ReducerOptions"),
        TFLiteOperator("MINIMUM", 2, commutative=True),
        TFLiteOperator("MUL", 2, "MulOptions", commutative=True),
        TFLiteOperator("PAD", 2, "PadOptions"),
        TFLiteOperator("PADV2", 2, "PadV2Options"),
        TFLiteOperator("PRELU", 1),
        TFLiteOperator("QUANTIZE", 1),
        TFLiteOperator("RELU", 2),
        TFLiteOperator("RELU6", 2),
        TFLiteOperator("RESHAPE", 1),
        TFLiteOperator("RESIZE_BILINEAR", 3, "ResizeBilinearOptions"),
        TFLiteOperator("RESIZE_NEAREST_NEIGHBOR", 3, "ResizeNearestNeighborOptions"),
        TFLiteOperator("SLICE", 2),
        TFLiteOperator("SOFTMAX", 2, "SoftmaxOptions"),
        TFLiteOperator("SUB", 2, "SubOptions"),
        TFLiteOperator("TANH", 2),
        TFLiteOperator("TRANSPOSE", 2, version_of_5d=4),
    )
}
_SHARED_CODES = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE")
_GROUPED_VERSION = 6  # of CONV_2D
_UNKNOWN = 0  # no operator has this version


def needed_versions(model: TFLiteModel) -> list[int]:
    """The version that TFLite defines for what each operator does; 0 if it has none."""
    needed = [_needed_version(model, operator) for operator in model.operators]
    # One code serves all convolutions of a kind and all transpositions, the most
    # demanding included, among the former those that became FULLY_CONNECTED (see
    # `fully_connected.py`).
    highest: dict[str, int] = {}
    for operator, version in zip(model.operators, needed, strict=True):
        highest[operator.name] = max(version, highest.get(operator.name, 0))
    if highest.get("FULLY_CONNECTED") == _int4_version("FULLY_CONNECTED"):
        highest["CONV_2D"] = max(_int4_version("CONV_2D"), highest.get("CONV_2D", 0))
    return [
        highest[operator.name] if operator.name in _SHARED_CODES else version
        for operator, version in zip(model.operators, needed, strict=True)
    ]


def version_offences(model: TFLiteModel) -> Iterator[str]:
    """Operators whose version is not the needed one."""
    for operator, version in zip(model.operators, needed_versions(model), strict=True):
        if operator.version != version:
            yield (
                f"{operator.version} instead of {version} of {operator.name} as "
                f"operator {operator.index}"
            )


def _needed_version(model: TFLiteModel, operator: Operator) -> int:
    known = TFLITE_OPERATORS.get(operator.name)
    if known is None:
        return _UNKNOWN
    if known.int16_version and model.tensors[operator.inputs[0]].dtype == "INT16":
        return known.int16_version
    if known.version_of_5d and len(model.tensors[operator.inputs[0]].shape) == 5:
        return known.version_of_5d
    if known.int4_version is None:
        return known.version
    source, kernel = (model.tensors[index] for index in operator.inputs[:2])
    if operator.name == "CONV_2D" and source.shape[3] != kernel.shape[3]:
        return _GROUPED_VERSION
    versions = {"INT8": known.version, "INT4": known.int4_version}
    return versions.get(kernel.dtype, _UNKNOWN)


def _int4_version(name: str) -> int:
    return TFLITE_OPERATORS[name].int4_version or _UNKNOWN
