"""The TFLite operators that each kind of operation is, from its definition.

Not how the converter arrives at them: what a file has to hold, whoever wrote it.
`EXPECTED` has one function for each kind.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.integer_network import IntegerOp, Kernel, Shape, kernel_of
from tflite_export.operators.activations import slope_levels
from tflite_export.quantization_params import QuantParams, storage_bits
from tflite_export.verification.tflite_operators import TFLITE_OPERATORS

PADDINGS = {"same": schema.Padding.SAME, "valid": schema.Padding.VALID}
_ACTIVATIONS = schema.ActivationFunctionType


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """An input that is stored in the file.

    Attributes:
      what: it is, for messages: "kernel", "bias", "axes"...
      values: int8 for INT8 and INT4, int16, int32, int64.
      dtype: the schema's name.
      scales: one per channel along `dimension`, float32; None: not compared, for
        biases, whose scales follow from others.
      dimension: the channels' one.
      zero_point: of all scales.
    """

    what: str
    values: np.ndarray
    dtype: str
    scales: np.ndarray | None = None
    dimension: int = 0
    zero_point: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class ExpectedOperator:
    """One operator.

    Attributes:
      name: a key of `TFLITE_OPERATORS`.
      inputs: names of the network's tensors it reads, reshaped or not.
      output: the name its output has in the network.
      shape: of the output, batch 1 first.
      quant_params: of the output.
      dtype: of the output, the schema's name.
      constants: the inputs behind `inputs`.
      options: as in `flatbuffer.Operator`.
      read_as: the shape the inputs have, where they are reshaped; None: their own.
      optional: whether the operators behind may do it as well.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    shape: Shape
    quant_params: QuantParams
    dtype: str
    constants: tuple[Constant, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    read_as: Shape | None = None
    optional: bool = False

    @property
    def options_type(self) -> str:
        """As in `flatbuffer.Operator`."""
        return TFLITE_OPERATORS[self.name].options_type


@dataclasses.dataclass(frozen=True)
class TensorFormats:
    """What the tensors of a network are, by name.

    Attributes:
      shapes: batch 1 first.
      quant_params: of their integers.
    """

    shapes: Mapping[str, Shape]
    quant_params: Mapping[str, QuantParams]


# Operators in executable order; each is given by those that may stand in its place, any
# one of which will do. None at all: the output is the first input, or a reshape of it.
Steps = list[tuple[ExpectedOperator, ...]]
Maker = Callable[[IntegerOp, TensorFormats], Steps]


def _operator(
    name: str,
    op: IntegerOp,
    formats: TensorFormats,
    *constants: Constant,
    options: Mapping[str, Any] | None = None,
) -> ExpectedOperator:
    return ExpectedOperator(
        name,
        op.inputs,
        op.name,
        formats.shapes[op.name],
        op.quant_params,
        op.quant_params.dtype.upper(),
        constants,
        options or {},
    )


def _conv(op: IntegerOp, formats: TensorFormats) -> Steps:
    kernel = kernel_of(op)
    constants = _kernel_constants(kernel, np.moveaxis(kernel.values, 3, 0), 0)
    options = _window_options(op) | _bias_options(op)
    return [(_operator("CONV_2D", op, formats, *constants, options=options),)]


def _depthwise(op: IntegerOp, formats: TensorFormats) -> Steps:
    kernel = kernel_of(op)
    height, width, _, multiplier = kernel.values.shape
    values = kernel.values.reshape(1, height, width, -1)
    constants = _kernel_constants(kernel, values, 3)
    options = _window_options(op) | {"depthMultiplier": multiplier}
    return [(_operator("DEPTHWISE_CONV_2D", op, formats, *constants, options=options),)]


def _dense(op: IntegerOp, formats: TensorFormats) -> Steps:
    """FULLY_CONNECTED, or the like of an image of one position."""
    inputs, outputs = kernel_of(op).values.shape
    flat = _fully_connected(op, formats, keep_dimensions=False)
    kept = dataclasses.replace(
        _fully_connected(op, formats, keep_dimensions=True),
        shape=(1, 1, 1, outputs),
        read_as=(1, 1, 1, inputs),
    )
    return [(flat, kept, _of_one_position(op, formats))]


def _dense_convolution(op: IntegerOp, formats: TensorFormats) -> Steps:
    return [(_of_one_position(op, formats),)]


def _of_one_position(op: IntegerOp, formats: TensorFormats) -> ExpectedOperator:
    """A dense layer as a convolution."""
    kernel = kernel_of(op)
    inputs, outputs = kernel.values.shape
    filters = kernel.values.T[:, np.newaxis, np.newaxis]
    point = {"padding": "valid", "strides": (1, 1), "dilation": (1, 1)}
    options = _window_options(dataclasses.replace(op, attributes=point))
    return dataclasses.replace(
        _operator(
            "CONV_2D",
            op,
            formats,
            *_kernel_constants(kernel, filters, 0),
            options=options | _bias_options(op),
        ),
        shape=(1, 1, 1, outputs),
        read_as=(1, 1, 1, inputs),
    )


def _pointwise(op: IntegerOp, formats: TensorFormats) -> Steps:
    return [(_fully_connected(op, formats, keep_dimensions=True),)]


def _fully_connected(
    op: IntegerOp, formats: TensorFormats, *, keep_dimensions: bool
) -> ExpectedOperator:
    kernel = kernel_of(op)
    return _operator(
        "FULLY_CONNECTED",
        op,
        formats,
        *_kernel_constants(kernel, kernel.values.T, 0),
        options={
            "fusedActivationFunction": _fused_activation(op),
            "weightsFormat": 0,
            "keepNumDims": keep_dimensions,
            "asymmetricQuantizeInputs": False,
            **_bias_options(op),
        },
    )


def _kernel_constants(
    kernel: Kernel, values: np.ndarray, dimension: int
) -> tuple[Constant, ...]:
    return (
        Constant(
            "kernel", values, f"INT{storage_bits(kernel.bits)}", kernel.scale, dimension
        ),
        Constant("bias", kernel.bias, kernel.bias.dtype.name.upper()),
    )


def _bias_options(op: IntegerOp) -> dict[str, Any]:
    """Type of the bias, which is told where it is not INT32."""
    told = schema.TensorType.INT64 if op.quant_params.bits == 16 else 0
    return {"quantizedBiasType": told}


def _fused_activation(op: IntegerOp) -> int:
    if op.relu6:
        return _ACTIVATIONS.RELU6
    return _ACTIVATIONS.RELU if op.relu else _ACTIVATIONS.NONE


def _window_options(op: IntegerOp) -> dict[str, Any]:
    (stride_height, stride_width) = op.attributes["strides"]
    options = {
        "padding": PADDINGS[op.attributes["padding"]],
        "strideW": stride_width,
        "strideH": stride_height,
        "fusedActivationFunction": _fused_activation(op),
    }
    if "dilation" in op.attributes:
        (height, width) = op.attributes["dilation"]
        options |= {"dilationWFactor": width, "dilationHFactor": height}
    return options


def _pool(name: str) -> Maker:
    def make(op: IntegerOp, formats: TensorFormats) -> Steps:
        height, width = op.attributes["pool_size"]
        size = {"filterWidth": width, "filterHeight": height}
        options = _window_options(op) | size
        return [(_operator(name, op, formats, options=options),)]

    return make


def _arithmetic(name: str) -> Maker:
    def make(op: IntegerOp, formats: TensorFormats) -> Steps:
        options = {"fusedActivationFunction": _fused_activation(op)}
        return [(_operator(name, op, formats, options=options),)]

    return make


def _sum(name: str) -> Maker:
    """INT16 of any scales, not of powers of two alone, unless it is INT8."""

    def make(op: IntegerOp, formats: TensorFormats) -> Steps:
        options = {
            "fusedActivationFunction": _fused_activation(op),
            "potScaleInt16": op.quant_params.bits == 8,
        }
        return [(_operator(name, op, formats, options=options),)]

    return make


def _function(name: str, **options: bool) -> Maker:
    def make(op: IntegerOp, formats: TensorFormats) -> Steps:
        return [(_operator(name, op, formats, options=options),)]

    return make


def _relu(op: IntegerOp, formats: TensorFormats) -> Steps:
    return [(_operator("RELU6" if op.relu6 else "RELU", op, formats),)]


def _leaky_relu(op: IntegerOp, formats: TensorFormats) -> Steps:
    options = {"alpha": float(np.float32(op.attributes["slope"]))}
    return [(_operator("LEAKY_RELU", op, formats, options=options),)]


def _prelu(op: IntegerOp, formats: TensorFormats) -> Steps:
    levels = slope_levels(op, formats.shapes[op.name][1:])
    scale = np.array([op.attributes["slope_scale"]], np.float32)
    slopes = Constant("slopes", levels, "INT8", scale)
    return [(_operator("PRELU", op, formats, slopes),)]


def _minimum(op: IntegerOp, formats: TensorFormats) -> Steps:
    bound = _quantized("bound", op.attributes["level"], op.quant_params)
    return [(_operator("MINIMUM", op, formats, bound),)]


def _global_average(op: IntegerOp, formats: TensorFormats) -> Steps:
    """Over all positions, with or without dimensions of 1 in their place."""
    (source,), channels = op.inputs, formats.shapes[op.name][-1]
    has_one_position = math.prod(formats.shapes[source][:-1]) == 1
    if has_one_position and formats.quant_params[source] == op.quant_params:
        return []
    axes = _integers("axes", [1, 2])
    kept, dropped = (
        _operator("MEAN", op, formats, axes, options={"keepDims": keep})
        for keep in (True, False)
    )
    return [
        (
            dataclasses.replace(kept, shape=(1, 1, 1, channels)),
            dataclasses.replace(dropped, shape=(1, channels)),
        )
    ]


def _channel_mean(op: IntegerOp, formats: TensorFormats) -> Steps:
    axes = _integers("axes", -1)
    return [(_operator("MEAN", op, formats, axes, options={"keepDims": True}),)]


def _l2_normalize(op: IntegerOp, formats: TensorFormats) -> Steps:
    """With the constant channels padded to the input and cut off the output."""
    count = op.attributes["num_constants"]
    options = {"fusedActivationFunction": _ACTIVATIONS.NONE}
    normalize = _operator("L2_NORMALIZATION", op, formats, options=options)
    if not count:
        return [(normalize,)]
    (source,), shape = op.inputs, formats.shapes[op.name]
    quant_params = formats.quant_params[source]
    margins = [[0, 0]] * (len(shape) - 1) + [[0, count]]
    constant = _quantized(
        "constant",
        op.attributes["constant_level"] + quant_params.zero_point,
        quant_params,
    )
    pad = dataclasses.replace(
        normalize,
        name="PADV2",
        output=f"{op.name}/padded",
        shape=(*shape[:-1], shape[-1] + count),
        quant_params=quant_params,
        constants=(_integers("pads", margins), constant),
        options={},
    )
    normalize = dataclasses.replace(
        normalize,
        inputs=(pad.output,),
        output=f"{op.name}/normalized",
        shape=pad.shape,
    )
    cut = _slice(normalize.output, op, formats, [0] * len(shape), shape)
    return [(pad,), (normalize,), (cut,)]


def _slice(
    source: str,
    op: IntegerOp,
    formats: TensorFormats,
    begin: Sequence[int],
    size: Sequence[int],
) -> ExpectedOperator:
    constants = _integers("begin", begin), _integers("size", size)
    operator = _operator("SLICE", op, formats, *constants)
    return dataclasses.replace(operator, inputs=(source,))


def _crop(op: IntegerOp, formats: TensorFormats) -> Steps:
    return _cropped(op.inputs[0], op, formats)


def _cropped(
    source: str, op: IntegerOp, formats: TensorFormats, read_as: Shape | None = None
) -> Steps:
    (top, bottom), (left, right) = op.attributes["crops"]
    if not (top or bottom or left or right):
        return []
    size = (-1, *formats.shapes[op.name][1:])
    cut = _slice(source, op, formats, (0, top, left, 0), size)
    return [(dataclasses.replace(cut, read_as=read_as),)]


def _pad(op: IntegerOp, formats: TensorFormats) -> Steps:
    if not np.any(op.attributes["pads"]):
        return []
    margins = _integers("pads", [[0, 0], *op.attributes["pads"], [0, 0]])
    operator = _operator("PAD", op, formats, margins)
    return [(dataclasses.replace(operator, optional=True),)]


def _transpose(op: IntegerOp, formats: TensorFormats) -> Steps:
    """TRANSPOSE, but where dimensions of 1 alone change places: that is a reshape."""
    shape = formats.shapes[op.inputs[0]]
    order = [0, *op.attributes["permutation"]]
    moved = [dimension for dimension in order if shape[dimension] > 1]
    if moved == sorted(moved):
        return []
    return [(_operator("TRANSPOSE", op, formats, _integers("permutation", order)),)]


def _concatenate(op: IntegerOp, formats: TensorFormats) -> Steps:
    if len(op.inputs) == 1:
        return []
    options = {"axis": -1, "fusedActivationFunction": _ACTIVATIONS.NONE}
    return [(_operator("CONCATENATION", op, formats, options=options),)]


def _depth_to_space(op: IntegerOp, formats: TensorFormats) -> Steps:
    """DEPTH_TO_SPACE, or a transposition where blocks are not square, then crops."""
    (source,) = op.inputs
    _, height, width, channels = formats.shapes[source]
    rows, columns = op.attributes["block_size"]
    channels //= rows * columns
    blocks = dataclasses.replace(
        _operator("DEPTH_TO_SPACE", op, formats, options={"blockSize": rows}),
        output=f"{op.name}/blocks",
        shape=(1, height * rows, width * columns, channels),
    )
    if rows == columns:
        return [(blocks,), *_cropped(blocks.output, op, formats, blocks.shape)]
    if width == 1 or rows == 1:
        return _cropped(source, op, formats, blocks.shape)
    transposed = dataclasses.replace(
        blocks,
        name="TRANSPOSE",
        shape=(height, rows, width, columns * channels),
        constants=(_integers("permutation", [0, 2, 1, 3]),),
        options={},
        read_as=(height, width, rows, columns * channels),
    )
    return [(transposed,), *_cropped(blocks.output, op, formats, blocks.shape)]


def _resize(name: str) -> Maker:
    def make(op: IntegerOp, formats: TensorFormats) -> Steps:
        size = _integers("size", formats.shapes[op.name][1:3])
        options = {"alignCorners": False, "halfPixelCenters": True}
        return [(_operator(name, op, formats, size, options=options),)]

    return make


def _no_operator(op: IntegerOp, formats: TensorFormats) -> Steps:
    return []


def _integers(what: str, values: object) -> Constant:
    return Constant(what, np.array(values, np.int32), "INT32")


def _quantized(what: str, value: int, quant_params: QuantParams) -> Constant:
    scale = np.array([quant_params.scale], np.float32)
    dtype, zero_point = quant_params.dtype, quant_params.zero_point
    values = np.array(value, dtype)
    return Constant(what, values, dtype.upper(), scale, zero_point=zero_point)


EXPECTED: Mapping[str, Maker] = {
    "conv": _conv,
    "depthwise": _depthwise,
    "dense": _dense,
    "dense_convolution": _dense_convolution,
    "pointwise": _pointwise,
    "add": _sum("ADD"),
    "subtract": _sum("SUB"),
    "multiply": _arithmetic("MUL"),
    "elementwise_maximum": _function("MAXIMUM"),
    "elementwise_minimum": _function("MINIMUM"),
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "minimum": _minimum,
    "sigmoid": _function("LOGISTIC"),
    "tanh": _function("TANH"),
    "gelu": _function("GELU", approximate=False),
    "elu": _function("ELU"),
    "hard_swish": _function("HARD_SWISH"),
    "average_pool": _pool("AVERAGE_POOL_2D"),
    "max_pool": _pool("MAX_POOL_2D"),
    "global_average": _global_average,
    "channel_mean": _channel_mean,
    "l2_normalize": _l2_normalize,
    "reshape": _no_operator,
    "transpose": _transpose,
    "pad": _pad,
    "crop": _crop,
    "concatenate": _concatenate,
    "depth_to_space": _depth_to_space,
    "resize_nearest": _resize("RESIZE_NEAREST_NEIGHBOR"),
    "resize_bilinear": _resize("RESIZE_BILINEAR"),
}
