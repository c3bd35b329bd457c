"""LiteRT's int8 SOFTMAX, bit by bit: exponentials from a table, float32 throughout.

Source: tensorflow/lite/kernels/internal/optimized/optimized_ops.h.
"""

from __future__ import annotations

import numpy as np

from tflite_export.activations import FIXED_QUANT_PARAMS
from tflite_export.quantization_params import INT8_MAX, INT8_MIN


def softmax_levels(levels: np.ndarray, scale: float) -> np.ndarray:
    """int8 probabilities (N, classes) of logits int8 (N, classes) of that scale."""
    quant_params = FIXED_QUANT_PARAMS["softmax"]
    exponents = -np.float32(scale) * np.arange(256, dtype=np.float32)
    table = np.exp(exponents.astype(np.float64)).astype(np.float32)
    logits = levels.astype(np.int64)
    exponentials = table[logits.max(axis=1, keepdims=True) - logits]
    # One after the other, as the kernel adds them: NumPy's sum would add in pairs.
    sums = np.cumsum(exponentials, axis=1, dtype=np.float32)[:, -1:]
    probabilities = exponentials * (
        np.float32(1) / (sums * np.float32(quant_params.scale))
    )
    rounded = np.floor(probabilities.astype(np.float64) + 0.5) + quant_params.zero_point
    return np.clip(rounded, INT8_MIN, INT8_MAX).astype(np.int8)
