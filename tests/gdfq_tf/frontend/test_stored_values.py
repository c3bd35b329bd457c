from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest

from gdfq_tf.errors import UserError
from gdfq_tf.frontend.canonical import canonicalize
from gdfq_tf.frontend.load import load_classifier
from gdfq_tf.frontend.ops import Op
from gdfq_tf.frontend.stored_values import check_folded_values, check_stored_values
from gdfq_tf.keras_compat import keras as tf_keras
from tests.tiny import build_tiny_classifier


def refusal(model):
    with pytest.raises(UserError) as error:
        canonicalize(model)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("layer", "index", "name"),
    [
        ("conv1", 0, "kernel"),
        ("dw2", 0, "kernel"),
        ("bn1", 0, "gamma"),
        ("bn2", 1, "beta"),
        ("bn3", 2, "moving_mean"),
        ("bn3", 3, "moving_variance"),
        ("logits", 1, "bias"),
    ],
)
def test_values_that_are_not_finite_are_refused(layer, index, name, value):
    model = build_tiny_classifier()
    weights = model.get_layer(layer).get_weights()
    weights[index].flat[1] = value
    model.get_layer(layer).set_weights(weights)
    text = refusal(model)
    size = weights[index].size
    assert f"layer '{layer}' holds {value} in its {name}, at 1 of {size} pla" in text


def test_negative_variances_are_refused():
    model = build_tiny_classifier()
    *others, variance = model.get_layer("bn2").get_weights()
    variance[3] = -1e-6
    model.get_layer("bn2").set_weights([*others, variance])
    text = refusal(model)
    assert "layer 'bn2' holds -1e-06 in its moving_variance, at 1 of 8 places" in text


@pytest.mark.parametrize("index", [0, 1, 2])
def test_negative_values_elsewhere_are_taken(index):
    model = build_tiny_classifier()
    weights = model.get_layer("bn2").get_weights()
    weights[index][:] = -1.0
    model.get_layer("bn2").set_weights(weights)
    canonicalize(model)


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_of_squares_stay_within_float32(sign):
    # 4 * 9e18 ** 2 = 3.24e38 < 3.403e38 < 4 * 9.3e18 ** 2 = 3.46e38
    def op(value):
        kernel = np.full((2, 2), sign * value, np.float32)
        return Op("Dense", "last", ("x",), {}, (kernel, np.zeros(2)))

    check_stored_values([op(9e18)])
    with pytest.raises(UserError, match=r"'last' holds 9\.3e\+18 .* at most 9\.2e\+18"):
        check_stored_values([op(9.3e18)])


def test_denormal_values_are_taken():
    kernel = np.full((2, 2), 1e-42, np.float32)
    check_stored_values([Op("Dense", "last", ("x",), {}, (kernel, np.zeros(2)))])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_constants_in_arithmetic_are_refused(value):
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3, activation="relu")(image)
    x = keras.layers.Flatten()(keras.ops.multiply(x, value))
    text = refusal(keras.Model(image, keras.layers.Dense(2)(x)))
    assert "holds" in text and "in its factor" in text


@pytest.mark.parametrize("k", [keras, tf_keras], ids=["keras3", "tf_keras"])
@pytest.mark.parametrize("variance", [-4.0, np.nan, np.inf])
def test_input_variances_are_refused(k, variance):
    image = k.Input((8, 8, 1))
    x = k.layers.Normalization(mean=[0.0], variance=[variance])(image)
    model = k.Model(image, k.layers.Dense(2)(k.layers.Flatten()(x)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = refusal(model)
    assert f"its variance holds {variance}; expected finite" in text


def test_products_beyond_float32_are_refused():
    op = Op("Dense", "last", ("x",), {}, (np.full((2, 2), 1e39), np.zeros(2)))
    with pytest.raises(UserError, match="layer 'last', with the factors"):
        check_folded_values([op])
    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(2, 3)(image)
    for _ in range(3):
        x = keras.ops.multiply(x, 1e16)
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    assert "float32" in refusal(model)


def test_a_variance_is_told_before_outputs_are_compared(tmp_path):
    model = build_tiny_classifier()
    gamma, beta, mean, variance = model.get_layer("bn1").get_weights()
    model.get_layer("bn1").set_weights([gamma, beta, mean, variance - 10])
    model.save(tmp_path / "tiny.keras")
    with pytest.raises(UserError, match="which is no variance"):
        load_classifier(str(tmp_path / "tiny.keras"), preprocessing="unit")
