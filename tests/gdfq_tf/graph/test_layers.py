"""What they compute, and that Keras can copy them."""

from __future__ import annotations

import numpy as np

from gdfq_tf.graph.layers import ChannelMean, L2Normalization
from gdfq_tf.keras_compat import keras


def test_values_by_hand():
    x = np.array([[[[3.0, 4.0], [0.0, 0.0], [-6.0, 2.0]]]], np.float32)
    np.testing.assert_allclose(ChannelMean()(x), [[[[3.5], [0], [-2]]]])
    # Lengths sqrt(9 + 16 + 11), sqrt(11) and sqrt(36 + 4 + 11).
    expected = [[3 / 6, 4 / 6], [0, 0], [-6 / 51**0.5, 2 / 51**0.5]]
    found = L2Normalization(11.0)(x)
    np.testing.assert_allclose(found, [[expected]], rtol=1e-6)


def test_copies_are_the_same():
    x = keras.Input((2, 3))
    y = L2Normalization(0.25, name="unit")(x)
    model = keras.Model(x, keras.layers.Subtract()([y, ChannelMean(name="mean")(y)]))
    copy = keras.models.clone_model(model)
    assert copy.get_layer("unit").epsilon == 0.25
    assert copy.get_layer("mean").output_shape == (None, 2, 1)
    values = np.random.default_rng(0).normal(size=(4, 2, 3))
    np.testing.assert_array_equal(copy(values), model(values))
