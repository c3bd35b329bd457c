"""Operations that make one value of several positions or channels.

Attributes of pools: pool_size and strides, (height, width); padding, "same" or "valid".
Of global_average: keepdims, False if left out. Of l2_normalize, x / |x| over the
channels: num_constants more channels count in |x|, each constant_level steps of the
input's scale, as an epsilon does.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tflite_export.integer_network import IntegerOp, Shape
from tflite_export.json_values import Fields, integer_within, is_bool, is_pair
from tflite_export.operators.fake_quantization import fake_quant, finish
from tflite_export.operators.record import Kinds, Operand, OperatorKind
from tflite_export.operators.shapes import same_shape, window_positions
from tflite_export.quantization_params import BETWEEN_MINUS_1_AND_1

WINDOW_ATTRIBUTES: Fields = {
    "strides": is_pair,
    "padding": lambda value: value in ("same", "valid"),
}


def pool_arguments(op: IntegerOp) -> dict[str, Any]:
    """Keyword arguments of tf.nn's pooling functions."""
    return {
        "ksize": op.attributes["pool_size"],
        "strides": op.attributes["strides"],
        "padding": op.attributes["padding"].upper(),
    }


def max_pool(op: IntegerOp, source: Operand) -> tf.Tensor:
    """The largest value of each window, real or stored."""
    return tf.nn.max_pool2d(source.values, **pool_arguments(op))


def pad_channels(values: tf.Tensor, count: int, constant: float) -> tf.Tensor:
    """`count` channels of a constant behind the others; the same tensor if none."""
    if not count:
        return values
    around = [(0, 0)] * (len(values.shape) - 1) + [(0, count)]
    return tf.pad(values, around, constant_values=constant)


def _pool_shape(op: IntegerOp, source: Shape) -> Shape:
    return (1, *window_positions(op, source, op.attributes["pool_size"]), source[3])


def _channel_mean_shape(op: IntegerOp, source: Shape) -> Shape:
    return (*source[:-1], 1)


def _global_average_shape(op: IntegerOp, source: Shape) -> Shape:
    _, _, _, channels = source
    keepdims = op.attributes.get("keepdims", False)
    return (1, 1, 1, channels) if keepdims else (1, channels)


def _export_max_pool(op: IntegerOp, source: Operand) -> tf.Tensor:
    return finish(max_pool(op, source), op)


def _export_average_pool(op: IntegerOp, source: Operand) -> tf.Tensor:
    outputs = tf.nn.avg_pool2d(source.values, **pool_arguments(op))
    if op.attributes["pool_size"] == [1, 1] and not op.relu:
        return outputs
    return finish(outputs, op)


def _export_channel_mean(op: IntegerOp, source: Operand) -> tf.Tensor:
    return finish(tf.reduce_mean(source.values, -1, keepdims=True), op)


def _export_global_average(op: IntegerOp, source: Operand) -> tf.Tensor:
    keepdims = op.attributes.get("keepdims", False)
    return finish(tf.reduce_mean(source.values, [1, 2], keepdims=keepdims), op)


def _export_l2_normalize(op: IntegerOp, source: Operand) -> tf.Tensor:
    """With the constant channels behind the others, which are cut out again."""
    constant = op.attributes["constant_level"] * source.quant_params.scale
    inputs = source.values
    padded = pad_channels(inputs, op.attributes["num_constants"], constant)
    outputs = fake_quant(tf.math.l2_normalize(padded, -1), op.quant_params)
    if padded is inputs:
        return outputs
    return tf.slice(outputs, [0] * len(inputs.shape), inputs.shape)


_POOL_ATTRIBUTES = {**WINDOW_ATTRIBUTES, "pool_size": is_pair}

POOLING: Kinds = {
    "average_pool": OperatorKind(
        _pool_shape, _export_average_pool, attributes=_POOL_ATTRIBUTES
    ),
    "max_pool": OperatorKind(
        _pool_shape, _export_max_pool, attributes=_POOL_ATTRIBUTES
    ),
    "global_average": OperatorKind(
        _global_average_shape,
        _export_global_average,
        optional_attributes={"keepdims": is_bool},
    ),
    "channel_mean": OperatorKind(_channel_mean_shape, _export_channel_mean),
    "l2_normalize": OperatorKind(
        same_shape,
        _export_l2_normalize,
        attributes={
            "constant_level": integer_within(-255, 255),
            "num_constants": integer_within(0, 2**15),
        },
        fixed_quant_params=BETWEEN_MINUS_1_AND_1,
    ),
}
