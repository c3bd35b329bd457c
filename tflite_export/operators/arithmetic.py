"""Sums, differences and products of two tensors."""

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


ARITHMETIC: Kinds = {
    "add": OperatorKind(_broadcast, _export_add, num_inputs=2),
    "subtract": OperatorKind(_broadcast, _export_subtract, num_inputs=2),
    "multiply": OperatorKind(_broadcast, _export_multiply, num_inputs=2),
}
