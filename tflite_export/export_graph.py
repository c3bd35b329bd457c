"""An integer network as a TensorFlow function that the converter understands.

Every quantized tensor passes a fake_quant operation whose range spells its grid.
Scales hold at most 16 significant bits, so `scale * level` is exact in float32 and
the converter recovers the very same scale.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tflite_export.activations import ACTIVATIONS, FIXED_QUANT_PARAMS
from tflite_export.integer_network import IntegerNetwork, IntegerOp, Kernel
from tflite_export.litert.resize import crop, depth_to_space, resize_by
from tflite_export.quantization_params import (
    QuantParams,
    storage_bits,
    weight_limit,
)


def export_graph(network: IntegerNetwork) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function float32 (1, H, W, C) -> float32 (1, classes) to be converted.

    Dense layers appear as 1x1 convolutions under their own name: the converter
    quantizes those per output channel (see `dense.fold_dense`).
    """

    def run(images: tf.Tensor) -> tf.Tensor:
        tensors = {network.input_name: _fake_quant(images, network.input_quant_params)}
        for op in network.ops:
            inputs = [tensors[name] for name in op.inputs]
            input_scale = np.float64(network.quant_params(op.inputs[0]).scale)
            with tf.name_scope(op.name):
                tensors[op.name] = _apply(op, inputs, input_scale)
        outputs = tensors[network.ops[-1].name]
        if network.softmax:
            outputs = _fake_quant(tf.nn.softmax(outputs), FIXED_QUANT_PARAMS["softmax"])
        return outputs

    return run


def dense_names(network: IntegerNetwork) -> tuple[str, ...]:
    """Names of the convolutions in the graph that are Dense layers in truth."""
    return tuple(op.name for op in network.ops if op.kind == "dense")


def _apply(op: IntegerOp, inputs: list[tf.Tensor], input_scale) -> tf.Tensor:
    if op.kernel is not None:
        return _apply_kernel(op, op.kernel, inputs[0], input_scale)
    if op.kind in ("reshape", "pad", "crop"):
        return move_values(op, inputs, pad_value=0.0)
    if op.kind in ("max_pool", "concatenate", "depth_to_space", "resize_nearest"):
        # On the grid already, but the converter takes no integer kernel for these
        # unless their output says so.
        outputs = move_values(op, inputs, pad_value=0.0)
    elif op.kind == "add":
        outputs = inputs[0] + inputs[1]
    elif op.kind == "subtract":
        outputs = inputs[0] - inputs[1]
    elif op.kind == "multiply":
        outputs = inputs[0] * inputs[1]
    elif op.kind in ACTIVATIONS:
        outputs = ACTIVATIONS[op.kind](inputs[0])
    elif op.kind == "l2_normalize":
        return _l2_normalize(op, inputs[0], input_scale)
    elif op.kind == "channel_mean":
        outputs = tf.reduce_mean(inputs[0], -1, keepdims=True)
    elif op.kind == "global_average":
        keepdims = op.attributes.get("keepdims", False)
        outputs = tf.reduce_mean(inputs[0], [1, 2], keepdims=keepdims)
    elif op.kind == "average_pool":
        outputs = tf.nn.avg_pool2d(inputs[0], **pool_arguments(op))
        if op.attributes["pool_size"] == [1, 1] and not op.relu:
            return outputs
    elif op.kind == "resize_bilinear":
        outputs = resize_by(inputs[0], op.attributes["size"], "bilinear")
    elif op.kind == "leaky_relu":
        outputs = tf.nn.leaky_relu(inputs[0], op.attributes["slope"])
    elif op.kind == "relu":
        outputs = inputs[0]
    elif op.kind == "minimum":
        bound = (
            op.attributes["level"] - op.quant_params.zero_point
        ) * op.quant_params.scale
        outputs = tf.minimum(inputs[0], tf.constant(bound, tf.float32))
    else:
        raise ValueError(f"unknown kind {op.kind!r} of {op.name!r}")
    return _finish(outputs, op)


def _l2_normalize(op: IntegerOp, inputs: tf.Tensor, input_scale) -> tf.Tensor:
    """With the constant channels behind the others, which are cut out again."""
    constant = np.float32(op.attributes["constant_level"] * input_scale)
    padded = pad_channels(inputs, op.attributes["num_constants"], constant)
    outputs = _fake_quant(tf.math.l2_normalize(padded, -1), op.quant_params)
    if padded is inputs:
        return outputs
    return tf.slice(outputs, [0] * len(inputs.shape), inputs.shape)


def pad_channels(values: tf.Tensor, count: int, constant) -> tf.Tensor:
    """`count` channels of a constant behind the others; the same tensor if none."""
    if not count:
        return values
    around = [(0, 0)] * (len(values.shape) - 1) + [(0, count)]
    return tf.pad(values, around, constant_values=constant)


def _finish(outputs: tf.Tensor, op: IntegerOp) -> tf.Tensor:
    if op.relu6:
        outputs = tf.nn.relu6(outputs)
    elif op.relu:
        outputs = tf.nn.relu(outputs)
    return _fake_quant(outputs, op.quant_params)


def move_values(op: IntegerOp, inputs: list[tf.Tensor], pad_value) -> tf.Tensor:
    """Operations that move or select values without arithmetic."""
    if op.kind == "max_pool":
        return tf.nn.max_pool2d(inputs[0], **pool_arguments(op))
    if op.kind == "reshape":
        # Static in the exported graph, whose batch is 1; any batch elsewhere.
        batch = inputs[0].shape[0] or -1
        return tf.reshape(inputs[0], (batch, *op.attributes["shape"]))
    if op.kind == "pad":
        return tf.pad(
            inputs[0],
            [(0, 0), *op.attributes["pads"], (0, 0)],
            constant_values=pad_value,
        )
    if op.kind == "crop":
        return crop(inputs[0], op.attributes["crops"])
    if op.kind == "depth_to_space":
        attributes = op.attributes
        return depth_to_space(inputs[0], attributes["block_size"], attributes["crops"])
    if op.kind == "resize_nearest":
        return resize_by(inputs[0], op.attributes["size"], "nearest")
    return tf.concat(inputs, axis=-1)


def pool_arguments(op: IntegerOp) -> dict:
    """Keyword arguments of tf.nn's pooling functions."""
    return {
        "ksize": op.attributes["pool_size"],
        "strides": op.attributes["strides"],
        "padding": op.attributes["padding"].upper(),
    }


def convolve(
    op: IntegerOp, inputs: tf.Tensor, kernel: tf.Tensor, *, for_export: bool = False
) -> tf.Tensor:
    """The op's convolution in the tensors' own dtype; dense as 1x1 convolution.

    `for_export`: as the converter wants it, which TensorFlow may be unable to run.
    """
    if op.kind == "dense":
        return tf.nn.conv2d(inputs, kernel, 1, "VALID")
    arguments = {
        "padding": op.attributes["padding"].upper(),
        "dilations": op.attributes["dilation"],
    }
    strides = op.attributes["strides"]
    if op.kind == "conv":
        groups = op.attributes.get("groups", 1)
        if groups == 1 or for_export:
            return tf.nn.conv2d(inputs, kernel, strides, **arguments)
        # TensorFlow has no grouped kernel for CPUs.
        parts = zip(
            tf.split(inputs, groups, -1), tf.split(kernel, groups, -1), strict=True
        )
        outputs = [tf.nn.conv2d(x, part, strides, **arguments) for x, part in parts]
        return tf.concat(outputs, -1)
    if not for_export:
        return tf.nn.depthwise_conv2d(inputs, kernel, [1, *strides, 1], **arguments)
    # The function above wraps dilated ones in SpaceToBatch and BatchToSpace, which
    # the converter leaves in float; the bare operation becomes an integer one.
    return tf.raw_ops.DepthwiseConv2dNative(
        input=inputs,
        filter=kernel,
        strides=[1, *strides, 1],
        padding=op.attributes["padding"].upper(),
        dilations=[1, *op.attributes["dilation"], 1],
    )


def _apply_kernel(
    op: IntegerOp, kernel: Kernel, inputs: tf.Tensor, input_scale
) -> tf.Tensor:
    values = kernel.values
    if op.kind == "dense":
        inputs = tf.reshape(inputs, (1, 1, 1, values.shape[0]))
        values = values[np.newaxis, np.newaxis]
    filters = _fake_quant_kernel(kernel, values)
    outputs = convolve(op, inputs, filters, for_export=True)
    bias = kernel.bias * (input_scale * np.float64(kernel.scale))
    outputs = outputs + tf.constant(bias.astype(np.float32))
    outputs = _finish(outputs, op)
    if op.kind == "dense":
        outputs = tf.reshape(outputs, (1, values.shape[-1]))
    return outputs


def _fake_quant_kernel(kernel: Kernel, values: np.ndarray) -> tf.Tensor:
    # The converter wants the output channels alone on the last axis.
    channels_last = values.reshape(*values.shape[:2], -1, len(kernel.scale))
    bits = storage_bits(kernel.bits)
    limit = np.float32(weight_limit(bits) * kernel.scale)
    quantized = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        tf.constant(channels_last * kernel.scale, tf.float32),
        -limit,
        limit,
        num_bits=bits,
        narrow_range=True,
    )
    return tf.reshape(quantized, values.shape)


def _fake_quant(values: tf.Tensor, quant_params: QuantParams) -> tf.Tensor:
    return tf.quantization.fake_quant_with_min_max_args(
        values, quant_params.low, quant_params.high
    )
