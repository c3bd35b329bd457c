"""Fixed-point arithmetic of TensorFlow Lite for Microcontrollers.

Functions are computed from 32-bit numbers below 1 with 31 fractional bits, or more
integer bits and less fractional ones.

Sources: gemmlowp's fixedpoint.h; GetReciprocal in TensorFlow Lite's
kernels/internal/common.h.
"""

from __future__ import annotations

import numpy as np

from tflite_export.litert.fixed_point import multiply_rounding, shift_right_rounding

_BITS = 31
_ONE = 2**_BITS - 1  # the largest number below 1 stands for it
# e^(-1/8) and 1/3, about which the exponential is expanded.
_EXP_EIGHTH, _THIRD = 1895147668, 715827883
# Power of two -> its negative exponential.
_EXPONENTIALS = {
    -2: 1672461947,
    -1: 1302514674,
    0: 790015084,
    1: 290630308,
    2: 39332535,
    3: 720401,
    4: 242,
}
# 48/17 and -32/17 with 29 fractional bits: where Newton's division begins.
_DIVISION_START, _DIVISION_SLOPE = 1515870810, -1010580540
_DIVISION_ONE = 2**29
_NUM_DIVISION_STEPS = 3


def exponential(values: np.ndarray, integer_bits: int) -> np.ndarray:
    """E to the power of numbers <= 0, of so many integer bits; int64."""
    fractional_bits = _BITS - integer_bits
    quarter = 2 ** (fractional_bits - 2)
    rest = (values & (quarter - 1)) - quarter  # -1/4 ... 0
    result = _exponential_of_quarter(rest << integer_bits)
    whole = rest - values
    for power, factor in _EXPONENTIALS.items():
        if integer_bits > power:
            is_in = whole & (1 << (fractional_bits + power)) != 0
            result = np.where(is_in, _product(result, factor), result)
    return np.where(values == 0, _ONE, result)


def _exponential_of_quarter(values: np.ndarray) -> np.ndarray:
    """E to the power of numbers in [-1/4, 0), by Taylor's series about -1/8."""
    x = values + 2 ** (_BITS - 3)
    square = _product(x, x)
    cube, fourth = _product(square, x), _product(square, square)
    high = _product(shift_right_rounding(fourth, 2) + cube, _THIRD) + square
    return _EXP_EIGHTH + _product(_EXP_EIGHTH, x + shift_right_rounding(high, 1))


def reciprocal(values: np.ndarray) -> np.ndarray:
    """1 / (1 + x) of numbers x in [0, 1); int64."""
    return _shift_left(_inverse_of_half_sum(values), 1)


def _inverse_of_half_sum(values: np.ndarray) -> np.ndarray:
    """2 / (1 + x), with 29 fractional bits, by Newton's division."""
    half_sum = (values + _ONE + 1) >> 1
    x = _DIVISION_START + _product(half_sum, _DIVISION_SLOPE)
    for _ in range(_NUM_DIVISION_STEPS):
        error = _DIVISION_ONE - _product(half_sum, x)
        x = x + _shift_left(_product(x, error), 2)
    return x


def logistic(values: np.ndarray, integer_bits: int) -> np.ndarray:
    """1 / (1 + e^-x) of numbers x of so many integer bits; int64."""
    above = reciprocal(exponential(-np.abs(values), integer_bits))
    result = np.where(values > 0, above, _ONE - above)
    return np.where(values == 0, 2 ** (_BITS - 1), result)


def hyperbolic_tangent(values: np.ndarray, integer_bits: int) -> np.ndarray:
    """The tanh of numbers x of so many integer bits; int64."""
    # e^(-2 |x|): the same bits with one more in front of the point.
    inverse = _inverse_of_half_sum(exponential(-np.abs(values), integer_bits + 1))
    return np.sign(values) * _shift_left(inverse - _DIVISION_ONE, 2)


def _product(first: np.ndarray | int, second: np.ndarray | int) -> np.ndarray:
    return multiply_rounding(np.asarray(first, np.int64), second, _BITS)


def _shift_left(values: np.ndarray, bits: int) -> np.ndarray:
    """Saturated."""
    return np.clip(values << bits, -(2**_BITS), _ONE)
