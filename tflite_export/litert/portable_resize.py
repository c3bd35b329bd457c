"""RESIZE_BILINEAR of LiteRT's portable kernels, and of TFLM: 10 fractional bits.

Source: TensorFlow Lite's kernels/internal/reference/resize_bilinear.h, the integer one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tflite_export.litert.rounding import round_away

_ONE = 2**10


def resize_quantized(quantized: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """Images enlarged about the pixels' centres.

    Args:
      quantized: float64 (N, H, W, C), integers; the zero point decides ties.
      size: times height, times width.

    Returns:
      float64 integers: exact blends of neighbours rounded once, ties away from zero.
    """
    for axis, factor in ((2, size[1]), (1, size[0])):
        first, second, weight = _neighbours(quantized.shape[axis], factor)
        weight = weight.reshape([-1 if i == axis else 1 for i in range(4)])
        start = tf.gather(quantized, first, axis=axis)
        end = tf.gather(quantized, second, axis=axis)
        quantized = start * (_ONE - weight) + end * weight
    return round_away(quantized / _ONE**2)


def _neighbours(length: int, factor: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each output position, the two inputs it lies between and the second's weight.

    Weights are in units of 2^-10. Both inputs are the same one at the ends, whatever
    the weight.
    """
    outputs = length * factor
    scale = (_ONE * length + outputs // 2) // outputs
    positions = np.arange(outputs) * scale + scale // 2 - _ONE // 2
    first = np.maximum(np.sign(positions) * (np.abs(positions) // _ONE), 0)
    second = np.minimum((positions + _ONE - 1) // _ONE, length - 1)
    weight = positions - _ONE * first
    return first, np.maximum(second, 0), weight.astype(np.float64)
