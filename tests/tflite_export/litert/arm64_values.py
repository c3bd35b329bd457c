"""What LiteRT for arm64 gives of every kind of INT4 kernel, kept in a file.

    python -m tests.tflite_export.litert.arm64_values MACHINE QEMU

writes it anew, see `benchmarks/arm64.py` for both; LiteRT 2.3.0 made it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.arm64_machine import Machine
from tests.tiny_network import NetworkBuilder, random_images
from tflite_export.convert import convert_network
from tflite_export.integer_network import IntegerNetwork

FILE = Path(__file__).with_name("arm64_values.npy")
IMAGES = random_images(6, seed=11)


def network() -> tuple[IntegerNetwork, dict[str, slice]]:
    """Branches by name; weights have few bits, so that roundings often differ."""
    b = NetworkBuilder(seed=11)
    of_8 = b.kernel("of_8", "conv", "image", bits=8, outputs=8, stride=2)
    of_12 = b.kernel("of_12", "conv", "image", bits=8, outputs=12, stride=2)
    of_7 = b.kernel("of_7", "conv", "image", bits=8, outputs=7, stride=2)
    one = b.pool("one", "max_pool", of_8, size=4, stride=4)
    one_of_7 = b.pool("one_of_7", "max_pool", of_7, size=4, stride=4)
    for name, kind, source, options in (
        ("conv", "conv", of_8, {"outputs": 6}),
        ("conv_strided", "conv", of_8, {"stride": 2, "outputs": 12}),
        ("conv_relu", "conv", of_8, {"relu": True, "outputs": 6}),
        ("conv_1x1", "conv", of_8, {"size": 1, "stride": 2, "outputs": 12}),
        ("conv_grouped", "conv", of_8, {"groups": 2, "outputs": 8}),
        ("conv_few_outputs", "conv", of_8, {"outputs": 2}),
        ("pointwise_odd", "pointwise", of_7, {"outputs": 6}),
        ("depthwise", "depthwise", of_8, {}),
        ("depthwise_strided", "depthwise", of_8, {"stride": 2}),
        ("depthwise_in_scalar_code", "depthwise", of_12, {"padding": "valid"}),
        ("one_position", "conv", one, {"size": 1, "outputs": 64}),
        ("one_position_few_inputs", "conv", one_of_7, {"size": 1, "outputs": 64}),
        ("one_position_few_outputs", "conv", one, {"size": 1, "outputs": 3}),
        ("dense_odd", "dense", b.flatten(one_of_7), {"outputs": 64}),
        ("dense_convolution", "dense_convolution", b.flatten(one), {"outputs": 64}),
    ):
        b.branch(b.kernel(name, kind, source, bits=2, **options))
    return b.build()


def main() -> None:
    """Writes the file."""
    folder, qemu = sys.argv[1:]
    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        file.write(convert_network(network()[0]))
        file.flush()
        outputs = Machine(Path(folder), qemu=qemu).outputs(Path(file.name), IMAGES)
    np.save(FILE, outputs)


if __name__ == "__main__":
    main()
