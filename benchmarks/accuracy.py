r"""Accuracy of recipes x widths x seeds on one classifier, as JSON and as a table.

    python -m benchmarks.accuracy --model=classifier.keras --preprocessing=torch \
        --data=test.npz --bits=w8a8,w4a8,w4a4/paper --recipes=balanced,fast \
        --seeds=0,1,2 --output=accuracy.json

Every row is the `.tflite` file's top-1 through LiteRT at the recipe's last step. Rows
that --output already holds are not measured again, so a run that was cut off goes on
where it stopped. Recipe `real` is the baseline with data: the balanced recipe's
reconstruction from as many labelled images of the second half of --data; all rows name
top-1 and agreement on the first half beside those on all images.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rich.box
import rich.console
import rich.table
from absl import flags

from benchmarks import commands
from benchmarks.commands import Row, key_of
from gdfq_tf.baselines import quantize_post_training
from gdfq_tf.classifier import Classifier
from gdfq_tf.cli.classifier_flags import require_classes
from gdfq_tf.cli.labelled_images import LabelledImages, read_labelled_images
from gdfq_tf.config import (
    DEFAULT_RECIPE,
    RECIPES,
    BitWidths,
    parse_bit_widths,
)
from gdfq_tf.errors import UserError, option
from gdfq_tf.evaluation import float_logits, tflite_outputs
from gdfq_tf.job import Job
from gdfq_tf.metrics import accuracy_of_logits, agreement
from gdfq_tf.pipeline import quantize
from gdfq_tf.progress import ConsoleProgress
from gdfq_tf.result import Result
from gdfq_tf.synthesis.image_pool import ImagePool
from tflite_export.benchmark import benchmark

REAL = "real"


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    commands.define_classifier_flags(defined)
    defined.group("The benchmark")
    defined.string("data", "Labelled test images.", required=True)
    defined.texts("bits", "w8a8,w4a8,w4a4/paper", "Widths, as of gdfq quantize.")
    names = ", ".join([*RECIPES, REAL])
    defined.texts("recipes", DEFAULT_RECIPE, f"Some of {names}.")
    defined.texts("seeds", "0,1,2", "One run for each.")
    defined.string("output", "JSON file, extended row by row.", required=True)
    return defined


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A classifier with the labelled images that its students are measured on.

    Attributes:
      classifier: float, with classes.
      data: labelled images.
      logits: the classifier's on them, float32 (N, classes).
    """

    classifier: Classifier
    data: LabelledImages
    logits: np.ndarray

    @property
    def half(self) -> int:
        """How many images the first half has, which recipe `real` does not see."""
        return len(self.data.labels) // 2

    def figures_of(self, tflite: bytes) -> Row:
        """Accuracy and size of a `.tflite` file."""
        labels, half = self.data.labels, self.half
        outputs = tflite_outputs(
            tflite, self.classifier.preprocessing, self.data.pixels
        )
        return {
            "top1": accuracy_of_logits(outputs, labels),
            "top1_first_half": accuracy_of_logits(outputs[:half], labels[:half]),
            "agreement": agreement(outputs, self.logits),
            "agreement_first_half": agreement(outputs[:half], self.logits[:half]),
            "size_bytes": len(tflite),
        }

    def common_figures(self) -> Row:
        """What all rows say of the float classifier."""
        labels, half = self.data.labels, self.half
        return {
            "model": self.classifier.name,
            "num_classes": self.classifier.num_classes,
            "num_images": len(labels),
            "float_top1": accuracy_of_logits(self.logits, labels),
            "float_top1_first_half": accuracy_of_logits(
                self.logits[:half], labels[:half]
            ),
        }


def read_subject(values: flags.FlagValues) -> Subject:
    """The classifier and the images that the flags name.

    Raises:
      UserError: they cannot be read, or the classifier gives no classes.
    """
    classifier = commands.load_classifier_from_flags(values)
    require_classes(classifier.name, classifier.head)
    data = read_labelled_images(
        values.data, classifier.input_format, num_classes=classifier.num_classes
    )
    images = classifier.input_format.images(data.pixels)
    data = dataclasses.replace(data, pixels=images)
    return Subject(classifier, data, float_logits(classifier, images))


def main(values: flags.FlagValues) -> None:
    """Measures what --output does not hold yet and prints all of it."""
    output = Path(values.output)
    rows = commands.read_rows(output)
    bit_widths = {width.name: width for width in map(parse_bit_widths, values.bits)}
    _check_recipes(values.recipes)
    subject = read_subject(values)
    for recipe in values.recipes:
        for seed in map(int, values.seeds):
            done = set(map(key_of, rows))
            missing = tuple(
                width
                for name, width in bit_widths.items()
                if (subject.classifier.name, recipe, seed, name) not in done
            )
            if missing:
                measured = _measure(subject, recipe, seed, missing)
                # The converter's rows come again with every run of their seed.
                keys = set(map(key_of, measured))
                rows = [row for row in rows if key_of(row) not in keys] + measured
                commands.write_rows(output, rows)
    rich.console.Console(width=120).print(_table(rows))


def _check_recipes(names: Sequence[str]) -> None:
    unknown = set(names) - {*RECIPES, REAL}
    if unknown:
        raise UserError(
            f"{option('recipes', ','.join(names))} names {', '.join(sorted(unknown))}; "
            f"expected some of {', '.join([*RECIPES, REAL])}"
        )


def _measure(
    subject: Subject, recipe_name: str, seed: int, bit_widths: tuple[BitWidths, ...]
) -> list[Row]:
    """One row for each width of one run, and for the converter's own quantization.

    That is on the same images and, beside the default recipe, also on noise.
    """
    classifier = subject.classifier
    recipe = RECIPES[DEFAULT_RECIPE if recipe_name == REAL else recipe_name]
    pool = None
    if recipe_name == REAL:
        size = recipe.pool_size(classifier.input_shape, bit_widths)
        pool = real_pool(subject, size, seed)
    started = time.monotonic()
    result = quantize(
        Job(classifier, recipe, bit_widths, seed=seed),
        pool=pool,
        progress=ConsoleProgress(),
    )
    seconds = time.monotonic() - started
    passes = 0
    if pool is None:
        passes = result.job.recipe.image_passes(classifier.input_shape, bit_widths)
    machine = benchmark(result.baselines.float32, num_runs=1, warmup_runs=0).device
    common = {**subject.common_figures(), "seed": seed, "machine": machine}
    rows = [
        {
            **common,
            "recipe": recipe_name,
            "bits": model.bit_widths.name,
            **subject.figures_of(model.tflite),
            "estimate": dataclasses.asdict(model.estimate),
            "exact_outputs": model.agreement.exact_outputs,
            "image_passes": passes,
            "synthesis_seconds": result.synthesis_seconds,
            "student_seconds": model.seconds,
            "run_seconds": seconds,
        }
        for model in result.models
    ]
    return rows + [
        {**common, "recipe": name, "bits": "w8a8", **subject.figures_of(tflite)}
        for name, tflite in _converters_own(result, recipe_name).items()
    ]


def real_pool(subject: Subject, size: int, seed: int) -> ImagePool:
    """So many images of the second half, or all of it."""
    half, data = subject.half, subject.data
    chosen = np.random.default_rng(seed).permutation(np.arange(half, 2 * half))[:size]
    return ImagePool(data.pixels[chosen], data.labels[chosen].astype(np.int32))


def _converters_own(result: Result, recipe_name: str) -> dict[str, bytes]:
    """The converter's own int8 quantization, by name of its row."""
    own = quantize_post_training(result.job.classifier, result.images.pixels)
    files = {f"ptq_on_{recipe_name}": own}
    if recipe_name == DEFAULT_RECIPE:  # once, for it depends on no recipe
        files["ptq_on_noise"] = result.baselines.noise_ptq
    return files


def _table(rows: Sequence[Row]) -> rich.table.Table:
    """Mean and deviation over seeds, one line per model, width and recipe."""
    table = rich.table.Table(box=rich.box.MARKDOWN)
    for name in ("model", "bits", "recipe", "seeds", "top-1", "drop", "first half"):
        table.add_column(name, justify="left" if name in ("model", "bits") else "right")
    table.add_column("minutes", justify="right")
    keys = sorted({(row["model"], row["bits"], row["recipe"]) for row in rows})
    for key in keys:
        group = [r for r in rows if (r["model"], r["bits"], r["recipe"]) == key]
        top1 = 100 * np.array([row["top1"] for row in group])
        drop = 100 * np.array([row["float_top1"] - row["top1"] for row in group])
        half = 100 * np.array(
            [row["float_top1_first_half"] - row["top1_first_half"] for row in group]
        )
        minutes = [
            (row["synthesis_seconds"] + row["student_seconds"]) / 60
            for row in group
            if "student_seconds" in row
        ]
        table.add_row(
            *key,
            str(len(group)),
            f"{top1.mean():.2f} ± {top1.std():.2f}",
            f"{drop.mean():.2f}",
            f"{half.mean():.2f}",
            f"{np.mean(minutes):.1f}" if minutes else "-",
        )
    return table


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__)
