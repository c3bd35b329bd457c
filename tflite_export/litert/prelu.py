"""LiteRT's int8 PRELU, bit by bit, by its built-in kernel.

Source: LiteRT's kernels/activations.cc and kernels/internal/reference/prelu.h.
"""

from __future__ import annotations

import numpy as np

from tflite_export.litert.fixed_point import multiply_by_real
from tflite_export.quantization_params import (
    INT8_MAX,
    INT8_MIN,
    QuantParams,
)


def prelu_factors(
    input_quant_params: QuantParams, output_quant_params: QuantParams, scale: float
) -> tuple[float, float]:
    """Of values above zero, and of those below times their slope, as float32 has them.

    `scale`: of the slopes.
    """
    factor = np.float32(input_quant_params.scale)
    output_scale = np.float32(output_quant_params.scale)
    return (
        float(factor / output_scale),
        float(factor * np.float32(scale) / output_scale),
    )


def prelu_table(
    input_quant_params: QuantParams, output_quant_params: QuantParams, scale: float
) -> np.ndarray:
    """int64 outputs (256, 256) by slopes of levels -128..127, then inputs -128..127.

    `scale`: of the slopes.
    """
    levels = np.arange(INT8_MIN, INT8_MAX + 1)
    values = levels - input_quant_params.zero_point
    factor, slope_factor = prelu_factors(input_quant_params, output_quant_params, scale)
    above = multiply_by_real(values, factor)
    below = multiply_by_real(values * levels[:, np.newaxis], slope_factor)
    outputs = np.where(values < 0, below, above) + output_quant_params.zero_point
    return np.clip(outputs, INT8_MIN, INT8_MAX)
