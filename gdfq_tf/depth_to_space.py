"""The layer that makes positions of channels, which tf_keras lacks."""

from __future__ import annotations

from typing import Any

from gdfq_tf.keras_compat import keras
from tflite_export.enlarging import depth_to_space


@keras.saving.register_keras_serializable(package="gdfq_tf")
class DepthToSpace(keras.layers.Layer):
    """(N, H, W, b * c * C) -> (N, H * b, W * c, C), then cropped.

    Config:
      block_size: (b, c).
      cropping: ((top, bottom), (left, right)).
    """

    def __init__(self, block_size, cropping=((0, 0), (0, 0)), **kwargs):
        super().__init__(**kwargs)
        self.block_size = tuple(block_size)
        self.cropping = tuple(map(tuple, cropping))

    def call(self, inputs):
        """Every output value is one of the inputs'."""
        return depth_to_space(inputs, self.block_size, self.cropping)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        own = {"block_size": self.block_size, "cropping": self.cropping}
        return super().get_config() | own
