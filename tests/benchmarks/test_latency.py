"""Rows of the latency benchmark."""

from __future__ import annotations

import pytest

from benchmarks.latency import measure
from tests.tiny import classifier_of


@pytest.mark.slow
def test_a_row_for_each_width_and_target(tiny_classifier):
    rows = measure(classifier_of(tiny_classifier), ["w8a8", "w4a8/paper"])
    keys = [(row["bits"], row["recipe"]) for row in rows]
    assert keys == [
        (x, name) for x in ("w8a8", "w4a8_paper") for name in ("litert", "tflm")
    ]
    eight, same, four, as_convolutions = rows
    # Without INT4 kernels both targets have one file.
    assert eight["size_bytes"] == same["size_bytes"]
    assert four["size_bytes"] < eight["size_bytes"]
    assert as_convolutions["size_bytes"] != four["size_bytes"]
    assert all(row["times_as_long"] > 0 for row in rows)
