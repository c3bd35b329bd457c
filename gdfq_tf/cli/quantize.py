"""Quantizes a trained Keras classifier to fully integer TFLite, without any data.

    python tools/quantize.py --model=classifier.keras --preprocessing=torch \\
        --bits=w8a8,w4a8 --output_dir=runs/classifier

Labelled images, if given by --data, are used for the closing table alone, after
everything has been quantized.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import math
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rich.console
from absl import flags

from gdfq_tf import embedded
from gdfq_tf.classifier import Classifier
from gdfq_tf.cli import classifier_flags, reporting, runner, session
from gdfq_tf.cli.classifier_flags import (
    EMBEDDED,
    load_classifier_from_flags,
    require_classes,
)
from gdfq_tf.cli.labelled_images import LabelledImages, read_labelled_images
from gdfq_tf.config import (
    DEFAULT_RECIPE,
    RECIPES,
    BitWidths,
    Recipe,
    get_recipe,
    parse_bit_widths,
)
from gdfq_tf.errors import UserError
from gdfq_tf.pipeline import MixedPrecision, QuantizationResult, quantize
from gdfq_tf.quantization.estimation import AccuracyEstimate, Estimate, LabelEstimate
from gdfq_tf.run_directory import (
    SYNTHETIC_IMAGES,
    ModelFile,
    claim_run_directory,
    model_files,
    write_images,
    write_run,
    write_student,
    write_summary,
)
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.system.machine import describe_machine, fix_num_threads
from gdfq_tf.system.output_directory import OutputDirectory
from tflite_export.benchmark import benchmark
from tflite_export.integer_network import IntegerNetwork
from tflite_export.interpreter import TFLiteClassifier

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(classifier_flags)  # so that --help shows them
flags.DEFINE_list(
    "bits",
    "w8a8,w4a8",
    "Widths: w<weight bits>a<activation bits>. Below 8 activation bits residual adds "
    "and pooling stay at 8, unless /paper is added (w4a4/paper): all ReLU outputs.",
)
flags.DEFINE_enum(
    "recipe",
    DEFAULT_RECIPE,
    list(RECIPES),
    "How much work: calibrate (no training), fast, balanced, best; gdfq: as published.",
)
flags.DEFINE_integer(
    "num_steps",
    None,
    "Generator steps, instead of the recipe's; student steps change as much.",
)
flags.DEFINE_list(
    "keep_layers", [], "Layers that stay at 8 bits: names or patterns, conv_dw_*."
)
flags.DEFINE_float(
    "max_accuracy_loss",
    None,
    "Points of top-1 that may be lost, as estimated without data; as many of the most "
    "sensitive layers stay at 8 bits as that takes.",
    lower_bound=0.0,
)
flags.DEFINE_integer(
    "seed", 0, "Seed of everything random.", lower_bound=0, upper_bound=2**32 - 1
)
flags.DEFINE_integer(
    "num_threads",
    None,
    "Threads that TensorFlow computes with, instead of one per usable CPU: the same "
    "number gives the same bytes on however many CPUs of one kind.",
    lower_bound=1,
)
flags.DEFINE_string("output_dir", None, "Where the run directory goes.", required=True)
flags.DEFINE_bool("overwrite", False, "Replace an earlier run at --output_dir.")
flags.DEFINE_string("data", None, "Labelled test images for the closing table only.")
flags.DEFINE_integer("num_images", None, "How many of them at most.", lower_bound=1)

_NO_STATISTICS = "\nno BatchNormalization statistics were used: the model has none"
_PACKAGES = (
    "tensorflow",
    "tf_keras",
    "keras",
    "tensorflow-model-optimization",
    "ai-edge-litert",
    "numpy",
)


def main() -> None:
    """The whole run, from flags to summary.json and the closing table."""
    recipe = get_recipe(FLAGS.recipe, FLAGS.num_steps)
    bit_widths = [parse_bit_widths(text) for text in FLAGS.bits]
    if not bit_widths or len(set(bit_widths)) < len(bit_widths):
        raise UserError(
            f"--bits={','.join(FLAGS.bits)} must name at least one width, and each once"
        )
    if FLAGS.max_accuracy_loss is not None and math.isnan(FLAGS.max_accuracy_loss):
        raise UserError("--max_accuracy_loss=nan must be a number of points")
    if FLAGS.num_threads is not None:
        fix_num_threads(FLAGS.num_threads)
    output_dir = Path(FLAGS.output_dir)
    with claim_run_directory(output_dir, overwrite=FLAGS.overwrite) as output:
        session.holds(output.lock, output.partial, output.removed)
        _run(output, recipe, bit_widths)


def _run(
    output: OutputDirectory, recipe: Recipe, bit_widths: Sequence[BitWidths]
) -> None:
    session.stage("loading")
    classifier = load_classifier_from_flags()
    # Read now to refuse wrong data early; used after quantization only.
    data = _read_data(classifier)
    console = rich.console.Console()
    started = time.monotonic()
    result = quantize(
        classifier,
        recipe,
        bit_widths,
        mixed_precision=MixedPrecision(
            tuple(FLAGS.keep_layers), FLAGS.max_accuracy_loss
        ),
        on_student=functools.partial(_save_student, output, classifier.name),
        seed=FLAGS.seed,
        progress=runner.RichProgress(),
    )
    files = model_files(classifier.name, recipe.name, result)
    rows = _evaluate(classifier, files, data, result)
    summary = _summary(classifier, files, rows, result)
    summary["seconds"]["total"] = time.monotonic() - started

    def write(directory: Path) -> None:
        write_run(directory, classifier.name, files, result)
        write_summary(directory, summary)

    session.stage("writing")
    output.publish(write, session.fallback_directories())
    images = "synthetic" if data is None else "labelled test"
    console.print(
        reporting.results_table(
            f"{classifier.name}, {rows[0]['num_images']} {images} images", rows
        )
    )
    console.print(
        f"int8 input: {summary['classifier']['int8_input']}\n"
        f"verified against the student: "
        + ", ".join(
            f"{model.bit_widths.name} {100 * model.agreement.exact_outputs:.2f} % of "
            f"outputs exact, at most {model.agreement.max_lsb} LSB off"
            for model in result.models
        )
        + _mixed_line(result)
        + "\nestimated without data: "
        + ", ".join(
            f"{model.bit_widths.name} {_estimate_text(model.estimate)}"
            for model in result.models
        )
        + ("" if classifier.has_bn_statistics else _NO_STATISTICS)
        + f"\nwritten to {FLAGS.output_dir} in {summary['seconds']['total']:.0f} s",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _save_student(
    output: OutputDirectory,
    name: str,
    bit_widths: BitWidths,
    network: IntegerNetwork,
    images: ImagePool,
) -> None:
    """Saves what took long before native code, which may crash, is called on it."""

    def write(directory: Path) -> None:
        write_student(directory, name, bit_widths, network)
        if not (directory / SYNTHETIC_IMAGES).exists():
            write_images(directory, images)

    output.save_early(write)
    unfinished = output.path.with_name(f"{output.path.name}-unfinished")
    session.worth_keeping(output.partial, unfinished)


def _estimate_text(estimate: Estimate) -> str:
    if isinstance(estimate, AccuracyEstimate):
        return (
            f"agrees on {100 * estimate.agreement:.1f} % of {estimate.num_images} "
            f"synthetic images, loses about {estimate.accuracy_loss:.1f} points "
            f"({estimate.largest_accuracy_loss:.1f} at worst, as far as is known)"
        )
    if isinstance(estimate, LabelEstimate):
        return f"agrees on {100 * estimate.label_agreement:.1f} % of labels"
    return f"signal {estimate.signal_to_noise_db:.1f} dB above error"


def _mixed_line(result: QuantizationResult) -> str:
    mixed = [
        f"{model.bit_widths.name} {', '.join(sorted(model.layers_at_8_bits))}"
        for model in result.models
        if model.bit_widths.weight_bits < 8 and model.layers_at_8_bits
    ]
    return "".join(f"\nkernels at 8 bits in {line}" for line in mixed)


def _read_data(classifier: Classifier) -> LabelledImages | None:
    spec = FLAGS.data
    if spec is None and FLAGS.model == EMBEDDED:
        spec = str(embedded.TEST_IMAGES_PATH)
    if spec is None:
        return None
    require_classes(classifier.name, classifier.head)
    return read_labelled_images(
        spec,
        classifier.input_shape,
        FLAGS.num_images,
        num_classes=classifier.num_classes,
    )


def _evaluate(
    classifier: Classifier,
    files: list[ModelFile],
    data: LabelledImages | None,
    result: QuantizationResult,
) -> list[dict]:
    """One row per file; on synthetic images, without top-1, if there is no data."""
    pixels = result.images.pixels[:512] if data is None else data.pixels
    labels = None if data is None else data.labels
    logits = reporting.float_logits(classifier, pixels)
    reference = np.asarray(classifier.head.outputs_of(logits))
    rows = []
    with runner.RichProgress().stage("evaluation", len(files)) as advance:
        for file in files:
            outputs = reporting.tflite_outputs(
                file.tflite, classifier.preprocessing, pixels
            )
            latency = benchmark(file.tflite)
            rows.append(
                {
                    "title": file.title,
                    "file": file.file,
                    "sha256": file.sha256,
                    "size_bytes": len(file.tflite),
                    "latency_ms": latency.median_ms,
                    "latency_p90_ms": latency.p90_ms,
                    **reporting.accuracy_facts(
                        outputs, labels, reference, classifier.head
                    ),
                }
            )
            advance()
    return rows


def _summary(
    classifier: Classifier,
    files: list[ModelFile],
    rows: list[dict],
    result: QuantizationResult,
) -> dict:
    for row, model in zip(rows[-len(result.models) :], result.models, strict=True):
        row["widths"] = dataclasses.asdict(model.bit_widths)
        row["layers_at_8_bits"] = sorted(model.layers_at_8_bits)
        quantization = TFLiteClassifier(model.tflite).output_quantization
        row["int8_output"] = dataclasses.asdict(quantization)
        row["estimate"] = dataclasses.asdict(model.estimate)
        row["verification"] = {
            "rules": [dataclasses.asdict(finding) for finding in model.findings],
            "student_agreement": dataclasses.asdict(model.agreement),
        }
        row["seconds"] = model.seconds
    return {
        "command": sys.argv,
        "seed": FLAGS.seed,
        "recipe": dataclasses.asdict(result.recipe),
        "classifier": {
            "name": classifier.name,
            "source": FLAGS.model,
            "input_shape": classifier.input_shape,
            "num_classes": classifier.num_classes,
            "head": classifier.head,
            "bn_statistics_used": classifier.has_bn_statistics,
            "preprocessing": dataclasses.asdict(classifier.preprocessing),
            "int8_input": classifier.preprocessing.formula(),
        },
        "evaluated_on": FLAGS.data or ("embedded" if "top1" in rows[0] else None),
        "models": rows,
        "seconds": {"synthesis": result.synthesis_seconds},
        "machine": describe_machine(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
    }
