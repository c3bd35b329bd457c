"""Every keras.applications family of classifiers, to verified TFLite.

python -m benchmarks.conformance --output=docs/conformance.md

Each family's smallest member, at its smallest sensible input, with random weights and
BatchNormalization statistics if it has any: read, translated, quantized from noise,
exported and verified. Accuracy is no subject here.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import resource
import time
from pathlib import Path

import keras
import numpy as np
from absl import flags

from benchmarks import commands
from gdfq_tf.config import RECIPES, BitWidths, StudentBudget
from gdfq_tf.errors import ExportError, UserError, option
from gdfq_tf.frontend.importer import all_layers
from gdfq_tf.frontend.load import Interpretation, translate_classifier
from gdfq_tf.job import Job
from gdfq_tf.keras_compat import KerasLibrary, KerasModel, Layer
from gdfq_tf.keras_compat import keras as tf_keras
from gdfq_tf.model_files.readers import SourceModel
from gdfq_tf.pipeline import quantize
from gdfq_tf.system.output_files import write_whole
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
_NUM_CLASSES = 10
_NUM_IMAGES = 32
WIDTHS = (BitWidths(8, 8), BitWidths(4, 8))
RECIPE = RECIPES["calibrate"].with_budgets(lambda _: StudentBudget(_NUM_IMAGES))
_MIB = 1024.0  # ru_maxrss counts KiB


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    defined.group("The benchmark")
    defined.texts("families", list(FAMILIES), "Names of keras.applications.")
    defined.string("output", "Also write the table to this Markdown file.")
    return defined


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
      seconds: of CPU time, from building the network to the last verification.
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


def main(values: flags.FlagValues) -> None:
    """Runs the families one by one and prints the table."""
    if unknown := sorted({*values.families} - FAMILIES.keys()):
        raise UserError(
            f"{option('families')} names {unknown[0]}; expected some of "
            f"{', '.join(FAMILIES)}"
        )
    # A process each: its peak memory is its own.
    context = multiprocessing.get_context("spawn")
    rows = []
    for name in values.families:
        with context.Pool(1) as pool:
            rows.append(pool.apply(check_family, (name, FAMILIES[name])))
        print(markdown_row(rows[-1]), flush=True)
    if values.output:
        write_whole(Path(values.output), markdown(rows).encode())
    if failed := [row.name for row in rows if row.error]:
        raise ExportError(
            f"{len(failed)} of {len(rows)} families failed ({', '.join(failed)}); "
            "expected none: see their rows"
        )


def check_family(name: str, size: int) -> Row:
    """Takes one application all the way."""
    started = time.process_time()
    library = library_of(name)
    row = Row(name, "Keras 3" if library is keras else "tf_keras", size)
    try:
        source = build_application(library, name, size, _NUM_CLASSES, _NUM_IMAGES)
        translation = translate_classifier(
            SourceModel(name.lower(), source),
            Interpretation(
                preprocessing="uint8",
                without_bn_statistics=not layers_of(source, "BatchNormalization"),
            ),
        )
        result = quantize(Job(translation.classifier, RECIPE, WIDTHS))
    except (UserError, ExportError) as error:
        return dataclasses.replace(row, error=str(error))
    return dataclasses.replace(
        row,
        difference=translation.difference,
        num_operators=len(read_model(result.models[0].tflite).operators),
        converters_operators=len(read_model(result.baselines.noise_ptq).operators),
        exact=tuple(model.agreement.exact_outputs for model in result),
        num_bytes=tuple(len(model.tflite) for model in result),
        seconds=time.process_time() - started,
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB,
    )


def library_of(name: str) -> KerasLibrary:
    """Keras 3 if it has the application, else tf_keras."""
    return keras if hasattr(keras.applications, name) else tf_keras


def build_application(
    library: KerasLibrary, name: str, size: int, num_classes: int, num_images: int
) -> KerasModel:
    """An application with random weights and its BatchNormalization settled on them.

    Args:
      library: that has it.
      name: its own.
      size: height and width of its images.
      num_classes: of its outputs.
      num_images: of noise, whose statistics are stored.
    """
    library.utils.set_random_seed(0)
    build = getattr(library.applications, name)
    model = build(weights=None, input_shape=(size, size, 3), classes=num_classes)
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
    images = rng.uniform(0, 255, (num_images, size, size, 3)).astype(np.float32)
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


def layers_of(model: KerasModel, kind: str) -> list[Layer]:
    """The layers of a class, also in models inside the model."""
    return [layer for layer in all_layers(model) if type(layer).__name__ == kind]


def markdown(rows: list[Row]) -> str:
    """The table with what it shows and how to make it again."""
    names = ", ".join(width.name for width in WIDTHS)
    columns = [
        "family", "built by", "input", "largest difference", "operators", "converter's",
        *(f"{width.name} exact" for width in WIDTHS),
        *(f"{width.name} bytes" for width in WIDTHS),
        "CPU seconds", "peak MiB",
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
        "- CPU seconds, peak memory: one process, both widths and the verification",
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
    commands.run(main, define_flags(), __doc__, bare="families")
