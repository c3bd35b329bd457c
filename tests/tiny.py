"""A classifier small enough for every test, with the layers that matter."""

from __future__ import annotations

import contextlib
import types

import numpy as np
import tensorflow as tf

from gdfq_tf.classifier import Classifier, Head
from gdfq_tf.config import StudentBudget, WidthBudgets
from gdfq_tf.keras_compat import keras
from gdfq_tf.preprocessing import make_preprocessing

INPUT_SHAPE = (8, 8, 3)
NUM_CLASSES = 3


def alike(num_images: int, distillation=None) -> WidthBudgets:
    """The same budget for all widths."""
    return WidthBudgets(*[StudentBudget(num_images, distillation)] * 3)


def build_tiny_classifier(seed: int = 0) -> keras.Model:
    """An 8x8x3 -> 3 logits tf_keras graph, the same for the same seed.

    conv-bn-relu, depthwise-bn-relu6, conv-bn-add(first block)-relu, global
    average pooling, dense. Every BatchNormalization has its own moving means,
    variances, gammas and betas.
    """
    layers = keras.layers
    inputs = keras.Input(INPUT_SHAPE)
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv1")(inputs)
    x = layers.BatchNormalization(name="bn1")(x)
    block = layers.ReLU(name="relu1")(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="dw2")(block)
    x = layers.BatchNormalization(name="bn2")(x)
    x = layers.ReLU(6.0, name="relu2")(x)
    x = layers.Conv2D(8, 1, use_bias=False, name="conv3")(x)
    x = layers.BatchNormalization(name="bn3")(x)
    x = layers.Add(name="add3")([x, block])
    x = layers.ReLU(name="relu3")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(NUM_CLASSES, name="logits")(x)
    model = keras.Model(inputs, outputs, name="tiny")

    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            channels = layer.gamma.shape[0]
            layer.set_weights(
                [
                    rng.uniform(0.5, 1.5, channels),  # gamma
                    rng.normal(0.3, 0.5, channels),  # beta
                    rng.normal(0.0, 0.3, channels),  # moving mean
                    rng.uniform(0.3, 2.0, channels),  # moving variance
                ]
            )
        elif layer.get_weights():
            layer.set_weights([_he_normal(rng, w.shape) for w in layer.get_weights()])
    return model


def _he_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal values that keep a layer's output variance near its input's."""
    fan_in = np.prod(shape[:3]) if len(shape) == 4 else shape[0]
    return rng.normal(0.0, np.sqrt(2.0 / fan_in), shape)


def classifier_of(
    model: keras.Model, preprocessing: str = "tf", head: Head = Head.LOGITS
) -> Classifier:
    """The `Classifier` of a canonical model for images of three channels."""
    shape = tuple(model.input_shape[1:])
    return Classifier("tiny", model, make_preprocessing(preprocessing, 3), head, shape)


class Recorder:
    """A `Progress` that keeps what it is told.

    Attributes:
      stages: (name, announced steps, steps taken) of every stage that ended.
      metrics: of every step that told some.
    """

    def __init__(self):
        self.stages, self.metrics = [], []

    @contextlib.contextmanager
    def stage(self, name, total, images_per_step=0.0):
        steps = 0

        def advance(n=1, **metrics):
            nonlocal steps
            steps += n
            if metrics:
                self.metrics.append(metrics)

        yield advance
        self.stages.append((name, total, steps))


def operations(k):
    """The operations of either Keras' networks, by their names in Keras 3."""
    if k is not keras:
        return k.ops
    return types.SimpleNamespace(
        clip=tf.clip_by_value,
        concatenate=tf.concat,
        expand_dims=tf.expand_dims,
        elu=tf.nn.elu,
        max=tf.reduce_max,
        maximum=tf.maximum,
        mean=tf.reduce_mean,
        minimum=tf.minimum,
        selu=tf.nn.selu,
        split=tf.split,
        squeeze=tf.squeeze,
        transpose=tf.transpose,
    )
