"""What is written is what is read."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tiny_network import NetworkBuilder, random_images
from tflite_export.errors import ExportError
from tflite_export.integer_network import IntegerNetwork, IntegerOp, Kernel
from tflite_export.litert.simulator import infer
from tflite_export.quantization_params import QuantParams
from tflite_export.student_file import load_network, network_digest, save_network


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
    assert read.input_quant_params == NETWORK.input_quant_params
    assert read.softmax is True
    assert len(read.ops) == len(NETWORK.ops) == 6
    for op, expected in zip(read.ops, NETWORK.ops, strict=True):
        for field in ("name", "kind", "inputs", "quant_params", "relu", "relu6"):
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


def test_a_digest_is_of_all_that_is_written(path):
    digest = network_digest(NETWORK)
    assert network_digest(load_network(path)) == digest
    first, *others = NETWORK.ops
    bias = first.kernel.bias.copy()
    bias[-1] += 1
    kernel = dataclasses.replace(first.kernel, bias=bias)
    ops = (dataclasses.replace(first, kernel=kernel), *others)
    for changes in (
        {"ops": ops},
        {"softmax": False},
        {"target": "tflm"},
        {"interface": dataclasses.replace(NETWORK.interface, input_type="uint8")},
    ):
        assert network_digest(dataclasses.replace(NETWORK, **changes)) != digest


def test_the_target_is_kept_and_files_for_the_default_say_nothing_of_it(tmp_path):
    assert load_network(written_for("tflm", tmp_path)).target == "tflm"
    assert load_network(written_for("litert", tmp_path)).target == "litert"
    with np.load(tmp_path / "litert.npz") as file:
        assert "target" not in json.loads(file["network"].tobytes())
    with pytest.raises(ExportError, match="target of the network is 'tpu'"):
        load_network(written_for("tpu", tmp_path))


def written_for(target, folder):
    path = folder / f"{target}.npz"
    save_network(dataclasses.replace(NETWORK, target=target), path)
    return path


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


def test_quant_params_by_name():
    assert NETWORK.quant_params("image") == NETWORK.input_quant_params
    assert NETWORK.quant_params("depthwise") == NETWORK.ops[1].quant_params


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


def read_archive(path) -> tuple[dict, dict]:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(arrays.pop("network").tobytes()), arrays


def refusal(path, description, arrays) -> str:
    """Of an archive with that description and those arrays."""
    content = archive(network=as_bytes(description), **arrays)
    path.write_bytes(content)
    with pytest.raises(ExportError) as caught:
        load_network(path)
    message = str(caught.value)
    assert message.isprintable()
    assert "expected a student.npz" in message
    return message


def with_value(place: tuple, value):
    """An edit of the description that sets one value."""

    def edit(description, arrays):
        container = description
        for key in place[:-1]:
            container = container[key]
        container[place[-1]] = value

    return edit


def without(name: str):
    return lambda description, arrays: arrays.pop(name)


def with_array(name: str, change):
    def edit(description, arrays):
        arrays[name] = change(arrays[name])

    return edit


def set_first(value):
    def change(array):
        array = array.copy()
        array.flat[0] = value
        return array

    return change


OPS = ("conv", "depthwise", "pad", "max_pool", "reshape", "dense")
CONV, DEPTHWISE, PAD, POOL, RESHAPE, DENSE = (("ops", index) for index in range(6))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (with_value(("other",), 1), "the network has other fields than"),
        (with_value(("softmax",), 1), "softmax of the network is 1"),
        (with_value(("input_name",), ""), "input_name of the network is ''"),
        (with_value(("input_shape",), [8, 8]), "cannot take inputs of shape"),
        (with_value(("input_shape",), []), "cannot take inputs of shape"),
        (with_value(("input_shape",), [8, 8, 0]), "is [8, 8, 0]"),
        (with_value(("input_shape",), [8, 8, True]), "is [8, 8, True]"),
        (with_value(("input_shape",), [2**15] * 3), "cannot take inputs of shape"),
        (with_value(("input_grid", "scale"), 0.0), "grid of the input is 0.0"),
        (with_value(("input_grid", "scale"), float("nan")), "is nan"),
        (with_value(("input_grid", "scale"), 1e39), "is 1e+39"),
        (with_value(("input_grid", "zero_point"), 128), "zero_point of the grid of"),
        (with_value(("input_grid", "zero_point"), 1.0), "is 1.0"),
        (with_value(("ops",), []), "it has no operations"),
        (with_value((*CONV, "kind"), "lambda"), "kind of an operation is 'lambda'"),
        (with_value((*CONV, "kind"), ["conv"]), "kind of an operation is ['conv']"),
        (with_value((*CONV, "relu"), None), "relu of an operation is None"),
        (with_value((*CONV, "inputs"), []), "has 0 inputs"),
        (with_value((*CONV, "inputs"), ["logits"]), "reads what no earlier one gives"),
        (with_value((*CONV, "inputs"), [1]), "inputs of an operation is [1]"),
        (with_value((*CONV, "name"), "image"), "KeyError"),
        (with_value((*PAD, "name"), "image"), "operation 'image' is there twice"),
        (with_value((*CONV, "kernel_bits"), 9), "kernel_bits of an operation is 9"),
        (with_value((*CONV, "kernel_bits"), None), "'block/conv' (conv) has no kernel"),
        (with_value((*PAD, "kernel_bits"), 8), "'padded' (pad) has a kernel"),
        (with_value((*CONV, "kernel_bits"), 2), "beyond its 2 bits"),
        (with_value((*CONV, "attributes", "strides"), [0, 1]), "strides of operation"),
        (with_value((*CONV, "attributes", "strides"), [2**40, 1]), "strides of"),
        (with_value((*CONV, "attributes", "padding"), "full"), "is 'full'"),
        (with_value((*CONV, "attributes", "groups"), 3), "cannot take inputs"),
        (with_value((*CONV, "attributes", "more"), 3), "has other fields than"),
        (with_value((*CONV, "attributes"), {}), "has other fields than"),
        (with_value((*CONV, "attributes"), []), "attributes of an operation is []"),
        (with_value((*PAD, "attributes", "pads"), [[0, -1], [1, 1]]), "pads of"),
        (with_value((*POOL, "attributes", "pool_size"), [9, 9]), "cannot take inputs"),
        (with_value((*RESHAPE, "attributes", "shape"), [7]), "cannot take inputs"),
        (lambda d, a: d["ops"].__delitem__(slice(4, None)), "its output has shape (1,"),
        (without("logits/bias"), "KeyError"),
        (with_array("logits/bias", lambda x: x.astype(np.int64)), "bias of operation"),
        (with_array("logits/bias", lambda x: x[:3]), "do not fit each other"),
        (with_array("logits/values", lambda x: x[..., None]), "do not fit each other"),
        (with_array("logits/values", lambda x: x[:5]), "cannot take inputs"),
        (with_array("logits/values", set_first(4)), "to 4, beyond its 3 bits"),
        (
            with_array("depthwise/values", set_first(-128)),
            "values of operation 'depthwise' (depthwise) are -128",
        ),
        (with_array("logits/scale", set_first(0)), "are not positive numbers"),
        (with_array("logits/scale", set_first(np.inf)), "are not positive numbers"),
        (with_array("logits/scale", set_first(np.nan)), "are not positive numbers"),
        (with_array("logits/scale", set_first(0.1)), "of at most 20 bits"),
        (with_array("depthwise/scale", set_first(2**-16 + 1)), "of at most 16 bits"),
        (with_value((*CONV, "name"), "\x1b[31m" + "n" * 99), "KeyError"),
        (with_value((*PAD, "name"), "\x1b\n"), "reads what no earlier one gives"),
    ],
)  # fmt: skip
def test_networks_that_cannot_be_are_refused(path, damaged_path, edit, message):
    description, arrays = read_archive(path)
    assert tuple(op["kind"] for op in description["ops"]) == OPS
    edit(description, arrays)
    assert message in refusal(damaged_path, description, arrays)


def test_names_out_of_the_file_are_escaped_and_cut(path, damaged_path):
    description, arrays = read_archive(path)
    description["ops"][4].update(name="\x1b[31m\n" + "n" * 99, attributes={})
    message = refusal(damaged_path, description, arrays)
    assert rf"operation '\x1b[31m\n{'n' * 51}...' (reshape) has other" in message


def test_tensors_beyond_any_memory_are_refused(path, damaged_path):
    description, _ = read_archive(path)
    description["input_shape"] = [2**14, 2**14, 4]
    description["ops"] = [description["ops"][4]]
    description["ops"][0].update(inputs=["image"], attributes={"shape": [2**30]})
    message = refusal(damaged_path, description, {})
    assert "tensor 'image' has 1,073,741,824 values, more than the 134,217" in message


def deflated(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in members.items():
            target.writestr(f"{name}.npy", content)
    return file.getvalue()


def npy(shape: tuple[int, ...], dtype: str, content: bytes) -> bytes:
    file = io.BytesIO()
    header = {"shape": shape, "fortran_order": False, "descr": dtype}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + content


def most_memory_while(action) -> int:
    """Bytes of Python and numpy at the most, above those at the start."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"network": b"[" * 2**25}, "its description has 33,554,432 bytes"),
        (
            {"network": b"", "x": b"", "y": bytes(2**29)},
            "it declares 536,870,912 bytes, more than the 536,870,912",
        ),
        ({"network": npy((2**40,), "|u1", b"")}, "array 'network.npy' is not what"),
        ({"network": npy((2,), "|O", b"")}, "array 'network.npy' is not what it says"),
    ],
)
def test_bombs_are_refused_by_what_they_declare(damaged_path, members, message):
    if "y" in members:
        members = members | {"x": b"x"}
        message = message.replace("536,870,912 bytes", "536,870,913 bytes")
    damaged_path.write_bytes(deflated(**members))

    def load():
        with pytest.raises(ExportError, match=re.escape(message)):
            load_network(damaged_path)

    assert most_memory_while(load) < 2**22


def test_deep_json_is_refused(damaged_path):
    text = b"[" * 100_000
    content = npy((len(text),), "|u1", text)
    assert read_or_export_error(damaged_path, deflated(network=content))


def test_more_than_declared_is_not_read(path, damaged_path):
    """An entry whose header declares ten bytes, and whose stream holds many more."""
    content = bytearray(deflated(network=npy((10**6,), "|u1", bytes(10**6))))
    real = (10**6 + 128).to_bytes(4, "little")
    assert content.count(real) == 2
    damaged_path.write_bytes(content.replace(real, (138).to_bytes(4, "little")))
    with pytest.raises(ExportError, match="is not a student file"):
        load_network(damaged_path)


def test_students_with_int16_activations(tmp_path):
    wide = QuantParams(2.0**-10, 0, bits=16)
    kernel = Kernel(
        np.ones((4, 3), np.int8),
        8,
        np.full(3, 0.5, np.float32),
        np.array([2**40, -(2**33), 5]),
    )
    op = IntegerOp("logits", "dense", ("image",), wide, kernel=kernel)
    network = IntegerNetwork("image", (4,), wide, (op,), False)
    save_network(network, tmp_path / "wide.npz")
    read = load_network(tmp_path / "wide.npz")
    assert read.input_quant_params == read.ops[0].quant_params == wide
    bias = read.ops[0].kernel.bias
    assert (bias.dtype, bias.tolist()) == (np.int64, [2**40, -(2**33), 5])
    for changed, message in (
        ({"quant_params": dataclasses.replace(wide, zero_point=1)}, "another zero"),
        ({"quant_params": QuantParams(0.5, 0)}, "int64, not|another number"),
        (
            {"kernel": dataclasses.replace(kernel, bias=np.zeros(3, np.int32))},
            "int32, not",
        ),
    ):
        ops = (dataclasses.replace(op, **changed),)
        save_network(dataclasses.replace(network, ops=ops), tmp_path / "x.npz")
        with pytest.raises(ExportError, match=message):
            load_network(tmp_path / "x.npz")
