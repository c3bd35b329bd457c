"""Layers and activations that tf_keras lacks, as canonical models hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from gdfq_tf.keras_compat import keras
from tflite_export.operators import activations
from tflite_export.operators.resampling import depth_to_space

hard_swish = keras.saving.register_keras_serializable(package="gdfq_tf")(
    activations.hard_swish
)


@keras.saving.register_keras_serializable(package="gdfq_tf")
class ChannelMean(keras.layers.Layer):
    """The mean over the last dimension, which is kept: (..., C) -> (..., 1)."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """float32 (..., 1)."""
        return tf.reduce_mean(inputs, -1, keepdims=True)


@keras.saving.register_keras_serializable(package="gdfq_tf")
class L2Normalization(keras.layers.Layer):
    """x / sqrt(sum of x^2 + epsilon) over the last dimension."""

    def __init__(self, epsilon: float, **kwargs: object) -> None:
        """`epsilon`: > 0, beside the sum of the squares; `kwargs`: of every layer."""
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """float32, of the inputs' shape."""
        # No tf.square, for which the converter has no integer kernel.
        squares = tf.reduce_sum(inputs * inputs, -1, keepdims=True)
        return inputs * tf.math.rsqrt(squares + self.epsilon)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="gdfq_tf")
class DepthToSpace(keras.layers.Layer):
    """(N, H, W, b * c * C) -> (N, H * b, W * c, C), then cropped.

    Config:
      block_size: (b, c).
      cropping: ((top, bottom), (left, right)).
    """

    def __init__(
        self,
        block_size: Sequence[int],
        cropping: Sequence[Sequence[int]] = ((0, 0), (0, 0)),
        **kwargs: object,
    ) -> None:
        """See the class; `kwargs`: of every layer."""
        super().__init__(**kwargs)
        self.block_size = tuple(block_size)
        self.cropping = tuple(map(tuple, cropping))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Every output value is one of the inputs'."""
        return depth_to_space(inputs, self.block_size, self.cropping)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        own = {"block_size": self.block_size, "cropping": self.cropping}
        return super().get_config() | own
