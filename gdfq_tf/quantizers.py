"""Fake quantization with learnt scales, as tfmot quantizers.

Every quantized tensor is `scale * (q - zero_point)` with q an int8: a scale that
training may move and an integer zero point that it may not, so zero is always
exact and what training simulates is what the converter stores.

The forward pass is TensorFlow's fake_quant op, which the TFLite converter
recognises. Widths below the container's (5..7 in int8, 2..3 in INT4) clip to the
narrower grid first, at the same scale. Scales are trained as their logarithm:
they stay positive and a learning rate means the same relative change for all.

Gradients (LSQ, Esser et al. 2020, Eq. 3 and 5): straight through inside the
range, zero outside; the scale gets `(y - x) / scale` inside and `y / scale`
outside. LSQ's damping by the number of elements is left out: Adam divides it away.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from gdfq_tf.keras_compat import keras
from tflite_export.affine_quantization import (
    INT8_MAX,
    INT8_MIN,
    AffineQuantization,
    weight_limit,
)

_NOT_SERIALIZED = "a student is stored as plan, grids and weights, and rebuilt"


def _log_scale(layer, name: str, scale) -> tf.Variable:
    log_scale = np.log(np.asarray(scale, np.float64)).astype(np.float32)
    return layer.add_weight(
        name=f"{name}_log_scale",
        shape=log_scale.shape,
        initializer=keras.initializers.Constant(log_scale),
        trainable=True,
    )


def fake_quantize_weights(kernel: tf.Tensor, scale: tf.Tensor, bits: int) -> tf.Tensor:
    """`kernel` (…, channels) on the grid scale * {-limit … limit}, per channel.

    Args:
      kernel: float32, output channels last.
      scale: float32 (channels,), > 0.
      bits: 2..8; stored by TFLite as INT4 up to 4 bits, int8 above.
    """
    limit = weight_limit(bits)
    container_bits = 4 if bits <= 4 else 8
    container_limit = weight_limit(container_bits)

    @tf.custom_gradient
    def quantize(kernel, scale):
        clipped = kernel
        if limit < container_limit:
            clipped = tf.clip_by_value(kernel, -limit * scale, limit * scale)
        quantized = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            clipped,
            -container_limit * scale,
            container_limit * scale,
            num_bits=container_bits,
            narrow_range=True,
        )

        def gradient(upstream):
            # Half a step beyond the last level still rounds onto it unclipped.
            inside = tf.abs(kernel) <= (limit + 0.5) * scale
            to_kernel = tf.where(inside, upstream, 0.0)
            axes = list(range(len(kernel.shape) - 1))
            to_scale = (
                tf.reduce_sum(upstream * quantized - to_kernel * kernel, axes) / scale
            )
            return to_kernel, to_scale

        return quantized, gradient

    return quantize(kernel, scale)


def fake_quantize_activations(
    inputs: tf.Tensor, scale: tf.Tensor, zero_point: int
) -> tf.Tensor:
    """`inputs` on the int8 grid scale * (q - zero_point), q in [-128, 127].

    Args:
      inputs: float32, any shape.
      scale: float32 scalar, > 0.
      zero_point: -128..127.
    """
    low, high = INT8_MIN - zero_point, INT8_MAX - zero_point

    @tf.custom_gradient
    def quantize(inputs, scale):
        minimum, maximum = low * scale, high * scale
        quantized = tf.quantization.fake_quant_with_min_max_vars(
            inputs, minimum, maximum
        )

        def gradient(upstream):
            to_inputs, _, _ = tf.raw_ops.FakeQuantWithMinMaxVarsGradient(
                gradients=upstream, inputs=inputs, min=minimum, max=maximum
            )
            to_scale = (
                tf.reduce_sum(upstream * quantized) - tf.reduce_sum(to_inputs * inputs)
            ) / scale
            return to_inputs, to_scale

        return quantized, gradient

    return quantize(inputs, scale)


class WeightQuantizer(tfmot.quantization.keras.quantizers.Quantizer):
    """Per-channel symmetric narrow-range quantizer of a kernel.

    Attributes:
      kernel: the float32 variable it quantizes, once its layer is wrapped.
    """

    def __init__(self, bits: int, depthwise: bool, scale: np.ndarray):
        """`scale`: initial, float (output channels,), > 0."""
        self.bits = bits
        self.depthwise = depthwise
        self.kernel: tf.Variable = None
        self._initial_scale = scale

    @property
    def scale(self) -> tf.Tensor:
        """Float32 (output channels,)."""
        return tf.exp(self.log_scale)

    def channels_last(self) -> tf.Tensor:
        """The kernel with its output channels on the last axis alone."""
        return channels_last_kernel(tf.convert_to_tensor(self.kernel), self.depthwise)

    def assign(self, kernel: np.ndarray, scale: np.ndarray) -> None:
        """Sets the kernel, output channels last, and its scale (output channels,)."""
        self.kernel.assign(kernel.reshape(self.kernel.shape))
        self.log_scale.assign(np.log(scale))

    def build(self, tensor_shape, name, layer):
        self.log_scale = _log_scale(layer, name, self._initial_scale)
        return {}

    def __call__(self, inputs, training, weights, **kwargs):
        kernel = channels_last_kernel(inputs, self.depthwise)
        quantized = fake_quantize_weights(kernel, self.scale, self.bits)
        return tf.reshape(quantized, inputs.shape)

    def get_config(self):
        raise NotImplementedError(_NOT_SERIALIZED)


def channels_last_kernel(kernel, depthwise: bool):
    """A kernel with its output channels on the last axis alone.

    Depthwise kernels (h, w, channels, multiplier) become
    (h, w, 1, channels * multiplier), TFLite's order of output channels.
    """
    if not depthwise:
        return kernel
    h, w, channels, multiplier = kernel.shape
    return tf.reshape(kernel, (h, w, 1, channels * multiplier))


class ActivationQuantizer(tfmot.quantization.keras.quantizers.Quantizer):
    """Per-tensor quantizer; one object serves all layers that share its scale."""

    def __init__(self, name: str, grid: AffineQuantization, trainable: bool = True):
        """`grid`: the zero point for good, and the scale that training starts at.

        `trainable`: False for grids that something outside fixes: the model input.
        """
        self.name = name
        self.zero_point = grid.zero_point
        self._initial_scale = grid.scale
        self.log_scale: tf.Variable = None
        self._trainable = trainable

    @property
    def scale(self) -> tf.Tensor:
        """Float32 scalar."""
        if self._trainable:
            return tf.exp(self.log_scale)
        return tf.constant(self._initial_scale, tf.float32)

    def build(self, tensor_shape, name, layer):
        if self._trainable and self.log_scale is None:
            self.log_scale = _log_scale(layer, self.name, self._initial_scale)
        return {}

    def __call__(self, inputs, training, weights, **kwargs):
        return fake_quantize_activations(inputs, self.scale, self.zero_point)

    def get_config(self):
        raise NotImplementedError(_NOT_SERIALIZED)
