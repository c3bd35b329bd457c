"""The student's training against the teacher."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from gdfq_tf.config import FineTuningConfig
from gdfq_tf.keras_compat import keras
from gdfq_tf.losses import classification_loss, distillation_loss, feature_loss
from gdfq_tf.preprocessing import Preprocessing
from gdfq_tf.progress import Progress
from gdfq_tf.student import Student
from gdfq_tf.synthesis import SyntheticImages, report
from gdfq_tf.teacher import Teacher


def make_student_step(
    student: Student,
    teacher: Teacher,
    optimizer: keras.optimizers.Optimizer,
    variables: list[tf.Variable],
    config: FineTuningConfig,
    preprocessing: Preprocessing,
) -> Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]:
    """One update of `variables`, a graph function of pixels (N, H, W, C) and labels.

    Minimises distillation + classification_weight * cross-entropy
    + feature_weight * relative error of the ReLU outputs (Xu et al. 2020, Eq. 8,
    and the feature term). The student always runs in inference mode: its
    BatchNormalization statistics stay the teacher's, gamma and beta are trained.
    """
    num_classes = student.model.output_shape[-1]
    distillation_weight = 1 / num_classes if config.distillation_per_class else 1.0
    feature_names = list(student.plan.features) if config.feature_weight else []
    teacher_model = teacher.features(feature_names)
    student_model = student.features(feature_names)
    optimizer.build(variables)

    @tf.function(reduce_retracing=False)
    def student_step(pixels: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        teacher_logits, teacher_features = _logits_and_features(
            teacher_model, preprocessing.to_input(pixels)
        )
        with tf.GradientTape() as tape:
            student_logits, student_features = _logits_and_features(
                student_model, preprocessing.to_student_input(pixels)
            )
            metrics = {
                "distillation": distillation_loss(
                    teacher_logits=teacher_logits,
                    student_logits=student_logits,
                    temperature=config.temperature,
                ),
                "cross_entropy": classification_loss(
                    logits=student_logits, labels=labels
                ),
            }
            loss = (
                distillation_weight * metrics["distillation"]
                + config.classification_weight * metrics["cross_entropy"]
            )
            if feature_names:
                metrics["features"] = feature_loss(
                    teacher_features=teacher_features,
                    student_features=student_features,
                )
                loss += config.feature_weight * metrics["features"]
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {"loss": loss, **metrics}

    return student_step


def _logits_and_features(model: keras.Model, inputs: tf.Tensor):
    outputs = model(inputs, training=False)
    if not isinstance(outputs, (list, tuple)):
        return outputs, []
    return outputs[0], outputs[1:]


def fine_tune(
    student: Student,
    classifier: keras.Model,
    images: SyntheticImages,
    config: FineTuningConfig,
    preprocessing: Preprocessing,
    *,
    seed: int,
    progress: Progress,
) -> None:
    """Trains the student's variables in place on a pool of synthetic images.

    Raises:
      UserError: the loss stopped being finite.
    """
    schedule = keras.optimizers.schedules.CosineDecay(
        config.learning_rate, config.num_steps
    )
    step_function = make_student_step(
        student,
        Teacher(classifier),
        keras.optimizers.Adam(schedule),
        student.model.trainable_variables,
        config,
        preprocessing,
    )
    batches = _batch_indices(len(images.labels), config, seed)
    with progress.stage("student", config.num_steps) as advance:
        for step in range(config.num_steps):
            chosen = batches[step]
            metrics = step_function(
                tf.constant(images.pixels[chosen]), tf.constant(images.labels[chosen])
            )
            report(advance, metrics, step, config.num_steps)


def _batch_indices(num_images: int, config: FineTuningConfig, seed: int) -> np.ndarray:
    """(num_steps, batch_size) indices: every image once before any comes again."""
    needed = config.num_steps * config.batch_size
    rng = np.random.default_rng(seed)
    epochs = [
        rng.permutation(num_images) for _ in range(math.ceil(needed / num_images))
    ]
    return np.concatenate(epochs)[:needed].reshape(config.num_steps, -1)
