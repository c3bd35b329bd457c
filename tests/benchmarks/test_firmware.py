"""Firmware in QEMU, with instructions that other processors lack."""

from __future__ import annotations

import shutil

import pytest

from benchmarks.firmware import measure
from tests.tflite_export.c99.test_firmware import special_kernels_network
from tests.tflite_export.litert.test_simulator import NETWORKS
from tflite_export.c99.emulation import PROCESSORS, TOOLS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(shutil.which(tool) is None for tool in TOOLS),
        reason="there is no compiler or emulator of Cortex-M processors",
    ),
]


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("name", ["products", "kernels", "activations", "special"])
def test_bytes_are_those_of_the_simulation(name, processor):
    if (name, processor) == ("kernels", "cortex-m55"):
        pytest.skip("the memory of its machine is too small for so many kernels")
    network = special_kernels_network() if name == "special" else NETWORKS[name]
    row = measure(network[0], name, "w8a8", processor)
    assert row["num_wrong"] == 0
    assert row["instructions"] > row["multiply_adds"]
    assert sum(count for _, count in row["kinds"].values()) == row["multiply_adds"]
