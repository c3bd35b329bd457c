"""Every loss: pure, keyword-only, one value per call."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from gdfq_tf.graph.bn_statistics import BNStatistics

# Keeps the relative losses finite on channels and features that are constant
# zero; small beside any variance that carries information.
_EPSILON = 1e-5


def classification_loss(
    *, logits: tf.Tensor, labels: tf.Tensor, temperature: float = 1.0
) -> tf.Tensor:
    """T * mean cross-entropy of logits (N, classes) / T against labels (N,) int.

    A wrong image is drawn as hard at any temperature; the higher it is, the further
    beyond the boundary a right one still is.

    Source: Xu et al. 2020, Eq. 3 (generator) and Eq. 6 (student), where T = 1.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=labels, logits=logits / temperature
    )
    return temperature * tf.reduce_mean(losses)


def label_loss(
    *, logits: tf.Tensor, labels: tf.Tensor, temperature: float = 1.0
) -> tf.Tensor:
    """T * mean binary cross-entropy, at logits / T, of one label asked for per image.

    What is asked is that it is on; any of the others may be on beside it, for only the
    training data knew which labels go together.

    Args:
      logits: (N, labels).
      labels: (N,) int.
      temperature: T.
    """
    asked = tf.gather(logits, labels, batch_dims=1)
    return temperature * tf.reduce_mean(tf.nn.softplus(-asked / temperature))


def smoothness_loss(*, images: tf.Tensor) -> tf.Tensor:
    """Mean squared difference of neighbours, in units of each image's own variance.

    About 1 for white noise, a tenth for small photographs; contrast does not matter.
    Images (N, H, W, C); the mean is over images.
    """
    axes = [1, 2, 3]
    down = tf.square(images[:, 1:] - images[:, :-1])
    right = tf.square(images[:, :, 1:] - images[:, :, :-1])
    _, height, width, channels = images.shape
    count = channels * ((height - 1) * width + height * (width - 1))
    total = tf.reduce_sum(down, axes) + tf.reduce_sum(right, axes)
    variance = tf.math.reduce_variance(images, axes)
    # Independent neighbours differ by twice the variance.
    return tf.reduce_mean(total / max(count, 1) / (2 * variance + _EPSILON))


def bn_statistics_loss(
    *, stored: Sequence[BNStatistics], batch: Sequence[BNStatistics]
) -> tf.Tensor:
    """Mean over layers of the channels' mean squared errors of mean and variance.

    Source: Xu et al. 2020, Eq. 4, with the variance (not the deviation) and the
    averages over channels and layers of the published code.
    """
    layers = [
        tf.reduce_mean(tf.square(b.mean - s.mean))
        + tf.reduce_mean(tf.square(b.variance - s.variance))
        for s, b in zip(stored, batch, strict=True)
    ]
    return tf.add_n(layers) / len(layers)


def relative_bn_gaps(
    *, stored: Sequence[BNStatistics], batch: Sequence[BNStatistics]
) -> list[tf.Tensor]:
    """What each layer has in `relative_bn_statistics_loss`, scalars.

    `bn_statistics_loss` in units of each channel's stored deviation; per channel:
    ((mean_b - mean_s) / std_s)^2 + (std_b / std_s - 1)^2.
    """

    def distance(s: BNStatistics, b: BNStatistics) -> tf.Tensor:
        # A channel that never varied says nothing about scale: a floor relative
        # to its layer keeps it from dominating.
        variance = s.variance + 1e-3 * tf.reduce_mean(s.variance) + _EPSILON
        std_error = tf.sqrt(b.variance + _EPSILON) - tf.sqrt(s.variance + _EPSILON)
        squares = tf.square(b.mean - s.mean) + tf.square(std_error)
        return tf.reduce_mean(squares / variance)

    return [distance(s, b) for s, b in zip(stored, batch, strict=True)]


def relative_bn_statistics_loss(*, gaps: Sequence[tf.Tensor]) -> tf.Tensor:
    """Mean over layers of `relative_bn_gaps`.

    Layers whose activations are large would hide all others in absolute units, in
    which the variances of one network easily span four orders of magnitude.
    """
    return tf.add_n(gaps) / len(gaps)
