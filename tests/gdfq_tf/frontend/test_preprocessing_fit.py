from __future__ import annotations

import math

import numpy as np
import pytest

from gdfq_tf.frontend.canonical import canonicalize
from gdfq_tf.frontend.preprocessing_fit import (
    Population,
    candidates,
    guess_input_range,
    natural_textures,
    rank,
    scales_pixels,
)
from gdfq_tf.keras_compat import keras
from gdfq_tf.preprocessing import make_preprocessing
from tests.pictures import lines_on_black, network_of, photographs

NO_SCALE, NO_OFFSET = np.ones(1), np.zeros(1)


def ranked(model, preprocessings):
    canonical = canonicalize(model)
    scale, offset = canonical.input_scale, canonical.input_offset
    return rank(canonical.model, preprocessings, scale, offset)


# ---- images


def test_textures_are_standard_and_smooth():
    textures = natural_textures((32, 48, 3))
    assert textures.shape == (8, 32, 48, 3)
    assert abs(textures.mean()) < 1e-6
    assert textures.std() == pytest.approx(1, abs=0.05)
    assert textures.mean(axis=(1, 2, 3)).std() > 0.3  # images differ in brightness
    assert natural_textures((512, 512, 1)).shape == (1, 512, 512, 1)
    red, green = textures[..., 0].ravel(), textures[..., 1].ravel()
    assert 0.9 < np.corrcoef(red, green)[0, 1] < 0.99
    steps = np.diff(textures, axis=1).std()
    assert steps < 0.7 < 1.2 < np.diff(natural_textures((32, 48, 3), 0.0), axis=1).std()


@pytest.mark.parametrize("shape", [(1, 1, 1), (49, 1, 10), (125, 1, 3)])
def test_textures_of_odd_shapes(shape):
    textures = natural_textures(shape)
    assert textures.shape == (8, *shape)
    assert np.isfinite(textures).all()


def test_pixels_of_a_population_by_hand():
    textures = np.array([-9.0, -0.5, 0.0, 9.0]).reshape(1, 2, 2, 1)
    grey = Population((100.0, 110.0, 120.0), 21.0).pixels(textures)
    # The mean of the three; half a deviation of 21 is 10.5, and halves go to even.
    np.testing.assert_array_equal(grey.ravel(), [0, 100, 110, 255])
    coloured = Population((100.0, 110.0, 120.0), 20.0).pixels(np.zeros((1, 1, 1, 3)))
    np.testing.assert_array_equal(coloured.ravel(), [100, 110, 120])


# ---- ranking


@pytest.mark.parametrize("name", ["tf", "torch", "caffe", "unit", "uint8"])
def test_the_right_one_comes_first(name):
    pixels = photographs(32, (16, 16, 3))
    right = make_preprocessing(name, 3)
    fits = ranked(network_of(pixels, right), candidates(3))
    assert [fit.preprocessing.name for fit in fits].index(name) == 0
    assert fits[0].misfit < 0.6
    assert [fit.misfit for fit in fits] == sorted(fit.misfit for fit in fits)


@pytest.mark.parametrize("name", ["tf", "unit", "uint8"])
@pytest.mark.parametrize("inverted", [False, True])
def test_dark_and_bright_images(name, inverted):
    pixels = lines_on_black(32, (20, 20, 1))
    right = make_preprocessing(name, 1)
    model = network_of(255 - pixels if inverted else pixels, right)
    assert ranked(model, candidates(1))[0].preprocessing == right


def test_noise_is_taken_for_images_too():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3), np.uint8)
    fits = ranked(network_of(pixels, make_preprocessing("unit", 3)), candidates(3))
    assert fits[0].preprocessing.name == "unit"


def test_scaling_layers_count_for_the_fit():
    pixels, right = photographs(32, (16, 16, 3)), make_preprocessing("uint8", 3)
    model = network_of(pixels, right, keras.layers.Rescaling(1 / 127.5, -1.0))
    assert ranked(model, candidates(3))[0].preprocessing == right


def test_a_custom_one_declares_its_images():
    # Of images with a deviation of ten levels, which no kind thought of has.
    pixels = (120 + (photographs(32, (16, 16, 3)) - 118.0) / 6).astype(np.uint8)
    mean, std = pixels.mean() / 255, pixels.std() / 255
    right = make_preprocessing("custom", 3, mean=(mean,), std=(std,))
    (fit,) = ranked(network_of(pixels, right), [right])
    assert fit.misfit < 0.15


def identity_of(kind: Population, excess: float):
    """A network that sees pixels / 255 alone, once that kind of images.

    Their stored deviation is e^excess times what it should be.
    """
    image = keras.Input((12, 12, 1))
    norm = keras.layers.BatchNormalization(epsilon=1e-7)
    x = norm(keras.layers.Conv2D(1, 1, use_bias=False)(image))
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    pixels = kind.pixels(natural_textures((12, 12, 1))) / 255
    model.layers[1].set_weights([np.ones((1, 1, 1, 1))])
    variance = pixels.var() * math.exp(2 * excess)
    norm.set_weights(
        [np.ones(1), np.zeros(1), np.array([pixels.mean()]), np.array([variance])]
    )
    return model


@pytest.mark.parametrize("excess", [-0.05, 0.0, 0.03])
def test_misfit_by_hand(excess):
    model = identity_of(Population((122.0, 115.0, 103.0), 64.0), excess)
    (fit,) = ranked(model, [make_preprocessing("unit", 1)])
    assert fit.misfit == pytest.approx(abs(excess), abs=1e-3)


def test_rare_images_cost_a_tenth():
    model = identity_of(Population((-510.0,), 510.0), 0.0)
    (fit,) = ranked(model, [make_preprocessing("unit", 1)])
    assert fit.misfit == pytest.approx(0.1, abs=1e-3)


def test_no_statistics_give_no_ranking():
    model = network_of(photographs(4, (8, 8, 3)), make_preprocessing("unit", 3))
    gamma, beta, mean, variance = model.get_layer("norm").get_weights()
    model.get_layer("norm").set_weights([gamma, beta, 0 * mean, 0 * variance + 1])
    assert rank(model, candidates(3), NO_SCALE, NO_OFFSET) == []
    assert guess_input_range(model) is None


@pytest.mark.parametrize(("channels", "names"), [(1, 3), (2, 3), (3, 5), (4, 3)])
def test_candidates_by_channels(channels, names):
    found = candidates(channels)
    assert len(found) == names
    assert all(len(x.scale) == channels and x.name != "custom" for x in found)


# ---- scaling layers


@pytest.mark.parametrize(
    ("scale", "offset", "expected"),
    [
        ([1 / 255], [0.0], True),
        ([1 / 127.5], [-1.0], True),
        ([1 / 58, 1 / 57, 1 / 57], [-2.1, -2.0, -1.8], True),  # Normalization of pixels
        ([1.0], [0.0], False),
        ([1 / 0.25], [-2.0], False),  # Normalization of [0, 1]
        ([1 / 60, 1.0], [0.0, 0.0], False),
        ([1 / 35], [48 / 35], False),  # Normalization of features about -48
        ([1 / 35], [-300 / 35], False),
    ],
)
def test_who_takes_pixels(scale, offset, expected):
    assert scales_pixels(np.array(scale), np.array(offset)) is expected


# ---- ranges of features


def test_range_by_hand():
    mean, deviation = np.array([-40.0, 5.0]), 30.0
    kernels = np.array([[1.0, 0.0, 1.0, -0.5], [0.0, 1.0, 1.0, 0.5]])
    image = keras.Input((16, 16, 2))
    norm = keras.layers.BatchNormalization()
    x = norm(keras.layers.Conv2D(4, 1, name="conv")(image))
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    bias = np.array([0.0, 1.0, 2.0, 3.0])
    model.get_layer("conv").set_weights([kernels.reshape(1, 1, 2, 4), bias])
    # Channels with a correlation of 0.96, as natural textures have.
    covariance = deviation**2 * np.array([[1.0, 0.96], [0.96, 1.0]])
    variance = np.einsum("ck,cd,dk->k", kernels, covariance, kernels)
    norm.set_weights([np.ones(4), np.zeros(4), mean @ kernels + bias, variance])
    low, high = guess_input_range(model)
    np.testing.assert_allclose((low + high) / 2, mean, atol=0.1)
    np.testing.assert_allclose(high - low, 4 * deviation, rtol=0.2)


def test_ranges_are_not_guessed_through_relus():
    model = network_of(
        photographs(8, (8, 8, 3)),
        make_preprocessing("tf", 3),
        keras.layers.Conv2D(4, 3, padding="same"),
        keras.layers.ReLU(),
    )
    assert guess_input_range(model) is None


def test_a_range_of_features_is_found_again():
    pixels = photographs(32, (16, 16, 1))
    features = make_preprocessing("custom", 1, mean=(0.9,), std=(0.01,))
    low, high = guess_input_range(network_of(pixels, features))
    values = np.asarray(features.to_input(pixels))
    centre, spread = float(values.mean()), float(values.std())
    assert low[0] == pytest.approx(centre - 2 * spread, abs=0.7 * spread)
    assert high[0] == pytest.approx(centre + 2 * spread, abs=0.7 * spread)
