"""LiteRT's int8 HARD_SWISH, bit by bit: 16-bit fixed-point arithmetic.

Source: tensorflow/lite/kernels/internal/reference/hard_swish.h.
"""

from __future__ import annotations

import math

import numpy as np

from tflite_export.litert.fixed_point import (
    divide,
    multiply_rounding,
    shift_right_rounding,
)
from tflite_export.quantization_params import (
    INT8_MAX,
    INT8_MIN,
    QuantParams,
)

_INPUT_BITS = 7  # fractional bits that inputs are given
_BITS = 15
_INT16_MIN, _INT16_MAX = -(2**15), 2**15 - 1


def hard_swish_table(
    input_quant_params: QuantParams, output_quant_params: QuantParams
) -> np.ndarray:
    """int64 outputs (256,) of inputs -128..127."""
    step = input_quant_params.scale / 2**_INPUT_BITS
    multiplier, shift = _int16_multiplier(step / output_quant_params.scale)
    gate_multiplier, gate_shift = _int16_multiplier(step / (3 / 2**15))
    steps = np.arange(INT8_MIN, INT8_MAX + 1) - input_quant_params.zero_point
    inputs = steps * 2**_INPUT_BITS
    # relu6(x + 3) / 6 as 0..2^15: from -1..1 (saturated), which x is of 3.
    gate = inputs
    if gate_shift > 0:
        gate = _shift_left(gate, gate_shift - 1)
    gate = multiply_rounding(gate, gate_multiplier, _BITS)
    if gate_shift > 0:
        gate = _shift_left(gate, 1)
    gate = shift_right_rounding(gate, max(-gate_shift, 0))
    gate = (gate + 2**15) >> 1
    outputs = divide(gate * multiply_rounding(inputs, multiplier, _BITS), 2**_BITS)
    outputs = shift_right_rounding(outputs, -shift) + output_quant_params.zero_point
    return np.clip(outputs, INT8_MIN, INT8_MAX)


def _int16_multiplier(real: float) -> tuple[int, int]:
    """Integers m and n with real = m * 2^(n - 15), m in [2^14, 2^15)."""
    mantissa, exponent = math.frexp(real)
    rounded = math.floor(mantissa * 2**31 + 0.5)
    return min((rounded + 2**15) >> 16, _INT16_MAX), exponent


def _shift_left(values: np.ndarray, bits: int) -> np.ndarray:
    return np.clip(values << bits, _INT16_MIN, _INT16_MAX)
