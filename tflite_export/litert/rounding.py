"""How results of any kernel become integers: rounding and clamps, in float64."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from tflite_export.integer_network import IntegerOp
from tflite_export.quantization_params import QuantParams


def round_away(values: tf.Tensor) -> tf.Tensor:
    """Rounded to integers, ties away from zero."""
    return tf.sign(values) * tf.floor(tf.abs(values) + 0.5)


def clamp_to_type(values: tf.Tensor, quant_params: QuantParams) -> tf.Tensor:
    """Zero point added, clamped to an int8 or int16."""
    bounds = quant_params.lowest, quant_params.highest
    return tf.clip_by_value(values + quant_params.zero_point, *bounds)


def clamp_to_activation(values: tf.Tensor, op: IntegerOp) -> tf.Tensor:
    """Zero point added, clamped to its type and to the op's activation."""
    return tf.clip_by_value(values + op.quant_params.zero_point, *activation_bounds(op))


def activation_bounds(op: IntegerOp) -> tuple[int, int]:
    """The least and the largest output of its type and of the op's activation."""
    low, high = op.quant_params.lowest, op.quant_params.highest
    if op.relu or op.relu6:
        low = max(low, op.quant_params.zero_point)
    if op.relu6:
        six = math.floor(np.float32(6.0) / np.float32(op.quant_params.scale) + 0.5)
        high = min(high, op.quant_params.zero_point + six)
    return low, high
