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
    network, inputs = b.build_ops(), random_images(30)
    tflm = ["TFLM"] if is_installed() else []
    rows = {
        (target, row["runtime"]): row
        for target, runtimes in (
            ("litert", ["XNNPACK", "C99"]),
            ("tflm", ["XNNPACK", *tflm]),
        )
        for row in measure(network, target, runtimes, inputs, "random")
    }
    figures = {
        key: (row["num_inputs"], row["exact_outputs"], row["max_lsb"])
        for key, row in rows.items()
    }
    # It rounds means otherwise.
    num_inputs, exact_outputs, max_lsb = figures.pop(("tflm", "XNNPACK"))
    assert num_inputs == 30
    assert exact_outputs < 1
    assert 1 <= max_lsb <= 3
    assert set(figures.values()) == {(30, 1, 0)}
