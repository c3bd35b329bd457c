from __future__ import annotations

import numpy as np
import pytest

from gdfq_tf.graph.slopes import quantize_slopes


def test_levels_by_hand():
    slopes = quantize_slopes(np.array([[[0.25, -1.27, 0.0, 1.26, 0.001, -0.0051]]]))
    # Of 1.27 / 127 = 41943.04 / 2^22, 16 significant bits.
    assert slopes.scale == 41943 / 2**22
    np.testing.assert_array_equal(slopes.levels, [[[25, -127, 0, 126, 0, -1]]])


@pytest.mark.parametrize("seed", range(20))
def test_what_was_quantized_stays_as_it_is(seed):
    rng = np.random.default_rng(seed)
    first = quantize_slopes(rng.normal(0, 10.0 ** rng.integers(-4, 4), (3, 3, 5)))
    again = quantize_slopes(first.values)
    assert again.scale == first.scale
    np.testing.assert_array_equal(again.levels, first.levels)
    assert np.abs(first.levels).max() == 127
