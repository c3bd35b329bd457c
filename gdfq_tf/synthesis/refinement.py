"""Synthetic images fitted pixel by pixel to the classifier, after the generator.

A generator soon makes images of the right texture, but is slow to learn many classes,
and its images are all composed and exposed alike, which no training data is:
BatchNormalization statistics are those of a whole batch and do not ask for it. So
half of all large ones become collages, brightness and contrast are drawn anew for each,
and the pixels themselves then follow the generator's two losses down, batch by batch,
from that start.

Source: images by gradient on BN statistics and labels, Yin et al. 2020 (DeepInversion),
Cai et al. 2020 (ZeroQ); here from a generator's images, in tens of steps instead of
thousands.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from gdfq_tf.classifier import Classifier
from gdfq_tf.config import RefinementConfig
from gdfq_tf.progress import Progress
from gdfq_tf.synthesis.collages import make_collages
from gdfq_tf.synthesis.generator_training import report
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.synthesis.objective import image_losses
from gdfq_tf.synthesis.teacher import Teacher

# Of the logarithm of contrast; of brightness and of each channel's, in pixel levels.
_CONTRAST_DEVIATION = 0.6
_BRIGHTNESS_DEVIATION = 40.0
_TINT_DEVIATION = 12.0
# Adam.
_BETA_1, _BETA_2 = 0.9, 0.99


def refine(
    pool: ImagePool,
    classifier: Classifier,
    config: RefinementConfig,
    *,
    seed: int,
    progress: Progress,
) -> ImagePool:
    """The same images, fitted batch by batch to what the classifier expects.

    Returns:
      As many, of the same classes.

    Raises:
      UserError: the loss stopped being finite.
    """
    teacher, preprocessing = Teacher(classifier), classifier.preprocessing
    center = tf.constant((preprocessing.high + preprocessing.low) / 2)
    half_range = tf.constant((preprocessing.high - preprocessing.low) / 2)
    batch = tf.TensorSpec((None, *classifier.input_shape))
    scalar = tf.TensorSpec(())

    @tf.function(
        input_signature=[batch] * 3 + [tf.TensorSpec((None,), tf.int32), scalar, scalar]
    )
    def step(x, mean, square, labels, learning_rate, number):
        with tf.GradientTape() as tape:
            tape.watch(x)
            losses, _ = image_losses(
                teacher,
                center + half_range * x,
                labels,
                bn_weight=config.bn_weight,
                temperature=config.temperature,
            )
        gradient = tape.gradient(losses["loss"], x)
        mean = _BETA_1 * mean + (1 - _BETA_1) * gradient
        square = _BETA_2 * square + (1 - _BETA_2) * tf.square(gradient)
        direction = (mean / (1 - _BETA_1**number)) / (
            tf.sqrt(square / (1 - _BETA_2**number)) + 1e-12
        )
        x = tf.clip_by_value(x - learning_rate * direction, -1.0, 1.0)
        return x, mean, square, losses

    batch_size = config.images_per_step(classifier.input_shape)
    num_batches = max(1, round(len(pool) / batch_size))
    total = num_batches * config.num_steps
    start = vary_exposure(make_collages(pool.pixels, seed), seed)
    refined: list[np.ndarray] = []
    with progress.stage("refinement", total) as advance:
        for pixels, labels in zip(
            np.array_split(start, num_batches),
            np.array_split(pool.labels, num_batches),
            strict=True,
        ):
            x = (preprocessing.to_input(pixels) - center) / half_range
            mean = square = tf.zeros_like(x)
            for i in range(config.num_steps):
                decay = 0.5 * (1 + math.cos(math.pi * i / config.num_steps))
                x, mean, square, losses = step(
                    x,
                    mean,
                    square,
                    labels,
                    tf.constant(config.learning_rate * decay),
                    tf.constant(i + 1.0),
                )
                report(advance, losses, len(refined) * config.num_steps + i, total)
            refined.append(preprocessing.to_pixels(center + half_range * x).numpy())
    return ImagePool(np.concatenate(refined), pool.labels)


def vary_exposure(pixels: np.ndarray, seed: int) -> np.ndarray:
    """Pixels (N, H, W, C), float32 in [0, 255], each image with a contrast, brightness
    and tint of its own, as photographs have."""
    rng = np.random.default_rng(seed)
    num_images, _, _, channels = pixels.shape
    contrast = np.exp(rng.normal(0, _CONTRAST_DEVIATION, (num_images, 1, 1, 1)))
    shift = rng.normal(0, _BRIGHTNESS_DEVIATION, (num_images, 1, 1, 1))
    shift = shift + rng.normal(0, _TINT_DEVIATION, (num_images, 1, 1, channels))
    exposed = 127.5 + (pixels - 127.5) * contrast + shift
    return np.clip(exposed, 0, 255).astype(np.float32)
