"""Which runtimes a file says that it needs."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from tests.tiny_network import NetworkBuilder
from tflite_export.convert import convert_network
from tflite_export.flatbuffer import pack_model, read_model, unpack_model
from tflite_export.runtimes import FIRST_RUNTIMES, OLDEST, first_runtime
from tflite_export.verification.tflite_operators import TFLITE_OPERATORS
from tflite_export.verification.verify import verify_file


def network_of(kind: str, bits: int, **options):
    b = NetworkBuilder()
    source = b.flatten("image") if kind == "dense" else "image"
    b.flatten(b.kernel("x", kind, source, bits=bits, **options))
    return b.build_ops()


@pytest.mark.parametrize(
    ("kind", "bits", "options", "expected"),
    [
        ("conv", 8, {}, "2.5.3"),
        ("conv", 8, {"groups": 2, "outputs": 4}, "2.9.1"),
        ("conv", 4, {}, "2.12.0"),
        ("depthwise", 8, {}, "2.5.3"),
        ("depthwise", 4, {}, "2.13.0"),
        # Earlier runtimes take them and compute something else.
        ("dense", 8, {}, "2.10.0"),
        ("dense", 4, {}, "2.19.0"),
        ("pointwise", 4, {}, "2.19.0"),
    ],
)
def test_files_tell_the_first_runtime(kind, bits, options, expected):
    tflite = convert_network(network_of(kind, bits, **options))
    model = read_model(tflite)
    assert first_runtime(model) == expected
    entry = model.metadata["min_runtime_version"]
    assert entry == expected.encode().ljust(16, b"\0")


def test_the_most_demanding_operator_counts():
    b = NetworkBuilder()
    x = b.kernel("conv", "conv", "image", bits=4)
    b.kernel("logits", "dense", b.flatten(x), bits=8)
    assert first_runtime(read_model(convert_network(b.build_ops()))) == "2.12.0"


def test_another_runtime_is_found():
    network = network_of("conv", 8)
    tflite = convert_network(network)
    model = copy.deepcopy(unpack_model(tflite))
    (index,) = (m.buffer for m in model.metadata if m.name == b"min_runtime_version")
    model.buffers[index].data = np.frombuffer(b"1.14.0".ljust(16, b"\0"), np.uint8)
    (broken,) = (
        f for f in verify_file(pack_model(model), network).findings if f.detail
    )
    assert broken.detail == "first runtime '1.14.0' instead of 2.5.3"


def test_rows_are_of_operators_that_files_have():
    for (name, version, kernel), runtime in FIRST_RUNTIMES.items():
        operator = TFLITE_OPERATORS[name]
        versions = {
            operator.version,
            operator.int4_version,
            6 if name == "CONV_2D" else 0,
        }
        assert version in versions
        assert kernel in (("INT8", "INT4") if operator.int4_version else ("",))
        assert runtime > OLDEST
