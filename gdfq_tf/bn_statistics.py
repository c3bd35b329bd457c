"""BatchNormalization statistics: what the classifier stored, what a batch has."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from gdfq_tf.keras_compat import keras


class BNStatistics(NamedTuple):
    """Per-channel mean and biased (population) variance, float32 (channels,)."""

    mean: tf.Tensor
    variance: tf.Tensor


def batch_normalization_layers(model: keras.Model) -> list:
    """The model's BatchNormalization layers, in graph order."""
    return [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def stored_statistics(layer: keras.layers.BatchNormalization) -> BNStatistics:
    """The training data's statistics at the layer's input, as it kept them."""
    return BNStatistics(
        tf.convert_to_tensor(layer.moving_mean),
        tf.convert_to_tensor(layer.moving_variance),
    )


def is_untouched(layer: keras.layers.BatchNormalization) -> bool:
    """Whether the layer's statistics are the initial ones, so that they tell nothing.

    So are those of a layer that was folded into the one before it, up to epsilon.
    """
    mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    return not mean.any() and bool(np.all(np.abs(variance - 1) <= 1.01 * layer.epsilon))


def bn_slope(layer: keras.layers.BatchNormalization) -> np.ndarray:
    """What a layer with gamma multiplies its input by, float32 (channels,)."""
    deviation = np.sqrt(layer.moving_variance.numpy() + layer.epsilon)
    return layer.gamma.numpy() / deviation


def with_statistics_of(model: keras.Model, inputs: tf.Tensor) -> keras.Model:
    """A copy of the model that takes `inputs` (N, H, W, C) for its training data.

    Behind every BatchNormalization, activations then have the very means and
    deviations that the training data had, even if `inputs` are noise.
    """
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in batch_normalization_layers(copy):
        statistics = batch_statistics(keras.Model(copy.input, layer.input)(inputs))
        layer.moving_mean.assign(statistics.mean)
        layer.moving_variance.assign(statistics.variance)
    return copy


def batch_statistics(bn_input: tf.Tensor) -> BNStatistics:
    """The same two measured on a batch, (N, …, channels), over all but channels."""
    return BNStatistics(*_moments(bn_input))


@tf.custom_gradient
def _moments(x: tf.Tensor):
    """Mean and variance whose gradient is one multiply-add per element.

    What differentiating `tf.nn.moments` gives costs a generator step several passes
    over every activation more.
    """
    axes = list(range(len(x.shape) - 1))
    mean = tf.reduce_mean(x, axes)
    variance = tf.reduce_mean(tf.math.squared_difference(x, mean), axes)

    def gradient(to_mean, to_variance):
        count = tf.cast(tf.size(x) // tf.size(mean), x.dtype)
        slope = 2 * to_variance / count
        return x * slope + (to_mean / count - slope * mean)

    return (mean, variance), gradient
