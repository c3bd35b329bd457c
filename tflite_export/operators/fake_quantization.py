"""Fake quantization: how exported graphs tell the converter a tensor's format."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tflite_export.integer_network import IntegerOp, Kernel
from tflite_export.quantization_params import QuantParams, storage_bits, weight_levels


def fake_quant(values: tf.Tensor, quant_params: QuantParams) -> tf.Tensor:
    """The values as a tensor with those quantization parameters."""
    return tf.quantization.fake_quant_with_min_max_args(
        values, quant_params.low, quant_params.high
    )


def finish(outputs: tf.Tensor, op: IntegerOp) -> tf.Tensor:
    """An operation's results with its activation and quantization parameters."""
    if op.relu6:
        outputs = tf.nn.relu6(outputs)
    elif op.relu:
        outputs = tf.nn.relu(outputs)
    return fake_quant(outputs, op.quant_params)


def fake_quant_kernel(kernel: Kernel, values: np.ndarray) -> tf.Tensor:
    """The real values of a kernel, with one scale per output channel.

    Args:
      kernel: whose scales and bits they have.
      values: its own, possibly with dimensions of 1 in front.
    """
    # The converter wants the output channels alone on the last axis.
    channels_last = values.reshape(*values.shape[:2], -1, len(kernel.scale))
    bits = storage_bits(kernel.bits)
    lowest, highest = weight_levels(bits)
    quantized = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        tf.constant(channels_last * kernel.scale, tf.float32),
        np.float32(lowest * kernel.scale),
        np.float32(highest * kernel.scale),
        num_bits=bits,
        narrow_range=lowest == -highest,
    )
    return tf.reshape(quantized, values.shape)
