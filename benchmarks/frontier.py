r"""The frontier of accuracy against work: what more steps and images buy.

    python -m benchmarks.frontier --model=classifier.keras --preprocessing=torch \
        --data=test.npz --bits=w8a8,w4a8 --budgets=g10-r12-l.03-n128,g20-r40-n512-t200 \
        --seeds=0,1 --output=frontier.json

A budget is written as generator steps g, refinement steps r, their learning rate l
(0.02 if left out), images of the pool n (a quarter of them is for the estimate, as in
every recipe) and distillation steps t, none if left out. r0 leaves images as the
generator made them. Work is counted in image passes, forward and backward. Students are
run in fake quantization, as the files would answer but for a level: divergence is the
Kullback-Leibler divergence of their outputs from the float classifier's at temperature
1, less noisy than agreement. Budget `real` takes as many real images of the second half
of --data as n says, e.g. real-n128; all figures are of the first half.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rich.box
import rich.console
import rich.table
from absl import flags

from benchmarks import commands
from benchmarks.accuracy import Subject, read_subject, real_pool
from benchmarks.commands import Row, key_of
from gdfq_tf.classifier import predict_logits
from gdfq_tf.config import (
    BitWidths,
    DistillationConfig,
    Recipe,
    ReconstructionConfig,
    RefinementConfig,
    StudentBudget,
    SynthesisConfig,
    WidthBudgets,
    parse_bit_widths,
)
from gdfq_tf.errors import UserError, option
from gdfq_tf.fitted_students import fit_students
from gdfq_tf.job import Job
from gdfq_tf.keras_compat import computing_in_float32
from gdfq_tf.metrics import accuracy_of_logits, agreement, divergence
from gdfq_tf.progress import ConsoleProgress
from gdfq_tf.system.machine import describe_machine
from gdfq_tf.system.reproducibility import reproducible

_BUDGET = re.compile(r"(?:g(\d+)-r(\d+)(?:-l(\d*\.\d+))?|real)-n(\d+)(?:-t(\d+))?")


@dataclasses.dataclass(frozen=True)
class Budget:
    """What is spent on a student.

    Attributes:
      name: as it is written.
      generator_steps: None: images are real ones.
      refinement: of each image; None: as the generator made it.
      num_images: of the pool.
      training_steps: of the student, once reconstructed.
    """

    name: str
    generator_steps: int | None
    refinement: RefinementConfig | None
    num_images: int
    training_steps: int

    @property
    def training(self) -> DistillationConfig | None:
        """The student's."""
        return DistillationConfig(self.training_steps) if self.training_steps else None

    def recipe(self) -> Recipe:
        """The recipe that spends it, whatever the widths."""
        spent = StudentBudget(self.num_images, self.training)
        return Recipe(
            self.name,
            SynthesisConfig(self.generator_steps or 1),
            self.refinement,
            ReconstructionConfig(WidthBudgets(spent, spent, spent)),
        )

    def image_passes(self, shape: tuple[int, int, int], widths: BitWidths) -> int:
        """Images that go forward and backward, through the teacher or the student."""
        passes = 0
        if self.generator_steps is not None:
            passes = self.recipe().image_passes(shape, (widths,))
        if self.training is not None:
            passes += self.training.num_steps * self.training.images_per_step(shape)
        return passes


def parse_budget(text: str) -> Budget:
    """The budget that is written so.

    Raises:
      UserError: nothing is.
    """
    found = _BUDGET.fullmatch(text)
    if not found:
        raise UserError(
            f"{option('budgets')} names {text!r}; expected steps and images such as "
            "g20-r25-n128, g20-r40-n512-t200 or real-n128"
        )
    generator, steps, rate, images, training = found.groups()
    refinement = None
    if int(steps or 0):
        usual = RefinementConfig.learning_rate
        refinement = RefinementConfig(int(steps), learning_rate=float(rate or usual))
    return Budget(
        text,
        None if generator is None else int(generator),
        refinement,
        int(images),
        int(training or 0),
    )


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    commands.define_classifier_flags(defined)
    defined.group("The benchmark")
    defined.string("data", "Labelled test images.", required=True)
    defined.texts("bits", "w8a8,w4a8", "Widths, as of gdfq quantize.")
    defined.texts("budgets", "g20-r25-n128", "What is spent, see above.")
    defined.texts("seeds", "0", "One run of each budget for each.")
    defined.string("output", "JSON file, extended row by row.", required=True)
    return defined


def main(values: flags.FlagValues) -> None:
    """Measures what --output does not hold yet and prints all of it."""
    output = Path(values.output)
    rows = commands.read_rows(output)
    budgets = list(map(parse_budget, values.budgets))
    bit_widths = tuple(map(parse_bit_widths, values.bits))
    subject = read_subject(values)
    for seed in map(int, values.seeds):
        for budget in budgets:
            done = set(map(key_of, rows))
            missing = tuple(
                widths
                for widths in bit_widths
                if (subject.classifier.name, budget.name, seed, widths.name) not in done
            )
            if missing:
                rows += _measure(subject, budget, seed, missing)
                commands.write_rows(output, rows)
    rich.console.Console(width=120).print(_table(rows))


def _measure(
    subject: Subject, budget: Budget, seed: int, bit_widths: tuple[BitWidths, ...]
) -> list[Row]:
    """One row for each width."""
    classifier, half = subject.classifier, subject.half
    job = Job(classifier, budget.recipe(), bit_widths, seed=seed).checked()
    shape, machine = classifier.input_shape, describe_machine()
    pool = None
    if budget.generator_steps is None:
        pool = real_pool(subject, budget.num_images, seed)
    rows = []
    with reproducible(seed), computing_in_float32():
        for fitted in fit_students(job, pool, ConsoleProgress()):
            logits = predict_logits(
                fitted.student.model,
                subject.data.pixels[:half],
                classifier.preprocessing.to_student_input,
            )
            labels, float_logits = subject.data.labels[:half], subject.logits[:half]
            rows.append(
                {
                    "model": classifier.name,
                    "recipe": budget.name,
                    "seed": seed,
                    "bits": fitted.bit_widths.name,
                    "num_images": half,
                    "divergence": divergence(float_logits, logits),
                    "agreement": agreement(logits, float_logits),
                    "top1": accuracy_of_logits(logits, labels),
                    "float_top1": accuracy_of_logits(float_logits, labels),
                    "image_passes": budget.image_passes(shape, fitted.bit_widths),
                    "synthesis_seconds": fitted.synthesis_seconds,
                    "student_seconds": fitted.seconds,
                    "machine": machine,
                }
            )
    return rows


def _table(rows: Sequence[Row]) -> rich.table.Table:
    """Means over seeds, one line per model, width and budget."""
    table = rich.table.Table(box=rich.box.MARKDOWN)
    titles = ("model", "width", "budget", "passes", "divergence", "agrees", "drop", "s")
    for title in titles:
        table.add_column(title, justify="right" if title in titles[3:] else "left")
    key_fields = ("model", "bits", "image_passes", "recipe")
    for key in sorted({tuple(row[field] for field in key_fields) for row in rows}):
        model, bits, passes, name = key
        group = [row for row in rows if tuple(row[x] for x in key_fields) == key]
        drops = [100 * (r["float_top1"] - r["top1"]) for r in group]
        seconds = [r["synthesis_seconds"] + r["student_seconds"] for r in group]
        table.add_row(
            model,
            bits,
            name,
            f"{passes:,}",
            f"{np.mean([r['divergence'] for r in group]):.4f}",
            f"{100 * np.mean([r['agreement'] for r in group]):.2f}",
            f"{np.mean(drops):.2f}",
            f"{np.mean(seconds):.0f}",
        )
    return table


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__)
