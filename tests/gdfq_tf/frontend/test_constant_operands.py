"""Constants beside tensors: of arithmetic, of concatenations, of models inside."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf.errors import UserError
from gdfq_tf.frontend.load import load_classifier
from gdfq_tf.keras_compat import keras as tf_keras

# Keras itself says that HDF5 is a legacy format.
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")

KERASES = pytest.mark.parametrize("k", [keras, tf_keras], ids=["keras3", "tf_keras"])
RNG = np.random.default_rng(0)


def random(*shape):
    return RNG.normal(size=shape).astype(np.float32)


MASK = (RNG.random((1, 6, 6, 1)) > 0.5).astype(np.float32)
VALUES = random(1, 6, 6, 4)
ROW = random(1, 3)


def features(k, image):
    x = k.layers.Conv2D(4, 3, padding="same", name="conv")(image)
    return k.layers.ReLU()(k.layers.BatchNormalization(name="bn")(x))


def model_of(k, image, outputs):
    model = k.Model(image, outputs)
    for layer in model.layers:
        is_bn = isinstance(layer, k.layers.BatchNormalization)
        shapes = [w.shape for w in layer.get_weights()]
        low = 0.2 if is_bn else -0.4
        layer.set_weights([RNG.uniform(low, 1.0, shape) for shape in shapes])
    return model


def classified(k, image, x):
    """A classifier behind feature maps or rows."""
    if len(x.shape) == 4:
        x = k.layers.GlobalAveragePooling2D()(k.layers.Conv2D(5, 3)(x))
    return model_of(k, image, k.layers.Dense(3, name="classes")(x))


def check(source, model, kinds=None):
    """`source` is taken and computes what `model` does, here image by image."""
    classifier = load_classifier(source, preprocessing="unit")
    shape = tuple(model.inputs[0].shape)[1:]
    pixels = RNG.integers(0, 256, (3, *shape))
    images = (pixels / 255).astype(np.float32)
    expected = [np.asarray(model(x[np.newaxis], training=False)) for x in images]
    taken = classifier.preprocessing.to_input(
        pixels.reshape(3, *classifier.input_shape)
    )
    np.testing.assert_allclose(
        classifier.model(taken), np.concatenate(expected), atol=1e-4
    )
    if kinds is not None:
        found = [type(layer).__name__ for layer in classifier.model.layers]
        assert " ".join(found[4:]) == kinds


def joined(lay, kind, *parts):
    return getattr(lay, kind)()(list(parts))


OPERATIONS = {
    "product": lambda lay, x: joined(lay, "Multiply", x, MASK),
    "product_operator": lambda lay, x: x * MASK,
    "sum": lambda lay, x: joined(lay, "Add", x, VALUES),
    "product_and_sum": lambda lay, x: x * MASK + VALUES,
    "sum_of_three": lambda lay, x: joined(lay, "Add", x, VALUES, lay.ReLU(1.0)(x)),
    "mean_of_three": lambda lay, x: joined(lay, "Average", x, VALUES, lay.ReLU(1.0)(x)),
    "mean_of_two": lambda lay, x: joined(lay, "Average", x, VALUES),
    "difference": lambda lay, x: joined(lay, "Subtract", x, VALUES),
    "difference_from": lambda lay, x: lay.ReLU()(MASK - x if lay is TF else x - MASK),
    "quotient": lambda lay, x: x / (MASK + 0.5),
    "maximum": lambda lay, x: joined(lay, "Maximum", x, VALUES),
    "minimum_of_three": lambda lay, x: joined(
        lay, "Minimum", x, VALUES, lay.ReLU(1.0)(x)
    ),
    "product_of_three": lambda lay, x: joined(
        lay, "Multiply", x, MASK, lay.GlobalAveragePooling2D(keepdims=True)(x)
    ),
}
TF = tf_keras.layers


@KERASES
@pytest.mark.parametrize("name", OPERATIONS)
def test_constants_differ_from_position_to_position(k, name):
    image = k.Input((6, 6, 3))
    model = classified(k, image, OPERATIONS[name](k.layers, features(k, image)))
    check(model, model)


@KERASES
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_hold_constants(tmp_path, k, suffix):
    image = k.Input((6, 6, 3))
    x = joined(k.layers, "Maximum", features(k, image), VALUES)
    model = classified(k, image, joined(k.layers, "Multiply", x, MASK) * MASK)
    model.save(tmp_path / f"net{suffix}")
    check(tmp_path / f"net{suffix}", model)


@KERASES
def test_positions_that_are_alike_need_no_layer_of_their_own(k):
    image = k.Input((6, 6, 3))
    x = features(k, image) * np.ones_like(MASK) + np.zeros_like(VALUES)
    x = x * np.full_like(VALUES, 2.0)
    model = classified(k, image, x)
    check(model, model, "Conv2D GlobalAveragePooling2D Dense")


@KERASES
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_constants_are_channels(tmp_path, k, suffix):
    lay = k.layers
    image = k.Input((6, 6, 3), batch_size=1)
    x = joined(lay, "Concatenate", image, MASK)  # the padding is not of the constant
    x = features(k, x)
    x = joined(lay, "Concatenate", x, VALUES, lay.ReLU(1.0)(x), MASK)
    x = lay.GlobalAveragePooling2D()(lay.Conv2D(4, 3)(x))
    x = lay.BatchNormalization()(joined(lay, "Concatenate", x, ROW, ROW))
    model = model_of(k, image, lay.Dense(3)(x))
    check(model, model)
    model.save(tmp_path / f"net{suffix}")
    check(tmp_path / f"net{suffix}", model)


def test_the_first_channels_may_be_constant():
    image = tf_keras.Input((6, 6, 3), batch_size=1)
    x = tf.concat([MASK, features(tf_keras, image), MASK], -1)
    x = tf_keras.layers.GlobalAveragePooling2D()(tf_keras.layers.Conv2D(4, 3)(x))
    model = classified(tf_keras, image, tf.concat([ROW, x], axis=1))
    check(model, model)


@KERASES
def test_constant_channels_are_in_the_bias_of_a_linear_layer(k):
    lay = k.layers
    image = k.Input((6, 6, 3), batch_size=1)
    x = features(k, image)
    x = joined(lay, "Concatenate", x, np.full((1, 6, 6, 2), 0.7, np.float32))
    x = lay.GlobalAveragePooling2D()(lay.Conv2D(5, 3)(x))
    model = classified(k, image, joined(lay, "Concatenate", x, 100 * ROW))
    check(model, model, "Conv2D GlobalAveragePooling2D Dense")


@KERASES
def test_signals_rows_and_pictures_have_constants(k):
    lay = k.layers
    signal = k.Input((8, 3), batch_size=1)
    x = lay.BatchNormalization()(lay.Conv1D(4, 3)(signal * random(1, 8, 3)))
    x = joined(lay, "Concatenate", lay.ReLU()(x), random(1, 6, 2))
    signals = model_of(k, signal, lay.Dense(3)(lay.GlobalMaxPooling1D()(x)))
    row = k.Input((5,), batch_size=1)
    x = joined(lay, "Concatenate", row, ROW) * random(1, 8)
    x = lay.ReLU()(lay.BatchNormalization()(lay.Dense(6)(x)))
    rows = model_of(k, row, lay.Dense(3)(x))
    picture = k.Input((6, 5), batch_size=1)
    x = lay.Reshape((6, 5, 1))(picture * random(1, 6, 5))
    x = lay.BatchNormalization()(lay.Conv2D(4, 3)(x))
    pictures = model_of(k, picture, lay.Dense(3)(lay.GlobalAveragePooling2D()(x)))
    for model in (signals, rows, pictures):
        check(model, model)


@KERASES
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_models_inside_are_called_on_constants(tmp_path, k, suffix):
    lay = k.layers
    image, mask, row = k.Input((6, 6, 3)), k.Input((6, 6, 1)), k.Input((3,))
    x = lay.Multiply()([features(k, image), mask])
    x = lay.Multiply()([x, lay.Reshape((1, 1, 4))(lay.Dense(4)(row))])
    x = lay.GlobalAveragePooling2D()(lay.Conv2D(4, 3)(x))
    inner = k.Model([image, mask, row], lay.Concatenate()([x, row]), name="inner")
    shapes = [w.shape for w in inner.get_layer("bn").get_weights()]
    inner.get_layer("bn").set_weights([RNG.uniform(0.2, 1.0, s) for s in shapes])
    outer = k.Input((6, 6, 3), batch_size=1)
    x = inner([outer, tf.constant(MASK), tf.constant(ROW)])
    model = k.Model(outer, lay.Dense(3)(x))
    check(model, model)
    model.save(tmp_path / f"net{suffix}")
    check(tmp_path / f"net{suffix}", model)


def refusal(model):
    with pytest.raises(UserError) as error:
        load_classifier(model, preprocessing="unit")
    assert "\n" not in str(error.value)
    return str(error.value)


@KERASES
def test_constants_that_do_not_fit_into_the_tensor_are_refused(k):
    lay = k.layers
    image = k.Input((6, 6, 3), batch_size=2)
    x = features(k, image)
    pooled = lay.GlobalAveragePooling2D(keepdims=True)(x)
    spread = classified(k, image, pooled * VALUES)
    assert (
        "its constant spreads (1, 1, 4) over (6, 6, 4); expected one that fits"
    ) in refusal(spread)
    each = classified(k, image, x * random(2, 6, 6, 1))
    assert (
        "its factor has shape (2, 6, 6, 1); expected one number, one for each of the 4 "
        "channels, or what broadcasts to (6, 6, 4), for every image the same"
    ) in refusal(each)
    joined_each = classified(
        k, image, joined(lay, "Concatenate", x, random(2, 6, 6, 1))
    )
    assert "it joins a constant of shape (2, 6, 6, 1); expected" in refusal(joined_each)
    rows = classified(k, image, lay.Concatenate(axis=1)([x, random(2, 1, 6, 4)]))
    assert "it works on axis 1; expected the last one" in refusal(rows)


@KERASES
def test_outputs_of_constants_alone_are_refused(k):
    image, row = k.Input((6, 6, 3)), k.Input((3,))
    inner = k.Model([image, row], [features(k, image), k.layers.Dense(3)(row)])
    outer = k.Input((6, 6, 3), batch_size=1)
    _, outputs = inner([outer, tf.constant(ROW)])
    text = refusal(k.Model(outer, outputs))
    assert "gives the same outputs for every image: they depend on its consta" in text
