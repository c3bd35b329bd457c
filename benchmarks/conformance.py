"""Every keras.applications family of classifiers, to verified TFLite.

python -m benchmarks.conformance --output=docs/conformance.md

Each family's smallest member, at its smallest sensible input, with random weights and
BatchNormalization statistics if it has any: read, translated, quantized without
training, exported and verified. Accuracy is no subject here.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import resource
import time
from pathlib import Path

import gdfq_tf.cli.quiet_tensorflow  # noqa: F401

import keras
import numpy as np
from absl import flags

from gdfq_tf.baselines import Baselines, make_baselines
from gdfq_tf.classifier import Classifier
from gdfq_tf.cli import runner
from gdfq_tf.cli.output_files import write_whole
from gdfq_tf.config import BitWidths
from gdfq_tf.errors import UserError
from gdfq_tf.frontend.importer import all_layers
from gdfq_tf.frontend.load import Interpretation, translate_classifier
from gdfq_tf.keras_compat import keras as tf_keras
from gdfq_tf.model_files.readers import SourceModel
from gdfq_tf.pipeline import verify
from gdfq_tf.quantization.calibration import calibrate
from gdfq_tf.quantization.lowering import lower
from gdfq_tf.quantization.plan import make_plan
from gdfq_tf.quantization.student import build_student
from gdfq_tf.synthesis.image_pool import ImagePool
from tflite_export.convert import convert_network
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import read_model

# Application -> smallest sensible image.
FAMILIES = {
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "MobileNetV3Large": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "ResNetRS50": 32,
    "RegNetX002": 32,
    "RegNetY002": 32,
    "DenseNet121": 32,
    "InceptionV3": 75,
    "InceptionResNetV2": 75,
    "Xception": 71,
    "NASNetMobile": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    # Without BatchNormalization.
    "VGG16": 32,
    "ConvNeXtTiny": 32,
}
WIDTHS = (BitWidths(8, 8), BitWidths(4, 8))
_NUM_CLASSES = 10
_NUM_IMAGES = 32
_MIB = 1024.0  # ru_maxrss counts KiB

FLAGS = flags.FLAGS
flags.DEFINE_list("families", list(FAMILIES), "Names of keras.applications.")
flags.DEFINE_string("output", None, "Also write the table to this Markdown file.")


@dataclasses.dataclass(frozen=True)
class Row:
    """What one family came to.

    Attributes:
      name: of the application.
      library: "Keras 3" or "tf_keras".
      size: height and width of the image.
      difference: of the canonical copy's outputs, see `translate_classifier`.
      num_operators: of the `.tflite` files; converters_operators: of the converter's
        own int8 quantization.
      exact: by width, share of outputs that equal the student's bit by bit; all are
        within 1 LSB.
      num_bytes: by width.
      seconds: of one process, from building the network to the last verification.
      peak_mib: of that process.
      error: what stopped it, or "".
    """

    name: str
    library: str = ""
    size: int = 0
    difference: float = 0.0
    num_operators: int = 0
    converters_operators: int = 0
    exact: tuple[float, ...] = ()
    num_bytes: tuple[int, ...] = ()
    seconds: float = 0.0
    peak_mib: float = 0.0
    error: str = ""


def main() -> None:
    """Runs the families one by one and prints the table."""
    if unknown := sorted({*FLAGS.families} - FAMILIES.keys()):
        raise UserError(
            f"--families names {unknown[0]}; expected some of {', '.join(FAMILIES)}"
        )
    # A process each: its peak memory is its own.
    context = multiprocessing.get_context("spawn")
    rows = []
    for name in FLAGS.families:
        with context.Pool(1) as pool:
            rows.append(pool.apply(check_family, (name, FAMILIES[name])))
        print(markdown_row(rows[-1]), flush=True)
    if FLAGS.output:
        write_whole(Path(FLAGS.output), markdown(rows).encode())
    if failed := [row.name for row in rows if row.error]:
        raise ExportError(
            f"{len(failed)} of {len(rows)} families failed ({', '.join(failed)}); "
            "expected none: see their rows"
        )


def check_family(name: str, size: int) -> Row:
    """Takes one application all the way."""
    started = time.monotonic()
    library = keras if hasattr(keras.applications, name) else tf_keras
    row = Row(name, "Keras 3" if library is keras else "tf_keras", size)
    try:
        source = build_application(library, name, size)
        classifier, difference = translate_classifier(
            SourceModel(name.lower(), source),
            Interpretation(
                preprocessing="uint8",
                without_bn_statistics=not layers_of(source, "BatchNormalization"),
            ),
        )
        pixels = np.random.default_rng(0).integers(
            0, 256, (_NUM_IMAGES, size, size, 3), np.uint8
        )
        baselines = make_baselines(classifier, seed=0)
        results = [
            quantize_untrained(classifier, width, pixels, baselines) for width in WIDTHS
        ]
    except (UserError, ExportError) as error:
        return dataclasses.replace(row, error=str(error))
    return dataclasses.replace(
        row,
        difference=difference,
        num_operators=len(read_model(results[0][0]).operators),
        converters_operators=len(read_model(baselines.noise_ptq).operators),
        exact=tuple(exact for _, exact in results),
        num_bytes=tuple(len(tflite) for tflite, _ in results),
        seconds=time.monotonic() - started,
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB,
    )


def build_application(library, name: str, size: int):
    """An application with random weights and its BatchNormalization settled on them."""
    library.utils.set_random_seed(0)
    build = getattr(library.applications, name)
    model = build(weights=None, input_shape=(size, size, 3), classes=_NUM_CLASSES)
    rng = np.random.default_rng(0)
    layers = layers_of(model, "BatchNormalization")
    for layer in [*layers, *layers_of(model, "LayerNormalization")]:
        if layer.scale:
            layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
        if layer.center:
            layer.beta.assign(rng.normal(0.0, 0.2, layer.beta.shape))
    for layer in layers_of(model, "LayerScale"):
        # At first they are next to zero, and so is all that their blocks do.
        layer.gamma.assign(rng.uniform(0.1, 0.5, layer.gamma.shape))
    for layer in layers:
        layer.momentum = 0.0  # statistics of the batch that follows
    images = rng.uniform(0, 255, (_NUM_IMAGES, size, size, 3)).astype(np.float32)
    model(images, training=True)
    for layer in layers:
        mean, variance = layer.moving_mean, layer.moving_variance
        deviation = np.sqrt(np.asarray(variance))
        mean.assign(mean + 0.1 * deviation * rng.normal(size=deviation.shape))
        # Never smaller, nor next to zero: rounding errors would grow from layer to
        # layer, as they do in no trained network.
        larger = variance * rng.uniform(1.0, 2.0, deviation.shape)
        variance.assign(larger + 0.1 * np.mean(deviation**2))
    return model


def layers_of(model, kind: str) -> list:
    """The layers of a class, also in models inside the model."""
    return [layer for layer in all_layers(model) if type(layer).__name__ == kind]


def quantize_untrained(
    classifier: Classifier,
    bit_widths: BitWidths,
    pixels: np.ndarray,
    baselines: Baselines,
) -> tuple[bytes, float]:
    """A verified `.tflite` file, and the share of outputs that are exact.

    Raises:
      ExportError: a rule is broken, or outputs differ by more than 1 LSB.
    """
    plan = make_plan(classifier.model, bit_widths)
    inputs = classifier.preprocessing.to_input(pixels).numpy()
    student = build_student(classifier, plan, calibrate(classifier, plan, inputs))
    network = lower(student, classifier)
    tflite = convert_network(network)
    images = ImagePool(pixels, np.zeros(len(pixels), np.int32))
    _, agreement = verify(
        network,
        tflite,
        classifier,
        images,
        bit_widths,
        baselines,
        plan.layers_at_8_bits,
    )
    return tflite, agreement.exact_outputs


def markdown(rows: list[Row]) -> str:
    """The table with what it shows and how to make it again."""
    names = ", ".join(width.name for width in WIDTHS)
    columns = [
        "family", "built by", "input", "largest difference", "operators", "converter's",
        *(f"{width.name} exact" for width in WIDTHS),
        *(f"{width.name} bytes" for width in WIDTHS),
        "seconds", "peak MiB",
    ]  # fmt: skip
    lines = [
        "# Conformance",
        "",
        f"Each family of classifiers in keras.applications, {names}: fully integer,",
        "verified, outputs within 1 LSB of the student's on random images.",
        "Made by `python -m benchmarks.conformance --output=docs/conformance.md`.",
        "",
        f"- largest difference: canonical copy against the model, {_NUM_CLASSES}",
        "  classes, random weights, relative to the largest output if that exceeds 1",
        "- converter's: operators of the converter's own int8 quantization",
        "- exact: share of outputs equal to the student's bit by bit",
        "- seconds and peak memory: one process, both widths and the verification",
        "",
        f"| {' | '.join(columns)} |",
        f"|---|---|{'---:|' * (len(columns) - 2)}",
        *map(markdown_row, rows),
    ]
    return "\n".join(lines) + "\n"


def markdown_row(row: Row) -> str:
    """One line of the table."""
    if row.error:
        return f"| {row.name} | {row.library} | failed: {row.error} |"
    cells = [
        row.name, row.library, f"{row.size}x{row.size}", f"{row.difference:.1e}",
        f"{row.num_operators}", f"{row.converters_operators}",
        *(f"{100 * share:.2f} %" for share in row.exact),
        *(f"{count:,}" for count in row.num_bytes),
        f"{row.seconds:.0f}", f"{row.peak_mib:.0f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    runner.run(main)
