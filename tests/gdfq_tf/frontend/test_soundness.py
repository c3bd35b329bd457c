from __future__ import annotations

import math
import re
import warnings

import numpy as np
import pytest

from gdfq_tf.errors import UserError
from gdfq_tf.frontend.load import load_classifier
from gdfq_tf.frontend.soundness import (
    check_magnitudes,
    find_death,
    observe,
    probe_images,
    warn_of_silent_channels,
)
from gdfq_tf.keras_compat import keras
from tests.tiny import build_tiny_classifier

layers = keras.layers


def inputs(shape=(8, 8, 3)):
    return np.random.default_rng(0).uniform(0, 1, (4, *shape)).astype(np.float32)


def death_of(model):
    return find_death(model, observe(model, inputs(model.input_shape[1:])))


def assign(model, name, **weights):
    """Fills weights of a layer, by name, with a value each."""
    for weight, value in weights.items():
        variable = getattr(model.get_layer(name), weight)
        variable.assign(np.full(variable.shape, value))


# ---- observing


def test_observations_are_the_layers_outputs():
    image = keras.Input((2, 2, 1))
    x = layers.ReLU(name="relu")(image)
    x = layers.Add(name="sum")([x, image])
    model = keras.Model(image, layers.Flatten(name="flat")(x))
    pixels = np.array([[-1.0, 2, 0, 0], [-1, 3, 0, 0]], np.float32)
    found = observe(model, pixels.reshape(2, 2, 2, 1))
    assert list(found) == [layer.name for layer in model.layers]
    assert (found["relu"].low, found["relu"].high) == (0.0, 3.0)
    assert (found["sum"].low, found["sum"].high) == (-1.0, 6.0)
    assert found["sum"].largest == 6.0
    assert all(x.varies for x in found.values())


@pytest.mark.parametrize(("second", "varies"), [(1.0, False), (1.00001, True)])
def test_what_does_not_depend_on_the_image(second, varies):
    image = keras.Input((1, 1, 1))
    model = keras.Model(image, layers.Flatten(name="flat")(image))
    pixels = np.array([1.0, second], np.float32).reshape(2, 1, 1, 1)
    assert observe(model, pixels)["flat"].varies is varies


def test_a_large_channel_hides_no_other():
    image = keras.Input((1, 1, 2))
    model = keras.Model(image, layers.Flatten(name="flat")(image))
    pixels = np.array([[1e10, 1.0], [1e10, 2.0]], np.float32).reshape(2, 1, 1, 2)
    assert observe(model, pixels)["flat"].varies


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_infinite(value):
    image = keras.Input((1, 1, 1))
    model = keras.Model(image, layers.Flatten(name="flat")(image))
    pixels = np.array([1.0, value], np.float32).reshape(2, 1, 1, 1)
    assert observe(model, pixels)["flat"].largest == math.inf


def test_probes_are_pixels_of_every_shape():
    for shape in ((1, 1, 1), (3, 17, 2)):
        for pixels in probe_images(shape, 2):
            assert pixels.shape == (2, *shape)
            assert pixels.min() >= 0 and pixels.max() <= 255
    assert np.ptp(probe_images((8, 8, 1), 1)[1]) > 0


# ---- deaths


def test_a_living_network_has_none():
    assert death_of(build_tiny_classifier()) is None


@pytest.mark.parametrize(
    ("name", "weights", "by_weights", "reason"),
    [
        ("conv1", {"kernel": 0}, True, r"'conv1' has a kernel of zeros"),
        ("logits", {"kernel": 0}, True, r"'logits' has a kernel of zeros"),
        ("bn1", {"gamma": 0}, True, r"'bn1' has a gamma of 0"),
        (
            "bn1",
            {"gamma": 0.01, "beta": -0.07},
            True,
            r"'relu1' is never on: layer 'bn1' .* betas up to -0\.07 "
            r"beside gammas up to 0\.01",
        ),
        # Five deviations below zero, training images may have been above.
        ("bn1", {"gamma": 0.1, "beta": -0.5, "moving_mean": 99}, False, "'relu1'"),
        ("logits", {"kernel": 1e-20, "bias": 1}, False, "'logits'.* same for all"),
        ("logits", {"kernel": 1e-40}, True, r"'logits'.* zeros alone \(at most 1e-40"),
    ],
)
def test_deaths_are_told_where_they_are(name, weights, by_weights, reason):
    model = build_tiny_classifier()
    assign(model, name, **weights)
    death = death_of(model)
    assert death.by_weights is by_weights
    assert re.search(reason, death.reason), death.reason


def test_a_dead_branch_is_no_death():
    model = build_tiny_classifier()
    assign(model, "bn3", gamma=0)
    assert death_of(model) is None


def test_a_dead_branch_is_not_blamed_for_the_end():
    model = build_tiny_classifier()
    assign(model, "bn3", gamma=0)
    assign(model, "logits", kernel=0)
    assert "'logits'" in death_of(model).reason


def test_a_network_dead_by_its_weights_is_refused(tmp_path):
    model = build_tiny_classifier()
    assign(model, "conv1", kernel=0)
    model.save(tmp_path / "dead.keras")
    with pytest.raises(UserError, match="dead gives the same outputs for every image"):
        load_classifier(str(tmp_path / "dead.keras"), preprocessing="unit")


def test_a_network_dead_under_a_preprocessing_is_refused_as_such(tmp_path):
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    model = keras.Model(image, layers.Dense(2)(layers.Flatten()(x)))
    # On in [0, 255], where it was trained; off in [0, 1].
    assign(model, "conv", kernel=1 / 27, bias=-10)
    model.save(tmp_path / "net.keras")
    path = str(tmp_path / "net.keras")
    load_classifier(path, preprocessing="uint8", without_bn_statistics=True)
    with pytest.raises(UserError, match=r"under preprocessing 'unit': .*never on"):
        load_classifier(path, preprocessing="unit", without_bn_statistics=True)


# ---- magnitudes


@pytest.mark.parametrize(
    ("name", "weights", "reason"),
    [
        (
            "logits",
            {"kernel": 1e17},
            r"'logits' gives up to .* weights up to",
        ),
        ("bn1", {"gamma": 1e17}, r"'bn1' gives up to"),
        ("bn1", {"beta": 1e17}, r"'bn1' gives up to 1e\+17"),
        ("bn1", {"moving_mean": 1e8}, r"'bn1' holds means up to 1e\+08 .*'conv1'"),
        ("conv3", {"kernel": 1e8}, r"'bn3' .* 'conv3' before it gives up"),
    ],
)
def test_magnitudes_beyond_float32_are_refused(name, weights, reason):
    model = build_tiny_classifier()
    assign(model, name, **weights)
    with pytest.raises(UserError, match=reason):
        check_magnitudes(model, observe(model, inputs()))


@pytest.mark.parametrize("value", [1e-30, 1e3])
def test_large_and_small_weights_are_taken(value):
    model = build_tiny_classifier()
    kernel = model.get_layer("logits").kernel
    kernel.assign(kernel * value)
    check_magnitudes(model, observe(model, inputs()))


# ---- silent channels


def test_silent_channels_are_told(recwarn):
    model = build_tiny_classifier()
    warn_of_silent_channels(model)
    assert not recwarn
    # Of 24 channels those of bn3, which a sum follows, all, and none beside them.
    assign(model, "bn3", gamma=0)
    with pytest.warns(UserWarning, match="8 of 24 channels .* all of 'bn3' among"):
        warn_of_silent_channels(model)


def test_few_silent_channels_are_not_told():
    model = build_tiny_classifier()
    gamma = np.array([0.0] * 7 + [1.0])
    for name in ("bn1", "bn2", "bn3"):
        model.get_layer(name).gamma.assign(np.ones(8))
        model.get_layer(name).beta.assign(np.zeros(8))
    model.get_layer("bn1").gamma.assign(gamma)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_silent_channels(model)
    model.get_layer("bn3").gamma.assign(gamma)
    with pytest.warns(UserWarning, match="14 of 24 channels say nothing: "):
        warn_of_silent_channels(model)


def test_networks_without_statistics_have_no_channels_to_tell_of(recwarn):
    image = keras.Input((8, 8, 3))
    warn_of_silent_channels(keras.Model(image, layers.Conv2D(4, 3)(image)))
    assert not recwarn
