from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf.bn_statistics import (
    batch_normalization_layers,
    batch_statistics,
    stored_statistics,
)
from gdfq_tf.keras_compat import keras


def test_layers_are_found_in_graph_order(tiny_classifier):
    names = [layer.name for layer in batch_normalization_layers(tiny_classifier)]
    assert names == ["bn1", "bn2", "bn3"]


def test_a_model_without_any_has_none():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    assert batch_normalization_layers(model) == []


def test_stored_statistics_are_the_moving_ones(tiny_classifier):
    layer = tiny_classifier.get_layer("bn2")
    _, _, mean, variance = layer.get_weights()
    stored = stored_statistics(layer)
    np.testing.assert_array_equal(stored.mean, mean)
    np.testing.assert_array_equal(stored.variance, variance)


def test_variance_is_the_biased_one_by_hand():
    # Channel 0 holds 1, 2, 3, 6: mean 3, squared errors 4 + 1 + 0 + 9 = 14.
    values = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [6.0, 5.0]], np.float32)
    statistics = batch_statistics(tf.constant(values.reshape(2, 1, 2, 2)))
    np.testing.assert_allclose(statistics.mean, [3.0, 5.0])
    np.testing.assert_allclose(statistics.variance, [14 / 4, 0.0])


@pytest.mark.parametrize("shape", [(50, 3), (10, 4, 5, 3), (1, 2, 7, 1)])
def test_everything_but_the_channels_is_averaged_over(shape):
    values = np.random.default_rng(0).normal(2.0, 3.0, shape)
    statistics = batch_statistics(tf.constant(values, tf.float32))
    axes = tuple(range(len(shape) - 1))
    np.testing.assert_allclose(statistics.mean, values.mean(axes), rtol=1e-4)
    np.testing.assert_allclose(statistics.variance, values.var(axes), rtol=1e-4)
    assert statistics.mean.dtype == statistics.variance.dtype == tf.float32
