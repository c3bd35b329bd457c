from __future__ import annotations

import numpy as np
import pytest

from benchmarks.estimate_fit import Slopes, best_slopes, left_out


def run(network: str, disagreement: float, lost: float, bits: str = "w8a8") -> dict:
    """Of so many classes that chance is nothing, on so many images that all is seen."""
    return {
        "model": network,
        "recipe": "fast",
        "bits": bits,
        "num_classes": 10**9,
        "estimate": {"agreement": 1 - disagreement, "num_images": 10**9},
        "float_top1": 0.9,
        "top1": 0.9 - lost / 100,
    }


def test_slopes_by_hand():
    """Points lost per point of disagreement: 0.3 throughout, but for one run of 11.

    The largest loss per point is 4 of 5.
    """
    runs = [run("a", 0.01 * n, 0.3 * n) for n in range(1, 11)]
    assert best_slopes(runs) == Slopes(0.3, 0.3)
    assert best_slopes([*runs, run("a", 0.05, 4.0)]) == Slopes(0.3, 0.8)


def test_networks_are_left_out_in_turn():
    rows = [run("a", 0.02, 0.4), run("a", 0.1, 2.0, "w4a8"), run("b", 0.02, 0.8)]
    a, b = left_out(rows)
    assert (a.network, b.network) == ("a", "b")
    # Each with the other's slope: 0.4 of a's disagreement, 0.2 of b's.
    assert (a.slopes, b.slopes) == (Slopes(0.4, 0.4), Slopes(0.2, 0.2))
    np.testing.assert_allclose(a.errors, [0.4, 2.0], atol=1e-3)
    np.testing.assert_allclose(b.errors, [0.4], atol=1e-6)
    assert (a.error_at_8_bits, a.num_covered) == (pytest.approx(0.4), 2)
    assert (b.error_at_8_bits, b.num_covered) == (pytest.approx(0.4), 0)


def test_other_recipes_do_not_count():
    rows = [run("a", 0.02, 0.4), {**run("b", 0.02, 9.9), "recipe": "calibrate"}]
    assert [one.network for one in left_out([*rows, run("c", 0.1, 1.0)])] == ["a", "c"]
