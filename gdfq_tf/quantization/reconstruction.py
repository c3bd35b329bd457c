"""A student from a pool of images, layer by layer: ranges and kernels fitted."""

from __future__ import annotations

import dataclasses

import numpy as np

from gdfq_tf.checkpoints import (
    NO_CHECKPOINTS,
    Arrays,
    Checkpoints,
    part_of,
    set_values,
    together,
    values_of,
)
from gdfq_tf.classifier import Classifier
from gdfq_tf.config import ReconstructionConfig
from gdfq_tf.graph.bn_statistics import with_statistics_of
from gdfq_tf.memory_needs import NUM_RANGE_IMAGES, images_that_fit
from gdfq_tf.progress import Progress, whole_stage
from gdfq_tf.quantization.calibration import Calibration, calibrate
from gdfq_tf.quantization.equalization import channel_ranges, equalize
from gdfq_tf.quantization.gptq import round_kernels
from gdfq_tf.quantization.plan import QuantizationPlan
from gdfq_tf.quantization.student import Student, build_student
from gdfq_tf.synthesis.image_pool import ImagePool


def equalized(
    classifier: Classifier,
    plan: QuantizationPlan,
    images: ImagePool,
    config: ReconstructionConfig,
    progress: Progress,
) -> Classifier:
    """A classifier that computes the same and suits the plan's tensors of few bits.

    It is the very one if there are none.
    """
    if not config.equalizes or all(group.bits >= 8 for group in plan.groups.values()):
        return classifier
    with whole_stage(progress, "equalization"):
        target, inputs = _target_of(classifier, images, config)
        ranges = channel_ranges(target.model, plan, inputs)
        model = equalize(classifier.model, ranges)
    return dataclasses.replace(classifier, model=model)


def reconstruct(
    classifier: Classifier,
    plan: QuantizationPlan,
    images: ImagePool,
    config: ReconstructionConfig,
    progress: Progress,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> Student:
    """The student whose layers compute what the classifier's do, as far as bits allow.

    Ranges are fitted first, then kernels on those ranges.

    Args:
      classifier: the teacher.
      plan: of its model.
      images: what it is asked about.
      config: how kernels and ranges are fitted.
      progress: told of both.
      checkpoints: keep scales, and kernels as they are rounded.
    """
    checkpoint = checkpoints.of(
        "reconstruction", config=config, plan=plan, num_images=len(images)
    )
    made = checkpoint.finished()
    if made is not None:
        return _restored(classifier, plan, made)
    made = checkpoint.unfinished()
    with whole_stage(progress, "calibration"):
        target, inputs = _target_of(classifier, images, config)
        if made is None:
            calibration = calibrate(target, plan, inputs, config.logits_margin)
            student = build_student(target, plan, calibration)
            num_rounded = 0
        else:
            calibration = Calibration.of_arrays(part_of(made, "calibration"))
            student = _restored(target, plan, made)
            num_rounded = int(made["kernels/rounded"])

    def state() -> Arrays:
        return together(
            calibration=calibration.arrays(),
            kernels={"rounded": np.array(num_rounded)},
            weights=values_of(student.model.variables),
        )

    pixels = images.pixels[: images_that_fit(classifier.model)]
    with progress.stage("reconstruction", len(student.weight_quantizers)) as advance:
        advance(num_rounded)

        def rounded(n: int = 1, **metrics: float) -> None:
            nonlocal num_rounded
            num_rounded += n
            checkpoint.keep(state)
            advance(n, **metrics)

        checkpoint.keep(state)
        round_kernels(student, target, pixels, rounded, config.rounding, num_rounded)
    if config.images_are_noise:
        student.move_statistics(target.model, classifier.model)
    checkpoint.finish(state())
    return student


def _restored(classifier: Classifier, plan: QuantizationPlan, state: Arrays) -> Student:
    """The student of a plan as `reconstruct` left it."""
    calibration = Calibration.of_arrays(part_of(state, "calibration"))
    student = build_student(classifier, plan, calibration)
    set_values(student.model.variables, part_of(state, "weights"))
    return student


def _target_of(
    classifier: Classifier, images: ImagePool, config: ReconstructionConfig
) -> tuple[Classifier, np.ndarray]:
    """What students are fitted to, and its inputs from which ranges are read."""
    model = classifier.model
    pixels = images.pixels[: min(NUM_RANGE_IMAGES, images_that_fit(model))]
    inputs = classifier.preprocessing.to_input(pixels).numpy()
    if config.images_are_noise:
        classifier = dataclasses.replace(
            classifier, model=with_statistics_of(model, inputs)
        )
    return classifier, inputs
