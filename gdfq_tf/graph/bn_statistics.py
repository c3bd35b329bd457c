"""BatchNormalization statistics: what the classifier stored, what a batch has."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from gdfq_tf.distribution.replicas import global_moments
from gdfq_tf.graph.layers import DepthToSpace
from gdfq_tf.keras_compat import keras


class BNStatistics(NamedTuple):
    """Per-channel mean and biased (population) variance, float32 (channels,)."""

    mean: tf.Tensor
    variance: tf.Tensor


def batch_normalization_layers(
    model: keras.Model,
) -> list[keras.layers.BatchNormalization]:
    """The model's BatchNormalization layers, in graph order."""
    return [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def batch_normalization_names(model: keras.Model) -> list[str]:
    """Their names, in graph order."""
    return [layer.name for layer in batch_normalization_layers(model)]


def normalized_tensor(layer: keras.layers.BatchNormalization) -> tf.Tensor:
    """The symbolic tensor whose statistics the layer keeps: its input, in general.

    Before a `DepthToSpace` the layer has each channel once for every phase of a
    transposed convolution. In training it stood behind: its statistics are of all
    phases together, and of what is not cropped.
    """
    enlarging = _depth_to_space_behind(layer)
    if enlarging is None:
        return layer.input
    return DepthToSpace(
        enlarging.block_size, enlarging.cropping, name=f"{layer.name}/enlarged"
    )(layer.input)


def _depth_to_space_behind(layer: keras.layers.Layer) -> DepthToSpace | None:
    while len(layer.outbound_nodes) == 1:
        layer = layer.outbound_nodes[0].outbound_layer
        if isinstance(layer, DepthToSpace):
            return layer
        if not isinstance(layer, keras.layers.ReLU):
            return None
    return None


def _num_phases(layer: keras.layers.BatchNormalization) -> int:
    enlarging = _depth_to_space_behind(layer)
    return 1 if enlarging is None else math.prod(enlarging.block_size)


def stored_statistics(layer: keras.layers.BatchNormalization) -> BNStatistics:
    """The training data's statistics of `normalized_tensor`, as the layer kept them."""
    channels = layer.moving_mean.shape[0] // _num_phases(layer)
    return BNStatistics(
        tf.convert_to_tensor(layer.moving_mean)[:channels],
        tf.convert_to_tensor(layer.moving_variance)[:channels],
    )


def is_untouched(layer: keras.layers.BatchNormalization) -> bool:
    """Whether the layer's statistics are the initial ones, so that they tell nothing.

    So are those of a layer that was folded into the one before it, up to epsilon.
    """
    mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    return not mean.any() and bool(np.all(np.abs(variance - 1) <= 1.01 * layer.epsilon))


def with_statistics_of(model: keras.Model, inputs: tf.Tensor) -> keras.Model:
    """A copy of the model that takes `inputs` (N, H, W, C) for its training data.

    Behind every BatchNormalization, activations then have the very means and
    deviations that the training data had, even if `inputs` are noise.
    """
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in batch_normalization_layers(copy):
        probe = keras.Model(copy.input, normalized_tensor(layer))
        statistics = batch_statistics(probe(inputs))
        repeats = [_num_phases(layer)]
        layer.moving_mean.assign(tf.tile(statistics.mean, repeats))
        layer.moving_variance.assign(tf.tile(statistics.variance, repeats))
    return copy


def batch_statistics(bn_input: tf.Tensor) -> BNStatistics:
    """The same two measured on a batch, (N, ..., channels), over all but channels."""
    return of_all_replicas([replica_statistics(bn_input)], bn_input)[0]


def replica_statistics(bn_input: tf.Tensor) -> BNStatistics:
    """The same of this replica's images alone."""
    return BNStatistics(*_moments(bn_input))


def of_all_replicas(
    statistics: Sequence[BNStatistics], batch: tf.Tensor
) -> list[BNStatistics]:
    """Statistics of all replicas' images, of several tensors of one batch.

    Args:
      statistics: of this replica's images.
      batch: (N, ...), any tensor of those.
    """
    if not statistics:
        return []
    return [BNStatistics(*found) for found in global_moments(statistics, batch)]


@tf.custom_gradient
def _moments(x: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], Callable]:
    """Mean and variance whose gradient is one multiply-add per element.

    What differentiating `tf.nn.moments` gives costs a generator step several passes
    over every activation more.
    """
    axes = list(range(len(x.shape) - 1))
    mean = tf.reduce_mean(x, axes)
    variance = tf.reduce_mean(tf.math.squared_difference(x, mean), axes)

    def gradient(to_mean: tf.Tensor, to_variance: tf.Tensor) -> tf.Tensor:
        count = tf.cast(tf.size(x) // tf.size(mean), x.dtype)
        slope = 2 * to_variance / count
        return x * slope + (to_mean / count - slope * mean)

    return (mean, variance), gradient
