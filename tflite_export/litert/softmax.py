"""LiteRT's int8 SOFTMAX, bit by bit: exponentials from a table, float32 throughout.

Source: tensorflow/lite/kernels/internal/optimized/optimized_ops.h.
"""

from __future__ import annotations

import numpy as np

from tflite_export.quantization_params import BETWEEN_0_AND_1, INT8_MAX, INT8_MIN


def exponentials_table(scale: float) -> np.ndarray:
    """float32 (256,): of logits 0..255 steps of that scale below the largest."""
    exponents = -np.float32(scale) * np.arange(256, dtype=np.float32)
    return np.exp(exponents.astype(np.float64)).astype(np.float32)


def softmax_quantized(logits: np.ndarray, scale: float) -> np.ndarray:
    """int8 probabilities (N, classes) of logits int8 (N, classes) of that scale."""
    table = exponentials_table(scale)
    wide = logits.astype(np.int64)
    exponentials = table[wide.max(axis=1, keepdims=True) - wide]
    # One after the other, as the kernel adds them: NumPy's sum would add in pairs.
    sums = np.cumsum(exponentials, axis=1, dtype=np.float32)[:, -1:]
    probabilities = exponentials * (
        np.float32(1) / (sums * np.float32(BETWEEN_0_AND_1.scale))
    )
    rounded = np.floor(probabilities.astype(np.float64) + 0.5)
    rounded += BETWEEN_0_AND_1.zero_point
    return np.clip(rounded, INT8_MIN, INT8_MAX).astype(np.int8)
