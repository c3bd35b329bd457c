"""The teacher: the frozen classifier, seen at its logits and BN inputs."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from gdfq_tf.classifier import Classifier
from gdfq_tf.graph.bn_statistics import (
    BNStatistics,
    all_batch_statistics,
    batch_normalization_layers,
    normalized_tensor,
    stored_statistics,
)
from gdfq_tf.keras_compat import keras


class TeacherOutputs(NamedTuple):
    """Logits (N, classes) and one `BNStatistics` per BatchNormalization layer."""

    logits: tf.Tensor
    statistics: list[BNStatistics]


class Teacher:
    """A classifier that scores images and does not change.

    Attributes:
      classifier: a copy of the one given, its model frozen.
      stored_statistics: those of each BatchNormalization layer, in graph order.
    """

    def __init__(self, classifier: Classifier) -> None:
        """Copies `classifier`, whose own model is left untouched."""
        model = keras.models.clone_model(classifier.model)
        model.set_weights(classifier.model.get_weights())
        model.trainable = False
        self.classifier = dataclasses.replace(classifier, model=model)
        layers = batch_normalization_layers(model)
        self.stored_statistics = [stored_statistics(layer) for layer in layers]
        self._probe = keras.Model(
            model.input,
            [model.output, *(normalized_tensor(layer) for layer in layers)],
        )

    def __call__(self, inputs: tf.Tensor) -> TeacherOutputs:
        """Logits and batch statistics of `inputs`, (N, H, W, C) float32."""
        logits, *bn_inputs = tf.nest.flatten(self._probe(inputs, training=False))
        return TeacherOutputs(logits, all_batch_statistics(bn_inputs))
