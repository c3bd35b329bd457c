from __future__ import annotations

import math

import numpy as np
import pytest

from gdfq_tf.keras_compat import keras
from gdfq_tf.synthesis import bn_gaps as module
from gdfq_tf.synthesis.bn_gaps import bn_gaps
from gdfq_tf.synthesis.image_pool import ImagePool
from tests.tiny import classifier_of


@pytest.mark.parametrize("at_once", [1, 3, 128])
def test_gaps_are_in_units_of_the_stored_deviations(monkeypatch, at_once):
    """However many images are looked at together."""
    monkeypatch.setattr(module, "images_per_batch", lambda _: at_once)
    inputs = keras.Input((2, 2, 3))
    normalization = keras.layers.BatchNormalization(name="bn")
    maps = normalization(inputs)
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(maps))
    model = keras.Model(inputs, outputs)
    ones = np.ones(3)
    normalization.set_weights([ones, ones, 10 * ones, 4 * ones])
    # Half of the pixels 9, half 17: mean 13 and deviation 4, where 10 and 2 are stored.
    pixels = np.full((4, 2, 2, 3), 9, np.uint8)
    pixels[1::2] = 17
    images = ImagePool(pixels, np.zeros(4, np.int32))
    found = bn_gaps(classifier_of(model, "uint8"), images)
    # A thousandth of the mean variance is added to each.
    expected = math.sqrt((3**2 + 2**2) / (4 * 1.001))
    assert found == {"bn": pytest.approx(expected, rel=1e-4)}


def test_without_normalization_there_are_none():
    inputs = keras.Input((2, 2, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(pooled))
    images = ImagePool(np.zeros((2, 2, 2, 3), np.uint8), np.zeros(2, np.int32))
    assert bn_gaps(classifier_of(model), images) == {}
