"""Functions of one tensor that TFLite has int8 kernels for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

from tflite_export.quantization_params import QuantParams

# TFLite fixes the output grids of int8 kernels whose results are bounded.
FIXED_QUANT_PARAMS: Mapping[str, QuantParams] = {
    "l2_normalize": QuantParams(1 / 128, 0),
    "sigmoid": QuantParams(1 / 256, -128),
    "softmax": QuantParams(1 / 256, -128),
    "tanh": QuantParams(1 / 128, 0),
}


def hard_swish(inputs: tf.Tensor) -> tf.Tensor:
    """x * relu6(x + 3) / 6, in the form that the converter knows as HARD_SWISH."""
    return inputs * tf.nn.relu6(inputs + 3.0) * (1.0 / 6.0)


ACTIVATIONS: Mapping[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "gelu": tf.nn.gelu,
    "hard_swish": hard_swish,
    "sigmoid": tf.sigmoid,
    "tanh": tf.tanh,
}
