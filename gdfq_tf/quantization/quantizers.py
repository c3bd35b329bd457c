"""Fake quantization as tfmot quantizers.

Every quantized tensor is `scale * (q - zero_point)` with q an int8 and an integer zero
point, or an int16 and none, so zero is always exact and what the student computes is
what the converter stores. Scales are found by calibration and rounding; training leaves
them alone.

Both passes are TensorFlow's fake_quant op, which the TFLite converter recognises: its
gradient goes straight through inside the range and is zero outside. Widths below the
container's (5..7 in int8, 2..3 in INT4) clip to the narrower range first, at the same
scale.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from gdfq_tf.keras_compat import keras
from gdfq_tf.quantization.tfmot import tfmot
from tflite_export.quantization_params import (
    QuantParams,
    storage_bits,
    weight_levels,
)

_NOT_SERIALIZED = "a student is stored as plan, scales and weights, and rebuilt"


def _scale_variable(
    layer: keras.layers.Layer, name: str, initial: float | np.ndarray
) -> tf.Variable:
    scale = np.asarray(initial, np.float32)
    return layer.add_weight(
        name=f"{name}_scale",
        shape=scale.shape,
        initializer=keras.initializers.Constant(scale),
        trainable=False,
    )


def fake_quantize_weights(kernel: tf.Tensor, scale: tf.Tensor, bits: int) -> tf.Tensor:
    """The kernel with each value at the nearest of scale * {lowest ... highest}.

    Args:
      kernel: float32 (..., channels), output channels last.
      scale: float32 (channels,), > 0.
      bits: 2..8; stored by TFLite as INT4 up to 4 bits, int8 above. The levels are
        those of `weight_levels`.
    """
    container_bits = storage_bits(bits)
    if bits < container_bits:
        lowest, highest = weight_levels(bits)
        kernel = tf.clip_by_value(kernel, lowest * scale, highest * scale)
    lowest, highest = weight_levels(container_bits)
    return tf.quantization.fake_quant_with_min_max_vars_per_channel(
        kernel,
        lowest * scale,
        highest * scale,
        num_bits=container_bits,
        narrow_range=lowest == -highest,
    )


def fake_quantize_activations(
    inputs: tf.Tensor, scale: tf.Tensor, zero_point: int, bits: int = 8
) -> tf.Tensor:
    """`inputs`, each at the nearest scale * (q - zero_point), q of that many bits.

    Args:
      inputs: float32, any shape.
      scale: float32 scalar, > 0.
      zero_point: -128..127; 0 with 16 bits.
      bits: of integers, 8 or 16.
    """
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return tf.quantization.fake_quant_with_min_max_vars(
        inputs,
        (lowest - zero_point) * scale,
        (highest - zero_point) * scale,
        num_bits=bits,
    )


class WeightQuantizer(tfmot.quantization.keras.quantizers.Quantizer):
    """Per-channel quantizer of a kernel, of zero point 0.

    Attributes:
      kernel: the float32 variable it quantizes, once its layer is wrapped.
      scale: float32 variable (output channels,), likewise.
    """

    def __init__(self, bits: int, depthwise: bool, scale: np.ndarray) -> None:
        """Takes the kernel's width, whether it is a depthwise one, and first scales.

        Args:
          bits: 2..8.
          depthwise: whether the kernel is (h, w, channels, multiplier).
          scale: float (output channels,), > 0.
        """
        self.bits = bits
        self.depthwise = depthwise
        self.kernel: tf.Variable = None
        self.scale: tf.Variable = None
        self._initial_scale = scale

    def channels_last(self) -> tf.Tensor:
        """The kernel with its output channels on the last axis alone."""
        return channels_last_kernel(tf.convert_to_tensor(self.kernel), self.depthwise)

    def quantized(self) -> tf.Tensor:
        """`channels_last`, quantized."""
        return fake_quantize_weights(self.channels_last(), self.scale, self.bits)

    def assign(self, kernel: np.ndarray, scale: np.ndarray) -> None:
        """Sets the kernel, output channels last, and its scale (output channels,)."""
        self.kernel.assign(kernel.reshape(self.kernel.shape))
        self.scale.assign(scale)

    def build(
        self, tensor_shape: tf.TensorShape, name: str, layer: keras.layers.Layer
    ) -> dict[str, tf.Variable]:
        """Makes the scale a variable of `layer`; tfmot need not keep it."""
        self.scale = _scale_variable(layer, name, self._initial_scale)
        return {}

    def __call__(
        self,
        inputs: tf.Tensor,
        training: bool,
        weights: Mapping[str, tf.Variable],
        **kwargs: object,
    ) -> tf.Tensor:
        """The kernel `inputs`, in its own shape, quantized."""
        kernel = channels_last_kernel(inputs, self.depthwise)
        quantized = fake_quantize_weights(kernel, self.scale, self.bits)
        return tf.reshape(quantized, inputs.shape)

    def get_config(self) -> dict[str, object]:
        """There is none, see the message."""
        raise NotImplementedError(_NOT_SERIALIZED)


def channels_last_kernel(
    kernel: np.ndarray | tf.Tensor, depthwise: bool
) -> np.ndarray | tf.Tensor:
    """A kernel with its output channels on the last axis alone.

    Depthwise kernels (h, w, channels, multiplier) become
    (h, w, 1, channels * multiplier), TFLite's order of output channels.
    """
    if not depthwise:
        return kernel
    h, w, channels, multiplier = kernel.shape
    return tf.reshape(kernel, (h, w, 1, channels * multiplier))


class ActivationQuantizer(tfmot.quantization.keras.quantizers.Quantizer):
    """Per-tensor quantizer; one object serves all layers that share its scale.

    Attributes:
      zero_point: -128..127; 0 with 16 bits.
      bits: of integers, 8 or 16.
      scale: float32 scalar variable, once the first of its layers is wrapped.
    """

    def __init__(self, name: str, quant_params: QuantParams) -> None:
        """Takes the group's name and its calibrated scale and zero point."""
        self.name = name
        self.zero_point, self.bits = quant_params.zero_point, quant_params.bits
        self.scale: tf.Variable = None
        self._initial_scale = quant_params.scale

    def build(
        self, tensor_shape: tf.TensorShape, name: str, layer: keras.layers.Layer
    ) -> dict[str, tf.Variable]:
        """Makes the scale a variable of the first layer that asks."""
        if self.scale is None:
            self.scale = _scale_variable(layer, self.name, self._initial_scale)
        return {}

    def __call__(
        self,
        inputs: tf.Tensor,
        training: bool,
        weights: Mapping[str, tf.Variable],
        **kwargs: object,
    ) -> tf.Tensor:
        """`inputs`, quantized."""
        return fake_quantize_activations(inputs, self.scale, self.zero_point, self.bits)

    def get_config(self) -> dict[str, object]:
        """There is none, see the message."""
        raise NotImplementedError(_NOT_SERIALIZED)
