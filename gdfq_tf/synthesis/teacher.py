"""The teacher: the frozen classifier, seen at its logits and BN inputs.

What its layers give is kept for the backward pass. Where that is too much, the teacher
runs in parts that keep what they hand on alone and run again on the way back.
Source: gradient checkpointing, Chen et al. 2016.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from gdfq_tf.classifier import Classifier
from gdfq_tf.graph.bn_statistics import (
    BNStatistics,
    batch_normalization_layers,
    normalized_tensor,
    of_all_replicas,
    replica_statistics,
    stored_statistics,
)
from gdfq_tf.graph.queries import consumers, input_layers, output_layer
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

    def __init__(self, classifier: Classifier, num_parts: int = 1) -> None:
        """Copies `classifier`, whose own model is left untouched.

        Args:
          classifier: what is copied.
          num_parts: 1, or into how many parts, about, it is cut: less memory
            for up to one more pass forward.
        """
        model = keras.models.clone_model(classifier.model)
        model.set_weights(classifier.model.get_weights())
        model.trainable = False
        self.classifier = dataclasses.replace(classifier, model=model)
        layers = batch_normalization_layers(model)
        self.stored_statistics = [stored_statistics(layer) for layer in layers]
        self._parts = _parts(model, num_parts)

    def __call__(self, inputs: tf.Tensor) -> TeacherOutputs:
        """Logits and batch statistics of `inputs`, (N, H, W, C) float32."""
        model = self.classifier.model
        tensors = {model.layers[0].name: inputs}
        statistics: list[BNStatistics] = []
        for part in self._parts:
            run = tf.recompute_grad(part) if len(self._parts) > 1 else part
            results = run(*[tensors[name] for name in part.takes])
            tensors |= zip(part.gives, results, strict=False)
            measured = results[len(part.gives) :]
            statistics += itertools.starmap(
                BNStatistics, zip(measured[::2], measured[1::2], strict=True)
            )
        logits = tensors[output_layer(model).name]
        return TeacherOutputs(logits, of_all_replicas(statistics, inputs))


class _Part:
    """Successive layers of a model.

    Attributes:
      takes: names of the layers in front whose outputs it takes.
      gives: names of its own whose outputs others take, or the model gives.
    """

    def __init__(
        self,
        model: keras.Model,
        layers: Sequence[keras.layers.Layer],
    ) -> None:
        """Takes the model and those layers of it."""
        own = {layer.name for layer in layers}
        producers = [x.name for layer in layers for x in input_layers(layer)]
        self.takes = [name for name in dict.fromkeys(producers) if name not in own]
        consumed_by = consumers(model)
        self.gives = [
            layer.name
            for layer in layers
            if layer is output_layer(model)
            or any(x.name not in own for x in consumed_by[layer.name])
        ]
        normalizing = [
            layer
            for layer in layers
            if isinstance(layer, keras.layers.BatchNormalization)
        ]
        self._model = keras.Model(
            [model.get_layer(name).output for name in self.takes],
            [
                *(model.get_layer(name).output for name in self.gives),
                *map(_normalized_copy, normalizing),
            ],
        )

    def __call__(self, *inputs: tf.Tensor) -> list[tf.Tensor]:
        """Outputs of `gives`, then each BatchNormalization's mean and variance.

        These are of this replica's images.
        """
        outputs = tf.nest.flatten(self._model(list(inputs), training=False))
        given, bn_inputs = outputs[: len(self.gives)], outputs[len(self.gives) :]
        return [*given, *(x for y in bn_inputs for x in replica_statistics(y))]


def _normalized_copy(layer: keras.layers.BatchNormalization) -> tf.Tensor:
    """See `normalized_tensor`; Keras takes no input of a model for its output."""
    # A name that Keras chooses may be another layer's.
    copy = keras.layers.Activation("linear", name=f"{layer.name}/normalized")
    return copy(normalized_tensor(layer))


def _parts(model: keras.Model, num_parts: int) -> list[_Part]:
    """The model, but for its input, in parts whose outputs are about as large."""
    layers = model.layers[1:]
    sizes = [math.prod(layer.output_shape[1:]) for layer in layers]
    share = sum(sizes) / num_parts
    before = [0, *itertools.accumulate(sizes)]
    parts = itertools.groupby(
        zip(layers, before, strict=False), lambda pair: int(pair[1] // share)
    )
    return [_Part(model, [layer for layer, _ in part]) for _, part in parts]
