"""Functions of int8 values that a kernel looks up in a table."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tflite_export.integer_network import IntegerOp
from tflite_export.operators.activations import slope_levels
from tflite_export.operators.record import Operand
from tflite_export.quantization_params import INT8_MIN


def look_up(table: np.ndarray, source: Operand) -> tf.Tensor:
    """What `table` (256,) holds for each int8 value, the least one first."""
    return tf.gather(tf.constant(table, tf.float64), _places(source))


def look_up_by_slope(table: np.ndarray, op: IntegerOp, source: Operand) -> tf.Tensor:
    """What `table` (256, 256) holds for each slope of `op` and each int8 value."""
    slopes = slope_levels(op, source.values.shape[1:]).astype(np.int32) - INT8_MIN
    places = 256 * slopes + _places(source)
    return tf.gather(tf.constant(table.ravel(), tf.float64), places)


def _places(source: Operand) -> tf.Tensor:
    return tf.cast(source.values, tf.int32) - INT8_MIN
