"""Convolutions and dense layers of TensorFlow Lite for Microcontrollers, bit by bit.

Its reference kernels unpack INT4 and then do as with INT8: 32-bit sums, multiplied by a
fixed-point number and rounded twice (see `fixed_point.py`).
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tflite_export.integer_network import IntegerOp, kernel_of
from tflite_export.litert.fixed_point import multiply
from tflite_export.litert.kernels import first_rounding_bias
from tflite_export.litert.rounding import clamp_to_activation
from tflite_export.operators.kernels import (
    conv_sums,
    dense_sums,
    depthwise_sums,
    pointwise_sums,
)
from tflite_export.operators.record import Operand
from tflite_export.quantization_params import QuantParams

_FULLY_CONNECTED = frozenset({"dense", "pointwise"})


def rounding_bias(op: IntegerOp, taken: QuantParams) -> np.ndarray:
    """What rounding adds to each accumulator of an operation, in accumulator units.

    The second rounding takes ties away from zero: half a unit of the first one is
    added above zero and taken off below, where a ReLU leaves nothing to be seen. Both
    cancel out where there is none.

    Args:
      op: with a kernel, whose bias does not matter.
      taken: quantization parameters of its input.

    Returns:
      float64 (output channels,).
    """
    factors = _factors(op, taken)
    if not (op.relu or op.relu6):
        return np.zeros(factors.shape)
    return first_rounding_bias(factors)


def conv(op: IntegerOp, source: Operand) -> tf.Tensor:
    """Stored integers of a convolution's output."""
    return _scaled(op, source, conv_sums(op, source.centered))


def depthwise(op: IntegerOp, source: Operand) -> tf.Tensor:
    """Stored integers of a depthwise convolution's output."""
    return _scaled(op, source, depthwise_sums(op, source.centered))


def dense(op: IntegerOp, source: Operand) -> tf.Tensor:
    """Stored integers of a dense layer's output."""
    return _scaled(op, source, dense_sums(op, source.centered))


def pointwise(op: IntegerOp, source: Operand) -> tf.Tensor:
    """Stored integers of a pointwise layer's output."""
    return _scaled(op, source, pointwise_sums(op, source.centered))


def _scaled(op: IntegerOp, source: Operand, sums: tf.Tensor) -> tf.Tensor:
    """Sums of products with the bias, from accumulator to output."""
    accumulators = sums + kernel_of(op).bias.astype(np.float64)
    return clamp_to_activation(
        multiply(accumulators, _factors(op, source.quant_params)), op
    )


def _factors(op: IntegerOp, taken: QuantParams) -> np.ndarray:
    """What accumulators are multiplied by, float64 (output channels,)."""
    scale = kernel_of(op).scale
    steps = taken.scale * scale.astype(np.float64)
    if op.kind in _FULLY_CONNECTED and len(scale) == 1:
        # A FULLY_CONNECTED of one scale multiplies both in float32.
        steps = (np.float32(taken.scale) * scale).astype(np.float64)
    return steps / op.quant_params.scale
