"""Functions of one tensor, value by value.

Attributes: slope of leaky_relu, below zero; slopes of prelu, levels of slope_scale for
each channel or for each value of an image; level of minimum, the quantized value that
no result is above.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tflite_export.integer_network import IntegerOp, Shape
from tflite_export.json_values import (
    integer_within,
    is_finite,
    is_int16,
    is_scale,
    list_of,
)
from tflite_export.operators.fake_quantization import fake_quant, finish
from tflite_export.operators.record import Kinds, Operand, OperatorKind
from tflite_export.operators.shapes import require_fit, same_shape
from tflite_export.quantization_params import (
    BETWEEN_0_AND_1,
    BETWEEN_MINUS_1_AND_1,
    QuantParams,
)


def hard_swish(inputs: tf.Tensor) -> tf.Tensor:
    """`x * relu6(x + 3) / 6`, in the form that the converter knows as HARD_SWISH."""
    return inputs * tf.nn.relu6(inputs + 3.0) * (1.0 / 6.0)


def _function(
    compute: Callable[[tf.Tensor], tf.Tensor],
    fixed_quant_params: QuantParams | None = None,
) -> OperatorKind:
    def export(op: IntegerOp, source: Operand) -> tf.Tensor:
        return finish(compute(source.values), op)

    return OperatorKind(same_shape, export, fixed_quant_params=fixed_quant_params)


def _export_leaky_relu(op: IntegerOp, source: Operand) -> tf.Tensor:
    return finish(tf.nn.leaky_relu(source.values, op.attributes["slope"]), op)


def slope_levels(op: IntegerOp, shape: Shape) -> np.ndarray:
    """The slopes of a prelu, int8, so that they broadcast to images of that shape.

    `shape`: without batch.
    """
    levels = np.array(op.attributes["slopes"], np.int8)
    of_channels = (*(1 for _ in shape[:-1]), shape[-1])
    return levels.reshape(of_channels if levels.size == shape[-1] else shape)


def _prelu_shape(op: IntegerOp, source: Shape) -> Shape:
    require_fit(len(source) <= 4 and slope_levels(op, source[1:]).size > 0)
    return source


def _export_prelu(op: IntegerOp, source: Operand) -> tf.Tensor:
    """In the one form that the converter knows as PRELU.

    But not if another ReLU of the same tensor becomes part of that form. So the tensor
    is quantized once more, which changes nothing and leaves no trace in the file.
    """
    inputs = fake_quant(source.values, source.quant_params)
    scale = op.attributes["slope_scale"]
    slopes = tf.constant(slope_levels(op, inputs.shape[1:]) * scale, tf.float32)
    return finish(tf.nn.relu(inputs) + (-slopes) * tf.nn.relu(-inputs), op)


def _minimum_shape(op: IntegerOp, source: Shape) -> Shape:
    level, quant_params = op.attributes["level"], op.quant_params
    require_fit(quant_params.lowest <= level <= quant_params.highest)
    return source


def _export_minimum(op: IntegerOp, source: Operand) -> tf.Tensor:
    steps = op.attributes["level"] - op.quant_params.zero_point
    bound = tf.constant(steps * op.quant_params.scale, tf.float32)
    return finish(tf.minimum(source.values, bound), op)


ACTIVATIONS: Kinds = {
    # What there is to do, `IntegerOp.relu` says.
    "relu": _function(lambda inputs: inputs),
    "leaky_relu": OperatorKind(
        same_shape, _export_leaky_relu, attributes={"slope": is_finite}
    ),
    "prelu": OperatorKind(
        _prelu_shape,
        _export_prelu,
        attributes={
            "slopes": list_of(None, integer_within(-127, 127)),
            "slope_scale": is_scale,
        },
    ),
    "minimum": OperatorKind(
        _minimum_shape, _export_minimum, attributes={"level": is_int16}
    ),
    "sigmoid": _function(tf.sigmoid, BETWEEN_0_AND_1),
    "tanh": _function(tf.tanh, BETWEEN_MINUS_1_AND_1),
    "gelu": _function(tf.nn.gelu),
    # See `exponential_linear.py`.
    "elu": _function(tf.exp),
    "hard_swish": _function(hard_swish),
}
