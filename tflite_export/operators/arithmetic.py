"""Sums, differences, products, maxima and minima of two tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tflite_export.integer_network import IntegerOp, Shape
from tflite_export.operators.fake_quantization import fake_quant, finish
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


def _of_formats(
    choose: Callable[[IntegerOp, Operand, Operand], tf.Tensor],
) -> Callable[[IntegerOp, Operand, Operand], tf.Tensor]:
    """The export of a kind that chooses among values of one scale.

    Its operands have the right format already, but unless they say so themselves the
    converter leaves in float what else reads a padded or cropped one of them.
    """

    def export(op: IntegerOp, *operands: Operand) -> tf.Tensor:
        told = [
            dataclasses.replace(x, values=fake_quant(x.values, x.quant_params))
            for x in operands
        ]
        return finish(choose(op, *told), op)

    return export


ARITHMETIC: Kinds = {
    "add": OperatorKind(_broadcast, _export_add, num_inputs=2),
    "subtract": OperatorKind(_broadcast, _export_subtract, num_inputs=2),
    "multiply": OperatorKind(_broadcast, _export_multiply, num_inputs=2),
    "elementwise_maximum": OperatorKind(_broadcast, _of_formats(maximum), num_inputs=2),
    "elementwise_minimum": OperatorKind(_broadcast, _of_formats(minimum), num_inputs=2),
}
