"""The file stores the network's own numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.tiny_network import (
    INPUT_GRID,
    OUTPUT_GRID,
    NetworkBuilder,
    coarse,
)
from tflite_export.convert import (
    convert_float,
    convert_network,
    post_training_quantize,
)
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import constant_values, read_model
from tflite_export.interpreter import TFLiteClassifier
from tflite_export.quantization_params import QuantParams, relu_quant_params

RELU = relu_quant_params(6.0, 5)
RELU = QuantParams(float(coarse(RELU.scale)), RELU.zero_point)


def make_network():
    """A chain, so that the file's operators come in the same order."""
    b = NetworkBuilder(seed=5)
    x = b.kernel("c4", "conv", "image", bits=4, outputs=6, relu=True, quant_params=RELU)
    x = b.kernel("d8", "depthwise", x, bits=8, multiplier=2, dilation=2)
    x = b.kernel("d2", "depthwise", x, bits=2, stride=2)
    x = b.op("padded", "pad", [x], (5, 6, 12), attributes={"pads": [[0, 1], [2, 0]]})
    x = b.kernel("c6", "conv", x, bits=6, padding="valid", relu=True, quant_params=RELU)
    x = b.pool("pooled", "max_pool", x, size=2, stride=2)
    x = b.flatten(x)
    x = b.kernel("f3", "dense", x, bits=3, outputs=11, relu=True, quant_params=RELU)
    b.kernel("f8", "dense", x, bits=8, outputs=7)
    return dataclasses.replace(b.build_ops(), softmax=True)


NETWORK = make_network()


@pytest.fixture(scope="module")
def model():
    return read_model(convert_network(NETWORK))


def test_operators(model):
    assert [op.name for op in model.operators] == [
        "CONV_2D", "DEPTHWISE_CONV_2D", "DEPTHWISE_CONV_2D", "PAD", "CONV_2D",
        "MAX_POOL_2D", "RESHAPE", "FULLY_CONNECTED", "FULLY_CONNECTED", "SOFTMAX",
    ]  # fmt: skip


def kernel_operators(model):
    names = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    return [op for op in model.operators if op.name in names]


def kernel_ops():
    return [op for op in NETWORK.ops if op.kernel is not None]


def stored(values: np.ndarray, kind: str) -> np.ndarray:
    """Quantized values in TFLite's layout."""
    if kind == "dense":
        return values.T
    if kind == "depthwise":
        return values.reshape(1, *values.shape[:2], -1)
    return values.transpose(3, 0, 1, 2)


@pytest.mark.parametrize("position", range(5))
def test_kernels_are_stored_as_they_are(model, position):
    op, operator = kernel_ops()[position], kernel_operators(model)[position]
    weights, bias = (model.tensors[i] for i in operator.inputs[1:3])
    assert weights.dtype == ("INT4" if op.kernel.bits <= 4 else "INT8")
    np.testing.assert_array_equal(
        constant_values(weights), stored(op.kernel.values, op.kind)
    )
    np.testing.assert_array_equal(np.array(weights.scales, np.float32), op.kernel.scale)
    assert set(weights.zero_points) == {0}
    assert bias.dtype == "INT32"
    np.testing.assert_array_equal(constant_values(bias), op.kernel.bias)
    input_scale = np.float32(NETWORK.quant_params(op.inputs[0]).scale)
    np.testing.assert_allclose(bias.scales, input_scale * op.kernel.scale, rtol=1e-6)


@pytest.mark.parametrize("position", range(5))
def test_quant_params_are_stored_as_they_are(model, position):
    op, operator = kernel_ops()[position], kernel_operators(model)[position]
    for index, quant_params in (
        (operator.inputs[0], NETWORK.quant_params(op.inputs[0])),
        (operator.outputs[0], op.quant_params),
    ):
        tensor = model.tensors[index]
        assert tensor.dtype == "INT8"
        assert tensor.scales == (np.float32(quant_params.scale),)
        assert tensor.zero_points == (quant_params.zero_point,)


def test_ends(model):
    (image,) = (model.tensors[i] for i in model.inputs)
    (output,) = (model.tensors[i] for i in model.outputs)
    assert (image.dtype, image.shape) == ("INT8", (1, 8, 8, 4))
    assert (image.scales, image.zero_points) == (
        (INPUT_GRID.scale,), (INPUT_GRID.zero_point,)
    )  # fmt: skip
    assert (output.dtype, output.shape) == ("INT8", (1, 7))
    assert (output.scales, output.zero_points) == ((1 / 256,), (-128,))


def test_nothing_is_float(model):
    assert {t.dtype for t in model.tensors} <= {"INT8", "INT4", "INT32"}


def test_logits_end_on_their_own_quant_params():
    b = NetworkBuilder()
    b.kernel("logits", "dense", b.flatten("image"), bits=4, outputs=7)
    read = read_model(convert_network(b.build_ops()))
    output = read.tensors[read.outputs[0]]
    assert (output.scales, output.zero_points) == (
        (OUTPUT_GRID.scale,), (OUTPUT_GRID.zero_point,)
    )  # fmt: skip
    assert "SOFTMAX" not in {op.name for op in read.operators}


def float_model(images: tf.Tensor) -> tf.Tensor:
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype(np.float32)
    return tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(images, kernel, 2, "SAME")), [1, 2])


def test_float_and_post_training_quantization():
    images = np.random.default_rng(1).normal(size=(50, 8, 8, 4)).astype(np.float32)
    expected = float_model(tf.constant(images)).numpy()
    floats = TFLiteClassifier(convert_float(float_model, (8, 8, 4)))
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats.logits(images), expected, rtol=1e-4, atol=1e-5)
    quantized = TFLiteClassifier(post_training_quantize(float_model, (8, 8, 4), images))
    assert quantized.dtype == np.int8
    error = np.abs(quantized.logits(images) - expected).mean()
    assert 0 < error < 0.05 * expected.std() + 0.02


def test_refusals_of_the_converter_are_one_line(capfd):
    with pytest.raises(ExportError, match="converter refused the model") as caught:
        convert_float(lambda x: tf.linalg.det(x[..., 0])[:, tf.newaxis], (4, 4, 1))
    assert "\n" not in str(caught.value)


def test_the_converter_is_quiet(capfd):
    convert_float(float_model, (8, 8, 4))
    captured = capfd.readouterr()
    assert captured.err == ""
