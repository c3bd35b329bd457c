"""Sums, differences, products, maxima and minima of two tensors."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tflite_export.integer_network import IntegerOp, Shape
from tflite_export.operators.fake_quantization import finish
from tflite_export.operators.record import Kinds, Operand, OperatorKind
from tflite_export.operators.shapes import require_fit


def _broadcast(op: IntegerOp, first: Shape, second: Shape) -> Shape:
    require_fit(len(first) == len(second))
    return np.broadcast_shapes(first, second)


def _export_add(op: IntegerOp, first: Operand, second: Operand) -> tf.Tensor:
    return finish(first.values + second.values, op)


def _export_subtract(op: IntegerOp, first: Operand, second: Operand) -> tf.Tensor:
    return finish(first.values - second.values, op)


def _export_multiply(op: IntegerOp, first: Operand, second: Operand) -> tf.Tensor:
    return finish(first.values * second.values, op)


def maximum(op: IntegerOp, first: Operand, second: Operand) -> tf.Tensor:
    """The larger of each two values, real or stored: both have one scale."""
    return tf.maximum(first.values, second.values)


def minimum(op: IntegerOp, first: Operand, second: Operand) -> tf.Tensor:
    """The smaller of each two values, real or stored: both have one scale."""
    return tf.minimum(first.values, second.values)


def _export_maximum(op: IntegerOp, first: Operand, second: Operand) -> tf.Tensor:
    return finish(maximum(op, first, second), op)


def _export_minimum(op: IntegerOp, first: Operand, second: Operand) -> tf.Tensor:
    return finish(minimum(op, first, second), op)


ARITHMETIC: Kinds = {
    "add": OperatorKind(_broadcast, _export_add, num_inputs=2),
    "subtract": OperatorKind(_broadcast, _export_subtract, num_inputs=2),
    "multiply": OperatorKind(_broadcast, _export_multiply, num_inputs=2),
    "elementwise_maximum": OperatorKind(_broadcast, _export_maximum, num_inputs=2),
    "elementwise_minimum": OperatorKind(_broadcast, _export_minimum, num_inputs=2),
}
