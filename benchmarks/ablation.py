"""What each ingredient of a recipe is worth: one taken away at a time.

    python -m benchmarks.ablation --model=classifier.keras --preprocessing=torch \\
        --data=test.npz --bits=w4a8,w4a4/paper --seeds=0 --output=ablation.json

Every row is the `.tflite` file's top-1 through LiteRT. All variants of one seed start
from the same generator. Rows that --output already holds are not measured again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from types import ModuleType
from unittest import mock

import gdfq_tf.cli.quiet_tensorflow  # noqa: F401

import numpy as np
import rich.box
import rich.console
import rich.table
from absl import flags

from benchmarks.accuracy import read_rows
from gdfq_tf import pipeline
from gdfq_tf.classifier import Classifier
from gdfq_tf.cli import classifier_flags, reporting, runner
from gdfq_tf.cli.classifier_flags import load_classifier_from_flags
from gdfq_tf.cli.labelled_images import read_labelled_images
from gdfq_tf.cli.output_files import write_whole
from gdfq_tf.config import DEFAULT_RECIPE, RECIPES, Recipe, parse_bit_widths
from gdfq_tf.metrics import accuracy_of_logits, agreement
from gdfq_tf.pipeline import quantize
from gdfq_tf.quantization import gptq, reconstruction
from gdfq_tf.synthesis import losses, objective, refinement
from gdfq_tf.synthesis.generator_training import noise_images, synthesize
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.synthesis.refinement import refine

FLAGS = flags.FLAGS
# So that --help shows them; --recipes alone means nothing here.
flags.adopt_module_key_flags(classifier_flags)
for _name in ("data", "bits", "seeds", "output"):
    flags.declare_key_flag(_name)

Patch = tuple[ModuleType, str, object]


@dataclasses.dataclass(frozen=True)
class Variant:
    """A recipe without one of its ingredients.

    Attributes:
      pool: which images: "refined", "generated" (not refined), "noise" (refined from
        noise instead of a generator's images).
      image_patches: (module, attribute, stand-in) while images are refined.
      student_patches: likewise while students are reconstructed and trained.
    """

    name: str
    pool: str = "refined"
    image_patches: tuple[Patch, ...] = ()
    student_patches: tuple[Patch, ...] = ()


def _at_temperature_1(*, logits, labels, temperature):
    return losses.classification_loss(logits=logits, labels=labels)


_best_kernel = gptq.best_kernel


def _teachers_kernel(kernel, moments):
    _, damped = _best_kernel(kernel, moments)
    return kernel, damped


def _nearest_levels(target, damped, scale, limit):
    return np.clip(np.round(target / scale[:, np.newaxis]), -limit, limit)


VARIANTS = (
    Variant("whole recipe"),
    Variant("no generator: noise refined", pool="noise"),
    Variant("no refinement", pool="generated"),
    Variant(
        "no collages",
        image_patches=((refinement, "make_collages", lambda pixels, _: pixels),),
    ),
    Variant(
        "all images exposed alike",
        image_patches=((refinement, "vary_exposure", lambda pixels, _: pixels),),
    ),
    Variant(
        "classes asked for at temperature 1",
        image_patches=((objective, "classification_loss", _at_temperature_1),),
    ),
    Variant(
        "refined without BN statistics",
        image_patches=((objective, "relative_bn_statistics_loss", lambda **_: 0.0),),
    ),
    Variant(
        "refined without classes",
        image_patches=((objective, "classification_loss", lambda **_: 0.0),),
    ),
    Variant(
        "teacher's kernels as targets",
        student_patches=((gptq, "best_kernel", _teachers_kernel),),
    ),
    Variant("nearest levels", student_patches=((gptq, "round_rows", _nearest_levels),)),
    Variant(
        "channels not equalized",
        student_patches=((reconstruction, "channel_ranges", lambda *_: {}),),
    ),
    Variant(
        "no training end to end",
        student_patches=((pipeline, "distill", lambda *_, **__: None),),
    ),
)


def main() -> None:
    """Measures what --output does not hold yet and prints all of it."""
    output = Path(FLAGS.output)
    rows = read_rows(output)
    recipe = RECIPES[DEFAULT_RECIPE]
    bit_widths = tuple(map(parse_bit_widths, FLAGS.bits))
    classifier = load_classifier_from_flags()
    data = read_labelled_images(
        FLAGS.data, classifier.input_shape, num_classes=classifier.num_classes
    )
    reference = reporting.float_logits(classifier, data.pixels)
    for seed in map(int, FLAGS.seeds):
        generated: ImagePool | None = None
        pools: dict[tuple, ImagePool] = {}
        for variant in VARIANTS:
            key = (classifier.name, variant.name, seed)
            if any((r["model"], r["recipe"], r["seed"]) == key for r in rows):
                continue
            if generated is None:
                generated = synthesize(
                    classifier,
                    recipe.synthesis,
                    seed=seed,
                    progress=runner.RichProgress(),
                )
            images = (variant.pool, variant.image_patches)
            if images not in pools:
                with _patched(variant.image_patches):
                    pools[images] = _pool(variant, classifier, recipe, generated, seed)
            with _patched(variant.student_patches):
                result = quantize(
                    classifier,
                    recipe,
                    bit_widths,
                    pool=pools[images],
                    seed=seed,
                    progress=runner.RichProgress(),
                )
            for model in result.models:
                outputs = reporting.tflite_outputs(
                    model.tflite, classifier.preprocessing, data.pixels
                )
                rows.append(
                    {
                        "model": classifier.name,
                        "recipe": variant.name,
                        "seed": seed,
                        "bits": model.bit_widths.name,
                        "float_top1": accuracy_of_logits(reference, data.labels),
                        "top1": accuracy_of_logits(outputs, data.labels),
                        "agreement": agreement(outputs, reference),
                    }
                )
            write_whole(output, (json.dumps(rows, indent=1) + "\n").encode())
    rich.console.Console(width=120).print(_table(rows))


@contextlib.contextmanager
def _patched(patches: tuple[Patch, ...]):
    with contextlib.ExitStack() as stack:
        for module, attribute, stand_in in patches:
            stack.enter_context(mock.patch.object(module, attribute, stand_in))
        yield


def _pool(
    variant: Variant,
    classifier: Classifier,
    recipe: Recipe,
    generated: ImagePool,
    seed: int,
) -> ImagePool:
    if variant.pool == "generated":
        return generated
    start = generated
    if variant.pool == "noise":
        noise = noise_images(classifier.input_shape, len(generated.labels), seed)
        start = ImagePool(noise.pixels, generated.labels)
    assert recipe.refinement is not None
    return refine(
        start,
        classifier,
        recipe.refinement,
        seed=seed,
        progress=runner.RichProgress(),
    )


def _table(rows: list[dict]) -> rich.table.Table:
    """Mean drop and agreement over seeds, one line per variant."""
    models = sorted({(row["model"], row["bits"]) for row in rows})
    table = rich.table.Table(box=rich.box.MARKDOWN)
    table.add_column("variant")
    for model, bits in models:
        table.add_column(f"{model} {bits}", justify="right")
    for variant in VARIANTS:
        cells = []
        for model, bits in models:
            group = [
                row
                for row in rows
                if (row["model"], row["bits"], row["recipe"])
                == (model, bits, variant.name)
            ]
            drops = [100 * (row["float_top1"] - row["top1"]) for row in group]
            agreements = [100 * row["agreement"] for row in group]
            cells.append(
                f"{np.mean(drops):.2f} ({np.mean(agreements):.2f})" if group else "-"
            )
        table.add_row(variant.name, *cells)
    return table


if __name__ == "__main__":
    runner.run(main)
