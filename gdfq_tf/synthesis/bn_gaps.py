"""How near a pool of images comes to each BatchNormalization's stored statistics."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from gdfq_tf.classifier import Classifier
from gdfq_tf.graph.bn_statistics import (
    BNStatistics,
    batch_normalization_layers,
    batch_statistics,
    normalized_tensor,
    stored_statistics,
)
from gdfq_tf.keras_compat import keras
from gdfq_tf.memory_needs import images_per_batch
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.synthesis.losses import relative_bn_gaps

# Statistics of so many images have settled.
_NUM_IMAGES = 128


def bn_gaps(classifier: Classifier, images: ImagePool) -> dict[str, float]:
    """Name of each BatchNormalization -> how far the images are from its statistics.

    Root mean square over channels, in units of the stored deviations: the means' errors
    and the deviations' together, see `relative_bn_gaps`. None without statistics.

    Args:
      classifier: whose statistics they are.
      images: the first few count.
    """
    layers = batch_normalization_layers(classifier.model)
    if not layers or not classifier.has_bn_statistics:
        return {}
    probe = keras.Model(
        classifier.model.input, [normalized_tensor(layer) for layer in layers]
    )
    size = images_per_batch(4 * sum(math.prod(x.shape[1:]) for x in probe.outputs))
    pixels = images.pixels[:_NUM_IMAGES]
    batches = [pixels[start : start + size] for start in range(0, len(pixels), size)]
    found = [
        list(
            map(
                batch_statistics,
                tf.nest.flatten(probe(classifier.preprocessing.to_input(batch))),
            )
        )
        for batch in batches
    ]
    weights = np.array([len(batch) for batch in batches], np.float32) / len(pixels)
    together = [_joined(parts, weights) for parts in zip(*found, strict=True)]
    stored = [stored_statistics(layer) for layer in layers]
    gaps = relative_bn_gaps(stored=stored, batch=together)
    return {layer.name: math.sqrt(gap) for layer, gap in zip(layers, gaps, strict=True)}


def _joined(parts: tuple[BNStatistics, ...], weights: np.ndarray) -> BNStatistics:
    """Statistics of all batches together, of those of each and its share of images."""
    means = tf.stack([part.mean for part in parts])
    squares = tf.stack([part.variance for part in parts]) + tf.square(means)
    mean = tf.tensordot(weights, means, 1)
    return BNStatistics(mean, tf.tensordot(weights, squares, 1) - tf.square(mean))
