"""tensorflow-model-optimization, imported without what it leaves behind.

It takes `tf.keras` for its Keras. On the way it sets TF_USE_LEGACY_KERAS, and the first
look at `tf.keras` decides for the whole process which Keras that is; what it imports
adds filters of warnings. All are put back as they were.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator

import tensorflow as tf

from gdfq_tf.keras_compat import keras

_VARIABLE = "TF_USE_LEGACY_KERAS"


@contextlib.contextmanager
def _tf_keras_as_keras() -> Iterator[None]:
    callers, value = vars(tf)["keras"], os.environ.get(_VARIABLE)
    tf.keras = keras
    try:
        yield
    finally:
        tf.keras = callers
        if value is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = value


with _tf_keras_as_keras(), warnings.catch_warnings():
    import tensorflow_model_optimization as tfmot

__all__ = ["tfmot"]
