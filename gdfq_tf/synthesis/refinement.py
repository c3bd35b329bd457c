"""Synthetic images fitted one by one to the classifier, after the generator.

A generator soon makes images of the right texture, but is slow to learn many classes,
and its images are all composed and exposed alike, which no training data is:
BatchNormalization statistics are those of a whole batch and do not ask for it. So
half of all large ones become collages, brightness and contrast are drawn anew for each,
and the images themselves then follow the generator's two losses down, batch by batch,
from that start: what is added to each is a sum of waves (`natural_basis.py`).

Source: images by gradient on BN statistics and labels, Yin et al. 2020 (DeepInversion),
Cai et al. 2020 (ZeroQ); here from a generator's images, in tens of steps instead of
thousands.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from gdfq_tf.checkpoints import NO_CHECKPOINTS, Checkpoints, resumed_steps
from gdfq_tf.classifier import Classifier
from gdfq_tf.config import RefinementConfig
from gdfq_tf.distribution import replicas
from gdfq_tf.graph.bn_statistics import batch_normalization_names
from gdfq_tf.memory_needs import teacher_parts
from gdfq_tf.progress import Progress
from gdfq_tf.synthesis.collages import make_collages
from gdfq_tf.synthesis.generator_training import LossReport, pixels_to_keep
from gdfq_tf.synthesis.image_pool import ImagePool, pool_of
from gdfq_tf.synthesis.natural_basis import NaturalBasis
from gdfq_tf.synthesis.objective import LossWeights, image_losses
from gdfq_tf.synthesis.teacher import Teacher
from gdfq_tf.system import large_arrays

# Of the logarithm of contrast; of brightness and of each channel's, in pixel levels.
_CONTRAST_DEVIATION = 0.6
_BRIGHTNESS_DEVIATION = 40.0
_TINT_DEVIATION = 12.0
# Adam.
_BETA_1, _BETA_2 = 0.9, 0.99


class Refiner:
    """Fits images to a classifier; its graphs serve all pools that it is given."""

    def __init__(
        self,
        classifier: Classifier,
        progress: Progress,
        checkpoints: Checkpoints = NO_CHECKPOINTS,
    ) -> None:
        """Takes what images are fitted to.

        Args:
          classifier: it is left untouched.
          progress: told of each step.
          checkpoints: keep finished batches and the current one.
        """
        self._classifier = classifier
        self._progress = progress
        self._checkpoints = checkpoints
        self._layers = batch_normalization_names(classifier.model)
        self._scaled = _UnitRange(classifier)
        self._basis = NaturalBasis(classifier.input_shape)
        self._step = functools.cache(self._make_step)

    def refine(
        self, pool: ImagePool, config: RefinementConfig, *, seed: int
    ) -> ImagePool:
        """The same images, fitted batch by batch to what the classifier expects.

        Args:
          pool: where pixels start from; its labels are the classes they are to have.
          config: steps, weights and how batches start.
          seed: of collages and exposure.

        Returns:
          As many images, in the same order.

        Raises:
          UserError: the loss stopped being finite.
        """
        checkpoint = self._checkpoints.of(
            "refinement", config=config, num_images=len(pool), seed=seed
        )
        made = checkpoint.finished()
        if made is not None:
            return pool_of(made)
        preprocessing, scaled = self._classifier.preprocessing, self._scaled
        batch_size = config.images_per_step(self._classifier.input_shape)
        step = self._step(
            batch_size,
            LossWeights(config.bn_weight, config.class_weight),
            config.temperature,
        )
        num_batches = max(1, round(len(pool) / batch_size))
        total = num_batches * config.num_steps
        starts = np.array_split(_start(pool.pixels, config, seed), num_batches)
        labels = np.array_split(pool.labels, num_batches)
        refined = large_arrays.zeros(pool.pixels.shape, np.uint8)
        parts = np.array_split(refined, num_batches)
        # Batches that are done, and what was found of the current one.
        left: dict[str, np.ndarray | tf.Tensor] = {}
        start = None
        stage = self._progress.stage("refinement", total, len(pool) / num_batches)
        with stage as advance:
            report = LossReport("refinement", total, advance, self._layers)
            for number in resumed_steps(checkpoint, total, advance, made=left):
                batch, i = divmod(number, config.num_steps)
                if not i or start is None:
                    start = scaled.of_inputs(preprocessing.to_input(starts[batch]))
                    if not i:
                        left |= _Found(*[tf.zeros_like(start)] * 3)._asdict()
                    start, own_labels, *found = replicas.run(
                        _own_parts,
                        start,
                        labels[batch],
                        *(left[name] for name in _Found._fields),
                    )
                decay = 0.5 * (1 + math.cos(math.pi * i / config.num_steps))
                found, losses = step(
                    start,
                    _Found(*found),
                    own_labels,
                    tf.constant(config.learning_rate * decay),
                    tf.constant(i + 1.0),
                )
                left |= found._asdict()
                report(losses, number)
                if i + 1 == config.num_steps:
                    inputs = replicas.run(self._inputs, start, found)
                    parts[batch][...] = pixels_to_keep(
                        preprocessing, replicas.gathered(inputs)
                    )
                    left[f"batch {batch}"] = parts[batch]
        for batch, part in enumerate(parts):
            # Those of an earlier process are not there yet.
            part[...] = left[f"batch {batch}"]
        result = ImagePool(refined, pool.labels)
        checkpoint.finish(result.arrays())
        return result

    def _inputs(self, start: tf.Tensor, found: _Found) -> tf.Tensor:
        """Model inputs of images in [-1, 1] and what was found of them."""
        moved = start + self._basis.images(found.waves)
        return self._scaled.to_inputs(tf.clip_by_value(moved, -1.0, 1.0))

    def _make_step(
        self, batch_size: int, weights: LossWeights, temperature: float
    ) -> Callable[..., tuple[_Found, dict[str, tf.Tensor]]]:
        """One step of Adam on the waves added to images in [-1, 1], as a graph.

        Returns:
          A function of the images at the start, what was found so far, labels, learning
          rate and the number of the step, from 1 on. It returns what is found now, and
          the losses before the step by name. All but rate, number and losses are by
          replica.
        """
        classifier = self._classifier
        teacher = Teacher(classifier, teacher_parts(classifier.model, batch_size))
        batch = tf.TensorSpec((None, *classifier.input_shape))
        scalar = tf.TensorSpec(())

        signature = [
            batch,
            _Found(batch, batch, batch),
            tf.TensorSpec((None,), tf.int32),
            scalar,
            scalar,
        ]

        def update(
            start: tf.Tensor,
            found: _Found,
            labels: tf.Tensor,
            learning_rate: tf.Tensor,
            number: tf.Tensor,
        ) -> tuple[_Found, dict[str, tf.Tensor]]:
            waves = found.waves
            with tf.GradientTape() as tape:
                tape.watch(waves)
                losses, _ = image_losses(
                    teacher,
                    self._inputs(start, found),
                    labels,
                    weights=weights,
                    temperature=temperature,
                )
                shares = replicas.shared(losses, labels)
            gradient = tape.gradient(shares["loss"], waves)
            mean = _BETA_1 * found.mean + (1 - _BETA_1) * gradient
            square = _BETA_2 * found.square + (1 - _BETA_2) * tf.square(gradient)
            direction = (mean / (1 - _BETA_1**number)) / (
                tf.sqrt(square / (1 - _BETA_2**number)) + 1e-12
            )
            found = _Found(waves - learning_rate * direction, mean, square)
            return found, replicas.summed(shares)

        # One for values by replica cannot be told; then each size of batch is traced.
        @tf.function(
            autograph=False,
            input_signature=signature if replicas.num_replicas() == 1 else None,
        )
        def step(*args: replicas.PerReplica) -> tuple[_Found, dict[str, tf.Tensor]]:
            found, losses = replicas.run(update, *args)
            return found, replicas.from_any(losses)

        return step


class _UnitRange:
    """Images in [-1, 1], whatever range the classifier's inputs have."""

    def __init__(self, classifier: Classifier) -> None:
        """Takes the range of each channel from the preprocessing."""
        preprocessing = classifier.preprocessing
        self._center = tf.constant((preprocessing.high + preprocessing.low) / 2)
        self._half_range = tf.constant((preprocessing.high - preprocessing.low) / 2)

    def of_inputs(self, inputs: tf.Tensor) -> tf.Tensor:
        """Images in [-1, 1] of model inputs (N, H, W, C)."""
        return (inputs - self._center) / self._half_range

    def to_inputs(self, x: tf.Tensor) -> tf.Tensor:
        """Model inputs of images in [-1, 1], (N, H, W, C)."""
        return self._center + self._half_range * x


def _start(pixels: np.ndarray, config: RefinementConfig, seed: int) -> np.ndarray:
    """What refinement starts from, in [0, 255], of `pixels` (N, H, W, C) uint8."""
    if config.collages:
        pixels = make_collages(pixels, seed)
    return vary_exposure(pixels, seed) if config.varied_exposure else pixels


class _Found(NamedTuple):
    """What Adam knows of a batch: waves, means of their gradients and of its squares.

    All of them float32 (N, H, W, C).
    """

    waves: tf.Tensor
    mean: tf.Tensor
    square: tf.Tensor


def _own_parts(*batches: tf.Tensor | np.ndarray) -> list[tf.Tensor | np.ndarray]:
    return [replicas.own_part(batch) for batch in batches]


def vary_exposure(pixels: np.ndarray, seed: int) -> np.ndarray:
    """Each image with a contrast, brightness and tint of its own, as photographs have.

    Args:
      pixels: (N, H, W, C) in [0, 255].
      seed: the same gives the same.

    Returns:
      Pixels, float32 in [0, 255].
    """
    rng = np.random.default_rng(seed)
    num_images, _, _, channels = pixels.shape
    contrast = np.exp(rng.normal(0, _CONTRAST_DEVIATION, (num_images, 1, 1, 1)))
    shift = rng.normal(0, _BRIGHTNESS_DEVIATION, (num_images, 1, 1, 1))
    shift = shift + rng.normal(0, _TINT_DEVIATION, (num_images, 1, 1, channels))
    varied = large_arrays.zeros(pixels.shape, np.float32)
    for i, image in enumerate(pixels):  # float64 of one at a time
        varied[i] = np.clip(127.5 + (image - 127.5) * contrast[i] + shift[i], 0, 255)
    return varied
