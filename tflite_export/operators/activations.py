"""Functions of one tensor, value by value.

Attributes: slope of leaky_relu, below zero; level of minimum, the quantized value that
no result is above.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tflite_export.integer_network import IntegerOp
from tflite_export.json_values import is_finite, is_quantized
from tflite_export.operators.fake_quantization import finish
from tflite_export.operators.record import Kinds, Operand, OperatorKind
from tflite_export.operators.shapes import same_shape
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
    "minimum": OperatorKind(
        same_shape, _export_minimum, attributes={"level": is_quantized}
    ),
    "sigmoid": _function(tf.sigmoid, BETWEEN_0_AND_1),
    "tanh": _function(tf.tanh, BETWEEN_MINUS_1_AND_1),
    "gelu": _function(tf.nn.gelu),
    "hard_swish": _function(hard_swish),
}
