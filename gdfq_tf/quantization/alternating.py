"""GDFQ as published: generator and student trained in turn on fresh images.

Source: Xu et al. 2020, Algorithm 1, and the published CIFAR configuration. Kept:
losses and their weights, one generator and one student update per step on the same
images, warm-up of the generator alone for 1 % of the steps, both learning rates
divided by ten at 1/4, 1/2 and 3/4, Adam (0.5, 0.999) for the generator, SGD with
Nesterov momentum 0.9 and weight decay 1e-4 for the student, scales fixed after the
warm-up. Deviation: weights are symmetric and ranges clipped with least error, for
integer kernels have no asymmetric weights; images are rounded to pixels; weight
decay is decoupled from the gradient, as tf_keras has it.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from gdfq_tf.checkpoints import (
    NO_CHECKPOINTS,
    Checkpoint,
    Checkpoints,
    part_of,
    resumed_steps,
    set_values,
    together,
    values_of,
)
from gdfq_tf.classifier import Classifier
from gdfq_tf.config import FineTuningConfig, SynthesisConfig, images_in_pool
from gdfq_tf.distribution import replicas
from gdfq_tf.graph.bn_statistics import batch_normalization_names
from gdfq_tf.keras_compat import keras
from gdfq_tf.memory_needs import teacher_parts
from gdfq_tf.progress import Progress
from gdfq_tf.quantization.calibration import calibrate
from gdfq_tf.quantization.losses import distillation_loss
from gdfq_tf.quantization.plan import QuantizationPlan
from gdfq_tf.quantization.student import Student, build_student
from gdfq_tf.synthesis.generator_training import (
    LossReport,
    generate,
    make_generator,
    make_generator_step,
    pool_step,
)
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.synthesis.losses import classification_loss
from gdfq_tf.synthesis.teacher import Teacher


def train_alternating(  # noqa: PLR0913 - two of them are for the whole run
    classifier: Classifier,
    plan: QuantizationPlan,
    synthesis: SynthesisConfig,
    fine_tuning: FineTuningConfig,
    *,
    seed: int,
    progress: Progress,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> tuple[Student, ImagePool]:
    """The trained student and images of the final generator.

    Args:
      classifier: the teacher of both; it has classes.
      plan: what of it is quantized.
      synthesis: the generator's training.
      fine_tuning: the student's.
      seed: of weights, latents and labels.
      progress: told of each step.
      checkpoints: keep generator, student and their optimizers.

    Raises:
      UserError: a loss stopped being finite.
    """
    facts = {"synthesis": synthesis, "config": fine_tuning, "seed": seed}
    preprocessing = classifier.preprocessing
    num_steps = fine_tuning.num_steps
    warm_up = fine_tuning.num_warm_up_steps
    generator = make_generator(classifier, synthesis, seed)
    optimizer = keras.optimizers.Adam(
        _step_decay(synthesis.learning_rate, num_steps, warm_up),
        beta_1=0.5,
    )
    batch_size = synthesis.images_per_step(classifier.input_shape)
    teacher = Teacher(classifier, teacher_parts(classifier.model, batch_size))
    names = batch_normalization_names(classifier.model)
    generator_step = make_generator_step(generator, teacher, optimizer, synthesis, seed)
    variables = [*generator.variables, *optimizer.variables]

    def draw(num_images: int, first_step: int) -> ImagePool:
        return generate(
            generator,
            classifier,
            synthesis,
            num_images,
            seed=seed,
            first_step=first_step,
        )

    def warmed_up(checkpoint: Checkpoint) -> ImagePool:
        """What ranges are measured on; the generator is as it is then."""
        made = checkpoint.finished()
        if made is not None:
            set_values(variables, part_of(made, "variables"))
            return ImagePool(**part_of(made, "images"))
        with progress.stage("warm-up", warm_up, batch_size) as advance:
            report = LossReport("warm-up", warm_up, advance, names)
            for step in resumed_steps(checkpoint, warm_up, advance, variables):
                report(generator_step(tf.constant(step)), step)
        images = draw(fine_tuning.num_calibration_images, pool_step(0))
        checkpoint.finish(
            together(variables=values_of(variables), images=images.arrays())
        )
        return images

    images = warmed_up(checkpoints.of("warm-up", **facts))
    inputs = preprocessing.to_input(images.pixels).numpy()
    student = build_student(classifier, plan, calibrate(classifier, plan, inputs))
    checkpoint = checkpoints.of("generator and student", plan=plan, **facts)
    ended = checkpoint.finished()
    if ended is not None:
        set_values(student.model.variables, part_of(ended, "student"))
        return student, ImagePool(**part_of(ended, "images"))
    student_optimizer = keras.optimizers.SGD(
        _step_decay(fine_tuning.learning_rate, num_steps),
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-4,
    )
    student_step = make_student_step(
        student, classifier, student_optimizer, fine_tuning
    )
    variables += [*student.model.variables, *student_optimizer.variables]
    with progress.stage("generator and student", num_steps, batch_size) as advance:
        report = LossReport("generator and student", num_steps, advance, names)
        for step in resumed_steps(checkpoint, num_steps, advance, variables):
            made = generator_step(tf.constant(warm_up + step))
            pixels = replicas.run(preprocessing.to_pixels, made["images"])
            trained = student_step(pixels, made["labels"], made["logits"])
            losses = {"loss": trained["loss"], "generator": made["loss"]}
            report({**losses, "bn_gaps": made["bn_gaps"]}, step)
    num_images = images_in_pool(fine_tuning.num_images, classifier.input_shape)
    images = draw(num_images, pool_step(1))
    checkpoint.finish(
        together(student=values_of(student.model.variables), images=images.arrays())
    )
    return student, images


def make_student_step(
    student: Student,
    classifier: Classifier,
    optimizer: keras.optimizers.Optimizer,
    config: FineTuningConfig,
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    """One update of the student, as a graph function.

    Minimises distillation / classes + classification_weight * cross-entropy. The
    student runs in inference mode: its BatchNormalization statistics stay the
    teacher's, gamma and beta are trained.

    Source: Xu et al. 2020, Eq. 8, with the reduction of the published code.

    Args:
      student: trained in place.
      classifier: the one that it was built from.
      optimizer: new; its learning rate may be a schedule.
      config: weights of the losses.

    Returns:
      A function of pixels (N, H, W, C), labels (N,) and the teacher's logits
      (N, classes), by replica; it returns the losses by name, "loss" their weighted
      sum.
    """
    num_classes = classifier.num_classes
    variables = student.model.trainable_variables
    optimizer.build(variables)

    def update(
        pixels: tf.Tensor, labels: tf.Tensor, teacher_logits: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        inputs = classifier.preprocessing.to_student_input(pixels)
        with tf.GradientTape() as tape:
            student_logits = student.model(inputs, training=False)
            distillation = distillation_loss(
                teacher_logits=teacher_logits,
                student_logits=student_logits,
                temperature=config.temperature,
            )
            cross_entropy = classification_loss(logits=student_logits, labels=labels)
            loss = (
                distillation / num_classes
                + config.classification_weight * cross_entropy
            )
            losses = {
                "loss": loss,
                "distillation": distillation,
                "cross_entropy": cross_entropy,
            }
            shares = replicas.shared(losses, labels)
        gradients = tape.gradient(shares["loss"], variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return replicas.summed(shares)

    @tf.function(autograph=False)
    def student_step(
        pixels: tf.Tensor, labels: tf.Tensor, teacher_logits: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        made = replicas.run(update, pixels, labels, teacher_logits)
        return replicas.from_any(made)

    return student_step


def _step_decay(
    learning_rate: float, num_steps: int, first_step: int = 0
) -> keras.optimizers.schedules.LearningRateSchedule:
    """A tenth at 1/4, 1/2 and 3/4 of `num_steps`, counted from `first_step`."""
    boundaries = [
        first_step + max(1, round(num_steps * share)) for share in (0.25, 0.5, 0.75)
    ]
    values = [learning_rate * 0.1**i for i in range(4)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)
