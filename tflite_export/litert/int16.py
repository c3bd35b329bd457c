"""An integer network with int16 activations computed with LiteRT's rounding.

XNNPACK has no kernels for int16, so LiteRT's own run, which are its portable ones: the
same code on every processor. They

- sum products of kernels in 64 bits, and multiply sums by a fixed-point number of 15
  bits, rounded once, ties up; in FULLY_CONNECTED by a double, ties away from zero;
- multiply sums of two tensors, products and changes of scale by one of 31 bits, rounded
  twice (see `fixed_point.py`);
- look up functions of one tensor in tables (see `int16_functions.py`);
- blend neighbours with weights of 10 bits (see `portable_resize.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from tflite_export.integer_network import IntegerOp, kernel_of
from tflite_export.litert.fixed_point import (
    multiply,
    multiply_by,
    quantized_multiplier,
)
from tflite_export.litert.int16_functions import (
    gelu,
    hyperbolic_tangent,
    logistic,
    softmax,
)
from tflite_export.litert.portable_mean import channel_mean, global_average
from tflite_export.litert.portable_resize import resize_quantized
from tflite_export.litert.rounding import clamp_to_activation, clamp_to_type, round_away
from tflite_export.litert.simulator import LITERT
from tflite_export.operators.kernels import (
    conv_sums,
    dense_sums,
    depthwise_sums,
    pointwise_sums,
)
from tflite_export.operators.pooling import pool_arguments
from tflite_export.operators.record import Operand
from tflite_export.quantization_params import QuantParams
from tflite_export.simulation import Kernels, Simulation

_SUM_BITS = 15  # fractional bits that inputs of sums are given
_VECTOR = 16  # numbers that vector code adds at once
_REDUCED_BITS = 15  # of multipliers of sums of 64 bits


def _convolution(sums: Callable[[IntegerOp, tf.Tensor], tf.Tensor]) -> Simulation:
    def run(op: IntegerOp, source: Operand) -> tf.Tensor:
        accumulators = tf.cast(sums(op, source.values), tf.int64) + kernel_of(op).bias
        multiplier, shift = reduced_multipliers(op, source.quant_params)
        half = np.int64(1) << (shift - 1)
        scaled = tf.bitwise.right_shift(
            accumulators * multiplier + half, shift + tf.zeros_like(accumulators)
        )
        return clamp_to_activation(tf.cast(scaled, tf.float64), op)

    return Simulation(run)


def _fully_connected(sums: Callable[[IntegerOp, tf.Tensor], tf.Tensor]) -> Simulation:
    def run(op: IntegerOp, source: Operand) -> tf.Tensor:
        kernel = kernel_of(op)
        factor = kernel.scale.astype(np.float64) * source.quant_params.scale
        products = (sums(op, source.values) + kernel.bias.astype(np.float64)) * (
            factor / op.quant_params.scale
        )
        return clamp_to_activation(round_away(products), op)

    return Simulation(run)


def reduced_multipliers(
    op: IntegerOp, taken: QuantParams
) -> tuple[np.ndarray, np.ndarray]:
    """Integers m below 2^15 and n of m / 2^n, by which accumulators are multiplied."""
    exact = kernel_of(op).scale.astype(np.float64) * taken.scale
    multiplier, exponent = quantized_multiplier(exact / op.quant_params.scale)
    reduced = np.minimum((multiplier + 2**15) >> 16, 2**_REDUCED_BITS - 1)
    return reduced, _REDUCED_BITS - exponent


def _add(op: IntegerOp, first: Operand, second: Operand) -> tf.Tensor:
    """By vector code as far as that goes, if both have one shape."""
    scalar = _sum(op, first, second, 1, _scaled_in_scalar_code)
    if first.values.shape[1:] != second.values.shape[1:]:
        return scalar
    size = math.prod(first.values.shape[1:])
    in_vector_code = np.arange(size) < size // _VECTOR * _VECTOR
    vector = _sum(op, first, second, 1, _scaled_in_vector_code)
    return tf.where(in_vector_code.reshape(first.values.shape[1:]), vector, scalar)


def _subtract(op: IntegerOp, first: Operand, second: Operand) -> tf.Tensor:
    return _sum(op, first, second, -1, _scaled_in_scalar_code)


def _sum(
    op: IntegerOp,
    first: Operand,
    second: Operand,
    sign: int,
    scaled: Callable[[tf.Tensor, float], tf.Tensor],
) -> tf.Tensor:
    """Both at twice the larger scale, which leaves one bit of room, then the sum."""
    twice = 2 * max(first.quant_params.scale, second.quant_params.scale)
    total = scaled(first.values, first.quant_params.scale / twice) + sign * scaled(
        second.values, second.quant_params.scale / twice
    )
    factor = twice / (2.0**_SUM_BITS * op.quant_params.scale)
    return clamp_to_activation(multiply(total, factor), op)


def _scaled_in_scalar_code(values: tf.Tensor, factor: float) -> tf.Tensor:
    return multiply(values * 2.0**_SUM_BITS, factor)


def _scaled_in_vector_code(values: tf.Tensor, factor: float) -> tf.Tensor:
    """Shifted both ways at once, so that it is rounded once."""
    multiplier, exponent = quantized_multiplier(factor)
    shifted = tf.floor(values * 2.0 ** (_SUM_BITS + int(exponent)))
    return multiply_by(shifted, multiplier, np.zeros_like(exponent))


def _multiply(op: IntegerOp, first: Operand, second: Operand) -> tf.Tensor:
    scale = np.float32(first.quant_params.scale) * np.float32(second.quant_params.scale)
    factor = float(scale / np.float32(op.quant_params.scale))
    return clamp_to_activation(multiply(first.values * second.values, factor), op)


def _relu(op: IntegerOp, source: Operand) -> tf.Tensor:
    return clamp_to_activation(multiply(source.values, _change(op, source)), op)


def _change(op: IntegerOp, source: Operand) -> float:
    """From the input's scale to the output's, in float32."""
    return float(
        np.float32(source.quant_params.scale) / np.float32(op.quant_params.scale)
    )


def _leaky_relu(op: IntegerOp, source: Operand) -> tf.Tensor:
    slope = np.float32(op.attributes["slope"])
    factor = np.float32(source.quant_params.scale) * slope
    below = multiply(source.values, float(factor / np.float32(op.quant_params.scale)))
    above = multiply(source.values, _change(op, source))
    outputs = tf.where(source.values < 0, below, above)
    return clamp_to_type(outputs, op.quant_params)


def _function(compute: Callable[..., np.ndarray], *, exact: bool) -> Simulation:
    """Of one tensor, by NumPy: (int16 values, quantization parameters of the input).

    If it has an output of any scale, that of the output besides.
    """

    def run(op: IntegerOp, source: Operand) -> tf.Tensor:
        outputs = tf.numpy_function(
            lambda values: compute(values.astype(np.int64), source.quant_params, op),
            [source.values],
            tf.int64,
        )
        outputs = tf.ensure_shape(tf.cast(outputs, tf.float64), source.values.shape)
        return clamp_to_type(outputs, op.quant_params)

    return Simulation(run, exact)


def _average_pool(op: IntegerOp, source: Operand) -> tf.Tensor:
    """Mean of the stored integers, padding left out, rounded away from zero."""
    mean = tf.nn.avg_pool2d(source.values, **pool_arguments(op))
    # Means of up to 2^12 integers differ from a tie by more than this.
    nudged = mean + tf.sign(mean) * 1e-9
    return clamp_to_activation(round_away(nudged), op)


def _resize_bilinear(op: IntegerOp, source: Operand) -> tf.Tensor:
    return resize_quantized(source.values, op.attributes["size"])


# Kinds that choose or move values are the same for all types.
_OF_ANY_TYPE = (
    "elementwise_maximum",
    "elementwise_minimum",
    "minimum",
    "max_pool",
    "reshape",
    "transpose",
    "pad",
    "crop",
    "concatenate",
    "resize_nearest",
)
SIMULATIONS: Mapping[str, Simulation] = {
    "conv": _convolution(conv_sums),
    "depthwise": _convolution(depthwise_sums),
    "dense": _fully_connected(dense_sums),
    "dense_convolution": _convolution(dense_sums),
    "pointwise": _fully_connected(pointwise_sums),
    "add": Simulation(_add),
    "subtract": Simulation(_subtract),
    "multiply": Simulation(_multiply),
    "relu": Simulation(_relu),
    "average_pool": Simulation(_average_pool),
    "global_average": Simulation(global_average),
    "channel_mean": Simulation(channel_mean),
    "leaky_relu": Simulation(_leaky_relu),
    "sigmoid": _function(lambda values, taken, op: logistic(values, taken), exact=True),
    "tanh": _function(
        lambda values, taken, op: hyperbolic_tangent(values, taken), exact=True
    ),
    "gelu": _function(
        lambda values, taken, op: gelu(values, taken, op.quant_params), exact=False
    ),
    "resize_bilinear": Simulation(_resize_bilinear),
    **{kind: LITERT.simulations[kind] for kind in _OF_ANY_TYPE},
}


def _no_rounding_bias(op: IntegerOp, taken: QuantParams) -> np.ndarray:
    return np.zeros(kernel_of(op).scale.shape)


LITERT_INT16 = Kernels(
    SIMULATIONS,
    softmax=softmax,
    softmax_is_exact=True,
    rounding_bias=_no_rounding_bias,
)
