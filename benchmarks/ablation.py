r"""What each ingredient of a recipe is worth: one taken away at a time.

    python -m benchmarks.ablation --model=classifier.keras --preprocessing=torch \
        --data=test.npz --bits=w4a8,w4a4/paper --seeds=0 --output=ablation.json

Every row is the `.tflite` file's top-1 through LiteRT. All variants of one seed start
from the same generator. Rows that --output already holds are not measured again.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.box
import rich.console
import rich.table
from absl import flags

from benchmarks import commands
from benchmarks.accuracy import Subject, read_subject
from benchmarks.commands import Row
from gdfq_tf.config import (
    DEFAULT_RECIPE,
    RECIPES,
    BitWidths,
    Recipe,
    RefinementConfig,
    RoundingConfig,
    parse_bit_widths,
)
from gdfq_tf.job import Job
from gdfq_tf.pipeline import quantize
from gdfq_tf.progress import ConsoleProgress
from gdfq_tf.synthesis.generator_training import noise_images, synthesize
from gdfq_tf.synthesis.growing_pool import GrowingPool, refine_parts
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.system.reproducibility import reproducible

WHOLE = RECIPES[DEFAULT_RECIPE]


@dataclasses.dataclass(frozen=True)
class Variant:
    """A recipe without one of its ingredients.

    Attributes:
      name: for the table.
      recipe: the whole one but for that.
      from_noise: whether noise is refined instead of a generator's images.
    """

    name: str
    recipe: Recipe = WHOLE
    from_noise: bool = False


def _refined(**changes: float | bool) -> Recipe:
    """The whole recipe, with changes in how images are refined."""
    whole = WHOLE.refinement or RefinementConfig(0)
    refinement = dataclasses.replace(whole, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(WHOLE, refinement=refinement)


def _fitted(**changes: object) -> Recipe:
    """The whole recipe, with changes in how students are made from images."""
    student: Any = dataclasses.replace(WHOLE.student, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(WHOLE, student=student)


VARIANTS = (
    Variant("whole recipe"),
    Variant("no generator: noise refined", from_noise=True),
    Variant("no refinement", dataclasses.replace(WHOLE, refinement=None)),
    Variant("no collages", _refined(collages=False)),
    Variant("all images exposed alike", _refined(varied_exposure=False)),
    Variant("classes asked for at temperature 1", _refined(temperature=1.0)),
    Variant("refined without BN statistics", _refined(bn_weight=0.0)),
    Variant("refined without classes", _refined(class_weight=0.0)),
    Variant(
        "teacher's kernels as targets",
        _fitted(rounding=RoundingConfig(fits_target=False)),
    ),
    Variant("nearest levels", _fitted(rounding=RoundingConfig(spreads_errors=False))),
    Variant("channels not equalized", _fitted(equalizes=False)),
)


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    commands.define_classifier_flags(defined)
    defined.group("The benchmark")
    defined.string("data", "Labelled test images.", required=True)
    defined.texts("bits", "w4a8,w4a4/paper", "Widths, as of gdfq quantize.")
    defined.texts("seeds", "0", "One run of each variant for each.")
    defined.string("output", "JSON file, extended row by row.", required=True)
    return defined


def main(values: flags.FlagValues) -> None:
    """Measures what --output does not hold yet and prints all of it."""
    output = Path(values.output)
    rows = commands.read_rows(output)
    bit_widths = tuple(map(parse_bit_widths, values.bits))
    subject = read_subject(values)
    for seed in map(int, values.seeds):
        done = {(row["model"], row["recipe"], row["seed"]) for row in rows}
        pools = Pools(subject, seed)
        for variant in VARIANTS:
            if (subject.classifier.name, variant.name, seed) not in done:
                rows += _measure(subject, variant, bit_widths, pools)
                commands.write_rows(output, rows)
    rich.console.Console(width=120).print(_table(rows))


class Pools:
    """The images of all variants of one seed, each pool made when it is asked for.

    Attributes:
      seed: of everything random.
    """

    def __init__(self, subject: Subject, seed: int) -> None:
        """Takes what images are for, and the seed."""
        self.seed = seed
        self._classifier = subject.classifier
        self._generated: ImagePool | None = None
        self._made: dict[tuple[bool, RefinementConfig | None], GrowingPool] = {}

    def of(self, variant: Variant) -> GrowingPool:
        """The images that a variant's students are made from."""
        key = (variant.from_noise, variant.recipe.refinement)
        if key not in self._made:
            self._made[key] = GrowingPool(
                variant.recipe.pool_sizes(self._classifier.input_shape),
                functools.partial(self._start, from_noise=variant.from_noise),
                refine_parts(
                    self._classifier,
                    variant.recipe.refinement,
                    seed=self.seed,
                    progress=ConsoleProgress(),
                ),
            )
        return self._made[key]

    def _start(self, *, from_noise: bool) -> ImagePool:
        """What refinement begins with; noise is asked for the same classes."""
        shape = self._classifier.input_shape
        if self._generated is None:
            with reproducible(self.seed):
                self._generated = synthesize(
                    self._classifier,
                    WHOLE.synthesis,
                    WHOLE.pool_sizes(shape)[-1],
                    seed=self.seed,
                    progress=ConsoleProgress(),
                )
        if not from_noise:
            return self._generated
        noise = noise_images(shape, len(self._generated), self.seed)
        return ImagePool(noise.pixels, self._generated.labels)


def _measure(
    subject: Subject,
    variant: Variant,
    bit_widths: tuple[BitWidths, ...],
    pools: Pools,
) -> list[Row]:
    """One row for each width."""
    result = quantize(
        Job(subject.classifier, variant.recipe, bit_widths, seed=pools.seed),
        pool=pools.of(variant),
        progress=ConsoleProgress(),
    )
    return [
        {
            **subject.common_figures(),
            "recipe": variant.name,
            "seed": pools.seed,
            "bits": model.bit_widths.name,
            **subject.figures_of(model.tflite),
        }
        for model in result
    ]


def _table(rows: Sequence[Row]) -> rich.table.Table:
    """Mean drop and agreement over seeds, one line per variant."""
    models = sorted({(row["model"], row["bits"]) for row in rows})
    table = rich.table.Table(box=rich.box.MARKDOWN)
    table.add_column("variant")
    for model, bits in models:
        table.add_column(f"{model} {bits}", justify="right")
    for variant in VARIANTS:
        cells = []
        for model in models:
            group = [
                row
                for row in rows
                if (row["model"], row["bits"]) == model
                and row["recipe"] == variant.name
            ]
            drops = [100 * (row["float_top1"] - row["top1"]) for row in group]
            agreements = [100 * row["agreement"] for row in group]
            cells.append(
                f"{np.mean(drops):.2f} ({np.mean(agreements):.2f})" if group else "-"
            )
        table.add_row(variant.name, *cells)
    return table


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__)
