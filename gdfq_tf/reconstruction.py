"""A student from a pool of images, without training: ranges and kernels fitted."""

from __future__ import annotations

from gdfq_tf.bn_statistics import with_statistics_of
from gdfq_tf.calibration import calibrate
from gdfq_tf.config import ReconstructionConfig
from gdfq_tf.keras_compat import keras
from gdfq_tf.preprocessing import Preprocessing
from gdfq_tf.progress import Progress
from gdfq_tf.quantization_plan import QuantizationPlan
from gdfq_tf.range_search import search_ranges
from gdfq_tf.rounding import round_kernels
from gdfq_tf.student import Student, build_student
from gdfq_tf.synthesis import SyntheticImages
from gdfq_tf.teacher import predict_logits

# Ranges settle with fewer images than kernels do.
_NUM_RANGE_IMAGES = 512


def reconstruct(
    classifier: keras.Model,
    plan: QuantizationPlan,
    images: SyntheticImages,
    config: ReconstructionConfig,
    preprocessing: Preprocessing,
    progress: Progress,
) -> Student:
    """The student whose layers compute what the classifier's do, as far as bits allow.

    Ranges first, then kernels on those ranges; where activations have fewer than 8
    bits, ranges again on those kernels, and kernels again.
    """
    pixels = images.pixels[: config.num_images]
    range_pixels = pixels[:_NUM_RANGE_IMAGES]
    inputs = preprocessing.to_input(range_pixels).numpy()
    teacher = classifier
    if config.images_are_noise:
        teacher = with_statistics_of(classifier, inputs)
    calibration = calibrate(teacher, plan, inputs, preprocessing, config.logits_margin)
    student = build_student(teacher, plan, calibration, preprocessing)
    num_rounds = 0
    if any(group.bits < 8 for group in plan.groups.values()):
        num_rounds = config.num_range_rounds
        teacher_logits = predict_logits(teacher, range_pixels, preprocessing.to_input)
    with progress.stage("reconstruction", 1 + 2 * num_rounds) as advance:
        round_kernels(student, teacher, pixels, preprocessing)
        advance()
        for _ in range(num_rounds):
            search_ranges(student, range_pixels, teacher_logits, preprocessing)
            advance()
            round_kernels(student, teacher, pixels, preprocessing)
            advance()
    if config.images_are_noise:
        student.move_statistics(teacher, classifier)
    return student
