"""L2 normalization in fixed point: LiteRT's own rounding."""

from __future__ import annotations

import numpy as np
import pytest

from tflite_export.litert.fixed_point import (
    divide,
    multiply_rounding,
    shift_right_rounding,
)
from tflite_export.litert.l2_normalization import l2_normalize


@pytest.mark.parametrize(
    ("centered", "expected"),
    [
        ([3, 4], [77, 102]),  # 128 * 0.6 = 76.8 and 128 * 0.8 = 102.4
        ([-3, 4], [-77, 102]),
        ([0, 0, 0], [0, 0, 0]),
        ([0, 1, 0], [0, 128, 0]),  # the kernel clamps at 127
        ([0, -1], [0, -128]),
        ([-255], [-128]),
        # Of length 256: 128 x / 256, and ties go away from zero.
        ([-1, 3, 255, *[1] * 501], [-1, 2, 128, *[1] * 501]),
        ([1] * 16384, [1] * 16384),
        ([1] * 65536, [1] * 65536),  # of length 256 again, all of them ties
        # The most that 32 bits hold: 128 / sqrt(2^15) is 0.7.
        ([255, -255] * 2**14, [1, -1] * 2**14),
    ],
)
def test_by_hand(centered, expected):
    np.testing.assert_array_equal(l2_normalize(np.array(centered)), expected)


@pytest.mark.parametrize("largest", [2, 20, 255])
@pytest.mark.parametrize("channels", [2, 96, 9000])
def test_rounds_once_or_twice(channels, largest):
    rng = np.random.default_rng(0)
    centered = rng.integers(-largest, largest + 1, (2, 3, channels))
    centered[0, 0] = 0
    centered[0, 0, 1] = largest
    real = 128 * centered / np.linalg.norm(centered, axis=-1, keepdims=True)
    # Twice, to halves and to integers, where the squares add up to 2^21 or more.
    twice = np.sum(centered**2, axis=-1, keepdims=True) >= 2**21
    error = np.abs(l2_normalize(centered) - real)
    assert np.all(error <= np.where(twice, 0.75, 0.5) + 1e-5)


def test_fixed_point_rounds_as_gemmlowp():
    values = np.array([-7, -6, -5, -3, -2, -1, 0, 1, 2, 3, 5, 6, 7])
    np.testing.assert_array_equal(
        divide(values, 4), [-1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1]
    )
    # Quarters: ties, of -6, -2, 2 and 6, go up in one and away from zero in the other.
    np.testing.assert_array_equal(
        multiply_rounding(values, 1, 2), [-2, -1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 2, 2]
    )
    np.testing.assert_array_equal(
        shift_right_rounding(values, 2), [-2, -2, -1, -1, -1, 0, 0, 0, 1, 1, 1, 2, 2]
    )
    np.testing.assert_array_equal(shift_right_rounding(values, 0), values)
    np.testing.assert_array_equal(
        shift_right_rounding(np.array([5, 5]), np.array([1, 3])), [3, 1]
    )
