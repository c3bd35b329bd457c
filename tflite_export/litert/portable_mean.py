"""Means as TFLite's portable kernels take them, of int8 and of int16 values."""

from __future__ import annotations

import math

import tensorflow as tf

from tflite_export.integer_network import IntegerOp
from tflite_export.litert.fixed_point import mean_multiplier, multiply_by
from tflite_export.litert.rounding import clamp_to_type
from tflite_export.operators.record import Operand


def global_average(op: IntegerOp, source: Operand) -> tf.Tensor:
    """The mean over all positions."""
    keepdims = op.attributes.get("keepdims", False)
    return _mean(op, source, axes=[1, 2], keepdims=keepdims)


def channel_mean(op: IntegerOp, source: Operand) -> tf.Tensor:
    """The mean over channels."""
    return _mean(op, source, axes=[-1], keepdims=True)


def _mean(
    op: IntegerOp, source: Operand, *, axes: list[int], keepdims: bool
) -> tf.Tensor:
    count = math.prod(source.values.shape[axis] for axis in axes)
    total = tf.reduce_sum(source.centered, axes, keepdims=keepdims)
    factor = source.quant_params.scale / op.quant_params.scale
    outputs = multiply_by(total, *mean_multiplier(factor, count))
    return clamp_to_type(outputs, op.quant_params)
