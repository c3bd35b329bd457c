"""Functions of one tensor as TensorFlow Lite for Microcontrollers computes them.

Each is a table of the outputs of -128..127. Logistic and tanh are fixed-point
polynomials; ELU is a table filled in float32; leaky ReLU and PReLU multiply by factors
that are rounded twice, whatever they are.

Sources: TensorFlow Lite's kernels/internal/reference/integer_ops/logistic.h and tanh.h,
reference/leaky_relu.h and prelu.h; TFLM's micro/kernels/elu.cc, leaky_relu_common.cc
and prelu_common.cc.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tflite_export.litert.fixed_point import multiply_by_real, shift_right_rounding
from tflite_export.quantization_params import INT8_MAX, INT8_MIN, QuantParams
from tflite_export.tflm.fixed_point import hyperbolic_tangent, logistic

_LEVELS = np.arange(INT8_MIN, INT8_MAX + 1)
_INPUT_BITS = 4  # in front of the point; beyond them functions have ended
_BITS = 31


def logistic_table(source: QuantParams) -> np.ndarray:
    """int64 outputs (256,), of scale 1/256 and zero point -128."""
    return _clamped(_bounded(logistic, source, 8) + INT8_MIN, source)


def tanh_table(source: QuantParams) -> np.ndarray:
    """int64 outputs (256,), of scale 1/128 and zero point 0."""
    return _clamped(_bounded(hyperbolic_tangent, source, 7), source)


def _bounded(
    function: Callable[[np.ndarray, int], np.ndarray], source: QuantParams, bits: int
) -> np.ndarray:
    """A function's results with so many fractional bits."""
    inputs = multiply_by_real(_LEVELS - source.zero_point, _input_factor(source))
    return shift_right_rounding(function(inputs, _INPUT_BITS), _BITS - bits)


def _clamped(outputs: np.ndarray, source: QuantParams) -> np.ndarray:
    """Saturated where inputs reach the end of their fixed-point range."""
    reach = (2**_INPUT_BITS - 1) * 2.0 ** (_BITS - _INPUT_BITS)
    _, left_shift = math.frexp(_input_factor(source))
    radius = math.floor(reach / 2.0**left_shift)
    values = _LEVELS - source.zero_point
    outputs = np.clip(outputs, INT8_MIN, INT8_MAX)
    outputs = np.where(values <= -radius, INT8_MIN, outputs)
    return np.where(values >= radius, INT8_MAX, outputs)


def _input_factor(source: QuantParams) -> float:
    return source.scale * 2.0 ** (_BITS - _INPUT_BITS)


def elu_table(source: QuantParams, result: QuantParams) -> np.ndarray:
    """int64 outputs (256,)."""
    one = np.float32(1)
    real = np.float32(source.scale) * (_LEVELS - source.zero_point).astype(np.float32)
    exponentials = np.exp(np.minimum(real, 0).astype(np.float64)).astype(np.float32)
    outputs = np.where(real < 0, exponentials - one, real)
    steps = outputs * (one / np.float32(result.scale))
    rounded = np.sign(steps) * np.floor(np.abs(steps).astype(np.float64) + 0.5)
    return np.clip(rounded + result.zero_point, INT8_MIN, INT8_MAX).astype(np.int64)


def leaky_relu_table(
    source: QuantParams, result: QuantParams, slope: float
) -> np.ndarray:
    """int64 outputs (256,); below zero, `slope` times the input."""
    taken, given = np.float32(source.scale), np.float32(result.scale)
    values = _LEVELS - source.zero_point
    above = multiply_by_real(values, float(taken / given))
    below = multiply_by_real(values, float(taken * np.float32(slope) / given))
    outputs = np.where(values < 0, below, above) + result.zero_point
    return np.clip(outputs, INT8_MIN, INT8_MAX)


def prelu_table(source: QuantParams, result: QuantParams, scale: float) -> np.ndarray:
    """int64 outputs (256, 256) by slopes of levels -128..127, then inputs -128..127.

    `scale`: of the slopes.
    """
    values = _LEVELS - source.zero_point
    above = multiply_by_real(values, source.scale / result.scale)
    factor = source.scale * scale / result.scale
    below = multiply_by_real(values * _LEVELS[:, np.newaxis], factor)
    outputs = np.where(values < 0, below, above) + result.zero_point
    return np.clip(outputs, INT8_MIN, INT8_MAX)
