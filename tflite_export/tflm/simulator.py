"""An integer network computed as TensorFlow Lite for Microcontrollers does it.

Its reference kernels, which are those of its Python package. They differ from LiteRT's

- in kernels, sums, products, means and changes of scale: all multiply by fixed-point
  numbers and round twice (see `fixed_point.py`);
- in logistic, tanh and softmax: fixed-point polynomials (see `functions.py` and
  `softmax.py`); in leaky ReLU and PReLU; in RELU6, which leaves the scale as it is;
- in bilinear resizes: weights of 10 bits (see `portable_resize.py`).

Everything else is the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tflite_export.integer_network import IntegerNetwork, IntegerOp
from tflite_export.litert import simulator as litert
from tflite_export.litert.fixed_point import multiply
from tflite_export.litert.look_up import look_up, look_up_by_slope
from tflite_export.litert.portable_mean import channel_mean, global_average
from tflite_export.litert.portable_resize import resize_quantized
from tflite_export.litert.rounding import (
    activation_bounds,
    clamp_to_activation,
)
from tflite_export.operators.record import Operand
from tflite_export.simulation import Kernels, Simulation, compute
from tflite_export.tflm.functions import (
    elu_table,
    leaky_relu_table,
    logistic_table,
    prelu_table,
    tanh_table,
)
from tflite_export.tflm.kernels import (
    conv,
    dense,
    depthwise,
    pointwise,
    rounding_bias,
)
from tflite_export.tflm.softmax import softmax_quantized

_SUM_BITS = 20  # fractional bits that inputs of sums are given


def infer(network: IntegerNetwork, images: np.ndarray) -> np.ndarray:
    """int8 outputs (N, classes) of int8 inputs (N, H, W, C), as TFLM gives them."""
    return compute(TFLM, network, images)


def _add(op: IntegerOp, first: Operand, second: Operand) -> tf.Tensor:
    return _weighted_sum(op, (first, second), (1, 1))


def _subtract(op: IntegerOp, first: Operand, second: Operand) -> tf.Tensor:
    return _weighted_sum(op, (first, second), (1, -1))


def _weighted_sum(
    op: IntegerOp, operands: tuple[Operand, Operand], signs: tuple[int, int]
) -> tf.Tensor:
    """Both at twice the larger scale, which leaves one bit of room, then the sum."""
    twice = 2 * max(x.quant_params.scale for x in operands)
    total = sum(
        sign * multiply(x.centered * 2.0**_SUM_BITS, x.quant_params.scale / twice)
        for x, sign in zip(operands, signs, strict=True)
    )
    factor = twice / (2.0**_SUM_BITS * op.quant_params.scale)
    return clamp_to_activation(multiply(total, factor), op)


def _multiply(op: IntegerOp, first: Operand, second: Operand) -> tf.Tensor:
    scale = float(first.quant_params.scale) * second.quant_params.scale
    products = first.centered * second.centered
    return clamp_to_activation(multiply(products, scale / op.quant_params.scale), op)


def _relu(op: IntegerOp, source: Operand) -> tf.Tensor:
    if op.relu6:  # its scale is the input's, whatever the output's is
        as_given = dataclasses.replace(op, quant_params=source.quant_params)
        return tf.clip_by_value(source.values, *activation_bounds(as_given))
    factor = source.quant_params.scale / op.quant_params.scale
    return clamp_to_activation(multiply(source.centered, factor), op)


def _leaky_relu(op: IntegerOp, source: Operand) -> tf.Tensor:
    slope = op.attributes["slope"]
    return look_up(
        leaky_relu_table(source.quant_params, op.quant_params, slope), source
    )


def _prelu(op: IntegerOp, source: Operand) -> tf.Tensor:
    table = prelu_table(
        source.quant_params, op.quant_params, op.attributes["slope_scale"]
    )
    return look_up_by_slope(table, op, source)


def _logistic(op: IntegerOp, source: Operand) -> tf.Tensor:
    return look_up(logistic_table(source.quant_params), source)


def _tanh(op: IntegerOp, source: Operand) -> tf.Tensor:
    return look_up(tanh_table(source.quant_params), source)


def _elu(op: IntegerOp, source: Operand) -> tf.Tensor:
    return look_up(elu_table(source.quant_params, op.quant_params), source)


def _resize_bilinear(op: IntegerOp, source: Operand) -> tf.Tensor:
    return resize_quantized(source.values, op.attributes["size"])


SIMULATIONS: Mapping[str, Simulation] = {
    **litert.SIMULATIONS,
    "conv": Simulation(conv),
    "depthwise": Simulation(depthwise),
    "dense": Simulation(dense),
    "dense_convolution": Simulation(dense),
    "pointwise": Simulation(pointwise),
    "add": Simulation(_add),
    "subtract": Simulation(_subtract),
    "multiply": Simulation(_multiply),
    "relu": Simulation(_relu),
    "leaky_relu": Simulation(_leaky_relu),
    "prelu": Simulation(_prelu),
    "sigmoid": Simulation(_logistic),
    "tanh": Simulation(_tanh),
    "elu": Simulation(_elu, exact=False),
    "global_average": Simulation(global_average),
    "channel_mean": Simulation(channel_mean),
    "resize_bilinear": Simulation(_resize_bilinear),
}
TFLM = Kernels(
    SIMULATIONS,
    softmax=softmax_quantized,
    softmax_is_exact=True,
    rounding_bias=rounding_bias,
)
