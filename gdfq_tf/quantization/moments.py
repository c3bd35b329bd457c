"""What a layer's inputs and outputs say about the kernel between them.

A convolution multiplies one kernel with what lies at each of its output positions.
Their second moments are all that a fit of the kernel needs, and a part of the positions
gives them: neighbours are alike.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from gdfq_tf.graph.queries import is_depthwise
from gdfq_tf.keras_compat import keras
from gdfq_tf.memory_needs import images_per_batch, positions_that_suffice
from gdfq_tf.system.large_arrays import ArrayFile

_layers = keras.layers


@dataclasses.dataclass(frozen=True)
class Moments:
    """Second moments of a layer's input rows X and outputs Y, means taken out.

    A layer is `groups` independent linear maps: one for dense layers and ordinary
    convolutions, one per channel for depthwise ones.

    Attributes:
      xx: float64 (groups, K, K), mean of x x^T.
      xy: float64 (groups, K, M), mean of x y^T.
      x_mean: (groups, K); y_mean: (groups, M).
      num_rows: how many rows were averaged.
    """

    xx: np.ndarray
    xy: np.ndarray
    x_mean: np.ndarray
    y_mean: np.ndarray
    num_rows: int


def measure_moments(
    layer: keras.layers.Layer,
    inputs: np.ndarray | ArrayFile,
    outputs: np.ndarray | ArrayFile,
) -> Moments:
    """Moments of the rows that the layer's kernel multiplies.

    Args:
      layer: Conv2D, DepthwiseConv2D or Dense of tf_keras.
      inputs: what it is fed in the student, (N, ...).
      outputs: what it gives in the teacher, (N, ..., channels).
    """
    if isinstance(layer, _layers.Dense):
        groups, num_unknowns, row_values = 1, inputs.shape[-1], inputs.shape[-1]
    else:
        groups = inputs.shape[-1] if is_depthwise(layer) else layer.groups
        row_values = math.prod(layer.kernel_size) * inputs.shape[-1]
        num_unknowns = row_values // groups
    positions = math.prod(outputs.shape[1:-1])
    kept = positions_that_suffice(positions, num_unknowns, len(inputs))
    batch_size = images_per_batch(kept * row_values)
    rng = np.random.default_rng(0)
    sums: list = [0.0, 0.0, 0.0, 0.0]
    num_rows = 0
    for start in range(0, len(inputs), batch_size):
        batch = slice(start, start + batch_size)
        taken, given = inputs[batch], outputs[batch]
        count = len(given) * positions
        chosen: np.ndarray = np.arange(count)
        if kept < positions:
            chosen = rng.choice(count, count // positions * kept, replace=False)
        x = _rows(layer, taken, given.shape, chosen, groups)
        y = tf.gather(tf.reshape(given, (count, groups, -1)), chosen)
        if not num_rows:
            # Centred before float32 squares them: neighbouring pixels are alike, so
            # that variances are small beside means.
            x_center, y_center = tf.reduce_mean(x, 0), tf.reduce_mean(y, 0)
        x, y = x - x_center, y - y_center
        num_rows += len(x)
        sums[0] += tf.einsum("rgk,rgl->gkl", x, x).numpy().astype(np.float64)
        sums[1] += tf.einsum("rgk,rgm->gkm", x, y).numpy().astype(np.float64)
        sums[2] += tf.reduce_sum(x, 0).numpy().astype(np.float64)
        sums[3] += tf.reduce_sum(y, 0).numpy().astype(np.float64)
    for total in sums:
        total /= num_rows  # in place, as all that has the size of X^T X
    xx, xy, x_mean, y_mean = sums
    xx -= x_mean[:, :, np.newaxis] * x_mean[:, np.newaxis, :]
    xy -= x_mean[:, :, np.newaxis] * y_mean[:, np.newaxis, :]
    return Moments(
        xx, xy, x_mean + x_center.numpy(), y_mean + y_center.numpy(), num_rows
    )


def _rows(
    layer: keras.layers.Layer,
    inputs: tf.Tensor,
    output_shape: Sequence[int],
    chosen: np.ndarray,
    groups: int,
) -> tf.Tensor:
    """The values that output positions multiply with the kernel, (rows, groups, K).

    Args:
      layer: Conv2D, DepthwiseConv2D or Dense.
      inputs: what it is fed, (N, ...).
      output_shape: (N, ..., channels).
      chosen: (rows,), numbers of output positions, counted through all images.
      groups: that the channels of `inputs` are divided into.
    """
    image, *position = np.unravel_index(chosen, output_shape[:-1])
    if not position:
        return tf.gather(inputs, image)[:, tf.newaxis]
    margins, read = [], []
    for at, count, size, taps, stride, dilation in zip(
        position,
        output_shape[1:],
        inputs.shape[1:],
        layer.kernel_size,
        layer.strides,
        layer.dilation_rate,
        strict=False,
    ):
        reach = dilation * np.arange(taps)
        # Nothing is missing at the edges of a layer without padding.
        missing = max(0, (count - 1) * stride + reach[-1] + 1 - size)
        margins.append([missing // 2, missing - missing // 2])
        read.append(at[:, np.newaxis] * stride + reach)
    padded = tf.pad(inputs, [[0, 0], *margins, [0, 0]])
    rows, columns = read
    places = np.broadcast_arrays(
        image[:, np.newaxis, np.newaxis], rows[:, :, np.newaxis], columns[:, np.newaxis]
    )
    patches = tf.gather_nd(padded, np.stack(places, axis=-1))
    patches = tf.reshape(patches, (len(chosen), -1, groups, inputs.shape[-1] // groups))
    patches = tf.transpose(patches, (0, 2, 1, 3))
    return tf.reshape(patches, (len(chosen), groups, -1))
