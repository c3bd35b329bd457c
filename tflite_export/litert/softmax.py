"""LiteRT's int8 SOFTMAX, bit by bit: exponentials from a table, float32 throughout.

Source: tensorflow/lite/kernels/internal/optimized/optimized_ops.h.
"""

from __future__ import annotations

import numpy as np

from tflite_export.quantization_params import BETWEEN_0_AND_1, INT8_MAX, INT8_MIN


def softmax_quantized(logits: np.ndarray, scale: float) -> np.ndarray:
    """int8 probabilities (N, classes) of logits int8 (N, classes) of that scale."""
    exponents = -np.float32(scale) * np.arange(256, dtype=np.float32)
    table = np.exp(exponents.astype(np.float64)).astype(np.float32)
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
