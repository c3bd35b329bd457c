"""The TFLite operators that compute an integer network, from their definitions.

Not how the converter arrives at them: what a file has to hold, whoever wrote it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from tflite_export.activations import FIXED_QUANT_PARAMS
from tflite_export.integer_network import IntegerNetwork, IntegerOp, Kernel
from tflite_export.quantization_params import QuantParams, storage_bits
from tflite_export.tensor_shapes import Shape, tensor_shapes

_PADDINGS = {"same": schema.Padding.SAME, "valid": schema.Padding.VALID}
_ACTIVATIONS = schema.ActivationFunctionType


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """An input that is stored in the file.

    Attributes:
      what: it is, for messages: "kernel", "bias", "axes"...
      values: int8 for INT8 and INT4, int32.
      dtype: the schema's name.
      scales: one per channel along `dimension`, float32; None: not compared, for
        biases, whose scales follow from others.
      dimension: the channels' one.
      zero_point: of all scales.
    """

    what: str
    values: np.ndarray
    dtype: str = "INT32"
    scales: np.ndarray | None = None
    dimension: int = 0
    zero_point: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class ExpectedOperator:
    """One operator.

    Attributes:
      name: the schema's, "CONV_2D".
      inputs: names of the network's tensors it reads, reshaped or not.
      output: the name its output has in the network.
      shape: of the output, batch 1 first.
      grid: of the output.
      constants: the inputs behind `inputs`.
      options_type, options: as in `flatbuffer.Operator`.
      read_as: the shape the inputs have, where they are reshaped; None: their own.
      optional: whether the operators behind may do it as well.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    shape: Shape
    quant_params: QuantParams
    constants: tuple[Constant, ...] = ()
    options_type: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    read_as: Shape | None = None
    optional: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class ExpectedGraph:
    """What a file must hold.

    Attributes:
      input, output: names of its ends.
      input_grid, output_grid: of these.
      shapes: of the tensors by name, batch 1 first.
      steps: in executable order; each is given by the operators that may stand
        there, any one of which will do.
      sources: of each tensor that is another one reshaped or the very same, that
        other one; to be followed to its end.
    """

    input: str
    output: str
    input_quant_params: QuantParams
    output_quant_params: QuantParams
    shapes: Mapping[str, Shape]
    steps: tuple[tuple[ExpectedOperator, ...], ...]
    sources: Mapping[str, str]

    def source(self, name: str) -> str:
        """The tensor that holds the same values, in the same order, first."""
        while name in self.sources:
            name = self.sources[name]
        return name


def expected_graph(network: IntegerNetwork) -> ExpectedGraph:
    """The operators of a network.

    Raises:
      ExportError: its shapes do not fit each other.
    """
    shapes = tensor_shapes(network)
    quant_params_of = {network.input_name: network.input_quant_params}
    steps: list[tuple[ExpectedOperator, ...]] = []
    sources: dict[str, str] = {}
    pads: dict[str, IntegerOp] = {}
    for op in network.ops:
        quant_params_of[op.name] = op.quant_params
        made = _MAKERS[op.kind](op, shapes, quant_params_of)
        if op.kind == "pad":
            pads[op.name] = op
        elif made and op.inputs[0] in pads and op.kernel is not None:
            made = _without_pad(made, op, pads[op.inputs[0]], shapes)
        if made:
            steps += made
            for alternatives in made:
                shapes.setdefault(alternatives[0].output, alternatives[0].shape)
            last = made[-1][0].output
            if last != op.name:
                sources[op.name] = last
        else:
            sources[op.name] = op.inputs[0]
    output = network.ops[-1].name
    if network.softmax:
        softmax = ExpectedOperator(
            "SOFTMAX",
            (output,),
            f"{output}/softmax",
            shapes[output],
            FIXED_QUANT_PARAMS["softmax"],
            options_type="SoftmaxOptions",
            options={"beta": 1.0},
        )
        steps.append((softmax,))
        output = softmax.output
        shapes[output], quant_params_of[output] = softmax.shape, softmax.quant_params
    return ExpectedGraph(
        network.input_name,
        output,
        network.input_quant_params,
        quant_params_of[output],
        shapes,
        tuple(steps),
        sources,
    )


Steps = list[tuple[ExpectedOperator, ...]]
_Shapes = Mapping[str, Shape]
_Grids = Mapping[str, QuantParams]


def _operator(name: str, op: IntegerOp, shapes: _Shapes, **fields) -> ExpectedOperator:
    return ExpectedOperator(
        name, op.inputs, op.name, shapes[op.name], op.quant_params, **fields
    )


def _conv(op: IntegerOp, shapes: _Shapes, quant_params_of: _Grids) -> Steps:
    assert op.kernel is not None
    values = np.moveaxis(op.kernel.values, 3, 0)
    options = _window_options(op) | {"quantizedBiasType": 0}
    operator = _operator(
        "CONV_2D",
        op,
        shapes,
        constants=_kernel_constants(op.kernel, values, 0),
        options_type="Conv2DOptions",
        options=options,
    )
    return [(operator,)]


def _depthwise(op: IntegerOp, shapes: _Shapes, quant_params_of: _Grids) -> Steps:
    assert op.kernel is not None
    height, width, _, multiplier = op.kernel.values.shape
    values = op.kernel.values.reshape(1, height, width, -1)
    operator = _operator(
        "DEPTHWISE_CONV_2D",
        op,
        shapes,
        constants=_kernel_constants(op.kernel, values, 3),
        options_type="DepthwiseConv2DOptions",
        options=_window_options(op) | {"depthMultiplier": multiplier},
    )
    return [(operator,)]


def _dense(op: IntegerOp, shapes: _Shapes, quant_params_of: _Grids) -> Steps:
    """FULLY_CONNECTED, or a 1x1 convolution of an image of one position."""
    assert op.kernel is not None
    values = op.kernel.values.T
    connected = _operator(
        "FULLY_CONNECTED",
        op,
        shapes,
        constants=_kernel_constants(op.kernel, values, 0),
        options_type="FullyConnectedOptions",
        options={
            "fusedActivationFunction": _fused_activation(op),
            "weightsFormat": 0,
            "keepNumDims": False,
            "asymmetricQuantizeInputs": False,
            "quantizedBiasType": 0,
        },
    )
    point = {"padding": "valid", "strides": (1, 1), "dilation": (1, 1)}
    options = _window_options(dataclasses.replace(op, attributes=point))
    convolution = dataclasses.replace(
        connected,
        name="CONV_2D",
        shape=(1, 1, 1, len(values)),
        constants=_kernel_constants(op.kernel, values[:, np.newaxis, np.newaxis], 0),
        options_type="Conv2DOptions",
        options=options | {"quantizedBiasType": 0},
        read_as=(1, 1, 1, values.shape[1]),
    )
    return [(connected, convolution)]


def _kernel_constants(
    kernel: Kernel, values: np.ndarray, dimension: int
) -> tuple[Constant, ...]:
    return (
        Constant(
            "kernel", values, f"INT{storage_bits(kernel.bits)}", kernel.scale, dimension
        ),
        Constant("bias", kernel.bias),
    )


def _fused_activation(op: IntegerOp) -> int:
    if op.relu6:
        return _ACTIVATIONS.RELU6
    return _ACTIVATIONS.RELU if op.relu else _ACTIVATIONS.NONE


def _window_options(op: IntegerOp) -> dict[str, Any]:
    (stride_height, stride_width) = op.attributes["strides"]
    options = {
        "padding": _PADDINGS[op.attributes["padding"]],
        "strideW": stride_width,
        "strideH": stride_height,
        "fusedActivationFunction": _fused_activation(op),
    }
    if "dilation" in op.attributes:
        (height, width) = op.attributes["dilation"]
        options |= {"dilationWFactor": width, "dilationHFactor": height}
    return options


def _pool(name: str):
    def make(op: IntegerOp, shapes: _Shapes, quant_params_of: _Grids) -> Steps:
        height, width = op.attributes["pool_size"]
        options = _window_options(op)
        options |= {"filterWidth": width, "filterHeight": height}
        return [
            (
                _operator(
                    name, op, shapes, options_type="Pool2DOptions", options=options
                ),
            )
        ]

    return make


def _arithmetic(name: str, options_type: str, **more):
    def make(op: IntegerOp, shapes: _Shapes, quant_params_of: _Grids) -> Steps:
        options = {"fusedActivationFunction": _fused_activation(op)} | more
        return [
            (_operator(name, op, shapes, options_type=options_type, options=options),)
        ]

    return make


def _function(name: str, options_type: str = "", **options):
    def make(op: IntegerOp, shapes: _Shapes, quant_params_of: _Grids) -> Steps:
        return [
            (_operator(name, op, shapes, options_type=options_type, options=options),)
        ]

    return make


def _relu(op: IntegerOp, shapes: _Shapes, quant_params_of: _Grids) -> Steps:
    return [(_operator("RELU6" if op.relu6 else "RELU", op, shapes),)]


def _leaky_relu(op: IntegerOp, shapes: _Shapes, quant_params_of: _Grids) -> Steps:
    options = {"alpha": float(np.float32(op.attributes["slope"]))}
    return [
        (
            _operator(
                "LEAKY_RELU",
                op,
                shapes,
                options_type="LeakyReluOptions",
                options=options,
            ),
        )
    ]


def _minimum(op: IntegerOp, shapes: _Shapes, quant_params_of: _Grids) -> Steps:
    bound = _level(op.attributes["level"], op.quant_params)
    return [(_operator("MINIMUM", op, shapes, constants=(bound,)),)]


def _level(level: int, quant_params: QuantParams) -> Constant:
    scale = np.array([quant_params.scale], np.float32)
    values = np.array(level, np.int8)
    return Constant("level", values, "INT8", scale, zero_point=quant_params.zero_point)


def _mean(op: IntegerOp, shapes: _Shapes, quant_params_of: _Grids) -> Steps:
    """Over all positions, with or without dimensions of 1 in their place."""
    (source,), channels = op.inputs, shapes[op.name][-1]
    if (
        math.prod(shapes[source][:-1]) == 1
        and quant_params_of[source] == op.quant_params
    ):
        return []  # of one position: the very same values
    kept, dropped = (
        _operator(
            "MEAN",
            op,
            shapes,
            constants=(_integers("axes", [1, 2]),),
            options_type="ReducerOptions",
            options={"keepDims": keep},
        )
        for keep in (True, False)
    )
    return [
        (
            dataclasses.replace(kept, shape=(1, 1, 1, channels)),
            dataclasses.replace(dropped, shape=(1, channels)),
        )
    ]


def _channel_mean(op: IntegerOp, shapes: _Shapes, quant_params_of: _Grids) -> Steps:
    operator = _operator(
        "MEAN",
        op,
        shapes,
        constants=(_integers("axes", -1),),
        options_type="ReducerOptions",
        options={"keepDims": True},
    )
    return [(operator,)]


def _l2_normalize(op: IntegerOp, shapes: _Shapes, quant_params_of: _Grids) -> Steps:
    """With the constant channels padded to the input and cut off the output."""
    count = op.attributes["num_constants"]
    normalize = _operator(
        "L2_NORMALIZATION",
        op,
        shapes,
        options_type="L2NormOptions",
        options={"fusedActivationFunction": _ACTIVATIONS.NONE},
    )
    if not count:
        return [(normalize,)]
    (source,), shape = op.inputs, shapes[op.name]
    quant_params = quant_params_of[source]
    longer = (*shape[:-1], shape[-1] + count)
    margins = [[0, 0]] * (len(shape) - 1) + [[0, count]]
    level = _level(
        op.attributes["constant_level"] + quant_params.zero_point, quant_params
    )
    padded, normalized = f"{op.name}/padded", f"{op.name}/normalized"
    return [
        (
            ExpectedOperator(
                "PADV2",
                op.inputs,
                padded,
                longer,
                quant_params,
                (_integers("pads", margins), level),
                "PadV2Options",
            ),
        ),
        (
            dataclasses.replace(
                normalize, inputs=(padded,), output=normalized, shape=longer
            ),
        ),
        _slice(normalized, op.name, [0] * len(shape), shape, shape, op.quant_params),
    ]


def _slice(
    source: str,
    output: str,
    begin,
    size,
    shape: Shape,
    quant_params: QuantParams,
    read_as: Shape | None = None,
) -> tuple[ExpectedOperator, ...]:
    constants = (_integers("begin", begin), _integers("size", size))
    return (
        ExpectedOperator(
            "SLICE", (source,), output, shape, quant_params, constants, read_as=read_as
        ),
    )


def _crop(op: IntegerOp, shapes: _Shapes, quant_params_of: _Grids) -> Steps:
    return _cropped(op.inputs[0], op, shapes)


def _cropped(
    source: str, op: IntegerOp, shapes: _Shapes, read_as: Shape | None = None
) -> Steps:
    (top, bottom), (left, right) = op.attributes["crops"]
    if not (top or bottom or left or right):
        return []
    shape = shapes[op.name]
    begin, size = (0, top, left, 0), (-1, *shape[1:])
    return [_slice(source, op.name, begin, size, shape, op.quant_params, read_as)]


def _pad(op: IntegerOp, shapes: _Shapes, quant_params_of: _Grids) -> Steps:
    if not np.any(op.attributes["pads"]):
        return []
    margins = _integers("pads", [[0, 0], *op.attributes["pads"], [0, 0]])
    operator = _operator(
        "PAD",
        op,
        shapes,
        constants=(margins,),
        options_type="PadOptions",
        optional=True,
    )
    return [(operator,)]


def _without_pad(steps: Steps, op: IntegerOp, pad: IntegerOp, shapes: _Shapes) -> Steps:
    """A kernel behind a pad, or the kernel alone where its own padding is the same."""
    if op.attributes.get("padding") != "valid" or not _pads_as_same(op, pad, shapes):
        return steps
    ((behind_pad,),) = steps
    alone = dataclasses.replace(
        behind_pad,
        inputs=pad.inputs,
        options={**behind_pad.options, "padding": _PADDINGS["same"]},
    )
    return [(behind_pad, alone)]


def _pads_as_same(op: IntegerOp, pad: IntegerOp, shapes: _Shapes) -> bool:
    """Whether a pad adds what TensorFlow's padding "same" does."""
    assert op.kernel is not None
    axes = zip(
        pad.attributes["pads"],
        shapes[pad.inputs[0]][1:3],
        shapes[op.name][1:3],
        op.kernel.values.shape[:2],
        op.attributes["strides"],
        op.attributes["dilation"],
        strict=True,
    )
    for (before, after), length, outputs, size, stride, dilation in axes:
        reach = (size - 1) * dilation + 1
        total = max((-(-length // stride) - 1) * stride + reach - length, 0)
        if (before, after) != (total // 2, total - total // 2):
            return False
        if outputs != -(-length // stride):
            return False
    return True


def _concatenate(op: IntegerOp, shapes: _Shapes, quant_params_of: _Grids) -> Steps:
    if len(op.inputs) == 1:
        return []
    operator = _operator(
        "CONCATENATION",
        op,
        shapes,
        options_type="ConcatenationOptions",
        options={"axis": -1, "fusedActivationFunction": _ACTIVATIONS.NONE},
    )
    return [(operator,)]


def _depth_to_space(op: IntegerOp, shapes: _Shapes, quant_params_of: _Grids) -> Steps:
    """DEPTH_TO_SPACE, or a transposition where blocks are not square, then crops."""
    (source,) = op.inputs
    _, height, width, channels = shapes[source]
    rows, columns = op.attributes["block_size"]
    channels //= rows * columns
    blocks, shape = f"{op.name}/blocks", (1, height * rows, width * columns, channels)
    steps: Steps = []
    if rows == columns:
        steps = [
            (
                ExpectedOperator(
                    "DEPTH_TO_SPACE",
                    op.inputs,
                    blocks,
                    shape,
                    op.quant_params,
                    options_type="DepthToSpaceOptions",
                    options={"blockSize": rows},
                ),
            )
        ]
    elif width > 1 and rows > 1:
        steps = [
            (
                ExpectedOperator(
                    "TRANSPOSE",
                    op.inputs,
                    blocks,
                    (height, rows, width, columns * channels),
                    op.quant_params,
                    (_integers("permutation", [0, 2, 1, 3]),),
                    read_as=(height, width, rows, columns * channels),
                ),
            )
        ]
    return steps + _cropped(blocks if steps else source, op, shapes, shape)


def _resize(name: str, options_type: str):
    def make(op: IntegerOp, shapes: _Shapes, quant_params_of: _Grids) -> Steps:
        size = _integers("size", shapes[op.name][1:3])
        operator = _operator(
            name,
            op,
            shapes,
            constants=(size,),
            options_type=options_type,
            options={"alignCorners": False, "halfPixelCenters": True},
        )
        return [(operator,)]

    return make


def _no_operator(op: IntegerOp, shapes: _Shapes, quant_params_of: _Grids) -> Steps:
    return []


def _integers(what: str, values) -> Constant:
    return Constant(what, np.array(values, np.int32))


_MAKERS: Mapping[str, Callable[[IntegerOp, _Shapes, _Grids], Steps]] = {
    "conv": _conv,
    "depthwise": _depthwise,
    "dense": _dense,
    "add": _arithmetic("ADD", "AddOptions", potScaleInt16=True),
    "subtract": _arithmetic("SUB", "SubOptions", potScaleInt16=True),
    "multiply": _arithmetic("MUL", "MulOptions"),
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "minimum": _minimum,
    "sigmoid": _function("LOGISTIC"),
    "tanh": _function("TANH"),
    "gelu": _function("GELU", "GeluOptions", approximate=False),
    "hard_swish": _function("HARD_SWISH"),
    "l2_normalize": _l2_normalize,
    "channel_mean": _channel_mean,
    "global_average": _mean,
    "average_pool": _pool("AVERAGE_POOL_2D"),
    "max_pool": _pool("MAX_POOL_2D"),
    "reshape": _no_operator,
    "pad": _pad,
    "crop": _crop,
    "concatenate": _concatenate,
    "depth_to_space": _depth_to_space,
    "resize_nearest": _resize(
        "RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"
    ),
    "resize_bilinear": _resize("RESIZE_BILINEAR", "ResizeBilinearOptions"),
}
