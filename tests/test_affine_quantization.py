"""Tests of tflite_export.affine_quantization: properties of the grids."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tflite_export.affine_quantization import (
    INT8_MAX,
    INT8_MIN,
    AffineQuantization,
    grid_over,
    relu_grid,
    weight_limit,
)

finite = st.floats(-1e6, 1e6, width=32)
uppers = st.floats(1e-3, 1e6)
widths = st.integers(2, 8)


@st.composite
def grids(draw) -> AffineQuantization:
    """Any grid that either constructor makes."""
    if draw(st.booleans()):
        return relu_grid(draw(uppers), draw(widths))
    low, high = draw(finite), draw(finite)
    low, high = min(low, high), max(low, high)
    assume(max(high, 0) - min(low, 0) > 1e-3)
    return grid_over(low, high)


def quantize(grid: AffineQuantization, x, low: int = INT8_MIN):
    """The definition: divide, round, shift, saturate."""
    q = np.rint(np.asarray(x, np.float64) / grid.scale) + grid.zero_point
    return np.clip(q, low, INT8_MAX).astype(int)


def dequantize(grid: AffineQuantization, q) -> np.ndarray:
    return grid.scale * (np.asarray(q, np.float64) - grid.zero_point)


@given(grid=grids(), x=finite)
def test_error_is_half_a_step_at_most_after_clipping(grid, x):
    restored = dequantize(grid, quantize(grid, x))
    clipped = min(max(x, grid.low), grid.high)
    assert abs(restored - clipped) <= 0.5 * grid.scale * (1 + 1e-9)


@given(grid=grids(), x=finite)
def test_quantizing_twice_changes_nothing(grid, x):
    q = quantize(grid, x)
    assert quantize(grid, dequantize(grid, q)) == q


@given(grid=grids())
def test_zero_is_exact_and_the_ends_are_representable(grid):
    assert INT8_MIN <= grid.zero_point <= INT8_MAX
    assert dequantize(grid, quantize(grid, 0.0)) == 0.0
    assert dequantize(grid, INT8_MIN) == grid.low <= 0.0
    assert dequantize(grid, INT8_MAX) == grid.high
    assert quantize(grid, grid.low) == INT8_MIN
    assert quantize(grid, grid.high) == INT8_MAX


@given(grid=grids(), x=finite, y=finite)
def test_order_is_kept(grid, x, y):
    assert quantize(grid, min(x, y)) <= quantize(grid, max(x, y))


@given(low=finite, high=finite)
def test_grid_over_spans_the_range_within_half_a_step(low, high):
    low, high = min(low, high), max(low, high)
    low0, high0 = min(low, 0.0), max(high, 0.0)
    assume(high0 - low0 > 1e-3)
    grid = grid_over(low, high)
    assert grid.scale == pytest.approx((high0 - low0) / 255)
    # Moving zero onto an integer shifts both ends, by the same half step at most.
    assert abs(grid.low - low0) <= 0.5 * grid.scale * (1 + 1e-9)
    assert abs(grid.high - high0) <= 0.5 * grid.scale * (1 + 1e-9)


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [
        (0.0, 255.0, 1.0, -128),
        (-255.0, 0.0, 1.0, 127),
        (-1.0, 1.55, 0.01, -28),
        (3.0, 5.1, 0.02, -128),  # widened to hold zero
        (-5.1, -3.0, 0.02, 127),
    ],
)
def test_grid_over_by_hand(low, high, scale, zero_point):
    grid = grid_over(low, high)
    assert grid.scale == pytest.approx(scale)
    assert grid.zero_point == zero_point


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 0.0), (math.nan, 1.0), (0.0, math.inf), (-math.inf, 0.0)]
)
def test_ranges_without_a_grid_are_refused(low, high):
    with pytest.raises(ValueError, match="expected a finite range"):
        grid_over(low, high)


@given(upper=uppers, bits=widths)
def test_relu_grid_has_two_to_the_bits_levels(upper, bits):
    grid = relu_grid(upper, bits)
    x = np.linspace(-0.1 * upper, 1.1 * upper, 2000)
    # A kernel's own clamps: ReLU at the zero point, the type at 127.
    q = quantize(grid, x, low=grid.zero_point)
    assert len(np.unique(q)) == 2**bits
    assert dequantize(grid, q.min()) == 0.0
    assert dequantize(grid, q.max()) == pytest.approx(upper)
    assert grid.high == pytest.approx(upper)


@pytest.mark.parametrize(("bits", "limit"), [(2, 1), (3, 3), (4, 7), (5, 15), (8, 127)])
def test_weights_are_symmetric_and_narrow(bits, limit):
    # One less than two's complement has: -limit and limit both exist.
    assert weight_limit(bits) == limit
    assert 2 * weight_limit(bits) + 1 == 2**bits - 1
