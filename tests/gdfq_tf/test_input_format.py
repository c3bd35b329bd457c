from __future__ import annotations

import numpy as np
import pytest

from gdfq_tf.errors import UserError
from gdfq_tf.input_format import InputFormat
from gdfq_tf.preprocessing import make_preprocessing, preprocessing_of_features


def pixels_of(shape, image_shape) -> InputFormat:
    return InputFormat(shape, image_shape, make_preprocessing("unit", image_shape[-1]))


@pytest.mark.parametrize(
    ("shape", "expected", "advice"),
    [
        ((3, 5, 4), (5, 4, 3), "move the channels to the end, np.moveaxis"),
        ((5, 4, 1), (5, 4, 3), "np.repeat(images.reshape(-1, 5, 4, 1), 3, -1)"),
        ((5, 4), (5, 4, 3), "np.repeat(images.reshape(-1, 5, 4, 1), 3, -1)"),
        ((20, 3), (5, 4, 3), "in the size and order that it was trained on"),
        ((784,), (28, 28, 1), "in the size and order that it was trained on"),
        ((3, 3, 3, 1), (3, 4, 3), "in the size and order that it was trained on"),
    ],
)
def test_advice_on_shapes_is_given_where_it_is_certain(shape, expected, advice):
    with pytest.raises(UserError) as caught:
        pixels_of(expected, expected).images(np.zeros((2, *shape), np.uint8))
    assert f"examples are {shape}, but the model takes {expected}" in str(caught.value)
    assert advice in str(caught.value)


@pytest.mark.parametrize("shape", [(10, 49), (490, 2), (49,)])
def test_signals_of_another_order_are_refused_without_advice(shape):
    with pytest.raises(UserError, match=r"takes \(49, 10\)$"):
        pixels_of((49, 10), (49, 10, 1)).images(np.zeros((2, *shape), np.uint8))


def test_advice_makes_examples_that_fit():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 4)).astype(np.uint8)
    taken = pixels_of((5, 4, 3), (5, 4, 3))
    np.testing.assert_array_equal(
        taken.images(np.moveaxis(images, 1, -1))[0, 2, 1], images[0, :, 2, 1]
    )
    gray = images[:, 0]
    found = taken.images(np.repeat(gray.reshape(-1, 5, 4, 1), 3, -1))
    np.testing.assert_array_equal(found[..., 1], gray)


def test_features_become_levels_of_their_channels_range():
    taken = InputFormat((6,), (3, 1, 2), preprocessing_of_features((-10, 245, 0, 1), 2))
    # Channels alternate along the row.
    features = np.array([[-10, 0, 245, 1, 500, 0.5]])
    levels = taken.images(features)
    assert levels.dtype == np.float32
    np.testing.assert_allclose(
        levels, [[[[0, 0]], [[255, 255]], [[510, 127.5]]]], rtol=1e-6
    )
    # The model is given them as they were.
    inputs = taken.preprocessing.to_input(levels)
    np.testing.assert_allclose(np.ravel(inputs), features[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [object, complex, "U3"])
def test_features_are_real_numbers(dtype):
    taken = InputFormat((1,), (1, 1, 1), preprocessing_of_features((0, 1), 1))
    with pytest.raises(UserError, match="expected real numbers"):
        taken.images(np.zeros((2, 1)).astype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool])
def test_pixels_are_uint8(dtype):
    with pytest.raises(UserError, match="expected uint8 in 0"):
        pixels_of((2, 2, 1), (2, 2, 1)).images(np.zeros((3, 2, 2, 1), dtype))


@pytest.mark.parametrize(
    ("shape", "image_shape", "words", "picture_shape"),
    [
        (
            (8, 6, 3),
            (8, 6, 3),
            "(8, 6, 3) (height, width, channels) of uint8 pixels",
            (8, 6, 3),
        ),
        (
            (8, 6),
            (8, 6, 1),
            "(8, 6) uint8 pixels, in the order of (8, 6, 1) (height, width, channels)",
            (8, 6, 1),
        ),
        ((8, 6), (8, 1, 6), "(8, 6) uint8 pixels", (8, 6, 1)),
        (
            (48,),
            (8, 6, 1),
            "(48,) uint8 pixels, in the order of (8, 6, 1) (height, width, channels)",
            (8, 6, 1),
        ),
        (
            (48,),
            (8, 1, 6),
            "(48,) uint8 pixels, in the order of (8, 6) (time, features)",
            None,
        ),
        ((48,), (1, 1, 48), "(48,) uint8 pixels", None),
        ((1,), (1, 1, 1), "(1,) uint8 pixels", None),
    ],
)
def test_in_words_and_as_pictures(shape, image_shape, words, picture_shape):
    taken = pixels_of(shape, image_shape)
    assert taken.in_words() == words
    assert taken.picture_shape == picture_shape
