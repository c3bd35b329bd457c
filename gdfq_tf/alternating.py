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

import tensorflow as tf

from gdfq_tf.calibration import calibrate
from gdfq_tf.classifiers import Classifier
from gdfq_tf.config import Recipe
from gdfq_tf.fine_tuning import make_student_step
from gdfq_tf.keras_compat import keras
from gdfq_tf.progress import Progress
from gdfq_tf.quantization_plan import QuantizationPlan
from gdfq_tf.student import Student, build_student
from gdfq_tf.synthesis import (
    POOL_STEP,
    SyntheticImages,
    generate,
    make_generator,
    make_generator_step,
    report,
)
from gdfq_tf.teacher import Teacher

_WARM_UP_SHARE = 0.01  # 4 of 400 epochs
# However short the run: ranges measured on an untrained generator's noise would
# stay wrong for good.
_MIN_WARM_UP_STEPS = 50
_NUM_CALIBRATION_IMAGES = 512


def train_alternating(
    classifier: Classifier,
    plan: QuantizationPlan,
    recipe: Recipe,
    *,
    seed: int,
    progress: Progress,
) -> tuple[Student, SyntheticImages]:
    """The trained student and images of the final generator.

    Raises:
      UserError: a loss stopped being finite.
    """
    model, preprocessing = classifier.model, classifier.preprocessing
    num_steps = recipe.fine_tuning.num_steps
    warm_up = max(_MIN_WARM_UP_STEPS, round(_WARM_UP_SHARE * num_steps))
    teacher = Teacher(model)
    generator = make_generator(model, preprocessing, recipe.synthesis, seed)
    generator_step = make_generator_step(
        generator,
        teacher,
        keras.optimizers.Adam(
            _step_decay(recipe.synthesis.learning_rate, num_steps, warm_up),
            beta_1=0.5,
        ),
        recipe.synthesis,
        seed,
    )

    def draw(num_images: int, first_step: int) -> SyntheticImages:
        return generate(
            generator,
            preprocessing,
            num_images,
            batch_size=recipe.synthesis.batch_size,
            num_classes=classifier.num_classes,
            seed=seed,
            first_step=first_step,
        )

    with progress.stage("warm-up", warm_up) as advance:
        for step in range(warm_up):
            report(advance, generator_step(tf.constant(step)), step, warm_up)
    images = draw(_NUM_CALIBRATION_IMAGES, POOL_STEP)
    calibration = calibrate(
        model, plan, preprocessing.to_input(images.pixels).numpy(), preprocessing
    )
    student = build_student(model, plan, calibration, preprocessing)
    student_step = make_student_step(
        student,
        teacher,
        keras.optimizers.SGD(
            _step_decay(recipe.fine_tuning.learning_rate, num_steps),
            momentum=0.9,
            nesterov=True,
            weight_decay=1e-4,
        ),
        student.variables_without_scales(),
        recipe.fine_tuning,
        preprocessing,
    )
    with progress.stage("generator and student", num_steps) as advance:
        for step in range(num_steps):
            made = generator_step(tf.constant(warm_up + step))
            trained = student_step(
                preprocessing.to_pixels(made["images"]), made["labels"]
            )
            metrics = {"generator": made["loss"], "student": trained["loss"]}
            report(advance, metrics, step, num_steps)
    return student, draw(recipe.synthesis.pool_size, POOL_STEP + 1000)


def _step_decay(learning_rate: float, num_steps: int, first_step: int = 0):
    """A tenth at 1/4, 1/2 and 3/4 of `num_steps`, counted from `first_step`."""
    boundaries = [
        first_step + max(1, round(num_steps * share)) for share in (0.25, 0.5, 0.75)
    ]
    values = [learning_rate * 0.1**i for i in range(4)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)
