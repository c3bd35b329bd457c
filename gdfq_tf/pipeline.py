"""The whole way: a classifier in, verified integer TFLite models out. No data.

classifier -> teacher + BN statistics -> generator -> synthetic images -> student
-> fine-tune -> .tflite -> verify
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from gdfq_tf.alternating import train_alternating
from gdfq_tf.calibration import calibrate
from gdfq_tf.classifiers import Classifier
from gdfq_tf.config import BitWidths, Recipe
from gdfq_tf.fine_tuning import fine_tune
from gdfq_tf.freezing import freeze
from gdfq_tf.keras_compat import keras
from gdfq_tf.progress import NullProgress, Progress
from gdfq_tf.quantization_plan import make_plan
from gdfq_tf.student import Student, build_student
from gdfq_tf.synthesis import SyntheticImages, synthesize
from tflite_export.convert import (
    convert_float,
    convert_network,
    post_training_quantize,
)
from tflite_export.flatbuffer import read_model
from tflite_export.integer_inference import infer
from tflite_export.integer_network import IntegerNetwork
from tflite_export.interpreter import TFLiteClassifier
from tflite_export.verify import (
    Agreement,
    Expectation,
    Finding,
    compare_outputs,
    require,
    verify_structure,
)

_NUM_CALIBRATION_IMAGES = 512
_NUM_NOISE_IMAGES = 100
_NUM_VERIFICATION_IMAGES = 64  # of each kind: random, synthetic


@dataclasses.dataclass(frozen=True, eq=False)
class Baselines:
    """What the quantized models are held against, as `.tflite` bytes.

    Attributes:
      float32: the classifier as it came.
      noise_ptq: the converter's int8 post-training quantization, calibrated on
        uniform noise: what is left to people without data.
    """

    float32: bytes
    noise_ptq: bytes


@dataclasses.dataclass(frozen=True, eq=False)
class QuantizedModel:
    """One width's result, verified.

    Attributes:
      widths: what was asked.
      network: the student in integers; `tflite`: the file that computes it.
      findings: one per structural rule, all passed.
      agreement: student against LiteRT on random and synthetic images.
      seconds: calibration to verification.
    """

    widths: BitWidths
    network: IntegerNetwork
    tflite: bytes
    findings: tuple[Finding, ...]
    agreement: Agreement
    seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class QuantizationResult:
    """All that one run made.

    Attributes:
      images: a pool of synthetic images.
      models: one per width, in the order asked.
      baselines: see `Baselines`.
      synthesis_seconds: generator training and pool; 0 where recipes alternate.
    """

    images: SyntheticImages
    models: tuple[QuantizedModel, ...]
    baselines: Baselines
    synthesis_seconds: float


def quantize(
    classifier: Classifier,
    recipe: Recipe,
    widths: Sequence[BitWidths],
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> QuantizationResult:
    """Quantizes a classifier to each of `widths` without any data.

    Widths share one generator and one pool of images, unless the recipe
    alternates. The same seed on the same machine gives the same bytes.

    Raises:
      UserError: a loss stopped being finite.
      ExportError: the converter refused, or an exported model broke a rule or
        differs from its student by more than 1 output LSB.
    """
    progress = progress or NullProgress()
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    # The graph optimizer reorders sums of gradients differently in every process.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    baselines = make_baselines(classifier, seed)
    started = time.monotonic()
    if not recipe.alternating:
        images = synthesize(
            classifier.model,
            classifier.preprocessing,
            recipe.synthesis,
            seed=seed,
            progress=progress,
        )
    synthesis_seconds = time.monotonic() - started
    models = []
    for width in widths:
        started = time.monotonic()
        if recipe.alternating:
            student, images = train_alternating(
                classifier,
                make_plan(classifier.model, width),
                recipe,
                seed=seed,
                progress=progress,
            )
        else:
            student = _train_student(
                classifier, recipe, width, images, seed=seed, progress=progress
            )
        network = freeze(student, classifier.model, softmax=classifier.head != "logits")
        tflite = convert_network(network)
        findings, agreement = verify(
            network, tflite, classifier, images, width, baselines
        )
        models.append(
            QuantizedModel(
                width,
                network,
                tflite,
                findings,
                agreement,
                time.monotonic() - started,
            )
        )
    return QuantizationResult(images, tuple(models), baselines, synthesis_seconds)


def _train_student(
    classifier: Classifier,
    recipe: Recipe,
    width: BitWidths,
    images: SyntheticImages,
    *,
    seed: int,
    progress: Progress,
) -> Student:
    model, preprocessing = classifier.model, classifier.preprocessing
    plan = make_plan(model, width)
    inputs = preprocessing.to_input(images.pixels[:_NUM_CALIBRATION_IMAGES])
    calibration = calibrate(model, plan, inputs.numpy(), preprocessing)
    student = build_student(model, plan, calibration, preprocessing)
    fine_tune(
        student,
        model,
        images,
        recipe.fine_tuning,
        preprocessing,
        seed=seed,
        progress=progress,
    )
    return student


def make_baselines(classifier: Classifier, seed: int) -> Baselines:
    """The float model and its noise-calibrated quantization, as TFLite."""

    def model(inputs: tf.Tensor) -> tf.Tensor:
        logits = classifier.model(inputs, training=False)
        return logits if classifier.head == "logits" else tf.nn.softmax(logits)

    noise = np.random.default_rng(seed).integers(
        0, 256, (_NUM_NOISE_IMAGES, *classifier.input_shape)
    )
    inputs = classifier.preprocessing.to_input(noise).numpy()
    shape = classifier.input_shape
    return Baselines(
        convert_float(model, shape), post_training_quantize(model, shape, inputs)
    )


def verify(
    network: IntegerNetwork,
    tflite: bytes,
    classifier: Classifier,
    images: SyntheticImages,
    widths: BitWidths,
    baselines: Baselines,
) -> tuple[tuple[Finding, ...], Agreement]:
    """Structure of the file, and its outputs against the student's.

    Raises:
      ExportError: a rule is broken, or outputs differ by more than 1 LSB.
    """
    reference = read_model(baselines.noise_ptq)
    findings = verify_structure(
        tflite, Expectation(widths.weight_bits, len(reference.operators))
    )
    random_pixels = np.random.default_rng(0).integers(
        0, 256, (_NUM_VERIFICATION_IMAGES, *classifier.input_shape)
    )
    pixels = np.concatenate([random_pixels, images.pixels[:_NUM_VERIFICATION_IMAGES]])
    inputs = classifier.preprocessing.to_int8(pixels)
    agreement = compare_outputs(
        infer(network, inputs), TFLiteClassifier(tflite).run(inputs)
    )
    require(findings, agreement)
    return findings, agreement
