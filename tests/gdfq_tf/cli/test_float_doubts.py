from __future__ import annotations

import numpy as np
import pytest

from gdfq_tf.classifier import Classifier, Head
from gdfq_tf.cli.float_doubts import float_doubts
from gdfq_tf.cli.labelled_images import LabelledImages
from gdfq_tf.keras_compat import keras
from gdfq_tf.metrics import wilson_interval
from gdfq_tf.preprocessing import make_preprocessing

UNIT, TF = make_preprocessing("unit", 1), make_preprocessing("tf", 1)


def brightness(preprocessing, scaled=1.0):
    """Tells images below and above an input of 0.5 apart, of `scaled` * x."""
    image = keras.Input((2, 2, 1))
    mean = keras.layers.GlobalAveragePooling2D()(image)
    model = keras.Model(image, keras.layers.Dense(2)(mean))
    model.layers[-1].set_weights([np.array([[0.0, 1.0]]), np.array([0.0, -0.5])])
    whole = preprocessing.then(np.array([scaled]), np.zeros(1))
    return Classifier("bright", model, whole, Head.LOGITS, (2, 2, 1))


def levels(count=300):
    """Images of every brightness, of class 1 from level 128 on."""
    values = np.linspace(0, 255, count).astype(np.uint8)
    pixels = np.broadcast_to(values[:, None, None, None], (count, 2, 2, 1))
    return LabelledImages(pixels, (values >= 128).astype(np.int64))


def row(top1, count=300):
    return {"top1": top1, "top1_interval_95": wilson_interval(top1, count)}


def test_nothing_is_said_of_what_is_right():
    assert float_doubts(brightness(UNIT), UNIT, levels(), row(1.0)) == []


def test_a_better_preprocessing_is_named_with_its_figure():
    # An input of 0.5 is level 191 under tf, so that a quarter is called dark wrongly.
    (line,) = float_doubts(brightness(TF), TF, levels(), row(0.75))
    expected = "--preprocessing=unit gives 100.0 % on 256 of these images, tf 75.0 %"
    assert expected in line


def test_scaling_layers_stay_in_the_trial():
    # Inside, x / 255 follows: that uint8 is right and unit scales twice.
    model = brightness(UNIT, scaled=1 / 255)
    (line,) = float_doubts(model, UNIT, levels(), row(0.6))
    assert "--preprocessing=uint8 gives 100.0 %" in line


def test_chance_has_two_causes():
    images = levels()
    images = LabelledImages(images.pixels, np.arange(300) % 2)
    (line,) = float_doubts(brightness(UNIT), UNIT, images, row(0.5))
    assert "no better than chance" in line
    assert "--preprocessing" in line and "--labels" in line


@pytest.mark.parametrize(("count", "expected"), [(4, 0), (40, 1)])
def test_few_images_are_no_reason(count, expected):
    found = float_doubts(brightness(TF), TF, levels(count), row(0.75, 400))
    assert len(found) == expected
