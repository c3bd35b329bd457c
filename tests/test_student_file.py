"""Tests of tflite_export.student_file: what is written is what is read."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tiny_network import NetworkBuilder, random_images
from tflite_export.errors import ExportError
from tflite_export.integer_inference import infer
from tflite_export.integer_network import IntegerNetwork
from tflite_export.student_file import load_network, save_network


def make_network() -> IntegerNetwork:
    b = NetworkBuilder()
    conv = b.kernel(
        "block/conv", "conv", "image", bits=4, stride=2, relu=True, relu6=True
    )
    depthwise = b.kernel("depthwise", "depthwise", conv, bits=8, multiplier=2)
    padded = b.op(
        "padded", "pad", [depthwise], (5, 6, 10), attributes={"pads": [[0, 1], [1, 1]]}
    )
    pooled = b.pool("pooled", "max_pool", padded, size=2, stride=1)
    b.kernel("logits", "dense", b.flatten(pooled), bits=3, outputs=7)
    return dataclasses.replace(b.build_ops(), softmax=True)


NETWORK = make_network()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("student") / "student.npz"
    save_network(NETWORK, path)
    return path


@pytest.fixture(scope="module")
def written(path) -> bytes:
    return path.read_bytes()


def test_round_trip(path):
    read = load_network(path)
    assert (read.input_name, read.input_shape) == ("image", (8, 8, 4))
    assert read.input_grid == NETWORK.input_grid
    assert read.softmax is True
    assert len(read.ops) == len(NETWORK.ops) == 6
    for op, expected in zip(read.ops, NETWORK.ops, strict=True):
        for field in ("name", "kind", "inputs", "grid", "relu"):
            assert getattr(op, field) == getattr(expected, field)
        # Lists stay lists: TensorFlow and comparisons take them as they are.
        assert dict(op.attributes) == dict(expected.attributes)
        assert (op.kernel is None) == (expected.kernel is None)
        if op.kernel is not None:
            assert op.kernel.bits == expected.kernel.bits
            for field, dtype in (
                ("values", np.int8), ("scale", np.float32), ("bias", np.int32)
            ):  # fmt: skip
                array = getattr(op.kernel, field)
                assert array.dtype == dtype
                np.testing.assert_array_equal(array, getattr(expected.kernel, field))


def test_what_is_read_computes_the_same(path):
    images = random_images(3)
    np.testing.assert_array_equal(
        infer(load_network(path), images), infer(NETWORK, images)
    )


def test_writing_what_was_read_gives_the_same_content(path, tmp_path):
    save_network(load_network(path), tmp_path / "again.npz")
    with np.load(path) as first, np.load(tmp_path / "again.npz") as second:
        assert first.files == second.files
        for name in first.files:
            np.testing.assert_array_equal(first[name], second[name])


def test_description_is_plain_json(path):
    with np.load(path, allow_pickle=False) as file:
        description = json.loads(file["network"].tobytes())
    assert [op["kind"] for op in description["ops"]] == [
        "conv", "depthwise", "pad", "max_pool", "reshape", "dense"
    ]  # fmt: skip


def test_any_file_name_is_written_as_given(tmp_path):
    save_network(NETWORK, tmp_path / "student.bin")
    assert [p.name for p in tmp_path.iterdir()] == ["student.bin"]


def test_grids_by_name():
    assert NETWORK.grid("image") == NETWORK.input_grid
    assert NETWORK.grid("depthwise") == NETWORK.ops[1].grid


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"student \S+nothing.npz does not exist"):
        load_network(tmp_path / "nothing.npz")


def read_or_export_error(path, data: bytes) -> bool:
    """Whether `data` was refused, which must happen in one line."""
    path.write_bytes(data)
    try:
        load_network(path)
    except ExportError as error:
        assert "\n" not in str(error)
        assert "expected a student.npz" in str(error)
        return True
    return False


@pytest.fixture(scope="module")
def damaged_path(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "student.npz"


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_truncated_files_are_refused(written, damaged_path, data):
    size = data.draw(st.integers(0, len(written) - 1))
    assert read_or_export_error(damaged_path, written[:size])


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=300))
def test_garbage_is_refused(damaged_path, data):
    assert read_or_export_error(damaged_path, data)
    assert read_or_export_error(damaged_path, b"PK\x03\x04" + data)
    assert read_or_export_error(damaged_path, b"\x93NUMPY" + data)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_bytes_never_give_another_exception(written, damaged_path, data):
    damaged = bytearray(written)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(written) - 1))] = data.draw(
            st.integers(0, 255)
        )
    read_or_export_error(damaged_path, bytes(damaged))


def archive(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def as_bytes(description) -> np.ndarray:
    return np.frombuffer(json.dumps(description).encode(), np.uint8)


@pytest.mark.parametrize(
    "data",
    [
        archive(other=np.zeros(3)),
        archive(network=np.zeros(3)),
        archive(network=as_bytes([1, 2])),
        archive(network=as_bytes(5)),
        archive(network=as_bytes({"ops": []})),
        archive(network=as_bytes({"ops": [{}]})),
        archive(network=as_bytes({"ops": [{"name": "a", "kernel_bits": 8}]})),
        archive(network=as_bytes({"ops": ["conv"]})),
        archive(network=np.array([{}], object)),
    ],
)
def test_other_archives_are_refused(damaged_path, data):
    assert read_or_export_error(damaged_path, data)


def test_other_zip_files_and_arrays_are_refused(damaged_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as other:
        other.writestr("network", "{}")
    assert read_or_export_error(damaged_path, file.getvalue())
    file = io.BytesIO()
    np.save(file, np.zeros(4))
    assert read_or_export_error(damaged_path, file.getvalue())


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(ExportError, match="is not a student file"):
        load_network(tmp_path)
