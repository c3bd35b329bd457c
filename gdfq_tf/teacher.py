"""The teacher: the frozen classifier, seen at its logits and BN inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from gdfq_tf.bn_statistics import (
    BNStatistics,
    batch_normalization_layers,
    batch_statistics,
    normalized_tensor,
    stored_statistics,
)
from gdfq_tf.keras_compat import keras

_BATCH_SIZE = 64


class TeacherOutputs(NamedTuple):
    """Logits (N, classes) and one `BNStatistics` per BatchNormalization layer."""

    logits: tf.Tensor
    statistics: list[BNStatistics]


class Teacher:
    """Frozen copy of a canonical classifier; the given model is left untouched."""

    def __init__(self, classifier: keras.Model, head: str = "logits"):
        """Copies `classifier`, a flat functional model ending in logits.

        Args:
          head: what the logits are of, see `heads`.
        """
        self.head = head
        self.model = keras.models.clone_model(classifier)
        self.model.set_weights(classifier.get_weights())
        self.model.trainable = False
        layers = batch_normalization_layers(self.model)
        self.stored_statistics = [stored_statistics(layer) for layer in layers]
        self._probe = keras.Model(
            self.model.input,
            [self.model.output, *(normalized_tensor(layer) for layer in layers)],
        )

    def __call__(self, inputs: tf.Tensor) -> TeacherOutputs:
        """Logits and batch statistics of `inputs`, (N, H, W, C) float32."""
        logits, *bn_inputs = tf.nest.flatten(self._probe(inputs, training=False))
        return TeacherOutputs(logits, [batch_statistics(x) for x in bn_inputs])


def predict_logits(
    model: keras.Model,
    pixels: np.ndarray,
    to_input: Callable[[tf.Tensor], tf.Tensor],
) -> np.ndarray:
    """Logits float32 (N, classes) of a model on uint8 pixels (N, H, W, C).

    `to_input`: `Preprocessing.to_input` for a classifier, `to_student_input` for a
    student.
    """
    predict = tf.function(
        lambda batch: model(to_input(batch), training=False), reduce_retracing=True
    )
    starts = range(0, len(pixels), _BATCH_SIZE)
    return np.concatenate(
        [predict(tf.constant(pixels[i : i + _BATCH_SIZE])).numpy() for i in starts]
    )
