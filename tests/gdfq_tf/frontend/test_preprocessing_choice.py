from __future__ import annotations

import warnings

import keras as keras3
import numpy as np
import pytest

from gdfq_tf.errors import UserError
from gdfq_tf.frontend.load import load_classifier
from gdfq_tf.keras_compat import keras
from gdfq_tf.preprocessing import make_preprocessing
from tests.pictures import network_of, photographs

SHAPE = (16, 16, 3)
RESCALING = keras.layers.Rescaling
FIT_WARNING = "error:preprocessing .* does not fit the statistics:UserWarning"


def network(name, *before, **options):
    """A network of pictures, trained with a preprocessing of that name."""
    right = make_preprocessing(name, SHAPE[-1], **options)
    return network_of(photographs(32, SHAPE), right, *before)


def refusal(model, **options):
    with pytest.raises(UserError) as error:
        load_classifier(model, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- none is given


@pytest.mark.parametrize("name", ["caffe", "unit"])
def test_clear_statistics_choose(name):
    with pytest.warns(UserWarning, match=f"preprocessing '{name}' is taken.*, next "):
        classifier = load_classifier(network(name))
    assert classifier.preprocessing == make_preprocessing(name, 3)


@pytest.mark.parametrize(
    "before",
    [
        lambda: [RESCALING(1 / 255)],
        lambda: [RESCALING(1 / 127.5, -1.0)],
        lambda: [RESCALING(1 / 255), RESCALING(2.0, -1.0)],
        lambda: [keras.layers.Normalization(mean=[120.0] * 3, variance=[3600.0] * 3)],
    ],
    ids=["unit", "tf", "two", "normalization"],
)
def test_networks_that_scale_pixels_take_them_as_they_are(before):
    with pytest.warns(UserWarning, match="begins with a scaling of pixels itself"):
        classifier = load_classifier(network("uint8", *before()))
    assert classifier.preprocessing.name == "uint8"
    assert classifier.preprocessing.scale[0] < 0.1


def test_operations_that_scale_count_as_layers():
    image = keras3.Input(SHAPE)
    x = keras3.layers.Conv2D(8, 3)(image / 255.0)
    x = keras3.layers.BatchNormalization(momentum=0.0)(x)
    x = keras3.layers.GlobalAveragePooling2D()(x)
    model = keras3.Model(image, keras3.layers.Dense(2)(x))
    model(photographs(16, SHAPE).astype(np.float32), training=True)
    with pytest.warns(UserWarning, match="begins with a scaling of pixels itself"):
        assert load_classifier(model).preprocessing.name == "uint8"


def test_the_graph_tells_without_batch_normalization():
    image = keras.Input(SHAPE)
    x = keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(RESCALING(1 / 255)(image)))
    model = keras.Model(image, keras.layers.Dense(2)(x))
    with pytest.warns(UserWarning, match="begins with a scaling of pixels itself"):
        classifier = load_classifier(model, without_bn_statistics=True)
    assert classifier.preprocessing.name == "uint8"
    text = refusal(model, without_bn_statistics=True, preprocessing="tf")
    assert "preprocessing 'tf' would change them before" in text


def test_what_is_left_open_is_asked_with_the_ranking():
    features = {"mean": (-1.0,), "std": (0.02,)}
    text = refusal(network("custom", **features))
    assert "leave it open (misfits, 0 is perfect: " in text
    assert "preprocessing: one of tf, torch, caffe, unit, uint8, custom" in text
    # About (118 / 255 + 1) / 0.02 = 73.
    low, high = text.split("input_range=")[1].split(" ")[0].split(",")
    assert float(low) < 65 < 81 < float(high)
    assert float(high) - float(low) < 130
    assert text.endswith("(a guess from the statistics)")


def test_no_statistics_leave_all_open():
    image = keras.Input(SHAPE)
    x = keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(image))
    model = keras.Model(image, keras.layers.Dense(2)(x))
    text = refusal(model, without_bn_statistics=True)
    assert text.endswith("preprocessing: one of tf, torch, caffe, unit, uint8, custom")
    assert "misfits" not in text


# ---- one is given


@pytest.mark.parametrize("name", ["tf", "torch", "caffe", "unit", "uint8"])
@pytest.mark.filterwarnings(FIT_WARNING)
def test_the_right_one_is_taken_without_a_word(name):
    assert load_classifier(network(name), preprocessing=name)


@pytest.mark.filterwarnings(FIT_WARNING)
def test_a_right_custom_one_is_taken_without_a_word():
    statistics = {"mean": (0.47, 0.46, 0.45), "std": (0.2, 0.21, 0.22)}
    model = network("custom", **statistics)
    assert load_classifier(model, preprocessing="custom", **statistics)


@pytest.mark.parametrize(
    ("right", "given"),
    [("unit", "uint8"), ("torch", "caffe"), ("uint8", "unit"), ("caffe", "torch")],
)
def test_gross_misfits_are_refused_with_what_fits(right, given):
    text = refusal(network(right), preprocessing=given)
    assert f"preprocessing '{given}' does not fit the statistics of pictured" in text
    assert text.endswith(f"may be preprocessing='{right}'")


@pytest.mark.parametrize(("right", "given"), [("unit", "torch"), ("torch", "unit")])
def test_much_better_ones_are_named(right, given):
    with pytest.warns(
        UserWarning, match=rf"'{given}' does not .*, but .* of '{right}'"
    ):
        load_classifier(network(right), preprocessing=given)


@pytest.mark.parametrize("given", ["tf", "torch", "unit", "caffe"])
def test_pixels_are_not_scaled_twice(given):
    model = network("uint8", RESCALING(1 / 255))
    text = refusal(model, preprocessing=given)
    assert f"preprocessing '{given}' would change them before" in text
    assert "preprocessing='uint8' for pixels as they are" in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_classifier(model, preprocessing="uint8")


def test_who_was_trained_on_pixels_scaled_twice_stays_so():
    model = network("unit", RESCALING(1 / 255))
    classifier = load_classifier(model, preprocessing="unit")
    assert classifier.preprocessing.scale[0] == pytest.approx(1 / 255**2)
    assert "may be preprocessing='unit'" in refusal(model, preprocessing="uint8")
