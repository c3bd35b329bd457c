"""The one door to both generations of Keras.

Everything after loading is tf_keras (Keras 2), here called `keras`, because
tensorflow-model-optimization works on that alone. Keras 3 is imported only where a file
or a model of it is read. Which of them the caller's own `tf.keras` is, and how Keras 3
is configured, stays the caller's choice: nothing here sets an environment variable.
"""

from __future__ import annotations

import sys
from typing import Any, TypeAlias

import tf_keras as keras
from tf_keras.protobuf import saved_metadata_pb2
from tf_keras.src import backend

from gdfq_tf.errors import UserError

__all__ = [
    "KerasLibrary",
    "KerasModel",
    "Layer",
    "SymbolicTensor",
    "import_keras_3",
    "keras",
    "library_of_model",
    "saved_metadata_pb2",
    "seed_source",
]

# What tf_keras draws seeds from, once somebody seeded it.
seed_source = backend._SEED_GENERATOR

# Of either Keras, which share no types: layers and operations, tensors of a model's
# graph, models, and the packages themselves.
Layer: TypeAlias = Any
SymbolicTensor: TypeAlias = Any
KerasModel: TypeAlias = Any
KerasLibrary: TypeAlias = Any


def import_keras_3() -> KerasLibrary:
    """Keras 3, on TensorFlow.

    Raises:
      UserError: it cannot be imported, is another version, or works on another backend.
    """
    advice = "set KERAS_BACKEND=tensorflow before Keras is imported"
    try:
        import keras as keras_3  # here, because most runs never need it
    except Exception as error:  # of the backend it was told to use
        reason = " ".join(str(error).split())
        raise UserError(
            f"Keras 3 cannot be imported, which the model needs: {advice} ({reason})"
        ) from error
    if not keras_3.__version__.startswith("3."):
        raise UserError(
            f"the model needs Keras 3 and Keras {keras_3.__version__} is installed; "
            "install keras>=3"
        )
    backend = keras_3.config.backend()
    if backend != "tensorflow":
        raise UserError(
            f"the model needs Keras 3 on TensorFlow, and here it works on {backend}: "
            f"{advice}"
        )
    return keras_3


def library_of_model(value: object) -> KerasLibrary:
    """The Keras that a value is a model of; None if it is none.

    Raises:
      UserError: it is a model of Keras 3 on another backend than TensorFlow.
    """
    if isinstance(value, keras.Model):
        return keras
    # Whoever has a model of Keras 3 has imported it.
    keras_3 = sys.modules.get("keras")
    if keras_3 is None or not isinstance(value, keras_3.Model):
        return None
    return import_keras_3()
