"""LiteRT's int8 RESIZE_BILINEAR, bit by bit: weights of 11 fractional bits.

Source: XNNPACK's resize-bilinear operator and its s8-ibilinear kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

# XNNPACK's bilinear kernel holds weights in units of 2^-11, at most two of which
# meet in one product.
_FRACTION_BITS = 11


def resize_quantized(quantized: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """Images enlarged about the pixels' centres.

    Args:
      quantized: float64 (N, H, W, C), integers; the zero point does not matter.
      size: times height, times width.

    Returns:
      float64 integers: weights are rounded to multiples of 2^-11, columns blended
      first and rows after, and what comes of it rounded once, ties up.
    """
    for axis, factor in ((2, size[1]), (1, size[0])):
        first, second, weight = neighbours(quantized.shape[axis], factor)
        weight = weight.reshape([-1 if i == axis else 1 for i in range(4)])
        start = tf.gather(quantized, first, axis=axis)
        end = tf.gather(quantized, second, axis=axis)
        quantized = start * 2**_FRACTION_BITS + (end - start) * weight
    return tf.floor(quantized / 4**_FRACTION_BITS + 0.5)


def neighbours(length: int, factor: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each output position, the two inputs it lies between and the second's weight.

    Weights are in units of 2^-11; positions are float32, as in the kernel.
    """
    scale = np.float32(length) / np.float32(length * factor)
    offset = np.float32(0.5) * scale - np.float32(0.5)
    positions = np.arange(length * factor, dtype=np.float32) * scale + offset
    positions = np.clip(positions, np.float32(0), np.float32(length - 1))
    first = positions.astype(np.int32)
    second = np.minimum(first + 1, length - 1)
    weight = np.rint((positions - first.astype(np.float32)) * 2**_FRACTION_BITS)
    return first, second, weight.astype(np.float64)
