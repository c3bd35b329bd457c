"""The shapes of an integer network's tensors, from its operations alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.integer_network import IntegerNetwork, IntegerOp
from tflite_export.names import shown

Shape = tuple[int, ...]


def tensor_shapes(network: IntegerNetwork) -> dict[str, Shape]:
    """The shape of each tensor by name, with the batch of 1 first.

    Raises:
      ExportError: an operation cannot take inputs of their shapes.
    """
    shapes: dict[str, Shape] = {network.input_name: (1, *network.input_shape)}
    for op in network.ops:
        inputs = [shapes[name] for name in op.inputs]
        try:
            shape = _OUTPUT_SHAPES[op.kind](op, *inputs)
        except (ValueError, TypeError, LookupError):
            shape = ()
        if not shape or min(shape) < 1:
            raise ExportError(
                f"operation {shown(op.name)} ({op.kind}) cannot take inputs of shape "
                f"{' and '.join(map(str, inputs))}; expected shapes that fit its "
                "kernel and attributes"
            )
        shapes[op.name] = shape
    return shapes


def _conv(op: IntegerOp, source: Shape) -> Shape:
    assert op.kernel is not None
    height, width, depth, outputs = op.kernel.values.shape
    groups = op.attributes.get("groups", 1)
    _require(source[3] == depth * groups and outputs % groups == 0)
    return (1, *_windows(op, source, (height, width)), outputs)


def _depthwise(op: IntegerOp, source: Shape) -> Shape:
    assert op.kernel is not None
    height, width, channels, multiplier = op.kernel.values.shape
    _require(source[3] == channels)
    return (1, *_windows(op, source, (height, width)), channels * multiplier)


def _dense(op: IntegerOp, source: Shape) -> Shape:
    assert op.kernel is not None
    inputs, outputs = op.kernel.values.shape
    _require(math.prod(source) == inputs)
    return (1, outputs)


def _pool(op: IntegerOp, source: Shape) -> Shape:
    return (1, *_windows(op, source, op.attributes["pool_size"]), source[3])


def _windows(op: IntegerOp, source: Shape, size) -> Shape:
    """Height and width of what a window of that size gives."""
    _, height, width, _ = source
    attributes = op.attributes
    dilation = attributes.get("dilation", (1, 1))
    if attributes["padding"] == "same":
        size = (1, 1)
    steps = zip((height, width), size, dilation, attributes["strides"], strict=True)
    return tuple(-(-(length - (k - 1) * d) // s) for length, k, d, s in steps)


def _same(op: IntegerOp, source: Shape) -> Shape:
    return source


def _broadcast(op: IntegerOp, first: Shape, second: Shape) -> Shape:
    _require(len(first) == len(second))
    return np.broadcast_shapes(first, second)


def _channel_mean(op: IntegerOp, source: Shape) -> Shape:
    return (*source[:-1], 1)


def _global_average(op: IntegerOp, source: Shape) -> Shape:
    _, _, _, channels = source
    keepdims = op.attributes.get("keepdims", False)
    return (1, 1, 1, channels) if keepdims else (1, channels)


def _reshape(op: IntegerOp, source: Shape) -> Shape:
    shape = (1, *op.attributes["shape"])
    _require(math.prod(shape) == math.prod(source))
    return shape


def _pad(op: IntegerOp, source: Shape) -> Shape:
    return _with_margins(source, op.attributes["pads"], 1)


def _crop(op: IntegerOp, source: Shape) -> Shape:
    return _with_margins(source, op.attributes["crops"], -1)


def _with_margins(source: Shape, margins, sign: int) -> Shape:
    _, height, width, channels = source
    (top, bottom), (left, right) = margins
    return (
        1,
        height + sign * (top + bottom),
        width + sign * (left + right),
        channels,
    )


def _concatenate(op: IntegerOp, *sources: Shape) -> Shape:
    _require(len({source[:-1] for source in sources}) == 1)
    return (*sources[0][:-1], sum(source[-1] for source in sources))


def _depth_to_space(op: IntegerOp, source: Shape) -> Shape:
    _, height, width, channels = source
    rows, columns = op.attributes["block_size"]
    _require(channels % (rows * columns) == 0)
    blocks = (1, height * rows, width * columns, channels // (rows * columns))
    return _with_margins(blocks, op.attributes["crops"], -1)


def _resize(op: IntegerOp, source: Shape) -> Shape:
    _, height, width, channels = source
    rows, columns = op.attributes["size"]
    return (1, height * rows, width * columns, channels)


_OUTPUT_SHAPES: Mapping[str, Callable[..., Shape]] = {
    "conv": _conv,
    "depthwise": _depthwise,
    "dense": _dense,
    "add": _broadcast,
    "subtract": _broadcast,
    "multiply": _broadcast,
    "relu": _same,
    "leaky_relu": _same,
    "minimum": _same,
    "sigmoid": _same,
    "tanh": _same,
    "gelu": _same,
    "hard_swish": _same,
    "l2_normalize": _same,
    "channel_mean": _channel_mean,
    "global_average": _global_average,
    "average_pool": _pool,
    "max_pool": _pool,
    "reshape": _reshape,
    "pad": _pad,
    "crop": _crop,
    "concatenate": _concatenate,
    "depth_to_space": _depth_to_space,
    "resize_nearest": _resize,
    "resize_bilinear": _resize,
}


def _require(fits: bool) -> None:
    if not fits:
        raise ValueError
