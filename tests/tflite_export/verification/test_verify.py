"""Tests of tflite_export.verification.verify and tflite_export.verification.rules."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tests import tiny_tflite
from tests.tiny_tflite import bias, conv, convert, fake_quant
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import pack_model, read_model, unpack_model
from tflite_export.fully_connected import as_fully_connected
from tflite_export.quantization_params import weight_levels
from tflite_export.verification import rules
from tflite_export.verification.rules import (
    CHECKS,
    Expectation,
    Finding,
    stored_as,
    structural_findings,
)
from tflite_export.verification.verify import Agreement, compare_outputs, require

NUM_OPERATORS = 4


def classifier(bits: int) -> bytes:
    tflite = convert(lambda x: tiny_tflite.classifier(x, bits=bits), (1, 8, 8, 3))
    return as_fully_connected(tflite, ["quant_fc"])


@pytest.fixture(scope="module")
def w8() -> bytes:
    return classifier(8)


@pytest.fixture(scope="module")
def w4() -> bytes:
    return classifier(4)


def broken(tflite: bytes, expectation: Expectation) -> dict[str, str]:
    """Detail by rule, of the rules that do not hold."""
    findings = structural_findings(read_model(tflite), expectation)
    return {f.rule: f.detail for f in findings if not f.passed}


def edited(tflite: bytes, edit) -> bytes:
    """The file after `edit(graph, model)` changed its object tree."""
    model = copy.deepcopy(unpack_model(tflite))  # arrays that can be written
    edit(model.subgraphs[0], model)
    return pack_model(model)


def weights_of(graph, position: int):
    return graph.tensors[graph.operators[position].inputs[1]]


def bias_of(graph, position: int):
    return graph.tensors[graph.operators[position].inputs[2]]


def only(check, tflite: bytes, expectation: Expectation) -> str:
    """The detail of `check`, which must be the only rule that does not hold."""
    found = broken(tflite, expectation)
    assert list(found) == [check.rule]
    return found[check.rule]


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_every_rule_holds_for_a_sound_file(bits):
    findings = structural_findings(
        read_model(classifier(bits)), Expectation(bits, NUM_OPERATORS)
    )
    assert [f.rule for f in findings] == [check.rule for check in CHECKS]
    assert findings == tuple(Finding(f.rule, True, "") for f in findings)
    require(findings)


def test_rules_are_distinct_one_line_texts():
    texts = [check.rule for check in CHECKS]
    assert len(set(texts)) == len(texts) == 11
    assert all(text and "\n" not in text for text in texts)


@pytest.mark.parametrize(("end", "what"), [("inputs", "input"), ("outputs", "output")])
def test_integer_io_wants_int8(w8, end, what):
    def edit(graph, model):
        graph.tensors[getattr(graph, end)[0]].type = schema.TensorType.UINT8

    detail = only(rules.integer_io, edited(w8, edit), Expectation(8))
    assert detail == f"{what} UINT8 instead of INT8"


def test_integer_io_wants_one_of_each(w8):
    def edit(graph, model):
        graph.outputs = [graph.outputs[0], graph.operators[0].outputs[0]]

    detail = only(rules.integer_io, edited(w8, edit), Expectation(8))
    assert detail == "output INT8 and INT8 instead of INT8"


@pytest.mark.parametrize("dtype", ["FLOAT32", "FLOAT16", "BFLOAT16", "FLOAT64"])
def test_no_float_tensors(w8, dtype):
    def edit(graph, model):
        code = getattr(schema.TensorType, dtype)
        graph.tensors.append(schema.TensorT([1], code, 0, "stray"))

    detail = only(rules.no_float_tensors, edited(w8, edit), Expectation(8))
    assert detail == f"{dtype} 'stray'"


@pytest.mark.parametrize("name", ["QUANTIZE", "DEQUANTIZE", "CAST", "FAKE_QUANT"])
def test_no_conversion_operators(w8, name):
    def edit(graph, model):
        code = getattr(schema.BuiltinOperator, name)
        model.operatorCodes.append(schema.OperatorCodeT(min(code, 127), None, 1, code))
        image = graph.tensors[graph.inputs[0]]
        graph.tensors.append(copy.copy(image))
        graph.operators.insert(
            0,
            schema.OperatorT(
                len(model.operatorCodes) - 1, graph.inputs, [len(graph.tensors) - 1]
            ),
        )

    check = rules.no_float_or_conversion_operators
    detail = only(check, edited(w8, edit), Expectation(8))
    assert detail == f"{name} as operator 0"


def test_no_flex_operators(w8):
    def edit(graph, model):
        mean = model.operatorCodes[graph.operators[2].opcodeIndex]
        mean.builtinCode = mean.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        mean.customCode = "FlexMean"

    check = rules.no_float_or_conversion_operators
    detail = only(check, edited(w8, edit), Expectation(8))
    assert detail == "CUSTOM:FlexMean as operator 2"


def test_weight_widths_wants_int4_up_to_4_bits(w8):
    detail = only(rules.weight_widths, w8, Expectation(4))
    assert detail.startswith("constant INT8 'quant_c1/Conv2D;")
    assert "quant_d1" in detail
    assert "quant_fc" in detail


def test_weight_widths_wants_int8_above_4_bits(w4):
    detail = only(rules.weight_widths, w4, Expectation(5))
    assert detail.startswith("constant INT4 'quant_c1/Conv2D;")


@pytest.mark.parametrize(
    ("stored_bits", "bits", "message"),
    [(4, 3, "-7..7, beyond -4..3, in"), (8, 7, "-127..127, beyond -64..63, in")],
)
def test_weight_widths_wants_magnitudes_within_the_bits(stored_bits, bits, message):
    detail = only(rules.weight_widths, classifier(stored_bits), Expectation(bits))
    assert message in detail


def test_weight_widths_refuses_the_level_without_opposite(w8):
    def edit(graph, model):
        # -128: int8, but outside of the symmetric range.
        model.buffers[weights_of(graph, 0).buffer].data[0] = 0x80

    detail = only(rules.weight_widths, edited(w8, edit), Expectation(8))
    assert detail.startswith("-128..127, beyond -127..127, in 'quant_c1")


def test_weight_widths_wants_constants(w8):
    def edit(graph, model):
        weights_of(graph, 0).buffer = 0

    found = broken(edited(w8, edit), Expectation(8))
    assert list(found) == [rules.weight_widths.rule, rules.executable_order.rule]
    assert found[rules.weight_widths.rule].startswith("computed INT8 'quant_c1")


def swap_first_operators(graph, model):
    graph.operators[:2] = graph.operators[1::-1]


def compute_again(graph, model):
    graph.operators.insert(1, copy.copy(graph.operators[0]))


def compute_the_input(graph, model):
    graph.operators[0].outputs = graph.inputs


def give_nothing_computed(graph, model):
    graph.tensors.append(copy.copy(graph.tensors[graph.outputs[0]]))
    graph.outputs = [len(graph.tensors) - 1]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (swap_first_operators, "DEPTHWISE_CONV_2D as operator 0 too early"),
        (compute_again, "CONV_2D as operator 1 again"),
        (
            compute_the_input,
            "CONV_2D as operator 0 again, DEPTHWISE_CONV_2D as operator 1 too early",
        ),
        (give_nothing_computed, "an output that nothing computes"),
    ],
)
def test_executable_order(w8, edit, message):
    detail = only(rules.executable_order, edited(w8, edit), Expectation(8))
    assert detail == message


def test_one_scale_per_output_channel_refuses_per_tensor_weights():
    def function(x):
        # 4 channels: one scale is too few.
        weights = np.random.default_rng(0).normal(size=(3, 3, 3, 4))
        weights = tf.quantization.fake_quant_with_min_max_args(
            weights.astype(np.float32), -3.0, 3.0, num_bits=8, narrow_range=True
        )
        x = tf.nn.conv2d(fake_quant(x), weights, 1, "SAME") + bias(1, 4)
        return fake_quant(x)

    tflite = convert(function, (1, 8, 8, 3))
    detail = only(rules.one_scale_per_output_channel, tflite, Expectation(8))
    assert detail.startswith("1 scales along dimension 0 for 4 channels in dimension 0")


@pytest.mark.parametrize(
    ("position", "dimension", "wrong"), [(0, 0, 3), (1, 3, 0), (3, 0, 1)]
)
def test_one_scale_per_output_channel_wants_them_along_the_channels(
    w8, position, dimension, wrong
):
    def edit(graph, model):
        weights_of(graph, position).quantization.quantizedDimension = wrong

    check = rules.one_scale_per_output_channel
    detail = only(check, edited(w8, edit), Expectation(8))
    assert f"scales along dimension {wrong} for" in detail
    assert f"channels in dimension {dimension} of" in detail


def test_one_channel_needs_no_dimension():
    def function(x):
        return conv(fake_quant(x), 1, bits=8, name="quant_c")

    def edit(graph, model):
        weights_of(graph, 0).quantization.quantizedDimension = 3

    tflite = edited(convert(function, (1, 8, 8, 3)), edit)
    assert broken(tflite, Expectation(8)) == {}


def test_symmetric_weights(w8):
    def edit(graph, model):
        weights_of(graph, 3).quantization.zeroPoint[2] = -5

    detail = only(rules.symmetric_weights, edited(w8, edit), Expectation(8))
    assert detail.startswith("-5 in 'quant_fc/Conv2D")


def edit_bias_scale(graph, model):
    bias_of(graph, 0).quantization.scale[1] *= np.float32(1.00001)


def edit_bias_zero_point(graph, model):
    bias_of(graph, 0).quantization.zeroPoint[1] = 1


def edit_bias_type(graph, model):
    bias_of(graph, 0).type = schema.TensorType.INT64


def edit_bias_num_scales(graph, model):
    bias_of(graph, 0).quantization.scale = bias_of(graph, 0).quantization.scale[:2]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edit_bias_scale, "scale 1.00001 times the product in 'quant_c1"),
        (edit_bias_zero_point, "zero point 1 in 'quant_c1"),
        (edit_bias_type, "INT64 'quant_c1"),
        (edit_bias_num_scales, "2 scales for 6 in 'quant_c1"),
    ],
)
def test_integer_bias(w8, edit, message):
    detail = only(rules.integer_bias, edited(w8, edit), Expectation(8))
    assert detail.startswith(message)


def test_operators_without_bias_pass(w8):
    def drop_last(graph, model):
        graph.operators[0].inputs = graph.operators[0].inputs[:2]

    def mark_absent(graph, model):
        graph.operators[0].inputs[2] = -1

    for edit in (drop_last, mark_absent):
        assert broken(edited(w8, edit), Expectation(8)) == {}


def test_static_batch_1_refuses_a_batch_of_2():
    def function(x):
        return conv(fake_quant(x), 4, bits=8, name="quant_c")

    tflite = convert(function, (2, 8, 8, 3))
    detail = only(rules.static_batch_1, tflite, Expectation(8))
    assert detail.startswith("shape (2, 8, 8, 3) of ")


def test_static_batch_1_refuses_unknown_dimensions(w8):
    def edit(graph, model):
        graph.tensors[graph.operators[0].outputs[0]].shapeSignature = [1, -1, -1, 6]

    detail = only(rules.static_batch_1, edited(w8, edit), Expectation(8))
    assert detail.startswith("shape (1, -1, -1, 6) of 'quant_c1/Relu")


def test_operator_count(w8):
    detail = only(rules.operator_count, w8, Expectation(8, NUM_OPERATORS - 1))
    assert detail == "4 operators instead of 3"
    assert broken(w8, Expectation(8, NUM_OPERATORS + 1)) == {}
    assert broken(w8, Expectation(8, None)) == {}


def test_no_dynamic_shape_operators_refuses_a_strided_slice():
    def function(x):
        x = conv(fake_quant(x), 4, bits=8, name="quant_c")
        return x[:, ::2, ::2]

    tflite = convert(function, (1, 8, 8, 3))
    detail = only(rules.no_dynamic_shape_operators, tflite, Expectation(8))
    assert detail == "STRIDED_SLICE as operator 1"


def test_no_dynamic_shape_operators_refuses_a_dynamic_batch():
    def function(x):
        x = conv(fake_quant(x), 4, bits=8, name="quant_c")
        return tf.reshape(x, (tf.shape(x)[0], 8 * 8 * 4))

    found = broken(convert(function, (None, 8, 8, 3)), Expectation(8))
    detail = found[rules.no_dynamic_shape_operators.rule]
    assert [name for name in ("SHAPE", "STRIDED_SLICE", "PACK") if name in detail] == [
        "SHAPE",
        "STRIDED_SLICE",
        "PACK",
    ]
    assert "shape (-1, 8, 8, 3)" in found[rules.static_batch_1.rule]


def test_long_lists_are_cut(w8):
    def edit(graph, model):
        for index in range(5):
            tensor = schema.TensorT([1], schema.TensorType.FLOAT32, 0, f"stray{index}")
            graph.tensors.append(tensor)

    detail = only(rules.no_float_tensors, edited(w8, edit), Expectation(8))
    assert detail == "FLOAT32 'stray0', FLOAT32 'stray1', FLOAT32 'stray2', 2 more"


def test_require_names_every_failed_rule_in_one_line():
    tflite = convert(
        lambda x: tiny_tflite.classifier(x, bits=8), (1, 8, 8, 3), quantize=False
    )
    findings = structural_findings(read_model(tflite), Expectation(8))
    with pytest.raises(ExportError) as caught:
        require(findings)
    message = str(caught.value)
    assert "\n" not in message
    failed = [finding for finding in findings if not finding.passed]
    assert len(failed) >= 4
    assert message.startswith(f"the .tflite file breaks {len(failed)} rules: ")
    assert all(f"{f.rule}: found {f.detail}" in message for f in failed)


def test_require_is_content_with_rules_that_hold():
    require([])
    require([Finding("any", True, "")])
    with pytest.raises(ExportError, match="breaks 1 rule: any: found what"):
        require([Finding("any", False, "what")])


def test_compare_outputs_by_hand():
    student = np.array([[1, 2], [3, 4], [5, -6], [127, -128]])
    tflite = np.int8([[1, 2], [3, 5], [3, -5], [127, -128]])
    assert compare_outputs(student, tflite) == Agreement(
        num_images=4, max_lsb=2, exact_outputs=5 / 8, exact_images=2 / 4
    )


def test_compare_outputs_does_not_wrap_around():
    agreement = compare_outputs(np.int8([[-128]]), np.int8([[127]]))
    assert agreement.max_lsb == 255


def test_compare_outputs_rounds_float_noise_away():
    student = np.float32([[1.0001, -2.0001, 2.9999]])
    assert compare_outputs(student, np.int8([[1, -2, 3]])).exact_outputs == 1.0


@pytest.mark.parametrize(
    ("student", "tflite", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2), np.int8), r"\(2, 3\) and \(3, 2\)"),
        (np.zeros((0, 3)), np.zeros((0, 3), np.int8), "not empty"),
        (np.zeros(3), np.zeros(3, np.int8), r"expected the same \(N, classes\)"),
        (np.full((1, 1), np.nan), np.zeros((1, 1), np.int8), "NaN or infinity"),
        (np.zeros((1, 1)), np.zeros((1, 1), np.float32), "float32; expected integers"),
    ],
)
def test_compare_outputs_refuses_what_cannot_be_compared(student, tflite, message):
    with pytest.raises(ExportError, match=message):
        compare_outputs(student, tflite)


@pytest.mark.parametrize("bits", [1, 9])
def test_weight_bits_out_of_range_are_refused(bits):
    with pytest.raises(ExportError, match=f"weight_bits is {bits}; expected 2 to 8"):
        Expectation(bits)


@pytest.mark.parametrize(
    ("bits", "dtype", "levels"),
    [
        (2, "INT4", (-2, 1)),
        (4, "INT4", (-8, 7)),
        (5, "INT8", (-16, 15)),
        (8, "INT8", (-127, 127)),
    ],
)
def test_storage_and_range_of_weight_bits(bits, dtype, levels):
    expected = Expectation(bits).bits(["any", "name"])
    assert (stored_as(expected), weight_levels(expected)) == (dtype, levels)


@pytest.mark.parametrize(
    ("names", "bits"),
    [
        (["conv_1"], 8),
        (["conv_1/Conv2D"], 8),
        (["quant/conv_1/Conv2D;bias"], 8),
        (["other", "relu;conv_1;bn"], 8),
        (["fc"], 8),
        (["other/conv_1"], 4),  # an operation's name
        (["conv_11"], 4),  # whole names, not beginnings
        (["my_conv_1"], 4),
        (["conv"], 4),
        (["other", "relu;conv_2;bn"], 4),
        ([], 4),
    ],
)
def test_kept_layers_have_8_bits_by_any_of_their_tensors_names(names, bits):
    expectation = Expectation(4, layers_at_8_bits=frozenset({"conv_1", "fc"}))
    assert expectation.bits(names) == bits


def test_a_kept_layer_must_not_be_stored_as_int4(w4):
    expectation = Expectation(4, NUM_OPERATORS, frozenset({"quant_d1"}))
    detail = only(rules.weight_widths, w4, expectation)
    assert detail.startswith("constant INT4 'quant_d1")
    assert "quant_c1" not in detail


def test_only_kept_layers_may_be_stored_as_int8(w8):
    some = frozenset({"quant_c1", "quant_fc"})
    detail = only(rules.weight_widths, w8, Expectation(4, NUM_OPERATORS, some))
    assert detail.startswith("constant INT8 'quant_d1")
    every = some | {"quant_d1"}
    assert broken(w8, Expectation(4, NUM_OPERATORS, every)) == {}
