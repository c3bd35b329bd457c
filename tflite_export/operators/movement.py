"""Operations that move values, repeat them or blend neighbours.

Most are the same function of real values and of stored integers.

Attributes: shape of reshape, without batch; permutation of transpose, which dimension
comes where, counted from 1, the batch being 0; pads of pad, crops of crop and
depth_to_space, ((top, bottom), (left, right)); block_size of depth_to_space, (height,
width); size of resizes, (times height, times width).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from tflite_export.integer_network import IntegerOp, Shape
from tflite_export.json_values import (
    integer_within,
    is_margins,
    is_pair,
    is_size,
    list_of,
)
from tflite_export.operators import resampling
from tflite_export.operators.fake_quantization import finish
from tflite_export.operators.record import Kinds, Operand, OperatorKind
from tflite_export.operators.shapes import require_fit, with_margins


def reshape(op: IntegerOp, source: Operand) -> tf.Tensor:
    """The values in another shape."""
    # Static in the exported graph, whose batch is 1; any batch elsewhere.
    batch = source.values.shape[0] or -1
    return tf.reshape(source.values, (batch, *op.attributes["shape"]))


def transpose(op: IntegerOp, source: Operand) -> tf.Tensor:
    """The values with their dimensions in another order."""
    return tf.transpose(source.values, (0, *op.attributes["permutation"]))


def pad(op: IntegerOp, source: Operand, zero: float = 0.0) -> tf.Tensor:
    """Zeros around the images; `zero` is what stands for them."""
    around = [(0, 0), *op.attributes["pads"], (0, 0)]
    return tf.pad(source.values, around, constant_values=zero)


def crop(op: IntegerOp, source: Operand) -> tf.Tensor:
    """Images without their margins."""
    return resampling.crop(source.values, op.attributes["crops"])


def concatenate(op: IntegerOp, *sources: Operand) -> tf.Tensor:
    """Channels behind each other."""
    return tf.concat([source.values for source in sources], axis=-1)


def depth_to_space(op: IntegerOp, source: Operand) -> tf.Tensor:
    """Channels laid out as blocks of positions."""
    attributes = op.attributes
    return resampling.depth_to_space(
        source.values, attributes["block_size"], attributes["crops"]
    )


def resize_nearest(op: IntegerOp, source: Operand) -> tf.Tensor:
    """Every position repeated."""
    return resampling.resize_by(source.values, op.attributes["size"], "nearest")


def _finished(move: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """The export of a kind that moves values.

    They have the right format already, but the converter takes no integer operator for
    some kinds unless their output says so.
    """

    def export(op: IntegerOp, *sources: Operand) -> tf.Tensor:
        return finish(move(op, *sources), op)

    return export


def _resize_bilinear(op: IntegerOp, source: Operand) -> tf.Tensor:
    return resampling.resize_by(source.values, op.attributes["size"], "bilinear")


def _reshape_shape(op: IntegerOp, source: Shape) -> Shape:
    shape = (1, *op.attributes["shape"])
    require_fit(math.prod(shape) == math.prod(source))
    return shape


def _transpose_shape(op: IntegerOp, source: Shape) -> Shape:
    order = (0, *op.attributes["permutation"])
    require_fit(sorted(order) == list(range(len(source))))
    return tuple(source[dimension] for dimension in order)


def _pad_shape(op: IntegerOp, source: Shape) -> Shape:
    return with_margins(source, op.attributes["pads"], 1)


def _crop_shape(op: IntegerOp, source: Shape) -> Shape:
    return with_margins(source, op.attributes["crops"], -1)


def _concatenate_shape(op: IntegerOp, *sources: Shape) -> Shape:
    require_fit(len({source[:-1] for source in sources}) == 1)
    return (*sources[0][:-1], sum(source[-1] for source in sources))


def _depth_to_space_shape(op: IntegerOp, source: Shape) -> Shape:
    _, height, width, channels = source
    rows, columns = op.attributes["block_size"]
    require_fit(channels % (rows * columns) == 0)
    blocks = (1, height * rows, width * columns, channels // (rows * columns))
    return with_margins(blocks, op.attributes["crops"], -1)


def _resize_shape(op: IntegerOp, source: Shape) -> Shape:
    _, height, width, channels = source
    rows, columns = op.attributes["size"]
    return (1, height * rows, width * columns, channels)


MOVEMENT: Kinds = {
    "reshape": OperatorKind(
        _reshape_shape,
        reshape,
        attributes={"shape": list_of(None, integer_within(1, 2**31))},
    ),
    "transpose": OperatorKind(
        _transpose_shape,
        _finished(transpose),
        attributes={"permutation": list_of(None, is_size)},
    ),
    "pad": OperatorKind(_pad_shape, pad, attributes={"pads": is_margins}),
    "crop": OperatorKind(_crop_shape, crop, attributes={"crops": is_margins}),
    "concatenate": OperatorKind(
        _concatenate_shape, _finished(concatenate), num_inputs=None
    ),
    "depth_to_space": OperatorKind(
        _depth_to_space_shape,
        _finished(depth_to_space),
        attributes={"block_size": is_pair, "crops": is_margins},
    ),
    "resize_nearest": OperatorKind(
        _resize_shape, _finished(resize_nearest), attributes={"size": is_pair}
    ),
    "resize_bilinear": OperatorKind(
        _resize_shape, _finished(_resize_bilinear), attributes={"size": is_pair}
    ),
}
