"""LiteRT's int8 LEAKY_RELU, bit by bit.

XNNPACK multiplies by factors of 8 fractional bits. Where it takes none, as one of them
would be next to nothing or too large, the built-in kernel does by factors of 31 bits.

Source: XNNPACK's leaky-relu operator and qs8-vlrelu kernels; LiteRT's
kernels/internal/reference/leaky_relu.h.
"""

from __future__ import annotations

import numpy as np

from tflite_export.litert.fixed_point import multiply_by_real
from tflite_export.quantization_params import (
    INT8_MAX,
    INT8_MIN,
    QuantParams,
)

_BITS = 8
_LARGEST_FACTOR = 2.0**7


def leaky_relu_table(
    input_quant_params: QuantParams, output_quant_params: QuantParams, slope: float
) -> np.ndarray:
    """int64 outputs (256,) of inputs -128..127; below zero, `slope` times the input."""
    values = np.arange(INT8_MIN, INT8_MAX + 1) - input_quant_params.zero_point
    factor = np.float32(input_quant_params.scale) / np.float32(
        output_quant_params.scale
    )
    factors = factor, factor * np.float32(slope)
    if all(2.0**-_BITS <= abs(x) <= _LARGEST_FACTOR for x in factors):
        above, below = (_multiply(values, x) for x in factors)
    else:
        exact = input_quant_params.scale / output_quant_params.scale
        above = multiply_by_real(values, exact)
        below = multiply_by_real(values, exact * slope)
    outputs = np.where(values < 0, below, above) + output_quant_params.zero_point
    return np.clip(outputs, INT8_MIN, INT8_MAX)


def _multiply(values: np.ndarray, factor: np.float32) -> np.ndarray:
    """Rounded to nearest, ties up."""
    multiplier = int(np.rint(factor * np.float32(2**_BITS)))
    return (values * multiplier + 2 ** (_BITS - 1)) >> _BITS
