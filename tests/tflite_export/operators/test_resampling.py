"""Cropping and enlarging, position by position."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf.graph.layers import DepthToSpace
from gdfq_tf.keras_compat import keras
from tflite_export.operators.resampling import depth_to_space, resize_by

NONE = ((0, 0), (0, 0))


@pytest.mark.parametrize(
    "block_size", [(2, 2), (3, 3), (2, 1), (1, 3), (2, 3)], ids=str
)
@pytest.mark.parametrize("size", [(2, 4), (3, 1), (1, 3)], ids=str)
@pytest.mark.parametrize("batch", [1, 5])
def test_depth_to_space_puts_each_channel_in_its_place(block_size, size, batch):
    rows, columns = block_size
    shape = (batch, *size, rows * columns * 3)
    values = np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape)
    found = depth_to_space(tf.constant(values, tf.float64), block_size, NONE).numpy()
    assert found.shape == (batch, size[0] * rows, size[1] * columns, 3)
    for y in range(found.shape[1]):
        for x in range(found.shape[2]):
            phase = (y % rows) * columns + x % columns
            expected = values[:, y // rows, x // columns, 3 * phase : 3 * phase + 3]
            np.testing.assert_array_equal(found[:, y, x], expected)
    crops = ((1, 0), (0, 2))
    if found.shape[1] > 1 and found.shape[2] > 2:
        cropped = depth_to_space(tf.constant(values, tf.float64), block_size, crops)
        np.testing.assert_array_equal(cropped, found[:, 1:, :-2])


@pytest.mark.parametrize("block_size", [(2, 2), (2, 1)])
def test_the_layer_takes_any_batch_and_can_be_copied(block_size):
    count = 3 * block_size[0] * block_size[1]
    image = keras.Input((2, 4, count))
    layer = DepthToSpace(block_size, ((1, 0), (0, 2)), name="enlarged")
    model = keras.Model(image, layer(image))
    copy = keras.models.clone_model(model)
    shape = (2 * block_size[0] - 1, 4 * block_size[1] - 2, 3)
    assert copy.output_shape == (None, *shape)
    assert copy.get_layer("enlarged").get_config() == layer.get_config()
    values = np.random.default_rng(0).normal(size=(3, 2, 4, count)).astype(np.float32)
    expected = depth_to_space(tf.constant(values), block_size, ((1, 0), (0, 2)))
    np.testing.assert_array_equal(copy(values), expected)


def test_nearest_repeats():
    values = np.arange(6.0).reshape(1, 2, 3, 1)
    found = resize_by(tf.constant(values), (3, 2), "nearest")
    np.testing.assert_array_equal(found, values.repeat(3, 1).repeat(2, 2))
