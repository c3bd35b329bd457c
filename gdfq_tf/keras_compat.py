"""The one door to both generations of Keras.

Everything after loading is tf_keras (Keras 2), here called `keras`, because
tensorflow-model-optimization works on that alone. Keras 3 is imported only where a file
or a model of it is read. Which of them the caller's own `tf.keras` is, and how Keras 3
is configured, stays the caller's choice: nothing here sets an environment variable.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
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
    "computing_in_float32",
    "import_keras_3",
    "keras",
    "library_of_layer",
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


def library_of_layer(layer: Layer) -> KerasLibrary:
    """The Keras that a layer is of."""
    return keras if isinstance(layer, keras.layers.Layer) else sys.modules["keras"]


@contextlib.contextmanager
def computing_in_float32() -> Iterator[None]:
    """Layers made meanwhile compute in float32, whatever the caller's are to.

    The policies are those of the whole process; afterwards they are what they were.
    """
    with contextlib.ExitStack() as policies:
        for library in filter(None, (keras, sys.modules.get("keras"))):
            policies.enter_context(_float32_policy(library))
        yield


@contextlib.contextmanager
def _float32_policy(library: KerasLibrary) -> Iterator[None]:
    policies, numbers = library.mixed_precision, library.backend
    policy, dtype = policies.global_policy(), numbers.floatx()
    if policy.name == dtype == "float32":
        # Set once, a policy would no longer follow the dtype.
        yield
        return
    numbers.set_floatx("float32")
    policies.set_global_policy("float32")
    try:
        yield
    finally:
        numbers.set_floatx(dtype)
        policies.set_global_policy(policy)
