"""Integer arithmetic as LiteRT's kernels do it; numpy, int64 throughout.

Source: gemmlowp's fixedpoint.h, whose names are in brackets.
"""

from __future__ import annotations

import math

import numpy as np


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
