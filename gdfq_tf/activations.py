"""Activation functions that tf_keras lacks, as its layers can hold and copy them."""

from __future__ import annotations

from gdfq_tf.keras_compat import keras
from tflite_export.activations import ACTIVATIONS

hard_swish = keras.saving.register_keras_serializable(package="gdfq_tf")(
    ACTIVATIONS["hard_swish"]
)
