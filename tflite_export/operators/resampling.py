"""TensorFlow functions that crop and enlarge images, of values of any type."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tflite_export.operators.shapes import Margins


def depth_to_space(
    values: tf.Tensor, block_size: Sequence[int], crops: Margins
) -> tf.Tensor:
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


def crop(values: tf.Tensor, crops: Margins) -> tf.Tensor:
    """(N, H, W, C) without ((top, bottom), (left, right)) rows and columns."""
    (top, bottom), (left, right) = crops
    if not (top or bottom or left or right):
        return values
    _, height, width, channels = values.shape
    size = (-1, height - top - bottom, width - left - right, channels)
    return tf.slice(values, (0, top, left, 0), size)


def resize_by(values: tf.Tensor, size: Sequence[int], interpolation: str) -> tf.Tensor:
    """(N, H, W, C) times `size`, "nearest" or "bilinear" about the pixels' centres."""
    shape = (values.shape[1] * size[0], values.shape[2] * size[1])
    return tf.image.resize(values, shape, method=interpolation)
