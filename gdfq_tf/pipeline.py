"""The whole way: a classifier in, verified integer TFLite models out. No data.

classifier -> teacher + BN statistics -> generator -> synthetic images -> refinement
-> equalize -> student -> reconstruct and distil, or fine-tune -> .tflite -> verify
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from gdfq_tf.baselines import Baselines, make_baselines
from gdfq_tf.classifier import Classifier, Head, predict_logits
from gdfq_tf.config import (
    BitWidths,
    DistillationConfig,
    FineTuningConfig,
    Recipe,
    ReconstructionConfig,
)
from gdfq_tf.errors import UserError
from gdfq_tf.graph.traits import has_kernel
from gdfq_tf.keras_compat import keras
from gdfq_tf.memory_needs import require_memory_for_run
from gdfq_tf.progress import NullProgress, Progress
from gdfq_tf.quantization.alternating import train_alternating
from gdfq_tf.quantization.distillation import distill
from gdfq_tf.quantization.estimation import AccuracyEstimate, Estimate, blend, estimate
from gdfq_tf.quantization.lowering import lower
from gdfq_tf.quantization.mixed_precision import choose_kept_layers, measure_sensitivity
from gdfq_tf.quantization.plan import make_plan, match_kernel_layers
from gdfq_tf.quantization.reconstruction import equalized, reconstruct
from gdfq_tf.quantization.student import Student
from gdfq_tf.synthesis.generator_training import synthesize
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.synthesis.refinement import refine
from tflite_export.convert import (
    convert_network,
)
from tflite_export.flatbuffer import read_model
from tflite_export.integer_network import IntegerNetwork
from tflite_export.verification.rules import Expectation, Finding
from tflite_export.verification.verify import Agreement, require, verify_file

# Heads without classes, in words.
_KINDS = {
    Head.MULTI_LABEL: "a multi-label network",
    Head.FEATURES: "a network of features",
}
_NUM_SENSITIVITY_IMAGES = 256
_NUM_VERIFICATION_IMAGES = 64  # of each kind: random, synthetic
# Work on one batch of images, in generator steps: as measured on ResNet-20.
_REFINEMENT_STEP = 0.7
_STUDENT_STEP = 1.2
_RECONSTRUCTION = 4.0


OnStudent = Callable[[BitWidths, IntegerNetwork, ImagePool], None]


@dataclasses.dataclass(frozen=True, eq=False)
class QuantizedModel:
    """One width's result, verified.

    Attributes:
      widths: what was asked.
      layers_at_8_bits: kernel layers whose kernels have 8 bits.
      estimate: how like the classifier it is, on held-out synthetic images.
      network: the student in integers; `tflite`: the file that computes it.
      findings: one per structural rule, all passed.
      agreement: student against LiteRT on random and synthetic images.
      seconds: calibration to verification.
    """

    bit_widths: BitWidths
    layers_at_8_bits: frozenset[str]
    estimate: Estimate
    network: IntegerNetwork
    tflite: bytes
    findings: tuple[Finding, ...]
    agreement: Agreement
    seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class QuantizationResult:
    """All that one run made.

    Attributes:
      recipe: as carried out, see `Recipe.without_bn_statistics`.
      images: a pool of synthetic images; none of the held-out ones.
      models: one per width, in the order asked.
      baselines: see `Baselines`.
      synthesis_seconds: generator, pool and refinement; 0 where recipes alternate.
    """

    recipe: Recipe
    images: ImagePool
    models: tuple[QuantizedModel, ...]
    baselines: Baselines
    synthesis_seconds: float


@dataclasses.dataclass(frozen=True)
class MixedPrecision:
    """Which kernel layers stay at 8 bits.

    Attributes:
      keep_layers: names or shell-style patterns.
      max_accuracy_loss: points of top-1; keeps as many of the most sensitive layers
        besides as the estimate says it takes. None: no more than `keep_layers`.
    """

    keep_layers: tuple[str, ...] = ()
    max_accuracy_loss: float | None = None


def quantize(
    classifier: Classifier,
    recipe: Recipe,
    bit_widths: Sequence[BitWidths],
    *,
    mixed_precision: MixedPrecision = MixedPrecision(),
    pool: ImagePool | None = None,
    on_student: OnStudent | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> QuantizationResult:
    """Quantizes a classifier to each of `widths` without any data.

    Widths share one generator and one pool of images, unless the recipe trains
    generator and student in turn. The same seed on the same machine gives the same
    bytes.

    Args:
      pool: images to reconstruct students from in place of synthetic ones: those of
        an earlier run, or real ones for a baseline.
      on_student: called with each width's student and the images it was made from,
        before the converter, which may crash, is called on it.

    Raises:
      UserError: a loss stopped being finite, recipe or `mixed_precision` do not fit, or
        memory does not hold the run.
      ExportError: the converter refused, or an exported model broke a rule or
        differs from its student by more than 1 output LSB.
    """
    progress = progress or NullProgress()
    keep_layers = match_kernel_layers(classifier.model, mixed_precision.keep_layers)
    _check_fit(classifier, recipe, mixed_precision)
    if not classifier.has_bn_statistics:
        recipe = recipe.without_bn_statistics()
    require_memory_for_run(classifier.model, classifier.name, recipe, bit_widths)
    alternating = isinstance(recipe.student, FineTuningConfig)
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    # The graph optimizer reorders sums of gradients differently in every process.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    with progress.stage("baselines", 1) as advance:
        baselines = make_baselines(classifier, seed)
        advance()
    if pool is None:
        progress.expect(expected_work(classifier, recipe, bit_widths))
    started = time.monotonic()
    if not alternating:
        images, held_out = _split(
            pool if pool is not None else _make_pool(classifier, recipe, seed, progress),
            refined=recipe.refinement is not None,
        )
    synthesis_seconds = time.monotonic() - started
    models = []
    for width in bit_widths:
        started = time.monotonic()
        if isinstance(recipe.student, FineTuningConfig):
            student, made = train_alternating(
                classifier,
                make_plan(classifier.model, width, keep_layers),
                recipe.synthesis,
                recipe.student,
                seed=seed,
                progress=progress,
            )
            images, held_out = _split(made, refined=False)
        else:
            teacher = equalized(
                classifier,
                make_plan(classifier.model, width, keep_layers),
                images,
                recipe.student,
            )
            student = _reconstruct(
                teacher,
                recipe.student,
                width,
                keep_layers,
                mixed_precision.max_accuracy_loss,
                images,
                held_out,
                progress,
            )
            distillation = _distillation_of(recipe.student, width)
            if distillation is not None:
                distill(
                    student,
                    classifier,
                    images,
                    distillation,
                    seed=seed,
                    progress=progress,
                )
        network = lower(student, classifier)
        if on_student is not None:
            on_student(width, network, images)
        with progress.stage("conversion", 1) as advance:
            tflite = convert_network(network)
            advance()
        with progress.stage("verification", 1) as advance:
            findings, agreement = verify(
                network,
                tflite,
                classifier,
                images,
                width,
                baselines,
                student.plan.layers_at_8_bits,
            )
            advance()
        models.append(
            QuantizedModel(
                width,
                student.plan.layers_at_8_bits,
                _estimate(student, classifier, held_out),
                network,
                tflite,
                findings,
                agreement,
                time.monotonic() - started,
            )
        )
    return QuantizationResult(
        recipe, images, tuple(models), baselines, synthesis_seconds
    )


def _check_fit(
    classifier: Classifier, recipe: Recipe, mixed_precision: MixedPrecision
) -> None:
    """Refuses what the recipe or the kind of network cannot do."""
    alternating = isinstance(recipe.student, FineTuningConfig)
    max_accuracy_loss = mixed_precision.max_accuracy_loss
    if alternating and max_accuracy_loss is not None:
        raise UserError(
            f"max_accuracy_loss cannot be held by recipe {recipe.name!r}, which would "
            "train anew for every layer it tries; name layers with keep_layers instead"
        )
    nothing_known = (
        classifier.head == Head.FEATURES and not classifier.has_bn_statistics
    )
    if nothing_known and recipe.synthesis.num_steps:
        raise UserError(
            f"{classifier.name} has neither classes nor BatchNormalization statistics, "
            f"which recipe {recipe.name!r} makes its images from; take recipe "
            "'calibrate'"
        )
    if classifier.head.has_classes:
        return
    if alternating:
        raise UserError(
            f"recipe {recipe.name!r} trains on classes, and {classifier.name} is "
            f"{_KINDS[classifier.head]}; take another recipe"
        )
    if max_accuracy_loss is not None:
        raise UserError(
            f"max_accuracy_loss is of top-1, which {classifier.name} does not have, "
            f"being {_KINDS[classifier.head]}; name layers with keep_layers instead"
        )


def _distillation_of(
    config: ReconstructionConfig, bit_widths: BitWidths
) -> DistillationConfig | None:
    """How a student of those widths is trained after reconstruction, if at all.

    At 8 bits throughout, kernels lose next to nothing that training could make good.
    """
    if bit_widths.weight_bits == bit_widths.activation_bits == 8:
        return None
    return config.distillation


def expected_work(
    classifier: Classifier, recipe: Recipe, bit_widths: Sequence[BitWidths]
) -> float:
    """All stages of a run, in steps of its first one; a rough guess beyond that."""
    input_shape = classifier.input_shape
    steps = recipe.synthesis.num_steps
    if isinstance(recipe.student, FineTuningConfig):
        return len(bit_widths) * (1 + _STUDENT_STEP) * steps
    if not steps:
        kernels = [x for x in classifier.model.layers if has_kernel(x)]
        return len(bit_widths) * len(kernels)
    num_images = recipe.synthesis.images_in_pool(input_shape)
    batches = num_images / recipe.synthesis.images_per_step(input_shape)
    per_batch = len(bit_widths) * _RECONSTRUCTION
    if recipe.refinement is not None:
        per_batch += _REFINEMENT_STEP * recipe.refinement.num_steps
    trainings = (_distillation_of(recipe.student, w) for w in bit_widths)
    student_steps = sum(t.num_steps for t in trainings if t is not None)
    return steps + batches * per_batch + _STUDENT_STEP * student_steps


def _make_pool(
    classifier: Classifier, recipe: Recipe, seed: int, progress: Progress
) -> ImagePool:
    pool = synthesize(classifier, recipe.synthesis, seed=seed, progress=progress)
    if recipe.refinement is None:
        return pool
    return refine(pool, classifier, recipe.refinement, seed=seed, progress=progress)


def _split(pool: ImagePool, *, refined: bool) -> tuple[ImagePool, ImagePool]:
    """Images to work with, and the quarter held out for the estimate."""
    images, held_out = pool.split()
    if refined:
        held_out = dataclasses.replace(held_out, pixels=blend(held_out.pixels))
    return images, held_out


def _estimate(
    student: Student, classifier: Classifier, held_out: ImagePool
) -> Estimate:
    preprocessing, head = classifier.preprocessing, classifier.head
    student_logits, logits = (
        predict_logits(model, held_out.pixels, to_input)
        for model, to_input in (
            (student.model, preprocessing.to_student_input),
            (classifier.model, preprocessing.to_input),
        )
    )
    return estimate(
        np.asarray(head.outputs_of(student_logits)),
        np.asarray(head.outputs_of(logits)),
        head,
    )


def _reconstruct(
    teacher: Classifier,
    config: ReconstructionConfig,
    width: BitWidths,
    keep_layers: frozenset[str],
    max_accuracy_loss: float | None,
    images: ImagePool,
    held_out: ImagePool,
    progress: Progress,
) -> Student:
    """The student, with as many layers at 8 bits as `max_accuracy_loss` takes."""

    def student_with(kept: frozenset[str]) -> Student:
        plan = make_plan(teacher.model, width, kept)
        return reconstruct(teacher, plan, images, config, progress)

    student = student_with(keep_layers)
    if max_accuracy_loss is None:
        return student
    sensitivity = measure_sensitivity(
        student, teacher, images.pixels[:_NUM_SENSITIVITY_IMAGES]
    )
    open_layers = sensitivity.keys() - student.plan.layers_at_8_bits
    tried: dict[frozenset[str], Student] = {frozenset(): student}

    def accuracy_loss(extra: frozenset[str]) -> float:
        if extra not in tried:
            tried[extra] = student_with(keep_layers | extra)
        found = _estimate(tried[extra], teacher, held_out)
        assert isinstance(found, AccuracyEstimate)  # see `_check_fit`
        return found.accuracy_loss

    extra = choose_kept_layers(
        sorted(open_layers, key=lambda name: (-sensitivity[name], name)),
        accuracy_loss,
        max_accuracy_loss,
    )
    accuracy_loss(extra)  # builds it if that was not tried: all layers
    return tried[extra]


def verify(
    network: IntegerNetwork,
    tflite: bytes,
    classifier: Classifier,
    images: ImagePool,
    bit_widths: BitWidths,
    baselines: Baselines,
    layers_at_8_bits: frozenset[str] = frozenset(),
) -> tuple[tuple[Finding, ...], Agreement]:
    """What the file holds and computes, against the student.

    Its bytes are the converter's of a moment ago, so they are not made again.

    Raises:
      ExportError: a rule is broken.
    """
    reference = read_model(baselines.noise_ptq)
    verification = verify_file(
        tflite,
        network,
        Expectation(bit_widths.weight_bits, len(reference.operators), layers_at_8_bits),
        images=classifier.preprocessing.to_int8(
            images.pixels[:_NUM_VERIFICATION_IMAGES]
        ),
        num_random_images=_NUM_VERIFICATION_IMAGES,
    )
    require(verification.findings)
    assert verification.agreement is not None  # outputs are a rule like others
    return verification.findings, verification.agreement
