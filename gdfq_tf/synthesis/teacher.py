"""The teacher: the frozen classifier, seen at its logits and BN inputs."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from gdfq_tf.classifier import Head
from gdfq_tf.graph.bn_statistics import (
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

    def __init__(self, classifier: keras.Model, head: Head = Head.LOGITS):
        """Copies `classifier`, a flat functional model ending in logits.

        Args:
          head: what the logits are of.
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
