"""Shapes by hand, what pieces show, any image size."""

from __future__ import annotations

import numpy as np
import pytest

from gdfq_tf.synthesis import collages
from gdfq_tf.synthesis.collages import make_collages, outline, visible_pieces


def square(top: float, left: float, side: float) -> np.ndarray:
    return np.array(
        [
            [top, left],
            [top, left + side],
            [top + side, left + side],
            [top + side, left],
        ]
    )


def test_pieces_lie_where_their_outlines_are():
    """An 8 x 8 square at y = 4, x = 20 of a 32 x 40 image, at twice the resolution;
    Pillow fills the border too."""
    seen = visible_pieces([square(4, 20, 8)], 32, 40)
    assert seen.shape == (64, 80)
    expected = np.zeros((64, 80))
    expected[8:25, 40:57] = 1
    np.testing.assert_array_equal(seen, expected)


def test_later_pieces_hide_earlier_ones():
    seen = visible_pieces([square(0, 0, 20), square(10, 10, 4)], 32, 32)
    assert seen[5, 5] == 1
    assert seen[24, 24] == 2
    assert seen[60, 60] == 0


def test_pieces_may_leave_the_image():
    seen = visible_pieces([square(-10, -10, 100)], 3, 5)
    np.testing.assert_array_equal(seen, np.ones((6, 10)))


def test_a_rectangle_reaches_one_along_and_less_across():
    corners = outline(np.array([0.0, 1.0]), 0.5, 4)  # along x
    assert sorted(map(tuple, np.round(corners, 9))) == [
        (-0.5, -1),
        (-0.5, 1),
        (0.5, -1),
        (0.5, 1),
    ]


def test_an_ellipse_turned():
    """On the ellipse: (along)^2 + (across / 0.5)^2 = 1 in its own directions."""
    corners = outline(np.array([0.6, 0.8]), 0.5, 32)
    along, across = corners @ [0.6, 0.8], corners @ [0.8, -0.6]
    np.testing.assert_allclose(along**2 + (across / 0.5) ** 2, 1, atol=0.01)


def random_images(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(np.uint8)


@pytest.mark.parametrize("shape", [(64, 64, 3), (65, 300, 1), (97, 64, 8)])
def test_any_size_and_number_of_channels(shape):
    images = random_images(3, *shape)
    collage = make_collages(images, seed=0)
    assert collage.shape == images.shape
    assert collage.dtype == np.uint8
    # Every second image, the first one never.
    changed = [not np.array_equal(*pair) for pair in zip(collage, images, strict=True)]
    assert changed == [False, True, False]


@pytest.mark.parametrize("shape", [(63, 64, 3), (500, 63, 1), (1000, 1, 8), (1, 1, 3)])
def test_small_images_and_signals_stay(shape):
    images = random_images(3, *shape)
    np.testing.assert_array_equal(make_collages(images, 0), images)


def test_no_more_images_than_one():
    image = np.full((1, 64, 64, 3), 90, np.uint8)
    np.testing.assert_array_equal(make_collages(image, 0), image)


def test_one_seed_one_result_and_other_seeds_others():
    images = random_images(2, 64, 64, 3)
    first, again, other = (make_collages(images, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.mean(first[1] != other[1]) > 0.5


def test_without_pieces_the_images_themselves(monkeypatch):
    monkeypatch.setattr(collages, "_NUM_PIECES", 0)
    images = random_images(3, 64, 70, 3)
    np.testing.assert_array_equal(make_collages(images, 0), images)


def test_pieces_show_the_texture_of_their_image_around_their_own_colour(monkeypatch):
    """One piece over everything: deviations by hand, 0.4 of the texture's."""
    monkeypatch.setattr(collages, "_SMALLEST_IMAGE", 4)
    monkeypatch.setattr(collages, "_NUM_PIECES", 1)
    monkeypatch.setattr(collages, "_SHADING_DEVIATION", 0.0)
    monkeypatch.setattr(
        collages, "visible_pieces", lambda _, h, w: np.ones((2 * h, 2 * w), int)
    )
    texture = np.tile([100, 120], (8000, 4, 2)).astype(np.uint8)[..., np.newaxis]
    collage = make_collages(texture, seed=0)[1::2].astype(float)
    inside = (collage > 0).all(axis=(1, 2, 3)) & (collage < 255).all(axis=(1, 2, 3))
    np.testing.assert_allclose(
        (collage[:, :, 1::2] - collage[:, :, ::2])[inside], 0.4 * 20, atol=1
    )
    middle = np.median(collage.mean(axis=(1, 2, 3)))
    assert abs(middle - 127.5) < 4
    # Half of a normal distribution lies within 0.6745 deviations.
    share = np.mean(np.abs(collage.mean(axis=(1, 2, 3)) - 127.5) < 0.6745 * 64.6)
    assert abs(share - 0.5) < 0.03


def test_shading_runs_from_a_pieces_middle_to_its_end(monkeypatch):
    """Grey images, uncoloured pieces: all that is left is a plane of slope
    N(0, 25) / radius, so that levels along a piece deviate by some 25."""
    monkeypatch.setattr(collages, "_SMALLEST_IMAGE", 40)
    monkeypatch.setattr(collages, "_NUM_PIECES", 1)
    monkeypatch.setattr(collages, "_SMALLEST_RADIUS", 0.6)
    monkeypatch.setattr(collages, "_BRIGHTNESS_DEVIATION", 0.0)
    monkeypatch.setattr(collages, "_COLOUR_DEVIATION", 0.0)
    monkeypatch.setattr(
        collages, "visible_pieces", lambda _, h, w: np.ones((2 * h, 2 * w), int)
    )
    grey = np.full((4000, 40, 40, 1), 90, np.uint8)
    collage = make_collages(grey, seed=0)[1::2, ..., 0].astype(float)
    inside = (collage.min(axis=(1, 2)) > 0) & (collage.max(axis=(1, 2)) < 255)
    assert inside.mean() > 0.9
    down = (collage[:, 39, 20] - collage[:, 0, 20])[inside] / 39
    right = (collage[:, 20, 39] - collage[:, 20, 0])[inside] / 39
    slope = np.hypot(down, right) * 0.6 * 40
    assert abs(np.median(slope) / 0.6745 - 25) < 3
    # It is level in the piece's middle, which is no nearer to one corner.
    first, last = collage[:, 0, 0].std(), collage[:, 39, 39].std()
    assert abs(first / last - 1) < 0.1
