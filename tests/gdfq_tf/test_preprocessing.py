"""From pixels to float and int8 inputs."""

from __future__ import annotations

import re

import numpy as np
import pytest

from gdfq_tf.config import PREPROCESSINGS
from gdfq_tf.errors import UserError
from gdfq_tf.keras_compat import keras
from gdfq_tf.preprocessing import make_preprocessing, preprocessing_of_features

PIXELS = np.repeat(np.arange(256)[:, np.newaxis], 3, axis=1)  # (256, 3)
CUSTOM = {"mean": (0.1, 0.5, 0.7), "std": (0.3, 0.2, 0.25)}


def make(name: str, channels: int = 3):
    return make_preprocessing(name, channels, **(CUSTOM if name == "custom" else {}))


def reference(name: str, pixels: np.ndarray) -> np.ndarray:
    """Each preprocessing as Keras documents it, RGB pixels in, float64."""
    x = np.asarray(pixels, np.float64)
    if name == "tf":
        return x / 127.5 - 1.0
    if name == "unit":
        return x / 255.0
    if name == "uint8":
        return x
    if name == "torch":
        return (x / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    if name == "caffe":
        return x[..., ::-1] - [103.939, 116.779, 123.68]
    return (x / 255.0 - CUSTOM["mean"]) / np.array(CUSTOM["std"])


def random_pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3))


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_input_is_what_keras_computes(name):
    pixels = random_pixels()
    computed = make(name).to_input(pixels).numpy()
    assert computed.dtype == np.float32
    np.testing.assert_allclose(
        computed, reference(name, pixels), rtol=1e-5, atol=1e-5 * np.ptp(computed)
    )


@pytest.mark.parametrize("name", ["tf", "torch", "caffe"])
def test_input_is_what_keras_applications_computes(name):
    pixels = random_pixels().astype(np.float32)
    expected = keras.applications.imagenet_utils.preprocess_input(
        pixels.copy(), mode=name
    )
    np.testing.assert_allclose(
        make(name).to_input(pixels).numpy(), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_pixels_come_back(name):
    preprocessing = make(name)
    pixels = random_pixels()
    restored = preprocessing.to_pixels(preprocessing.to_input(pixels)).numpy()
    assert restored.dtype == np.uint8
    np.testing.assert_array_equal(restored, pixels)
    beyond = preprocessing.to_input(np.array([[-40.0, 400.0, 254.6]]))
    np.testing.assert_array_equal(preprocessing.to_pixels(beyond), [[0, 255, 255]])


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_low_and_high_are_the_inputs_of_the_extreme_pixels(name):
    preprocessing = make(name)
    low, high = preprocessing.to_input(np.array([[0] * 3, [255] * 3])).numpy()
    np.testing.assert_allclose(preprocessing.low, low, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(preprocessing.high, high, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["tf", "unit", "uint8"])
def test_int8_input_of_uniform_preprocessing_is_pixel_minus_128(name):
    preprocessing = make(name)
    assert preprocessing.is_uniform
    np.testing.assert_array_equal(preprocessing.to_integers(PIXELS), PIXELS - 128)
    assert preprocessing.formula() == "q = pixel - 128"


def test_one_mean_and_std_for_all_channels_is_uniform():
    preprocessing = make_preprocessing("custom", 3, mean=[0.123], std=[0.31])
    np.testing.assert_array_equal(preprocessing.to_integers(PIXELS), PIXELS - 128)


@pytest.mark.parametrize(
    ("offset", "uniform"), [(4.0, False), (0.0, True), (-4.0, True), (-4.1, False)]
)
def test_ranges_without_zero_get_a_quant_params_that_holds_it(offset, uniform):
    """Inputs [offset, offset + 4]: padding needs a zero among the levels."""
    preprocessing = make("unit").then(np.full(3, 4.0), np.full(3, offset))
    assert preprocessing.is_uniform == uniform
    quant_params = preprocessing.input_quantization()
    assert -128 <= quant_params.zero_point <= 127
    real = quant_params.scale * (
        preprocessing.to_integers(PIXELS).astype(float) - quant_params.zero_point
    )
    inputs = preprocessing.to_student_input(PIXELS).numpy()
    assert np.abs(real - inputs).max() <= 0.51 * quant_params.scale


@pytest.mark.parametrize("name", ["tf", "unit", "uint8"])
def test_bytes_of_uniform_preprocessing_are_fed_unchanged(name):
    assert make(name).formula("uint8") == "q = pixel, bytes of the image unchanged"


@pytest.mark.parametrize("name", ["torch", "caffe", "custom"])
def test_formula_of_uint8_is_that_of_int8_plus_128(name):
    preprocessing = make(name)
    zero_point = preprocessing.input_quantization().zero_point
    int8, uint8 = (preprocessing.formula(end) for end in ("int8", "uint8"))
    ends = f"+ {zero_point}, -128, 127)", f"+ {zero_point + 128}, 0, 255)"
    assert uint8 == int8.replace(*ends) != int8


@pytest.mark.parametrize("name", ["tf", "unit", "uint8", "torch", "caffe", "custom"])
def test_normalizing_and_quantizing_gives_the_input(name):
    """What TFLite's libraries do with mean and std of the metadata, in float32."""
    preprocessing, pixels = make(name), random_pixels()
    mean, std = map(np.float32, preprocessing.mean_and_std())
    ordered = pixels[..., ::-1] if preprocessing.reverse_channels else pixels
    quant_params = preprocessing.input_quantization()
    steps = (ordered - mean) / std / np.float32(quant_params.scale)
    found = np.clip(np.round(steps) + quant_params.zero_point, -128, 127)
    tie = np.abs(steps - np.floor(steps) - 0.5) < 1e-4
    assert tie.mean() < 0.01
    np.testing.assert_array_equal(found[~tie], preprocessing.to_integers(pixels)[~tie])
    if preprocessing.is_uniform:
        np.testing.assert_array_equal(found, pixels.astype(int) - 128)


def test_mean_of_bytes_is_a_level():
    mean, std = make("tf").mean_and_std()
    assert mean == pytest.approx((128.0,) * 3)
    assert std == pytest.approx((127.5,) * 3)


def test_mean_and_std_of_features_are_those_of_the_features():
    features = preprocessing_of_features((-1.0, 3.0), 2)
    assert features.mean_and_std() == (
        pytest.approx((0.0, 0.0), abs=1e-12),
        pytest.approx((1.0, 1.0)),
    )


@pytest.mark.parametrize("name", ["torch", "caffe", "custom"])
def test_formula_computes_the_int8_input(name):
    """The printed line, evaluated on its own, gives every pixel's int8."""
    preprocessing = make(name)
    assert not preprocessing.is_uniform
    pattern = (
        r"q = clamp\(round\(\(pixel \* \[(.*)\] \+ \[(.*)\]\) / (\S+)\) \+ (-?\d+), "
        r"-128, 127\), channels in (RGB|BGR) order"
    )
    match = re.fullmatch(pattern, preprocessing.formula())
    scale, offset = (np.array(match[i].split(", "), np.float64) for i in (1, 2))
    pixels = random_pixels()
    ordered = pixels[..., ::-1] if match[5] == "BGR" else pixels
    steps = (ordered * scale + offset) / float(match[3])
    expected = np.clip(np.rint(steps) + int(match[4]), -128, 127)
    computed = preprocessing.to_integers(pixels)
    # A tie may fall either way after the formula's nine digits.
    tie = np.abs(steps - np.floor(steps) - 0.5) < 1e-4
    assert tie.mean() < 0.01
    np.testing.assert_array_equal(computed[~tie], expected[~tie])
    assert match[5] == ("BGR" if name == "caffe" else "RGB")
    # And it stands for the real input within half a step of the whole range.
    quant_params = preprocessing.input_quantization()
    real = quant_params.scale * (computed.astype(float) - quant_params.zero_point)
    assert np.abs(real - reference(name, pixels)).max() <= 0.51 * quant_params.scale


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_student_input_lies_on_the_quant_params_one_shift_below_the_input(name):
    preprocessing = make(name)
    quant_params = preprocessing.input_quantization()
    shift = preprocessing.grid_shift()
    student = preprocessing.to_student_input(PIXELS).numpy()
    np.testing.assert_allclose(
        preprocessing.to_input(PIXELS).numpy() - student,
        shift,
        atol=1e-4 * quant_params.scale,
    )
    if preprocessing.is_uniform:
        levels = student / quant_params.scale
        np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)
        assert abs(shift) <= 0.5 * quant_params.scale * (1 + 1e-9)


@pytest.mark.parametrize(
    ("name", "zero_point", "shift_in_steps"),
    # tf: pixel 127.5 is zero; the grid takes 128 for it, half a step above.
    [("tf", 0, 0.5), ("unit", -128, 0.0), ("uint8", -128, 0.0)],
)
def test_zero_points_by_hand(name, zero_point, shift_in_steps):
    preprocessing = make(name)
    quant_params = preprocessing.input_quantization()
    assert quant_params.zero_point == zero_point
    assert preprocessing.grid_shift() == pytest.approx(
        shift_in_steps * quant_params.scale
    )


@pytest.mark.parametrize("name", ["torch", "caffe", "custom"])
def test_channels_of_their_own_have_no_shift(name):
    assert make(name).grid_shift() == 0.0


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_uniform_ones_take_any_number_of_channels(channels):
    pixels = np.zeros((2, channels))
    for name in ("tf", "unit", "uint8"):
        assert make(name, channels).to_integers(pixels).shape == (2, channels)


@pytest.mark.parametrize(
    ("name", "channels", "arguments", "message"),
    [
        ("imagenet", 3, {}, "'imagenet' is unknown; expected one of tf, torch"),
        ("tf", 3, {"mean": [0.5]}, "belong to 'custom' only"),
        ("torch", 1, {}, "3 channels, but the classifier takes 1"),
        ("caffe", 4, {}, "3 channels, but the classifier takes 4"),
        ("custom", 3, {}, "mean holds 0 values; expected 1 or one for each"),
        ("custom", 3, {"mean": [0.5]}, "std holds 0 values"),
        ("custom", 3, {"mean": [0.5, 0.5], "std": [1]}, "mean holds 2 values"),
        ("custom", 3, {"mean": [0.5], "std": [0.0]}, "std must be positive"),
        ("custom", 1, {"mean": [0.5], "std": [float("inf")]}, "std must be positive"),
        ("custom", 1, {"mean": [0.5], "std": [float("nan")]}, "std must be positive"),
        ("custom", 1, {"mean": [float("nan")], "std": [1.0]}, "mean must be finite"),
        (
            "custom",
            1,
            {"mean": [33.3], "std": [0.3]},
            "mean=33.3 looks like pixel le",
        ),
        (
            "custom",
            1,
            {"mean": [0.1], "std": [78.6]},
            "std=78.6 looks like pixel lev",
        ),
    ],
)
def test_mistakes_are_explained_in_one_line(name, channels, arguments, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        make_preprocessing(name, channels, **arguments)
    assert "\n" not in str(caught.value)


def test_only_three_channels_are_colours():
    six = make_preprocessing("custom", 6, mean=[i / 6 for i in range(6)], std=(0.5,))
    assert six.formula().endswith("-128, 127), by channel")


def test_after_is_what_then_was_given():
    first = make_preprocessing("torch", 3)
    scale, offset = np.array([2.0, 0.5, 1.0]), np.array([1.0, -2.0, 0.0])
    found_scale, found_offset = first.then(scale, offset).after(first)
    np.testing.assert_allclose(found_scale, scale)
    np.testing.assert_allclose(found_offset, offset, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "zero", "formula"),
    [
        ("tf", 128, "q = 128 * (pixel - 128)"),
        ("unit", 0, "q = 128 * pixel"),
        ("uint8", 0, "q = 128 * pixel"),
    ],
)
def test_int16_input_of_uniform_preprocessing_by_hand(name, zero, formula):
    """Steps of 1/128 level from the level of zero, which pads images."""
    preprocessing = make(name)
    found = preprocessing.to_integers(PIXELS, 16)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, 128 * (PIXELS.astype(int) - zero))
    assert preprocessing.formula("int16") == formula
    quant_params = preprocessing.input_quantization(16)
    assert (quant_params.zero_point, quant_params.bits) == (0, 16)
    inputs = preprocessing.to_student_input(PIXELS).numpy()
    np.testing.assert_allclose(found * quant_params.scale, inputs, atol=1e-4)


@pytest.mark.parametrize("name", ["torch", "caffe", "custom"])
def test_int16_input_of_several_channels(name):
    preprocessing = make(name)
    quant_params = preprocessing.input_quantization(16)
    largest = np.abs([preprocessing.low, preprocessing.high]).max()
    assert quant_params.scale == pytest.approx(largest / 32767)
    real = preprocessing.to_integers(PIXELS, 16) * quant_params.scale
    inputs = preprocessing.to_student_input(PIXELS).numpy()
    assert np.abs(real - inputs).max() <= 0.51 * quant_params.scale
    assert preprocessing.formula("int16").count("+ 0, -32768, 32767)") == 1
