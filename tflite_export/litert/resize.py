"""What the operations that enlarge images compute, in the tensors' own dtype."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# XNNPACK's bilinear kernel holds weights in units of 2^-11, at most two of which
# meet in one product.
_FRACTION_BITS = 11


def depth_to_space(values: tf.Tensor, block_size: tuple[int, int], crops) -> tf.Tensor:
    """Channels laid out as blocks of positions, some rows and columns of which go.

    Args:
      values: (N, H, W, b * c * C), channels in the order (b, c, C).
      block_size: (b, c).
      crops: ((top, bottom), (left, right)), taken off (N, H * b, W * c, C).
    """
    return crop(_blocks(values, *block_size), crops)


def _blocks(values: tf.Tensor, block_height: int, block_width: int) -> tf.Tensor:
    batch, height, width, channels = values.shape
    if block_height == block_width:
        return tf.nn.depth_to_space(values, block_height)
    channels //= block_height * block_width
    # Images beside rows keep the transposition at four dimensions.
    rows = -1 if batch is None else batch * height
    values = tf.reshape(values, (rows, width, block_height, block_width * channels))
    if width > 1 and block_height > 1:
        values = tf.transpose(values, (0, 2, 1, 3))
    batch = -1 if batch is None else batch
    shape = (batch, height * block_height, width * block_width, channels)
    return tf.reshape(values, shape)


def crop(values: tf.Tensor, crops) -> tf.Tensor:
    """(N, H, W, C) without ((top, bottom), (left, right)) rows and columns."""
    (top, bottom), (left, right) = crops
    if not (top or bottom or left or right):
        return values
    _, height, width, channels = values.shape
    size = (-1, height - top - bottom, width - left - right, channels)
    return tf.slice(values, (0, top, left, 0), size)


def resize_by(
    values: tf.Tensor, size: tuple[int, int], interpolation: str
) -> tf.Tensor:
    """(N, H, W, C) times `size`, "nearest" or "bilinear" about the pixels' centres."""
    shape = (values.shape[1] * size[0], values.shape[2] * size[1])
    return tf.image.resize(values, shape, method=interpolation)


def resize_quantized(levels: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """`enlarge` with "bilinear" as XNNPACK does it to int8 levels.

    Args:
      levels: float64 (N, H, W, C), integers; the grid's zero point does not matter.
      size: times height, times width.

    Returns:
      float64 integers: weights are rounded to multiples of 2^-11, columns blended
      first and rows after, and what comes of it rounded once, ties up.
    """
    for axis, factor in ((2, size[1]), (1, size[0])):
        first, second, weight = _neighbours(levels.shape[axis], factor)
        weight = weight.reshape([-1 if i == axis else 1 for i in range(4)])
        start = tf.gather(levels, first, axis=axis)
        end = tf.gather(levels, second, axis=axis)
        levels = start * 2**_FRACTION_BITS + (end - start) * weight
    return tf.floor(levels / 4**_FRACTION_BITS + 0.5)


def _neighbours(length: int, factor: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each output position the two inputs it lies between, and the second's
    weight in units of 2^-11; positions are float32, as in the kernel."""
    scale = np.float32(length) / np.float32(length * factor)
    offset = np.float32(0.5) * scale - np.float32(0.5)
    positions = np.arange(length * factor, dtype=np.float32) * scale + offset
    positions = np.clip(positions, np.float32(0), np.float32(length - 1))
    first = positions.astype(np.int32)
    second = np.minimum(first + 1, length - 1)
    weight = np.rint((positions - first.astype(np.float32)) * 2**_FRACTION_BITS)
    return first, second, weight.astype(np.float64)
