"""Tests of tflite_export.fully_connected."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tests import tiny_tflite
from tests.tiny_tflite import bias, conv, convert, dense_as_conv, fake_quant, kernel
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import (
    constant_values,
    pack_model,
    read_model,
    unpack_model,
)
from tflite_export.fully_connected import as_fully_connected

# Features of the input and units of each Dense layer; odd ones put the rows of
# INT4 weights in the middle of a byte.
SIZES = {
    "one": ((1,), (5,)),
    "even": ((8,), (5,)),
    "odd": ((7,), (3,)),
    "three_layers": ((7,), (3, 4, 2)),
    "image": ((4, 4, 3), (9, 10)),
}


def metadata(model) -> list[tuple[bytes, bytes]]:
    return [(m.name, bytes(model.buffers[m.buffer].data)) for m in model.metadata]


def pointwise_network(bits: int, features: int, *, activation=tf.identity):
    """One pointwise layer, quant_pw, over an image."""

    def function(x):
        with tf.name_scope("quant_pw"):
            filters = kernel(1, (1, 1, features, 6), bits)
            x = tf.nn.conv2d(fake_quant(x), filters, 1, "SAME")
            return fake_quant(activation(x + bias(2, 6)), -4.0, 4.0)

    return function


def dense_network(bits: int, units, *, activation=tf.nn.relu):
    """Dense layers quant_fc0, quant_fc1...; an activation on all but the last."""

    def function(x):
        x = fake_quant(x)
        for index, size in enumerate(units):
            last = index == len(units) - 1
            x = dense_as_conv(
                x,
                size,
                bits=bits,
                name=f"quant_fc{index}",
                activation=tf.identity if last else activation,
            )
        return x

    return function


def names(tflite: bytes) -> list[str]:
    return [operator.name for operator in read_model(tflite).operators]


def random_inputs(tflite: bytes, count: int = 100) -> np.ndarray:
    model = read_model(tflite)
    shape = (count, *model.tensors[model.inputs[0]].shape[1:])
    return np.random.default_rng(0).integers(-128, 128, shape, np.int8)


def exact_outputs(tflite: bytes, inputs: np.ndarray) -> np.ndarray:
    """A FULLY_CONNECTED's int8 outputs with the real multiplier, rounded once."""
    model = read_model(tflite)
    (operator,) = model.operators
    source, weights, offsets = (model.tensors[i] for i in operator.inputs)
    output = model.tensors[operator.outputs[0]]
    sums = (inputs.astype(np.int64) - source.zero_points[0]) @ constant_values(
        weights
    ).T.astype(np.int64) + constant_values(offsets)
    multiplier = source.scales[0] * np.array(weights.scales) / output.scales[0]
    quantized = np.floor(sums * multiplier + 0.5) + output.zero_points[0]
    return np.clip(quantized, -128, 127)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bits", [4, 8])
def test_outputs_of_the_builtin_kernels_do_not_change(bits, size):
    shape, units = SIZES[size]
    tflite = convert(dense_network(bits, units), (1, *shape))
    folded = as_fully_connected(tflite, [f"quant_fc{i}" for i in range(len(units))])
    assert names(folded).count("FULLY_CONNECTED") == len(units)
    assert "CONV_2D" not in names(folded)
    inputs = random_inputs(tflite)
    before = tiny_tflite.run(tflite, inputs, "optimized")
    assert len(np.unique(before)) > 20
    np.testing.assert_array_equal(tiny_tflite.run(folded, inputs, "optimized"), before)


@pytest.mark.parametrize("size", SIZES)
def test_int8_outputs_of_xnnpack_do_not_change(size):
    shape, units = SIZES[size]
    tflite = convert(dense_network(8, units), (1, *shape))
    folded = as_fully_connected(tflite, [f"quant_fc{i}" for i in range(len(units))])
    inputs = random_inputs(tflite)
    np.testing.assert_array_equal(
        tiny_tflite.run(folded, inputs, "xnnpack"),
        tiny_tflite.run(tflite, inputs, "xnnpack"),
    )


@pytest.mark.parametrize("features", [8, 48, 7])
def test_int4_outputs_of_xnnpack_are_the_exact_ones_or_do_not_change(features):
    # XNNPACK takes INT4 FULLY_CONNECTED with an even number of inputs, but no
    # INT4 CONV_2D: folding replaces the built-in kernel's two roundings by one.
    tflite = convert(dense_network(4, (10,)), (1, features))
    folded = as_fully_connected(tflite, ["quant_fc0"])
    inputs = random_inputs(tflite)
    if features % 2 == 0:
        expected = exact_outputs(folded, inputs)
    else:
        expected = tiny_tflite.run(tflite, inputs, "xnnpack")
    np.testing.assert_array_equal(tiny_tflite.run(folded, inputs, "xnnpack"), expected)


def test_weights_bias_scales_and_activation_are_kept():
    tflite = convert(dense_network(4, (3, 2)), (1, 7))
    folded = read_model(as_fully_connected(tflite, ["quant_fc0", "quant_fc1"]))
    first, second = folded.operators
    source, weights, offsets = (folded.tensors[i] for i in first.inputs)
    assert (source.shape, weights.shape, offsets.shape) == ((1, 7), (3, 7), (3,))
    assert (weights.dtype, weights.quantized_dimension) == ("INT4", 0)
    assert len(weights.scales) == 3
    np.testing.assert_allclose(
        constant_values(weights) * np.reshape(weights.scales, (3, 1)),
        kernel(sum(b"quant_fc0"), (1, 1, 7, 3), 4)[0, 0].numpy().T,
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        constant_values(offsets) * np.array(offsets.scales),
        bias(sum(b"quant_fc0"), 3),
        atol=max(offsets.scales),
    )
    assert folded.tensors[first.outputs[0]].shape == (1, 3)
    assert first.outputs == second.inputs[:1]
    assert folded.tensors[folded.outputs[0]].shape == (1, 2)


@pytest.mark.parametrize(
    ("activation", "fused"),
    [(tf.nn.relu, "RELU"), (tf.nn.relu6, "RELU6"), (tf.identity, "NONE")],
)
def test_fused_activation_is_kept(activation, fused):
    tflite = convert(dense_network(8, (3, 2), activation=activation), (1, 7))
    model = unpack_model(as_fully_connected(tflite, ["quant_fc0", "quant_fc1"]))
    options = model.subgraphs[0].operators[0].builtinOptions
    expected = getattr(schema.ActivationFunctionType, fused)
    assert options.fusedActivationFunction == expected


@pytest.mark.parametrize("bits", [4, 8])
def test_versions_are_those_the_converter_writes(bits):
    folded = as_fully_connected(
        convert(dense_network(bits, (5,)), (1, 8)), ["quant_fc0"]
    )
    (operator,) = read_model(folded).operators

    def matmul(x):
        # Per tensor, which the converter can write as FULLY_CONNECTED itself.
        weights = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
        weights = tf.quantization.fake_quant_with_min_max_args(
            weights, -3.0, 3.0, num_bits=bits, narrow_range=True
        )
        return fake_quant(tf.matmul(fake_quant(x), weights) + bias(1, 5))

    (own,) = read_model(convert(matmul, (1, 8))).operators
    assert (operator.name, operator.version) == (own.name, own.version)


def test_operators_match_the_converters_quantization_of_a_real_dense_layer():
    def random(*shape):
        return np.random.default_rng(0).normal(size=shape).astype(np.float32)

    def classifier(x):
        x = tf.nn.relu(tf.nn.conv2d(x, random(3, 3, 3, 6), 1, "SAME"))
        x = tf.reshape(x, (1, 8 * 8 * 6))
        x = tf.nn.relu(tf.matmul(x, random(8 * 8 * 6, 4)) + random(4))
        return tf.matmul(x, random(4, 5)) + random(5)

    def student(x):
        x = conv(fake_quant(x), 6, bits=8, name="quant_c")
        x = dense_as_conv(x, 4, bits=8, name="quant_a", activation=tf.nn.relu)
        return dense_as_conv(x, 5, bits=8, name="quant_b")

    reference = convert(classifier, (1, 8, 8, 3), calibration=random(4, 8, 8, 3))
    folded = as_fully_connected(convert(student, (1, 8, 8, 3)), ["quant_a", "quant_b"])
    assert names(reference) == ["CONV_2D", "RESHAPE"] + ["FULLY_CONNECTED"] * 2
    assert names(folded) == names(reference)


def test_dense_behind_a_mean_reads_it_directly():
    tflite = convert(lambda x: tiny_tflite.classifier(x, bits=8), (1, 8, 8, 3))
    folded = as_fully_connected(tflite, ["quant_fc"])
    assert names(tflite)[2:] == ["MEAN", "CONV_2D", "RESHAPE"]
    assert names(folded)[2:] == ["MEAN", "FULLY_CONNECTED"]
    inputs = random_inputs(tflite)
    for resolver in ("xnnpack", "optimized"):
        np.testing.assert_array_equal(
            tiny_tflite.run(folded, inputs, resolver),
            tiny_tflite.run(tflite, inputs, resolver),
        )


def test_convolutions_of_other_layers_stay():
    tflite = convert(dense_network(8, (3, 2)), (1, 7))
    assert names(as_fully_connected(tflite, [])) == names(tflite)
    # The first feeds a convolution that stays, which needs its four dimensions.
    assert names(as_fully_connected(tflite, ["quant_fc0"])) == names(tflite)
    assert names(as_fully_connected(tflite, ["quant_fc1"])) == [
        "RESHAPE",
        "CONV_2D",
        "FULLY_CONNECTED",
    ]


def test_layer_names_are_whole_components():
    tflite = convert(dense_network(8, (3,)), (1, 7))
    for name in ("quant_fc", "fc0", "quant_fc0/Conv2D", "quant_fc00", ""):
        assert names(as_fully_connected(tflite, [name])) == names(tflite)


def test_convolution_over_an_image_stays():
    def function(x):
        return conv(fake_quant(x), 6, bits=8, name="quant_c", size=1)

    tflite = convert(function, (1, 4, 4, 3))
    assert names(as_fully_connected(tflite, ["quant_c"])) == ["CONV_2D"]


def test_strided_convolution_down_to_one_pixel_stays():
    def function(x):
        with tf.name_scope("quant_c"):
            x = tf.nn.conv2d(fake_quant(x), kernel(1, (1, 1, 3, 5), 8), 4, "VALID")
            return tf.reshape(fake_quant(x + bias(2, 5), -4.0, 4.0), (1, 5))

    tflite = convert(function, (1, 4, 4, 3))
    assert names(tflite) == ["CONV_2D", "RESHAPE"]
    assert names(as_fully_connected(tflite, ["quant_c"])) == names(tflite)


def test_convolution_that_is_the_models_output_stays():
    def function(x):
        return conv(fake_quant(x), 6, bits=8, name="quant_c", size=1)

    tflite = convert(function, (1, 1, 1, 3))
    assert names(as_fully_connected(tflite, ["quant_c"])) == ["CONV_2D"]


def test_dense_layer_read_by_an_addition_stays_a_convolution():
    def function(x):
        x = dense_as_conv(fake_quant(x), 6, bits=8, name="quant_a")
        y = dense_as_conv(x, 6, bits=8, name="quant_b")
        return fake_quant(x + y, -4.0, 4.0)

    tflite = convert(function, (1, 7))
    folded = as_fully_connected(tflite, ["quant_a", "quant_b"])
    assert names(folded) == ["RESHAPE", "CONV_2D", "CONV_2D", "ADD", "RESHAPE"]
    inputs = random_inputs(tflite)
    np.testing.assert_array_equal(
        tiny_tflite.run(folded, inputs, "xnnpack"),
        tiny_tflite.run(tflite, inputs, "xnnpack"),
    )


def test_dense_layer_reshaped_to_an_image_keeps_that_reshape():
    def function(x):
        x = dense_as_conv(fake_quant(x), 48, bits=8, name="quant_a")
        return conv(tf.reshape(x, (1, 4, 4, 3)), 5, bits=8, name="quant_c")

    tflite = convert(function, (1, 9))
    folded = as_fully_connected(tflite, ["quant_a"])
    assert names(folded) == ["FULLY_CONNECTED", "RESHAPE", "CONV_2D"]
    inputs = random_inputs(tflite, 20)
    np.testing.assert_array_equal(
        tiny_tflite.run(folded, inputs, "optimized"),
        tiny_tflite.run(tflite, inputs, "optimized"),
    )


def test_shared_kernel_can_stay_in_one_layer_and_fold_in_the_other():
    tflite = convert(dense_network(8, (7, 7)), (1, 7))
    model = unpack_model(tflite)
    first, second = (op for op in model.subgraphs[0].operators if len(op.inputs) == 3)
    second.inputs = [second.inputs[0], first.inputs[1], second.inputs[2]]
    folded = read_model(as_fully_connected(pack_model(model), ["quant_fc1"]))
    _, convolution, dense = folded.operators
    weights = [folded.tensors[op.inputs[1]] for op in (convolution, dense)]
    assert [w.shape for w in weights] == [(7, 1, 1, 7), (7, 7)]
    assert weights[0].data == weights[1].data


@pytest.mark.parametrize("features", [8, 7])
@pytest.mark.parametrize("bits", [4, 8])
def test_pointwise_layers_keep_their_dimensions(bits, features):
    tflite = convert(
        pointwise_network(bits, features, activation=tf.nn.relu), (1, 3, 5, features)
    )
    folded = as_fully_connected(tflite, (), ["quant_pw"])
    assert names(tflite) == ["CONV_2D"]
    assert names(folded) == ["FULLY_CONNECTED"]
    model = read_model(folded)
    (operator,) = model.operators
    shapes = [model.tensors[i].shape for i in (*operator.inputs, *operator.outputs)]
    assert shapes == [(1, 3, 5, features), (6, features), (6,), (1, 3, 5, 6)]
    assert operator.options["keepNumDims"]
    expected = schema.ActivationFunctionType.RELU
    assert operator.options["fusedActivationFunction"] == expected
    assert operator.version == {4: 10, 8: 4}[bits]


def images(features: int, count: int = 30) -> np.ndarray:
    shape = (count, 3, 5, features)
    return np.random.default_rng(0).integers(-128, 128, shape, np.int8)


@pytest.mark.parametrize("features", [8, 48, 2])
def test_pointwise_int4_outputs_of_xnnpack_are_rounded_once(features):
    """So it is XNNPACK that takes them: the built-in kernels round twice."""
    tflite = convert(pointwise_network(4, features), (1, 3, 5, features))
    folded = as_fully_connected(tflite, (), ["quant_pw"])
    inputs = images(features)
    expected = exact_outputs(folded, inputs)
    np.testing.assert_array_equal(tiny_tflite.run(folded, inputs, "xnnpack"), expected)
    assert (tiny_tflite.run(tflite, inputs, "xnnpack") != expected).any()


def test_the_builtin_kernels_compute_the_same_of_both_forms():
    tflite = convert(pointwise_network(4, 8), (1, 3, 5, 8))
    folded = as_fully_connected(tflite, (), ["quant_pw"])
    inputs = images(8)
    np.testing.assert_array_equal(
        tiny_tflite.run(folded, inputs, "optimized"),
        tiny_tflite.run(tflite, inputs, "optimized"),
    )


@pytest.mark.parametrize("stride", [(2, 2), (1, 2), (2, 1)])
def test_strided_pointwise_convolutions_stay(stride):
    def function(x):
        with tf.name_scope("quant_pw"):
            x = tf.nn.conv2d(fake_quant(x), kernel(1, (1, 1, 4, 6), 4), stride, "SAME")
            return fake_quant(x + bias(2, 6), -4.0, 4.0)

    tflite = convert(function, (1, 3, 5, 4))
    assert names(as_fully_connected(tflite, (), ["quant_pw"])) == ["CONV_2D"]


def test_dense_layer_with_int4_read_as_an_image_keeps_its_dimensions():
    """Its reshapes are gone, and an INT4 convolution would be rounded twice."""

    def function(x):
        x = dense_as_conv(fake_quant(x), 6, bits=4, name="quant_a")
        y = conv(tf.reshape(x, (1, 1, 1, 6)), 6, bits=8, name="quant_c", size=1)
        return tf.reshape(y, (1, 6))

    tflite = convert(function, (1, 8))
    folded = as_fully_connected(tflite, ["quant_a"])
    assert names(folded) == ["RESHAPE", "FULLY_CONNECTED", "CONV_2D", "RESHAPE"]
    assert read_model(folded).operators[1].options["keepNumDims"]


def test_dense_layer_in_front_of_a_pointwise_one_keeps_its_dimensions():
    def function(x):
        x = dense_as_conv(fake_quant(x), 6, bits=4, name="quant_a")
        y = conv(tf.reshape(x, (1, 1, 1, 6)), 6, bits=4, name="quant_c", size=1)
        return tf.reshape(y, (1, 6))

    folded = as_fully_connected(convert(function, (1, 8)), ["quant_a"], ["quant_c"])
    operators = read_model(folded).operators
    assert [o.options["keepNumDims"] for o in operators[1:3]] == [True, True]


def test_unused_parts_are_dropped_and_the_rest_is_kept():
    tflite = convert(dense_network(4, (5,)), (1, 8))
    before, after = (
        unpack_model(t) for t in (tflite, as_fully_connected(tflite, ["quant_fc0"]))
    )
    assert len(before.operatorCodes) > 2  # the converter leaves QUANTIZE behind
    assert len(after.operatorCodes) == 1
    assert len(after.subgraphs[0].tensors) == 4
    used = {tensor.buffer for tensor in after.subgraphs[0].tensors}
    used |= {metadata.buffer for metadata in after.metadata}
    assert used | {0} == set(range(len(after.buffers)))
    assert after.buffers[0].data is None

    assert metadata(after) == metadata(before)
    assert after.description == before.description


def test_signatures_follow_the_renumbered_tensors():
    tflite = convert(dense_network(8, (5,)), (1, 8))
    unpacked = unpack_model(tflite)
    graph = unpacked.subgraphs[0]
    unpacked.signatureDefs = [
        schema.SignatureDefT(
            inputs=[schema.TensorMapT("x", graph.inputs[0])],
            outputs=[schema.TensorMapT("y", graph.outputs[0])],
            signatureKey="serving_default",
        )
    ]
    after = unpack_model(as_fully_connected(pack_model(unpacked), ["quant_fc0"]))
    (after_signature,) = after.signatureDefs
    graph = after.subgraphs[0]
    assert after_signature.inputs[0].tensorIndex == graph.inputs[0]
    assert after_signature.outputs[0].tensorIndex == graph.outputs[0]
    assert len(graph.tensors) == 4


def test_folding_twice_changes_nothing():
    folded = as_fully_connected(convert(dense_network(8, (5,)), (1, 8)), ["quant_fc0"])
    assert as_fully_connected(folded, ["quant_fc0"]) == folded


def test_other_files_are_refused():
    with pytest.raises(ExportError, match=r"not a \.tflite file"):
        as_fully_connected(b"something else", ["quant_fc"])
