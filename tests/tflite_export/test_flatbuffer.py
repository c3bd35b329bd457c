"""Tests of tflite_export.flatbuffer."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tiny_tflite
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import (
    Tensor,
    constant_values,
    pack_model,
    read_model,
    unpack_model,
)


@pytest.fixture(scope="module")
def tflite() -> bytes:
    return tiny_tflite.convert(
        lambda x: tiny_tflite.classifier(x, bits=4), (1, 8, 8, 3)
    )


def constant(data: bytes, shape, dtype: str) -> Tensor:
    return Tensor(0, "weights", shape, dtype, (), (), 0, data)


def test_operators_in_execution_order_with_names_and_versions(tflite):
    operators = read_model(tflite).operators
    assert [(op.index, op.name, op.version) for op in operators] == [
        (0, "CONV_2D", 7),
        (1, "DEPTHWISE_CONV_2D", 7),
        (2, "MEAN", 2),
        (3, "CONV_2D", 7),
        (4, "RESHAPE", 1),
    ]


def test_operators_are_linked_through_tensors(tflite):
    model = read_model(tflite)
    conv, depthwise, *_, reshape = model.operators
    assert conv.inputs[0] == model.inputs[0]
    assert conv.outputs[0] == depthwise.inputs[0]
    assert reshape.outputs == model.outputs


def test_quantized_tensors(tflite):
    model = read_model(tflite)
    conv, depthwise, *_ = model.operators
    image = model.tensors[model.inputs[0]]
    assert (image.shape, image.dtype, image.is_constant) == (
        (1, 8, 8, 3),
        "INT8",
        False,
    )
    # The input's fake quantization spans [-1, 1], nudged so that it holds 0.
    assert image.scales == pytest.approx((2 / 255,))
    assert image.zero_points == (0,)
    weights = model.tensors[conv.inputs[1]]
    assert (weights.shape, weights.dtype) == ((6, 3, 3, 3), "INT4")
    assert weights.is_constant
    assert weights.zero_points == (0,) * 6
    assert len(weights.scales) == 6
    assert weights.quantized_dimension == 0
    assert model.tensors[depthwise.inputs[1]].quantized_dimension == 3
    assert model.tensors[conv.inputs[2]].dtype == "INT32"


def test_int4_constants_are_the_levels_of_the_kernel(tflite):
    model = read_model(tflite)
    weights = model.tensors[model.operators[0].inputs[1]]
    kernel = tiny_tflite.kernel(sum(b"quant_c1"), (3, 3, 3, 6), 4).numpy()
    quantized = kernel.transpose(3, 0, 1, 2) / np.reshape(weights.scales, (6, 1, 1, 1))
    np.testing.assert_array_equal(constant_values(weights), np.rint(quantized))


def test_int4_is_unpacked_low_nibble_first_and_sign_extended():
    # 0x8F: low nibble F is -1, high nibble 8 is -8; 0x70: 0 then 7.
    values = constant_values(constant(b"\x8f\x70", (2, 2), "INT4"))
    np.testing.assert_array_equal(values, [[-1, -8], [0, 7]])
    assert values.dtype == np.int8


def test_odd_int4_count_drops_the_padding_nibble():
    values = constant_values(constant(b"\x21\x03", (3,), "INT4"))
    np.testing.assert_array_equal(values, [1, 2, 3])


def test_int32_constants_are_little_endian():
    values = constant_values(
        constant(b"\x01\x00\x00\x00\xff\xff\xff\xff", (2,), "INT32")
    )
    np.testing.assert_array_equal(values, [1, -1])


@pytest.mark.parametrize(
    ("data", "shape", "dtype"),
    [
        (b"\x21\x03", (5,), "INT4"),
        (b"\x21\x03", (2,), "INT4"),
        (b"\x00" * 7, (2,), "INT32"),
        (b"\x00" * 9, (2,), "INT32"),
        (b"", (1,), "INT8"),
        (b"\x00", (-1, -1), "INT8"),
    ],
)
def test_bytes_that_do_not_fit_the_shape_are_refused(data, shape, dtype):
    with pytest.raises(ExportError, match="do not fit"):
        constant_values(constant(data, shape, dtype))


def test_constants_of_types_without_numpy_counterpart_are_refused():
    with pytest.raises(ExportError, match=r"is BFLOAT16; expected"):
        constant_values(constant(b"\x00\x00", (1,), "BFLOAT16"))


def test_activations_have_no_constant_values(tflite):
    model = read_model(tflite)
    with pytest.raises(ExportError, match="computed at run time"):
        constant_values(model.tensors[model.inputs[0]])


def test_unknown_dimension_is_minus_1(tflite):
    model = unpack_model(tflite)
    model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].shapeSignature = [
        -1,
        8,
        8,
        3,
    ]
    read = read_model(pack_model(model))
    assert read.tensors[read.inputs[0]].shape == (-1, 8, 8, 3)


def test_custom_operators_are_named_by_their_code(tflite):
    model = unpack_model(tflite)
    code = model.operatorCodes[model.subgraphs[0].operators[0].opcodeIndex]
    code.builtinCode = schema.BuiltinOperator.CUSTOM
    code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = "FlexErf"
    assert read_model(pack_model(model)).operators[0].name == "CUSTOM:FlexErf"


def test_deprecated_operator_codes_are_understood(tflite):
    model = unpack_model(tflite)
    code = model.operatorCodes[model.subgraphs[0].operators[0].opcodeIndex]
    code.builtinCode = 0  # files older than TF 2.4 lack the field
    assert read_model(pack_model(model)).operators[0].name == "CONV_2D"


def test_packing_keeps_everything_and_aligns_constants(tflite):
    packed = pack_model(unpack_model(tflite))
    assert read_model(packed) == read_model(tflite)
    model = schema.Model.GetRootAs(packed)
    start = np.frombuffer(packed, np.uint8).ctypes.data
    offsets = [
        model.Buffers(i).DataAsNumpy().ctypes.data - start
        for i in range(model.BuffersLength())
        if not model.Buffers(i).DataIsNone()
    ]
    assert len(offsets) > 5
    assert all(offset % 16 == 0 for offset in offsets)


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\x00" * 64, b"PK\x03\x04 a zip file"])
def test_other_files_are_refused(data):
    with pytest.raises(ExportError, match=r"not a \.tflite file: .* expected b'TFL3'"):
        read_model(data)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_truncated_files_are_refused_in_one_line(tflite, data):
    size = data.draw(st.integers(8, len(tflite) - 16))
    with pytest.raises(ExportError, match="damaged") as caught:
        read_model(tflite[:size])
    assert "\n" not in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_bytes_never_give_another_exception(tflite, data):
    damaged = bytearray(tflite)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(tflite) - 1))] = data.draw(
            st.integers(0, 255)
        )
    try:
        model = read_model(bytes(damaged))
        for tensor in model.tensors:
            if tensor.is_constant:
                constant_values(tensor)
    except ExportError:
        pass


def test_tensor_indices_out_of_range_are_refused(tflite):
    model = unpack_model(tflite)
    model.subgraphs[0].operators[0].inputs = [999, 1, 2]
    with pytest.raises(ExportError, match="tensor index is out of range"):
        read_model(pack_model(model))


def test_two_subgraphs_are_refused(tflite):
    model = unpack_model(tflite)
    model.subgraphs = model.subgraphs * 2
    with pytest.raises(ExportError, match="holds 2 subgraphs; expected 1"):
        read_model(pack_model(model))
