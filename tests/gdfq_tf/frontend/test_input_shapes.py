"""What users give, and the exported model takes, is what their model takes."""

from __future__ import annotations

import keras as keras_3
import numpy as np
import pytest

import gdfq_tf
from gdfq_tf.config import RECIPES, StudentBudget
from gdfq_tf.errors import UserError
from gdfq_tf.frontend.load import load_classifier
from gdfq_tf.keras_compat import keras
from tflite_export.interpreter import TFLiteClassifier

KERASES = pytest.mark.parametrize("library", [keras, keras_3], ids=["2", "3"])
CALIBRATE = RECIPES["calibrate"].with_budgets(lambda _: StudentBudget(64))


def network(library, shape, *first, conv="Conv2D"):
    """A small classifier that begins with some layers, and how it was trained."""
    layers = library.layers
    x = image = library.Input(shape)
    for layer in first:
        x = layer(x)
    x = getattr(layers, conv)(4, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dense(3)(layers.Flatten()(x))
    return trained(library.Model(image, x))


def trained(model):
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights(
                [gamma, beta, rng.normal(0, 0.1, mean.shape), variance * 0.3]
            )
    return model


@KERASES
@pytest.mark.parametrize(
    ("shape", "target", "conv", "image_shape"),
    [
        ((48,), (8, 6, 1), "Conv2D", (8, 6, 1)),
        ((48,), (4, 4, 3), "Conv2D", (4, 4, 3)),
        ((48,), (16, 3), "Conv1D", (16, 1, 3)),
        ((8, 6), (8, 6, 1), "Conv2D", (8, 6, 1)),
        ((8, 6), (48, 1), "Conv1D", (48, 1, 1)),
        # Images stay images, whatever is made of them.
        ((4, 4, 3), (16, 3), "Conv1D", (4, 4, 3)),
    ],
)
def test_the_network_begins_with_the_image_that_rows_are_reshaped_to(
    library, shape, target, conv, image_shape
):
    model = network(library, shape, library.layers.Reshape(target), conv=conv)
    classifier = load_classifier(model, preprocessing="unit")
    assert classifier.example_shape == shape
    assert classifier.input_shape == image_shape
    examples = np.random.default_rng(0).integers(0, 256, (5, *shape)).astype(np.uint8)
    images = classifier.input_format.images(examples)
    np.testing.assert_allclose(
        classifier.model(classifier.preprocessing.to_input(images)),
        model(examples.astype(np.float32) / np.float32(255)),
        rtol=1e-4,
        atol=1e-4,
    )


@KERASES
def test_scalings_of_all_values_alike_change_places_with_the_reshape(library):
    layers = library.layers
    model = network(
        library,
        (48,),
        layers.Reshape((12, 4)),
        layers.Rescaling(1 / 127.5, -1.0),
        layers.Reshape((4, 4, 3)),
    )
    classifier = load_classifier(model, preprocessing="uint8")
    assert classifier.input_shape == (4, 4, 3)
    np.testing.assert_allclose(classifier.preprocessing.scale, [1 / 127.5] * 3)
    np.testing.assert_allclose(classifier.preprocessing.offset, [-1.0] * 3)


@KERASES
def test_values_that_are_scaled_each_for_itself_stay_a_row(library):
    variance = np.linspace(0.01, 0.4, 48)
    model = network(
        library,
        (48,),
        library.layers.Normalization(mean=np.linspace(0, 1, 48), variance=variance),
        library.layers.Reshape((4, 4, 3)),
    )
    classifier = load_classifier(model, preprocessing="unit")
    assert (classifier.example_shape, classifier.input_shape) == ((48,), (1, 1, 48))
    np.testing.assert_allclose(
        classifier.preprocessing.scale, 1 / (255 * np.sqrt(variance)), rtol=1e-6
    )


def row_network():
    layers = keras.layers
    x = values = keras.Input((20,))
    x = layers.BatchNormalization()(layers.Dense(16, use_bias=False)(x))
    return trained(keras.Model(values, layers.Dense(3)(layers.ReLU()(x))))


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (row_network, (20,)),
        (lambda: network(keras, (48,), keras.layers.Reshape((4, 4, 3))), (48,)),
        (lambda: network(keras, (8, 6), keras.layers.Reshape((8, 6, 1))), (8, 6)),
        (lambda: network(keras, (16, 3), conv="Conv1D"), (16, 3)),
    ],
    ids=["row", "flat image", "picture", "signal"],
)
def test_the_exported_model_takes_what_the_original_takes(build, shape):
    model = build()
    result = gdfq_tf.quantize(
        model, bits="w8a8", recipe=CALIBRATE, preprocessing="unit", progress=False
    )
    exported = result["w8a8"]
    assert TFLiteClassifier(exported.tflite).input_shape == (1, *shape)
    assert exported.agreement.exact_outputs == 1.0
    examples = np.random.default_rng(1).integers(0, 256, (64, *shape)).astype(np.uint8)
    expected = np.argmax(model(examples / np.float32(255)), axis=-1)
    float_row, *_, row = result.compare(examples, expected)
    assert float_row["top1"] == 1.0
    assert row["top1"] > 0.8
    facts = result.summary([float_row, row, row])["classifier"]
    assert facts["input_shape"] == shape
    assert facts["exported_input_shape"] == [1, *shape]


def test_features_have_the_range_that_is_given():
    model = row_network()
    ranges = (-123.0, 26.0)
    features = np.random.default_rng(0).uniform(*ranges, (64, 20)).astype(np.float32)
    (normalization,) = (x for x in model.layers if "Batch" in type(x).__name__)
    inputs = keras.Model(model.input, normalization.input)(features).numpy()
    normalization.moving_mean.assign(inputs.mean(axis=0))
    normalization.moving_variance.assign(inputs.var(axis=0))
    result = gdfq_tf.quantize(
        model, bits="w8a8", recipe=CALIBRATE, input_range=ranges, progress=False
    )
    exported = TFLiteClassifier(result["w8a8"].tflite)
    # The range is nudged so that zero is a level.
    scale, zero_point = 149 / 255, round(-128 + 123 / (149 / 255))
    assert exported.input_quantization.zero_point == zero_point
    np.testing.assert_allclose(exported.input_quantization.scale, scale, rtol=1e-4)
    expected = np.argmax(model(features), axis=-1)
    float_row, *_, row = result.compare(features, expected)
    assert float_row["top1"] == 1.0
    assert row["top1"] > 0.8
    words = result.summary([float_row, row, row])["classifier"]["int8_input"]
    assert words.startswith("q = clamp(round(x / 0.5843")
    assert words.endswith(f") + {zero_point}, -128, 127)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_range": (0, 1, 2)}, "holds 3 values; .* 2 or 40 values"),
        ({"input_range": (1, 1)}, "input_range=1,1 is no range"),
        ({"input_range": (0, float("inf"))}, "is no range"),
        ({"input_range": (0, 1), "preprocessing": "unit"}, "the one or the other"),
        ({"input_range": (0, 1), "mean": (0.5,)}, "the one or the other"),
        ({}, r"or, for features that are no pixels, input_range=-\d.*a guess"),
    ],
)
def test_ranges_that_are_none_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        load_classifier(row_network(), **options)
