"""Properties of quantization parameters."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tflite_export.quantization_params import (
    INT8_MAX,
    INT8_MIN,
    QuantParams,
    quant_params_over,
    relu_quant_params,
    weight_levels,
)

finite = st.floats(-1e6, 1e6, width=32)
uppers = st.floats(1e-3, 1e6)
bit_widths = st.integers(2, 8)


@st.composite
def quant_params_of(draw) -> QuantParams:
    """Any that either constructor makes."""
    if draw(st.booleans()):
        return relu_quant_params(draw(uppers), draw(bit_widths))
    low, high = draw(finite), draw(finite)
    low, high = min(low, high), max(low, high)
    assume(max(high, 0) - min(low, 0) > 1e-3)
    return quant_params_over(low, high)


def quantize(quant_params: QuantParams, x, low: int = INT8_MIN):
    """The definition: divide, round, shift, saturate."""
    q = (
        np.rint(np.asarray(x, np.float64) / quant_params.scale)
        + quant_params.zero_point
    )
    return np.clip(q, low, INT8_MAX).astype(int)


def dequantize(quant_params: QuantParams, q) -> np.ndarray:
    return quant_params.scale * (np.asarray(q, np.float64) - quant_params.zero_point)


@given(quant_params=quant_params_of(), x=finite)
def test_error_is_half_a_step_at_most_after_clipping(quant_params, x):
    restored = dequantize(quant_params, quantize(quant_params, x))
    clipped = min(max(x, quant_params.low), quant_params.high)
    assert abs(restored - clipped) <= 0.5 * quant_params.scale * (1 + 1e-9)


@given(quant_params=quant_params_of(), x=finite)
def test_quantizing_twice_changes_nothing(quant_params, x):
    q = quantize(quant_params, x)
    assert quantize(quant_params, dequantize(quant_params, q)) == q


@given(quant_params=quant_params_of())
def test_zero_is_exact_and_the_ends_are_representable(quant_params):
    assert INT8_MIN <= quant_params.zero_point <= INT8_MAX
    assert dequantize(quant_params, quantize(quant_params, 0.0)) == 0.0
    assert dequantize(quant_params, INT8_MIN) == quant_params.low <= 0.0
    assert dequantize(quant_params, INT8_MAX) == quant_params.high
    assert quantize(quant_params, quant_params.low) == INT8_MIN
    assert quantize(quant_params, quant_params.high) == INT8_MAX


@given(quant_params=quant_params_of(), x=finite, y=finite)
def test_order_is_kept(quant_params, x, y):
    assert quantize(quant_params, min(x, y)) <= quantize(quant_params, max(x, y))


@given(low=finite, high=finite)
def test_quant_params_over_spans_the_range_within_half_a_step(low, high):
    low, high = min(low, high), max(low, high)
    low0, high0 = min(low, 0.0), max(high, 0.0)
    assume(high0 - low0 > 1e-3)
    quant_params = quant_params_over(low, high)
    assert quant_params.scale == pytest.approx((high0 - low0) / 255)
    # Moving zero onto an integer shifts both ends, by the same half step at most.
    assert abs(quant_params.low - low0) <= 0.5 * quant_params.scale * (1 + 1e-9)
    assert abs(quant_params.high - high0) <= 0.5 * quant_params.scale * (1 + 1e-9)


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
def test_quant_params_over_by_hand(low, high, scale, zero_point):
    quant_params = quant_params_over(low, high)
    assert quant_params.scale == pytest.approx(scale)
    assert quant_params.zero_point == zero_point


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 0.0), (math.nan, 1.0), (0.0, math.inf), (-math.inf, 0.0)]
)
def test_ranges_without_parameters_are_refused(low, high):
    with pytest.raises(ValueError, match="expected a finite range"):
        quant_params_over(low, high)


@given(upper=uppers, bits=bit_widths)
def test_relu_quant_params_give_two_to_the_bits_values(upper, bits):
    quant_params = relu_quant_params(upper, bits)
    x = np.linspace(-0.1 * upper, 1.1 * upper, 2000)
    # A kernel's own clamps: ReLU at the zero point, the type at 127.
    q = quantize(quant_params, x, low=quant_params.zero_point)
    assert len(np.unique(q)) == 2**bits
    assert dequantize(quant_params, q.min()) == 0.0
    assert dequantize(quant_params, q.max()) == pytest.approx(upper)
    assert quant_params.high == pytest.approx(upper)


@pytest.mark.parametrize(
    ("bits", "levels"),
    [(2, (-2, 1)), (3, (-4, 3)), (4, (-8, 7)), (7, (-64, 63)), (8, (-127, 127))],
)
def test_weights_have_all_levels_but_one_of_8_bits(bits, levels):
    assert weight_levels(bits) == levels
