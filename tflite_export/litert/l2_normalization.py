"""LiteRT's int8 L2_NORMALIZATION, bit by bit: 32-bit fixed-point arithmetic.

Sources: tensorflow/lite/kernels/internal/reference/integer_ops/l2normalization.h, and
GetInvSqrtQuantizedMultiplierExp in tensorflow/lite/kernels/internal/common.h.
"""

from __future__ import annotations

import numpy as np

from tflite_export.litert.fixed_point import multiply_rounding, shift_right_rounding

_OUTPUT_BITS = 7  # fractional bits of the output: its scale is 1/128
_BITS = 31
_HALF_SQRT_2 = 1518500250  # sqrt(1/2) with 31 fractional bits
# Newton's iteration computes with 3 bits above one.
_INTEGER_BITS = 3
_ONE = 2 ** (_BITS - _INTEGER_BITS)
_NUM_ITERATIONS = 5


def l2_normalize(centered: np.ndarray) -> np.ndarray:
    """128 x / |x| over the last dimension, not clamped yet.

    Args:
      centered: integers (..., C), zero points taken off; -255..255 each, and C at
        most 2^15, which keeps the kernel's own sums in 32 bits.

    Returns:
      int64 of the same shape.
    """
    centered = np.asarray(centered, np.int64)
    squares = np.sum(centered**2, axis=-1, keepdims=True)
    multiplier, shift = _inverse_square_root(squares)
    shift = shift + _OUTPUT_BITS
    left = np.maximum(shift, 0)
    product = multiply_rounding(centered << left, multiplier, _BITS)
    return shift_right_rounding(product, left - shift)


def _inverse_square_root(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers m, n with 1 / sqrt(values) = m * 2^(n - 31); of 0, anything.

    The kernel has a case of its own for 0 and 1, where 32 bits would not do; what
    becomes of the outputs is the same.
    """
    # To 2^27 ... 2^29 by powers of four.
    down = (values >= 2**29).astype(np.int64)
    up = sum((values < 2 ** (27 - 2 * k)).astype(np.int64) for k in range(13))
    scaled = ((values >> (2 * down)) << (2 * up)) >> 1
    half = shift_right_rounding(scaled, 1)
    x = np.full_like(values, _ONE)
    for _ in range(_NUM_ITERATIONS):
        square = multiply_rounding(x, x, _BITS)
        cube = multiply_rounding(square, x, _BITS) << (2 * _INTEGER_BITS)
        next_x = multiply_rounding(x, _ONE * 3 // 2, _BITS)
        x = (next_x - multiply_rounding(half, cube, _BITS)) << _INTEGER_BITS
    x = multiply_rounding(x, _HALF_SQRT_2, _BITS)
    right = 11 + down - up
    return x << np.maximum(-right, 0), -np.maximum(right, 0)
