"""Operations with a kernel: convolutions, depthwise and pointwise ones, dense layers.

A pointwise one takes each position by itself, as a dense layer of its channels; a
dense_convolution is a dense layer that stays a convolution of one position.

Attributes of convolutions: strides and dilation, (height, width); padding, "same" or
"valid"; groups, 1 if left out, of those that are not depthwise.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf

from tflite_export.integer_network import IntegerOp, Shape, kernel_of
from tflite_export.json_values import is_pair, is_size
from tflite_export.operators.fake_quantization import fake_quant_kernel, finish
from tflite_export.operators.pooling import WINDOW_ATTRIBUTES
from tflite_export.operators.record import KernelLayout, Kinds, Operand, OperatorKind
from tflite_export.operators.shapes import require_fit, window_positions


def _conv_shape(op: IntegerOp, source: Shape) -> Shape:
    height, width, depth, outputs = kernel_of(op).values.shape
    groups = op.attributes.get("groups", 1)
    require_fit(source[3] == depth * groups and outputs % groups == 0)
    return (1, *window_positions(op, source, (height, width)), outputs)


def _depthwise_shape(op: IntegerOp, source: Shape) -> Shape:
    height, width, channels, multiplier = kernel_of(op).values.shape
    require_fit(source[3] == channels)
    positions = window_positions(op, source, (height, width))
    return (1, *positions, channels * multiplier)


def _dense_shape(op: IntegerOp, source: Shape) -> Shape:
    inputs, outputs = kernel_of(op).values.shape
    require_fit(math.prod(source) == inputs)
    return (1, outputs)


def _pointwise_shape(op: IntegerOp, source: Shape) -> Shape:
    inputs, outputs = kernel_of(op).values.shape
    require_fit(len(source) == 4 and source[3] == inputs)
    return (*source[:3], outputs)


def _export_conv(op: IntegerOp, source: Operand) -> tf.Tensor:
    kernel = kernel_of(op)
    filters = fake_quant_kernel(kernel, kernel.values)
    strides = op.attributes["strides"]
    outputs = tf.nn.conv2d(source.values, filters, strides, **_window(op))
    return _with_bias(outputs, op, source)


def _export_depthwise(op: IntegerOp, source: Operand) -> tf.Tensor:
    kernel = kernel_of(op)
    filters = fake_quant_kernel(kernel, kernel.values)
    # tf.nn.depthwise_conv2d wraps dilated ones in SpaceToBatch and BatchToSpace, which
    # the converter leaves in float; the bare operation becomes an integer one.
    outputs = tf.raw_ops.DepthwiseConv2dNative(
        input=source.values,
        filter=filters,
        strides=[1, *op.attributes["strides"], 1],
        padding=op.attributes["padding"].upper(),
        dilations=[1, *op.attributes["dilation"], 1],
    )
    return _with_bias(outputs, op, source)


def _export_dense(op: IntegerOp, source: Operand) -> tf.Tensor:
    """As a 1x1 convolution, which the converter quantizes per output channel.

    See `fully_connected.py`.
    """
    inputs, outputs = kernel_of(op).values.shape
    position = tf.reshape(source.values, (1, 1, 1, inputs))
    results = _export_pointwise(op, dataclasses.replace(source, values=position))
    return tf.reshape(results, (1, outputs))


def _export_pointwise(op: IntegerOp, source: Operand) -> tf.Tensor:
    """As a 1x1 convolution, for the same reason."""
    kernel = kernel_of(op)
    filters = fake_quant_kernel(kernel, kernel.values[np.newaxis, np.newaxis])
    outputs = tf.nn.conv2d(source.values, filters, 1, "VALID")
    return _with_bias(outputs, op, source)


def _with_bias(outputs: tf.Tensor, op: IntegerOp, source: Operand) -> tf.Tensor:
    kernel = kernel_of(op)
    input_scale = np.float64(source.quant_params.scale)
    bias = kernel.bias * (input_scale * np.float64(kernel.scale))
    outputs = outputs + tf.constant(bias.astype(np.float32))
    return finish(outputs, op)


def conv_sums(op: IntegerOp, centered: tf.Tensor) -> tf.Tensor:
    """The accumulators of a convolution before its bias, exact.

    Args:
      op: the convolution.
      centered: float64 (N, H, W, C), integers without their zero point.

    Returns:
      float64 integers (N, H', W', output channels).
    """
    filters = _float64_kernel(op, centered)
    groups, strides = op.attributes.get("groups", 1), op.attributes["strides"]
    if groups == 1:
        return tf.nn.conv2d(centered, filters, strides, **_window(op))
    # TensorFlow has no grouped kernel for CPUs.
    parts = zip(
        tf.split(centered, groups, -1), tf.split(filters, groups, -1), strict=True
    )
    outputs = [tf.nn.conv2d(x, part, strides, **_window(op)) for x, part in parts]
    return tf.concat(outputs, -1)


def depthwise_sums(op: IntegerOp, centered: tf.Tensor) -> tf.Tensor:
    """`conv_sums` of a depthwise convolution."""
    strides = [1, *op.attributes["strides"], 1]
    filters = _float64_kernel(op, centered)
    return tf.nn.depthwise_conv2d(centered, filters, strides, **_window(op))


def dense_sums(op: IntegerOp, centered: tf.Tensor) -> tf.Tensor:
    """`conv_sums` of a dense layer, of inputs of any shape: (N, outputs)."""
    inputs, outputs = kernel_of(op).values.shape
    positions = tf.reshape(centered, (-1, 1, 1, inputs))
    return tf.reshape(pointwise_sums(op, positions), (-1, outputs))


def pointwise_sums(op: IntegerOp, centered: tf.Tensor) -> tf.Tensor:
    """`conv_sums` of a pointwise layer."""
    filters = _float64_kernel(op, centered)[tf.newaxis, tf.newaxis]
    return tf.nn.conv2d(centered, filters, 1, "VALID")


def _float64_kernel(op: IntegerOp, centered: tf.Tensor) -> tf.Tensor:
    """The kernel that `centered` is multiplied with, made once that is there.

    A graph refers to the int8 tensor. Constants of its own it would hold many times
    over, and as float64 for as long as it lives.
    """
    with tf.init_scope():
        stored = tf.constant(kernel_of(op).values)
    with tf.control_dependencies([centered]):
        return tf.cast(stored, tf.float64)


def _window(op: IntegerOp) -> dict[str, Any]:
    """Keyword arguments of tf.nn's convolutions."""
    return {
        "padding": op.attributes["padding"].upper(),
        "dilations": op.attributes["dilation"],
    }


_CONVOLUTION_ATTRIBUTES = {**WINDOW_ATTRIBUTES, "dilation": is_pair}

KERNELS: Kinds = {
    "conv": OperatorKind(
        _conv_shape,
        _export_conv,
        attributes=_CONVOLUTION_ATTRIBUTES,
        optional_attributes={"groups": is_size},
        kernel=KernelLayout(4, (3,)),
    ),
    "depthwise": OperatorKind(
        _depthwise_shape,
        _export_depthwise,
        attributes=_CONVOLUTION_ATTRIBUTES,
        kernel=KernelLayout(4, (2, 3)),
    ),
    "dense": OperatorKind(_dense_shape, _export_dense, kernel=KernelLayout(2, (1,))),
    "dense_convolution": OperatorKind(
        _dense_shape, _export_dense, kernel=KernelLayout(2, (1,))
    ),
    "pointwise": OperatorKind(
        _pointwise_shape, _export_pointwise, kernel=KernelLayout(2, (1,))
    ),
}
