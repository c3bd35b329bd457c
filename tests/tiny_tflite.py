"""Tiny `.tflite` files for the tests: fake-quantized functions, converted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType

RESOLVERS = {
    "xnnpack": OpResolverType.BUILTIN,
    "optimized": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


def convert(
    function: Callable,
    input_shape: Sequence[int],
    *,
    quantize: bool = True,
    calibration: np.ndarray | None = None,
) -> bytes:
    """The `.tflite` file of a function of one tensor; int8 in and out if quantized.

    The ranges come from fake quantization, or from calibration inputs (N, ...).
    """
    holder = tf.Module()
    holder.function = tf.function(function)
    concrete = holder.function.get_concrete_function(tf.TensorSpec(input_shape))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], holder)
    if quantize:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
    if calibration is not None:
        converter.representative_dataset = lambda: (
            [inputs[np.newaxis]] for inputs in calibration
        )
    with warnings.catch_warnings():
        # Ranges come from fake_quant, not from the statistics it asks for.
        warnings.filterwarnings("ignore", message="Statistics for quantized inputs")
        return converter.convert()


def fake_quant(values, low: float = -1.0, high: float = 1.0):
    """8-bit fake quantization of an activation."""
    return tf.quantization.fake_quant_with_min_max_args(values, low, high)


def kernel(seed: int, shape: Sequence[int], bits: int):
    """A random kernel, fake-quantized symmetrically per channel of its last axis.

    2 and 3 bits are a part of the INT4 grid, 5 to 7 of the INT8 grid: the values
    are put on the narrow grid, the fake quantization spans the stored one.
    """
    values = np.random.default_rng(seed).normal(size=shape)
    levels = 2 ** (bits - 1) - 1
    scale = np.abs(values).max(axis=tuple(range(len(shape) - 1))) / levels
    values = (np.rint(values / scale) * scale).astype(np.float32)
    stored_bits = 4 if bits <= 4 else 8
    high = ((2 ** (stored_bits - 1) - 1) * scale).astype(np.float32)
    return tf.quantization.fake_quant_with_min_max_vars_per_channel(
        values, -high, high, num_bits=stored_bits, narrow_range=True
    )


def bias(seed: int, size: int) -> np.ndarray:
    """A random bias, float32."""
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def dense_as_conv(x, units: int, *, bits: int, name: str, activation=tf.identity):
    """A Dense layer as it is exported: RESHAPE, 1x1 CONV_2D, RESHAPE."""
    features = int(np.prod(x.shape[1:]))
    seed = sum(name.encode())
    with tf.name_scope(name):
        x = tf.reshape(x, (1, 1, 1, features))
        x = tf.nn.conv2d(x, kernel(seed, (1, 1, features, units), bits), 1, "VALID")
        x = fake_quant(activation(x + bias(seed, units)), -4.0, 4.0)
        return tf.reshape(x, (1, units))


def conv(x, filters: int, *, bits: int, name: str, size: int = 3):
    """A convolution with bias and ReLU."""
    seed = sum(name.encode())
    with tf.name_scope(name):
        shape = (size, size, x.shape[-1], filters)
        x = tf.nn.conv2d(x, kernel(seed, shape, bits), 1, "SAME")
        return fake_quant(tf.nn.relu(x + bias(seed, filters)), 0.0, 4.0)


def depthwise(x, *, bits: int, name: str):
    """A 3x3 depthwise convolution with bias."""
    seed = sum(name.encode())
    channels = x.shape[-1]
    with tf.name_scope(name):
        flat = kernel(seed, (3, 3, 1, channels), bits)
        x = tf.nn.depthwise_conv2d(
            x, tf.reshape(flat, (3, 3, channels, 1)), (1, 1, 1, 1), "SAME"
        )
        return fake_quant(x + bias(seed, channels), -4.0, 4.0)


def classifier(x, *, bits: int, num_classes: int = 5):
    """CONV_2D, DEPTHWISE_CONV_2D, MEAN and a Dense layer named quant_fc."""
    x = conv(fake_quant(x), 6, bits=bits, name="quant_c1")
    x = depthwise(x, bits=bits, name="quant_d1")
    x = fake_quant(tf.reduce_mean(x, axis=(1, 2)), -2.0, 2.0)
    return dense_as_conv(x, num_classes, bits=bits, name="quant_fc")


def run(tflite: bytes, inputs: np.ndarray, resolver: str) -> np.ndarray:
    """Raw outputs (N, classes) of raw inputs (N, ...), one invocation each."""
    interpreter = Interpreter(
        model_content=tflite, experimental_op_resolver_type=RESOLVERS[resolver]
    )
    interpreter.allocate_tensors()
    input_index = interpreter.get_input_details()[0]["index"]
    output_index = interpreter.get_output_details()[0]["index"]
    outputs = []
    for image in inputs:
        interpreter.set_tensor(input_index, image[np.newaxis])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(output_index)[0])
    return np.stack(outputs)
