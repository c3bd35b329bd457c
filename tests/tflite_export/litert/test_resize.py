"""Bilinear resizes by hand; their equality with LiteRT: test_simulator."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf.keras_compat import keras
from tflite_export.litert.resize import resize_quantized
from tflite_export.operators.resampling import resize_by


def test_bilinear_values_by_hand():
    quantized = np.array([[-3.0, 2.0]]).reshape(1, 1, 2, 1)
    # Weights 1/4 and 3/4 between centres, the ends as they are: -1.75 and 0.75.
    found = resize_quantized(tf.constant(quantized), (2, 2)).numpy()
    np.testing.assert_array_equal(found[0, :, :, 0], [[-3, -2, 1, 2]] * 2)
    # Ties, -2.5 and -1.5, go up.
    found = resize_quantized(tf.constant([[[[-3.0], [-1.0]]]], tf.float64), (1, 2))
    np.testing.assert_array_equal(np.ravel(found), [-3, -2, -1, -1])
    quantized = np.array([-3.0, -2.0, 1.0, 2.0]).reshape(1, 1, 4, 1)
    found = resize_quantized(tf.constant(quantized), (1, 3)).numpy().ravel()
    np.testing.assert_array_equal(found, [-3, -3, -3, -2, -2, -1, 0, 1, 1, 2, 2, 2])


@pytest.mark.parametrize("size", [(2, 2), (3, 1), (5, 4)])
def test_bilinear_values_are_those_of_tf_keras_rounded(size):
    quantized = np.random.default_rng(0).integers(-128, 128, (4, 5, 6, 2))
    layer = keras.layers.UpSampling2D(size, interpolation="bilinear")
    exact = layer(quantized.astype(np.float32)).numpy()
    found = resize_quantized(tf.constant(quantized, tf.float64), size).numpy()
    # Weights off by 2^-12 twice, times 255, and half a step.
    assert np.abs(found - exact).max() <= 0.5 + 2 * 255 / 2**12 + 1e-4
    np.testing.assert_allclose(
        resize_by(tf.constant(quantized, tf.float32), size, "bilinear"), exact
    )
