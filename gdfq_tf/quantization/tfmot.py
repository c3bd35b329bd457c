"""tensorflow-model-optimization, imported without what it leaves behind.

It takes `tf.keras` for its Keras. On the way it sets TF_USE_LEGACY_KERAS, and the first
look at `tf.keras` decides for the whole process which Keras that is; what it imports
adds filters of warnings. All are put back as they were.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import tensorflow as tf

from gdfq_tf.keras_compat import keras
from gdfq_tf.system.environment import kept_variable


@contextlib.contextmanager
def _tf_keras_as_keras() -> Iterator[None]:
    callers = vars(tf)["keras"]
    tf.keras = keras
    try:
        yield
    finally:
        tf.keras = callers


with (
    _tf_keras_as_keras(),
    kept_variable("TF_USE_LEGACY_KERAS"),
    warnings.catch_warnings(),
):
    import tensorflow_model_optimization as tfmot

__all__ = ["tfmot"]
