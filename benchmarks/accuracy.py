"""Accuracy of recipes x widths x seeds on one classifier, as JSON and as a table.

    python -m benchmarks.accuracy --model=classifier.keras --preprocessing=torch \\
        --data=test.npz --bits=w8a8,w4a8,w4a4/paper --recipes=balanced,fast \\
        --seeds=0,1,2 --output=accuracy.json

Every row is the `.tflite` file's top-1 through LiteRT at the recipe's last step. Rows
that --output already holds are not measured again, so a run that was cut off goes on
where it stopped. Recipe `real` is the baseline with data: the balanced recipe's
reconstruction from as many labelled images of the second half of --data; all rows name
top-1 and agreement on the first half beside those on all images.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

import gdfq_tf.cli.quiet_tensorflow  # noqa: F401

import numpy as np
import rich.box
import rich.console
import rich.table
from absl import flags

from gdfq_tf.baselines import quantize_post_training
from gdfq_tf.classifier import Classifier
from gdfq_tf.cli import classifier_flags, reporting, runner
from gdfq_tf.cli.classifier_flags import load_classifier_from_flags, require_classes
from gdfq_tf.cli.labelled_images import LabelledImages, read_labelled_images
from gdfq_tf.cli.output_files import write_whole
from gdfq_tf.config import DEFAULT_RECIPE, RECIPES, parse_bit_widths
from gdfq_tf.errors import UserError
from gdfq_tf.metrics import accuracy_of_logits, agreement
from gdfq_tf.pipeline import quantize
from gdfq_tf.synthesis.image_pool import ImagePool
from tflite_export.benchmark import benchmark

REAL = "real"

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(classifier_flags)  # so that --help shows them
flags.DEFINE_string("data", None, "Labelled test images.", required=True)
flags.DEFINE_list("bits", "w8a8,w4a8,w4a4/paper", "Widths, as in tools/quantize.py.")
flags.DEFINE_list("recipes", DEFAULT_RECIPE, f"Some of {', '.join(RECIPES)}, {REAL}.")
flags.DEFINE_list("seeds", "0,1,2", "One run for each.")
flags.DEFINE_string("output", None, "JSON file, extended row by row.", required=True)


def main() -> None:
    """Measures what --output does not hold yet and prints all of it."""
    output = Path(FLAGS.output)
    rows = read_rows(output)
    bit_widths = {width.name: width for width in map(parse_bit_widths, FLAGS.bits)}
    _check_recipes()
    classifier = load_classifier_from_flags()
    require_classes(classifier.name, classifier.head)
    data = read_labelled_images(
        FLAGS.data, classifier.input_shape, num_classes=classifier.num_classes
    )
    reference = reporting.float_logits(classifier, data.pixels)
    for recipe in FLAGS.recipes:
        for seed in map(int, FLAGS.seeds):
            done = set(map(_key, rows))
            missing = [
                width
                for name, width in bit_widths.items()
                if (classifier.name, recipe, seed, name) not in done
            ]
            if missing:
                measured = _measure(classifier, data, reference, recipe, seed, missing)
                # The converter's rows come again with every run of their seed.
                keys = set(map(_key, measured))
                rows = [row for row in rows if _key(row) not in keys] + measured
                write_whole(output, (json.dumps(rows, indent=1) + "\n").encode())
    rich.console.Console(width=120).print(_table(rows))


def _check_recipes() -> None:
    unknown = set(FLAGS.recipes) - {*RECIPES, REAL}
    if unknown:
        raise UserError(
            f"--recipes={','.join(FLAGS.recipes)} names {', '.join(sorted(unknown))}; "
            f"expected some of {', '.join([*RECIPES, REAL])}"
        )


def read_rows(path: Path) -> list[dict]:
    """The rows that a benchmark wrote to `path`, none if there is no file.

    Raises:
      UserError: it is something else.
    """
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text())
        _ = [_key(row) for row in rows]
        return rows
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a file of this tool; expected the JSON rows of an earlier "
            "run, or pass another --output"
        ) from error


def _key(row: dict) -> tuple:
    return row["model"], row["recipe"], row["seed"], row["bits"]


def _measure(
    classifier: Classifier,
    data: LabelledImages,
    reference: np.ndarray,
    recipe_name: str,
    seed: int,
    bit_widths: Sequence,
) -> list[dict]:
    """One row per width of one run, and one for the converter's own int8 quantization
    on the same images, beside the default recipe also on noise."""
    recipe = RECIPES[DEFAULT_RECIPE if recipe_name == REAL else recipe_name]
    half = len(data.labels) // 2
    pool = None
    if recipe_name == REAL:
        size = recipe.synthesis.images_in_pool(classifier.input_shape)
        chosen = np.random.default_rng(seed).permutation(np.arange(half, 2 * half))
        chosen = chosen[:size]
        pool = ImagePool(data.pixels[chosen], data.labels[chosen].astype(np.int32))
    started = time.monotonic()
    result = quantize(
        classifier,
        recipe,
        bit_widths,
        pool=pool,
        seed=seed,
        progress=runner.RichProgress(),
    )
    seconds = time.monotonic() - started

    def facts(tflite: bytes) -> dict:
        outputs = reporting.tflite_outputs(
            tflite, classifier.preprocessing, data.pixels
        )
        return {
            "top1": accuracy_of_logits(outputs, data.labels),
            "top1_first_half": accuracy_of_logits(outputs[:half], data.labels[:half]),
            "agreement": agreement(outputs, reference),
            "agreement_first_half": agreement(outputs[:half], reference[:half]),
            "size_bytes": len(tflite),
        }

    common = {
        "model": classifier.name,
        "recipe": recipe_name,
        "seed": seed,
        "num_images": len(data.labels),
        "float_top1": accuracy_of_logits(reference, data.labels),
        "float_top1_first_half": accuracy_of_logits(
            reference[:half], data.labels[:half]
        ),
        "machine": benchmark(
            result.baselines.float32, num_runs=1, warmup_runs=0
        ).machine,
    }
    passes = 0
    if pool is None:
        passes = result.recipe.image_passes(classifier.input_shape)
    rows = [
        {
            **common,
            "bits": model.bit_widths.name,
            **facts(model.tflite),
            "estimate": dataclasses.asdict(model.estimate),
            "exact_outputs": model.agreement.exact_outputs,
            "image_passes": passes,
            "synthesis_seconds": result.synthesis_seconds,
            "student_seconds": model.seconds,
            "run_seconds": seconds,
        }
        for model in result.models
    ]
    ptq = {
        f"ptq_on_{recipe_name}": quantize_post_training(
            classifier, result.images.pixels
        )
    }
    if recipe_name == DEFAULT_RECIPE:  # once, for it depends on no recipe
        ptq["ptq_on_noise"] = result.baselines.noise_ptq
    rows += [
        {**common, "recipe": name, "bits": "w8a8", **facts(tflite)}
        for name, tflite in ptq.items()
    ]
    return rows


def _table(rows: Sequence[dict]) -> rich.table.Table:
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
    runner.run(main)
