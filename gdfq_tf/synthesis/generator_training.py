"""The generator's training and the pool of synthetic images it fills."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from gdfq_tf.checkpoints import (
    NO_CHECKPOINTS,
    Checkpoints,
    resumed_steps,
    together,
)
from gdfq_tf.classifier import Classifier
from gdfq_tf.config import SynthesisConfig
from gdfq_tf.distribution import replicas
from gdfq_tf.errors import UserError, option
from gdfq_tf.graph.bn_statistics import batch_normalization_names
from gdfq_tf.graph.queries import multiply_adds
from gdfq_tf.keras_compat import keras
from gdfq_tf.memory_needs import images_per_batch, teacher_parts
from gdfq_tf.preprocessing import Preprocessing
from gdfq_tf.progress import Advance, Progress
from gdfq_tf.synthesis.generator import build_generator, choose_shape, sample_inputs
from gdfq_tf.synthesis.image_pool import ImagePool, joined, pool_of, pools_of
from gdfq_tf.synthesis.objective import LossWeights, image_losses
from gdfq_tf.synthesis.teacher import Teacher
from gdfq_tf.system import large_arrays

# Losses are checked and shown every so many steps: often enough to stop a broken
# run early, rarely enough not to wait for the device.
REPORT_INTERVAL = 10
# Images that are kept are drawn with step numbers beyond those of any training; a step
# that fills a part of the pool has so many for its batches.
_FIRST_POOL_STEP = 2**24
_POOL_BATCHES_PER_STEP = 1000
# What to do about values that are not finite.
_ADVICE = f"check {option('preprocessing')} and the classifier's weights"


def pool_step(step: int) -> int:
    """The step number with which images kept at training step `step` are drawn."""
    return _FIRST_POOL_STEP + step * _POOL_BATCHES_PER_STEP


def make_generator(
    classifier: Classifier, config: SynthesisConfig, seed: int
) -> keras.Model:
    """A generator sized for the classifier: image shape, classes and compute."""
    budget = config.compute_ratio * multiply_adds(classifier.model)
    shape = choose_shape(classifier.input_shape, classifier.num_labels, budget)
    return build_generator(shape, classifier.preprocessing, seed)


def make_generator_step(
    generator: keras.Model,
    teacher: Teacher,
    optimizer: keras.optimizers.Optimizer,
    config: SynthesisConfig,
    seed: int,
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """One generator update as a graph function of the step number.

    Minimises `image_losses` on fresh images.

    Args:
      generator: of `make_generator`, trained in place.
      teacher: of the same classifier.
      optimizer: new; its learning rate may be a schedule.
      config: batch size and losses.
      seed: of latents and labels.

    Returns:
      A function that returns the losses by name and, for recipes that train the student
      on them, "images" (model inputs), their "labels" and the teacher's "logits", which
      several replicas have by replica.
    """
    num_classes = teacher.classifier.num_labels
    batch_size = config.images_per_step(teacher.classifier.input_shape)
    optimizer.build(generator.trainable_variables)

    def update(step: tf.Tensor) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        drawn = sample_inputs(
            seed=seed,
            step=step,
            batch_size=batch_size,
            num_classes=num_classes,
        )
        latents, labels = map(replicas.own_part, drawn)
        with tf.GradientTape() as tape:
            images = generator([latents, labels], training=True)
            losses, logits = image_losses(
                teacher,
                images,
                labels,
                weights=LossWeights(config.bn_weight),
                relative_bn_loss=config.relative_bn_loss,
            )
            shares = replicas.shared(losses, labels)
        gradients = tape.gradient(shares["loss"], generator.trainable_variables)
        optimizer.apply_gradients(
            zip(gradients, generator.trainable_variables, strict=True)
        )
        made = {"images": images, "labels": labels, "logits": logits}
        return replicas.summed(shares), made

    @tf.function(autograph=False)
    def generator_step(step: tf.Tensor) -> dict[str, tf.Tensor]:
        losses, made = replicas.run(update, step)
        return {**replicas.from_any(losses), **made}

    return generator_step


def synthesize(
    classifier: Classifier,
    config: SynthesisConfig,
    num_images: int,
    *,
    seed: int,
    progress: Progress,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> ImagePool:
    """Trains a generator against the classifier and returns a pool of its images.

    The pool is filled at `num_snapshots` moments over the second half of the
    training, so that it holds what the generator knew at each of them. Without steps
    there is no generator, and images are noise.

    Args:
      classifier: what images are for.
      config: how the generator is trained.
      num_images: how many; they are mixed, so the first are as good as any others.
      seed: of everything random.
      progress: told of each step.
      checkpoints: keep generator, optimizer and the parts of the pool.

    Raises:
      UserError: the loss stopped being finite.
    """
    if not config.num_steps:
        return noise_images(classifier.input_shape, num_images, seed)
    checkpoint = checkpoints.of(
        "generator", config=config, num_images=num_images, seed=seed
    )
    made = checkpoint.finished()
    if made is not None:
        return pool_of(made)
    batch_size = config.images_per_step(classifier.input_shape)
    teacher = Teacher(classifier, teacher_parts(classifier.model, batch_size))
    generator = make_generator(classifier, config, seed)
    schedule = keras.optimizers.schedules.CosineDecay(
        config.learning_rate, config.num_steps, alpha=0.05
    )
    optimizer = keras.optimizers.Adam(schedule, beta_1=0.5, beta_2=0.999)
    step_function = make_generator_step(generator, teacher, optimizer, config, seed)
    first, last = config.num_steps // 2, config.num_steps
    snapshots = {
        first + math.ceil((i + 1) * (last - first) / config.num_snapshots)
        for i in range(config.num_snapshots)
    }
    images_per_snapshot = math.ceil(num_images / len(snapshots))
    variables = [*generator.variables, *optimizer.variables]
    parts: dict[str, np.ndarray] = {}
    with progress.stage("generator", config.num_steps, batch_size) as advance:
        names = batch_normalization_names(classifier.model)
        report = LossReport("generator", config.num_steps, advance, names)
        for step in resumed_steps(
            checkpoint, config.num_steps, advance, variables, parts
        ):
            metrics = step_function(tf.constant(step))
            report(metrics, step)
            if step + 1 in snapshots:
                part = generate(
                    generator,
                    classifier,
                    config,
                    images_per_snapshot,
                    seed=seed,
                    first_step=pool_step(step),
                )
                parts |= together(**{str(step): part.arrays()})
    pool = joined(pools_of(parts))[:num_images]
    pool = pool[np.random.default_rng(seed).permutation(len(pool))]
    checkpoint.finish(pool.arrays())
    return pool


def noise_images(shape: tuple[int, int, int], num_images: int, seed: int) -> ImagePool:
    """Noise with the spectrum of photographs, without classes: labels are -1.

    Each octave is half as strong as the one below.

    Args:
      shape: (height, width, channels) of an image.
      num_images: how many.
      seed: the same gives the same.
    """
    rng = np.random.default_rng(seed)
    height, width, channels = shape
    noise = large_arrays.zeros((num_images, *shape), np.float32)
    finest = [max(1, math.ceil(math.log2(side))) for side in (height, width)]
    num_parts = math.ceil(num_images / images_per_batch(8 * math.prod(shape)))
    parts = np.array_split(noise, num_parts)
    for octave in range(1, max(2, *finest) + 1):
        size = [2 ** min(octave, limit) for limit in finest]
        for part in parts:
            grid = rng.normal(0, 0.5**octave, (len(part), *size, channels))
            part += tf.image.resize(grid, (height, width), method="bilinear").numpy()
    pixels = large_arrays.zeros(noise.shape, np.uint8)
    for part, drawn in zip(parts, np.array_split(pixels, num_parts), strict=True):
        deviation = part.std(axis=(1, 2, 3), keepdims=True)
        part /= np.where(deviation > 0, deviation, 1)
        # Mid grey and a quarter of the range: little is cut off.
        drawn[...] = np.clip(128 + 64 * part, 0, 255)
    return ImagePool(pixels, np.full(num_images, -1, np.int32))


def generate(
    generator: keras.Model,
    classifier: Classifier,
    config: SynthesisConfig,
    num_images: int,
    *,
    seed: int,
    first_step: int,
) -> ImagePool:
    """Images of the generator as it stands, rounded to pixels.

    Args:
      generator: of `make_generator`.
      classifier: whose inputs it makes.
      config: says how many images are made, and normalized, together.
      num_images: as many are made.
      seed: of latents and labels, together with
      first_step: the number of the first batch.

    Raises:
      UserError: they are not finite.
    """
    batch_size = config.images_per_step(classifier.input_shape)
    batches = []
    for i in range(math.ceil(num_images / batch_size)):
        latents, labels = sample_inputs(
            seed=seed,
            step=first_step + i,
            batch_size=batch_size,
            num_classes=classifier.num_labels,
        )
        images = generator([latents, labels], training=True)
        pixels = pixels_to_keep(classifier.preprocessing, images)
        batches.append(ImagePool(pixels, labels.numpy()))
    return joined(batches)[:num_images]


def pixels_to_keep(
    preprocessing: Preprocessing, inputs: tf.Tensor
) -> npt.NDArray[np.uint8]:
    """Nearest pixels of model inputs (N, H, W, C).

    Losses are those before a step: what the last one broke shows here alone.

    Raises:
      UserError: not all of them are finite.
    """
    if not tf.reduce_all(tf.math.is_finite(inputs)):
        raise UserError(f"synthetic images became nan or inf; {_ADVICE}")
    pixels: npt.NDArray[np.uint8] = preprocessing.to_pixels(inputs).numpy()
    return pixels


@dataclasses.dataclass(frozen=True)
class LossReport:
    """Ends the steps of a stage; every few of them shows and checks its losses.

    Attributes:
      stage: its name.
      num_steps: that it has.
      advance: moves it on; is told the losses, and of each layer "bn_gap/NAME", the
        root of its part of "bn_gaps", which is in stored deviations.
      layers: names of the BatchNormalization layers.
    """

    stage: str
    num_steps: int
    advance: Advance
    layers: Sequence[str]

    def __call__(self, metrics: Mapping[str, tf.Tensor], step: int) -> None:
        """Ends one step.

        Args:
          metrics: the step's losses, and "bn_gaps"; others that are no scalars are
            left out.
          step: its number, from 0 on.

        Raises:
          UserError: a loss is not finite, with its name, stage and step.
        """
        if step % REPORT_INTERVAL and step + 1 != self.num_steps:
            self.advance()
            return
        scalars = {
            name: float(value)
            for name, value in metrics.items()
            if isinstance(value, tf.Tensor) and not value.shape.rank
        }
        for name, value in scalars.items():
            if not math.isfinite(value):
                raise UserError(
                    f"loss {name!r} became {value} at step {step + 1} of "
                    f"{self.num_steps} of stage {self.stage!r}; {_ADVICE}"
                )
        gaps = np.sqrt(metrics["bn_gaps"])
        by_layer = {
            f"bn_gap/{name}": float(f"{gap:.4g}")  # there are many in summary.json
            for name, gap in zip(self.layers, gaps, strict=True)
        }
        self.advance(1, **scalars, **by_layer)
