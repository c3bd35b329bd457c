"""Fixed-point functions beside those of real numbers."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tflite_export.litert.fixed_point import (
    mean_multiplier,
    multiply,
    quantized_multiplier,
)
from tflite_export.tflm.fixed_point import (
    exponential,
    hyperbolic_tangent,
    logistic,
    reciprocal,
)

# Five terms of the exponential's series reach this far.
NEAR = 1e-6


def check(found, real):
    np.testing.assert_allclose(found / 2.0**31, real, atol=NEAR)


def test_functions():
    real = np.linspace(-15.9, 15.9, 1001)
    fixed = np.round(real * 2.0**27).astype(np.int64)
    below = -np.abs(fixed)
    check(exponential(below, 4), np.exp(below / 2.0**27))
    check(logistic(fixed, 4), 1 / (1 + np.exp(-fixed / 2.0**27)))
    check(hyperbolic_tangent(fixed, 4), np.tanh(fixed / 2.0**27))
    part = np.round(np.linspace(0, 0.999, 100) * 2.0**31).astype(np.int64)
    check(reciprocal(part), 1 / (1 + part / 2.0**31))


@pytest.mark.parametrize(
    ("factor", "multiplier", "exponent"),
    [
        (0.5, 2**30, 0),
        (3.0, 3 * 2**29, 2),
        # All ones: the next number of 31 bits is a power of two.
        (1 - 2.0**-40, 2**30, 1),
        (2.0**-40, 0, 0),
    ],
)
def test_multipliers_by_hand(factor, multiplier, exponent):
    found = quantized_multiplier(factor)
    assert (int(found[0]), int(found[1])) == (multiplier, exponent)


def test_multipliers_of_means_by_hand():
    """2^30 * 2^2 / 5, rounded down."""
    found = mean_multiplier(0.5, 5)
    assert (int(found[0]), int(found[1])) == (2**32 // 5, -2)


def test_32_bits_overflow_as_they_do_in_c():
    """2^30 times 4 is 2^32, of which 32 bits hold nothing."""
    values = tf.constant([1.0, 2.0**30], tf.float64)
    np.testing.assert_array_equal(multiply(values, 2.0), [2, 0])
