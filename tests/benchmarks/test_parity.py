"""Rows of the parity benchmark."""

from __future__ import annotations

from benchmarks.parity import measure
from tests.tiny_network import NetworkBuilder, coarse, random_images
from tflite_export.quantization_params import QuantParams
from tflite_export.tflm.runtime import is_installed


def test_each_file_equals_the_simulation_of_its_target_where_that_runs():
    b = NetworkBuilder(seed=4)
    x = b.kernel("conv", "conv", "image", bits=8, outputs=6)
    fine = QuantParams(float(coarse(0.0071)), 20)
    b.flatten(b.op("mean", "channel_mean", [x], (8, 8, 1), fine))
    sorts = {"random": random_images(30), "real": random_images(20, seed=1)}
    rows = list(measure(b.build_ops(), sorts))
    runtimes = 3 if is_installed() else 2
    assert len({row["recipe"] for row in rows}) == len(rows) == 2 * 2 * runtimes
    assert [row["num_inputs"] for row in rows[::runtimes]] == [30, 20, 30, 20]
    exact = {
        (row["target"], row["runtime"])
        for row in rows
        if (row["exact_outputs"], row["max_lsb"], row["classes_changed"]) == (1, 0, 0)
    }
    assert ("litert", "XNNPACK") in exact
    assert (("tflm", "TFLM") in exact) == is_installed()
    # It rounds means otherwise.
    assert ("tflm", "XNNPACK") not in exact
    assert 1 <= max(row["max_lsb"] for row in rows) <= 3
