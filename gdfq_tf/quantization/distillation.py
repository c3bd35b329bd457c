"""The reconstructed student, trained end to end towards what the teacher gives.

Reconstruction looks at one layer at a time, in order; here kernels, biases and
BatchNormalization's factors and offsets of all layers move together. Grids stay as
they are, and so do BatchNormalization statistics. The pool is small for training, so
every batch shows it anew: cropped, mirrored and blended with other images. No label is
needed: the teacher is asked about each image as it is shown.

Source: loss, Hinton et al. 2015 (Xu et al. 2020, Eq. 7); blended images, Zhang et al.
2018 (mixup), here with the teacher's answer in place of blended labels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from gdfq_tf.checkpoints import (
    NO_CHECKPOINTS,
    Checkpoints,
    resumed_steps,
    set_values,
    values_of,
)
from gdfq_tf.classifier import Classifier
from gdfq_tf.config import DistillationConfig
from gdfq_tf.distribution import replicas
from gdfq_tf.keras_compat import keras
from gdfq_tf.progress import Progress
from gdfq_tf.quantization.losses import distillation_loss, relative_error
from gdfq_tf.quantization.student import Student
from gdfq_tf.synthesis.image_pool import ImagePool

# Crops move images by up to this share of height and width.
_LARGEST_MOVE = 0.1
# Share of the steps in which the rate rises.
_WARMUP = 0.25
# By which a student is found nearer to the teacher or not.
_NUM_CHECKED_IMAGES = 512


def distill(  # noqa: PLR0913 - two of them are for the whole run
    student: Student,
    classifier: Classifier,
    images: ImagePool,
    config: DistillationConfig,
    *,
    seed: int,
    progress: Progress,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> None:
    """Trains `student` in place on batches of `images`.

    A student that comes no nearer to the teacher is left as it was; so is one whose
    loss stops being finite, with a warning.

    Args:
      student: reconstructed.
      classifier: the teacher.
      images: a batch is drawn from them for each step.
      config: steps, batch size and learning rate.
      seed: of the choice of images and what is done to them.
      progress: told of each step.
      checkpoints: keep the student and its optimizer.
    """
    checkpoint = checkpoints.of(
        "distillation",
        config=config,
        plan=student.plan,
        num_images=len(images),
        seed=seed,
    )
    made = checkpoint.finished()
    if made is not None:
        set_values(student.model.variables, made)
        return
    loss_function = make_distillation_loss(student, classifier, config)
    trained = student.model.trainable_variables
    moves = [tf.Variable(tf.zeros_like(variable)) for variable in trained]
    optimizer = keras.optimizers.Adam(_schedule(config))
    step_function = make_distillation_step(loss_function, trained, moves, optimizer)
    batch_size = config.images_per_step(classifier.input_shape)
    # Shown as they are not while training: by the seeds of steps after the last.
    checked = [
        augment(
            tf.constant(images.pixels[start : start + batch_size]),
            (seed, config.num_steps + start),
        )
        for start in range(0, min(len(images.pixels), _NUM_CHECKED_IMAGES), batch_size)
    ]
    loss_of = tf.function(loss_function, autograph=False)

    def error() -> float:
        return float(np.mean([loss_of(pixels) for pixels in checked]))

    weights, error_before = student.model.get_weights(), error()
    chosen = np.random.default_rng(seed).integers(
        0, len(images.pixels), (config.num_steps, batch_size)
    )
    variables = [*trained, *moves, *optimizer.variables]
    num_done = config.num_steps
    with progress.stage("distillation", config.num_steps, batch_size) as advance:
        for step in resumed_steps(checkpoint, config.num_steps, advance, variables):
            pixels = augment(tf.constant(images.pixels[chosen[step]]), (seed, step))
            loss = float(step_function(pixels))
            if not math.isfinite(loss):
                num_done = step + 1
                break
            advance(loss=loss)
    error_now = error()
    if not error_now < error_before:
        student.model.set_weights(weights)
    if not math.isfinite(error_now):
        warnings.warn(
            f"training the student broke off at step {num_done} of "
            f"{config.num_steps}: its loss became {error_now}; it stays as it was "
            "reconstructed",
            stacklevel=2,
        )
    checkpoint.finish(values_of(student.model.variables))


def _schedule(
    config: DistillationConfig,
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Up in a straight line, then down along a cosine.

    Adam's first steps are of full size in all values at once, which takes deep
    networks without shortcuts far from the teacher.
    """
    num_warmup_steps = int(_WARMUP * config.num_steps)
    return keras.optimizers.schedules.CosineDecay(
        0.0,
        config.num_steps - num_warmup_steps,
        warmup_target=config.learning_rate,
        warmup_steps=num_warmup_steps,
    )


def make_distillation_loss(
    student: Student, classifier: Classifier, config: DistillationConfig
) -> Callable[[tf.Tensor], tf.Tensor]:
    """How far the student is from the teacher.

    The student runs in inference mode, as it will be exported.

    Args:
      student: what is trained.
      classifier: the teacher; networks without classes are compared by their relative
        error.
      config: the temperature.

    Returns:
      A function of pixels (N, H, W, C) float32, in [0, 255], that returns a scalar.
    """
    preprocessing = classifier.preprocessing

    def distillation_loss_of(pixels: tf.Tensor) -> tf.Tensor:
        inputs = preprocessing.to_input(pixels)
        teacher_logits = classifier.model(inputs, training=False)
        student_inputs = preprocessing.to_student_input(pixels)
        student_logits = student.model(student_inputs, training=False)
        if not classifier.head.has_classes:
            return relative_error(targets=teacher_logits, outputs=student_logits)
        return distillation_loss(
            teacher_logits=teacher_logits,
            student_logits=student_logits,
            temperature=config.temperature,
        )

    return distillation_loss_of


def make_distillation_step(
    loss_function: Callable[[tf.Tensor], tf.Tensor],
    variables: Sequence[tf.Variable],
    moves: Sequence[tf.Variable],
    optimizer: keras.optimizers.Optimizer,
) -> Callable[[tf.Tensor], tf.Tensor]:
    """One update of `variables`, as a graph function.

    The optimizer's steps are in units of each variable's root mean square: kernels in
    front of a BatchNormalization may have any size.

    Args:
      loss_function: of pixels, returns a scalar.
      variables: what is trained; updates count from their values now.
      moves: of the same shapes, how far each is from there, in those units: zeros.
      optimizer: new; its learning rate may be a schedule.

    Returns:
      A function of what `loss_function` takes that returns the loss before the update.
    """
    starts = [tf.identity(variable) for variable in variables]
    sizes = [tf.sqrt(tf.reduce_mean(tf.square(start))) for start in starts]
    optimizer.build(moves)

    def update(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        part = replicas.own_part(pixels)
        with tf.GradientTape() as tape:
            shares = replicas.shared({"loss": loss_function(part)}, part)
        gradients = tape.gradient(shares["loss"], variables)
        optimizer.apply_gradients(
            (size * gradient, move)
            for size, gradient, move in zip(sizes, gradients, moves, strict=True)
        )
        return replicas.summed(shares)

    @tf.function(autograph=False)
    def distillation_step(pixels: tf.Tensor) -> tf.Tensor:
        losses = replicas.from_any(replicas.run(update, pixels))
        for variable, start, size, move in zip(
            variables, starts, sizes, moves, strict=True
        ):
            moved = start + size * move
            keep = getattr(variable, "constraint", None)
            variable.assign(moved if keep is None else keep(moved))
        return losses["loss"]

    return distillation_step


def augment(pixels: tf.Tensor, seed: tuple[int, int]) -> tf.Tensor:
    """Images moved by a tenth at most, mirrored and blended.

    All images of a batch move alike; each is mirrored or not, and keeps at least half
    of itself beside another one.

    Args:
      pixels: uint8 (N, H, W, C).
      seed: the same gives the same.

    Returns:
      float32 (N, H, W, C).
    """
    count, height, width, _ = pixels.shape
    seeds = tf.random.experimental.stateless_split(seed, 3)
    down, right = int(height * _LARGEST_MOVE), int(width * _LARGEST_MOVE)
    padded = tf.pad(pixels, [[0, 0], [down, down], [right, right], [0, 0]], "REFLECT")
    moved = tf.image.stateless_random_crop(padded, pixels.shape, seeds[0])
    mirrored = tf.random.stateless_uniform((count, 1, 1, 1), seeds[1]) < 0.5
    # tf.reverse is several times as fast as a slice backwards.
    moved = tf.where(mirrored, tf.reverse(moved, [2]), moved)
    others = tf.cast(tf.reverse(moved, [0]), tf.float32)
    kept = tf.random.stateless_uniform((count, 1, 1, 1), seeds[2], 0.5, 1.0)
    return kept * tf.cast(moved, tf.float32) + (1 - kept) * others
