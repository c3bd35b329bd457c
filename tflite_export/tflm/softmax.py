"""SOFTMAX of TensorFlow Lite for Microcontrollers, bit by bit: fixed point throughout.

Sources: TensorFlow Lite's kernels/internal/reference/softmax.h and GetReciprocal in
kernels/internal/common.h; TFLM's micro/kernels/softmax_common.cc.
"""

from __future__ import annotations

import math

import numpy as np

from tflite_export.litert.fixed_point import (
    multiply_rounding,
    quantized_multiplier,
    shift_right_rounding,
)
from tflite_export.quantization_params import INT8_MAX, INT8_MIN
from tflite_export.tflm.fixed_point import (
    exponential,
    reciprocal,
)

_BITS = 31
_INPUT_BITS = 5  # in front of the point, of differences
_SUM_BITS = 12  # the same of sums of exponentials
_OUTPUT_BITS = 8
_NUM_DIFFERENCES = 256


def softmax_quantized(logits: np.ndarray, scale: float) -> np.ndarray:
    """int8 probabilities (N, classes) of logits int8 (N, classes) of that scale."""
    wide = logits.astype(np.int64)
    below = wide.max(axis=1, keepdims=True) - wide
    table, reach = _exponentials(scale)
    counts = below <= reach
    exponentials = np.where(counts, table[below], 0)
    sums = shift_right_rounding(exponentials, _SUM_BITS).sum(axis=1, keepdims=True)
    # Between 1 and 2 by powers of two.
    leading_zeros = 32 - np.frexp(sums.astype(np.float64))[1]
    inverse = reciprocal((sums << leading_zeros) - 2**_BITS)
    product = multiply_rounding(inverse, exponentials, _BITS)
    shift = _SUM_BITS - leading_zeros + _BITS - _OUTPUT_BITS
    outputs = shift_right_rounding(product, shift) + INT8_MIN
    return np.where(counts, np.clip(outputs, INT8_MIN, INT8_MAX), INT8_MIN).astype(
        np.int8
    )


def _exponentials(scale: float) -> tuple[np.ndarray, int]:
    """Of logits 0..255 steps below the largest, and how many steps count."""
    factor = min(scale * 2.0 ** (_BITS - _INPUT_BITS), 2.0**_BITS - 1)
    multiplier, left_shift = quantized_multiplier(factor)
    reach = (2**_INPUT_BITS - 1) * 2.0 ** (_BITS - _INPUT_BITS)
    last = math.floor(reach / 2.0 ** int(left_shift))
    steps = np.minimum(np.arange(_NUM_DIFFERENCES), last)
    differences = multiply_rounding(-steps << left_shift, multiplier, _BITS)
    return exponential(differences, _INPUT_BITS), last
