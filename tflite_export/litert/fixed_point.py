"""Integer arithmetic as LiteRT's portable kernels, and TFLM's, do it.

Accumulators are multiplied by integers m and n that stand for m * 2^(n - 31): the
product is rounded to its upper 32 bits, ties up, and then shifted right, ties away from
zero.

Sources: gemmlowp's fixedpoint.h, whose names are in brackets;
MultiplyByQuantizedMultiplier in TensorFlow Lite's kernels/internal/common.h,
QuantizeMultiplier in quantization_util.cc.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

_BITS = 31
_LARGEST_SHIFT = 31  # to the right; what is smaller is zero


def divide(values: np.ndarray, divisor: int) -> np.ndarray:
    """C's integer division, towards zero."""
    return np.sign(values) * (np.abs(values) // divisor)


def multiply_rounding(
    values: np.ndarray, multiplier: np.ndarray | int, bits: int
) -> np.ndarray:
    """`values * multiplier / 2^bits`, rounded; ties up.

    (SaturatingRoundingDoublingHighMul, of `bits` + 1 bits.)
    """
    product = values * multiplier
    half = 2 ** (bits - 1)
    return divide(product + np.where(product >= 0, half, 1 - half), 2**bits)


def shift_right_rounding(values: np.ndarray, bits: np.ndarray | int) -> np.ndarray:
    """`values / 2^bits`, rounded; ties away from zero.

    (RoundingDivideByPOT.)
    """
    half = (np.int64(1) << np.int64(bits)) >> 1
    return np.sign(values) * ((np.abs(values) + half) >> bits)


def fixed_multiplier(factor: float) -> tuple[int, int]:
    """Integers m and n with factor = m * 2^(n - 31), nearly."""
    mantissa, exponent = math.frexp(factor)
    return math.floor(mantissa * 2**31 + 0.5), exponent


def multiply_by_real(values: np.ndarray, factor: float) -> np.ndarray:
    """`values * factor`, rounded; twice where the factor is below a half.

    (MultiplyByQuantizedMultiplier.)
    """
    multiplier, exponent = fixed_multiplier(factor)
    product = multiply_rounding(values << max(exponent, 0), multiplier, 31)
    return shift_right_rounding(product, max(-exponent, 0))


def quantized_multiplier(factor: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Integers m in [2^30, 2^31) and n with factor = m * 2^(n - 31), nearly; or zero.

    Args:
      factor: float64, of any shape, >= 0.

    Returns:
      int64 of that shape each.
    """
    mantissa, exponent = np.frexp(np.asarray(factor, np.float64))
    multiplier = np.floor(mantissa * 2.0**_BITS + 0.5).astype(np.int64)
    exponent = exponent.astype(np.int64)
    exponent = np.where(multiplier == 2**_BITS, exponent + 1, exponent)
    multiplier = np.where(multiplier == 2**_BITS, 2 ** (_BITS - 1), multiplier)
    too_small = exponent < -_LARGEST_SHIFT
    return np.where(too_small, 0, multiplier), np.where(too_small, 0, exponent)


def mean_multiplier(factor: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Those of factor / count: of the factor's, one divided by an integer.

    Source: TensorFlow Lite's kernels/internal/reference/integer_ops/mean.h.
    """
    multiplier, exponent = quantized_multiplier(factor)
    shift = min(count.bit_length() - 1, 32, _LARGEST_SHIFT + int(exponent))
    return (multiplier << shift) // count, exponent - shift


def multiply(values: tf.Tensor, factor: np.ndarray | float) -> tf.Tensor:
    """Values times a factor, rounded twice, as kernels do.

    Args:
      values: float64, integers of 32 bits.
      factor: float64, that broadcasts to them.

    Returns:
      float64 integers of the shape of `values`.
    """
    return multiply_by(values, *quantized_multiplier(factor))


def multiply_by(
    values: tf.Tensor, multiplier: np.ndarray, exponent: np.ndarray
) -> tf.Tensor:
    """`multiply` by multiplier * 2^(exponent - 31)."""
    integers = tf.cast(values, tf.int64)
    if (exponent > 0).any():
        integers = _wrapped(integers * 2 ** np.maximum(exponent, 0))
    product = integers * multiplier + 2 ** (_BITS - 1)
    high = tf.bitwise.right_shift(product, tf.constant(_BITS, tf.int64))
    right = np.maximum(-exponent, 0)
    half = 2**right // 2
    away = tf.bitwise.right_shift(
        tf.abs(high) + half, tf.constant(right) + tf.zeros_like(high)
    )
    return tf.cast(tf.sign(high) * away, tf.float64)


def _wrapped(integers: tf.Tensor) -> tf.Tensor:
    """What 32 bits hold of integers."""
    return tf.math.floormod(integers + 2**_BITS, 2 ** (_BITS + 1)) - 2**_BITS
