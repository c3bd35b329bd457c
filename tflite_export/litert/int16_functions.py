"""Functions of LiteRT's int16 kernels, bit by bit: interpolated tables.

Logistic and tanh share one table of the former with 16 fractional bits; GELU and the
exponential and reciprocal in softmax have tables of their own range, whose entries make
the errors halfway between two of them as small as those at the entries.

Sources: TensorFlow Lite's kernels/internal/common.h (LUTPopulate, LUTLookup),
kernels/internal/reference/softmax.h, integer_ops/logistic.h and tanh.h beside it; the
preparation of each in kernels/activations.cc.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tflite_export.litert.fixed_point import multiply_by_real
from tflite_export.quantization_params import INT16_MAX, QuantParams

_NUM_ENTRIES = 256  # of the logistic's table
_ENTRIES_PER_UNIT = 24
_LARGEST_FACTOR = 32767.0 / 2.0
_LARGEST_SHIFT = 30
_NUM_STEPS = 512  # of other tables
_STEP_BITS = 7
_NUM_LEVELS = 2**16
_LOWEST_EXPONENT = -10.0  # what is smaller counts as that


def _sigmoid_entries() -> np.ndarray:
    """int64 (256,), raised by half the error of their mean halfway to the next."""
    halves = np.arange(2 * _NUM_ENTRIES + 1) / (2 * _ENTRIES_PER_UNIT)
    exact = 2**16 / (1 + np.exp(-halves))
    errors = (exact[:-2:2] + exact[2::2]) / 2 - exact[1:-1:2]
    entries = np.floor(exact[:-2:2] - errors / 2 + 0.5).astype(np.int64)
    entries[-1] = 2**16 - 1
    return entries


_SIGMOID = _sigmoid_entries()


def logistic(values: np.ndarray, taken: QuantParams) -> np.ndarray:
    """int64 outputs, of scale 2^-15, of int16 inputs."""
    inputs = _scaled(values, taken)
    result = _interpolated(np.abs(inputs), 9, end=INT16_MAX << 10)
    half = 2**9
    signed = np.where(inputs >= 0, result + half, 2**25 - result + half - 1)
    return signed >> 10


def hyperbolic_tangent(values: np.ndarray, taken: QuantParams) -> np.ndarray:
    """int64 outputs, of scale 2^-15, of int16 inputs."""
    inputs = _scaled(values, taken)
    result = _interpolated(np.abs(inputs), 8, end=0xFFFF << 8) - 2**23
    half = 2**7
    return np.where(inputs >= 0, result + half, half - 1 - result) >> 8


def _scaled(values: np.ndarray, taken: QuantParams) -> np.ndarray:
    """Inputs in units of 1 / (3 * 4096); ties up."""
    factor, shift = float(np.float32(taken.scale)) * 4096.0 * 3.0, 0
    while factor <= _LARGEST_FACTOR and shift <= _LARGEST_SHIFT:
        factor, shift = factor * 2.0, shift + 1
    half = 2**shift // 2
    return (values.astype(np.int64) * int(factor) + half) >> shift


def _interpolated(inputs: np.ndarray, bits: int, *, end: int) -> np.ndarray:
    """The table between two entries, which lie 2^bits apart; `end` behind it."""
    index = np.minimum(inputs >> bits, _NUM_ENTRIES - 2)
    first, second = _SIGMOID[index], _SIGMOID[index + 1]
    between = (first << bits) + (inputs & (2**bits - 1)) * (second - first)
    return np.where(inputs >> bits >= _NUM_ENTRIES - 1, end, between)


def gelu(values: np.ndarray, taken: QuantParams, given: QuantParams) -> np.ndarray:
    """int64 outputs of int16 inputs; the table is filled in float32."""
    table = _table(_gelu, np.float32, (taken.low, taken.high), np.float32(given.scale))
    return _looked_up(values, table)


def _gelu(value: np.float32) -> np.float32:
    erfc = np.float32(math.erfc(value * np.float32(-math.sqrt(0.5))))
    return np.float32(0.5) * value * erfc


def softmax(logits: np.ndarray, scale: float) -> np.ndarray:
    """int16 probabilities (N, classes) of logits int16 (N, classes) of that scale."""
    wide = logits.astype(np.int64)
    steps = float(np.float32(scale)) / (-_LOWEST_EXPONENT / (_NUM_LEVELS - 1))
    scaled = multiply_by_real(wide - wide.max(axis=1, keepdims=True), steps)
    exponentials = _looked_up(_to_int16(scaled + INT16_MAX), _EXPONENTIALS)
    sums = exponentials.sum(axis=1, keepdims=True)
    # As a number from 1 to 2 with 16 fractional bits, and a power of two.
    bits = np.frexp(sums.astype(np.float64))[1]
    shifted = ((sums << (31 - bits)) + 2**13) >> 14
    reciprocals = _looked_up(_to_int16(shifted - 2**15 - 2**16), _RECIPROCALS)
    shift = bits - 1
    results = (exponentials * reciprocals + (np.int64(1) << (shift - 1))) >> shift
    return np.clip(results, 0, INT16_MAX).astype(np.int16)


def _to_int16(values: np.ndarray) -> np.ndarray:
    return np.clip(values, -INT16_MAX - 1, INT16_MAX)


def _looked_up(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """A table between two entries; ties up."""
    index = _NUM_STEPS // 2 + (values >> _STEP_BITS)
    base, offset = table[index], values & (2**_STEP_BITS - 1)
    half = 2 ** (_STEP_BITS - 1)
    return base + (((table[index + 1] - base) * offset + half) >> _STEP_BITS)


def _table(
    function: Callable[[np.floating], np.floating],
    real: type[np.floating],
    bounds: tuple[float, float],
    scale: np.floating,
) -> np.ndarray:
    """int64 (513,): of evenly spaced inputs, all computed in a type of real numbers."""
    low, high = map(real, bounds)
    step = (high - low) / real(_NUM_STEPS)
    half_step = step / real(2)
    # From the ends of the range, as the kernel has it.
    inverse = real(_NUM_LEVELS) / (
        scale * real(INT16_MAX) - scale * real(-INT16_MAX - 1)
    )
    entries = []
    for i in range(_NUM_STEPS):
        value = function(low + real(i) * step) * inverse
        middle = function(low + real(i) * step + half_step) * inverse
        following = function(low + real(i + 1) * step) * inverse
        between = _rounded((following + _rounded(value)) / real(2))
        error = between - _rounded(middle)
        entries.append(_rounded(value) - _rounded(error / real(2)))
    entries.append(_rounded(function(high) * inverse))
    return _to_int16(np.array(entries, np.int64))


def _rounded(value: np.floating) -> np.floating:
    """Ties away from zero."""
    whole = np.trunc(value)
    return type(value)(whole + np.sign(value) * (abs(value - whole) >= 0.5))


_UNIT = np.float64(2 / (_NUM_LEVELS - 1))
_EXPONENTIALS = _table(np.exp, np.float64, (_LOWEST_EXPONENT, 0.0), _UNIT)
_RECIPROCALS = _table(lambda value: 1 / (1 + value), np.float64, (0.0, 1.0), _UNIT)
