"""Memory that a run takes, beside what `memory_needs` says before it.

    python -m benchmarks.peak_memory --model=... --preprocessing=... --recipe=calibrate

The largest resident size (Linux) less that after loading. Few steps of training are
taken: memory is as after many.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from absl import flags

from benchmarks import commands
from gdfq_tf.config import (
    RECIPES,
    DistillationConfig,
    Recipe,
    RefinementConfig,
    StudentBudget,
    get_recipe,
    parse_bit_widths,
)
from gdfq_tf.job import Job
from gdfq_tf.memory_needs import memory_needs
from gdfq_tf.pipeline import quantize

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident_mib(field: str) -> float:
    """A size of this process.

    Args:
      field: "VmRSS", the size now, or "VmHWM", the largest since the last reset.
    """
    lines = _STATUS.read_text().splitlines()
    sizes = dict(line.split(":", 1) for line in lines)
    return int(sizes[field].removesuffix("kB")) / 1024


def with_few_steps(recipe: Recipe) -> Recipe:
    """The same images and batches, trained for three steps each."""
    if recipe.refinement is not None:
        recipe = dataclasses.replace(recipe, refinement=RefinementConfig(3))

    def shortened(budget: StudentBudget) -> StudentBudget:
        training = None if budget.distillation is None else DistillationConfig(3)
        return dataclasses.replace(budget, distillation=training)

    return recipe.with_budgets(shortened)


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    commands.define_classifier_flags(defined)
    defined.group("The run")
    defined.choice("recipe", "calibrate", list(RECIPES), "As of gdfq quantize.")
    defined.texts("bits", "w4a4/paper", "Widths, as of gdfq quantize.")
    return defined


def main(values: flags.FlagValues) -> None:
    """One run; prints both figures."""
    classifier = commands.load_classifier_from_flags(values)
    num_steps = None if values.recipe == "calibrate" else 3
    recipe = with_few_steps(get_recipe(values.recipe, num_steps))
    bit_widths = tuple(map(parse_bit_widths, values.bits))
    stage, needed = max(
        memory_needs(classifier.model, recipe, bit_widths).items(), key=lambda x: x[1]
    )
    _RESET.write_text("5")
    before = resident_mib("VmRSS")
    quantize(Job(classifier, recipe, bit_widths))
    print(
        f"{classifier.name} {classifier.input_shape} {values.recipe} "
        f"{','.join(values.bits)}: "
        f"{resident_mib('VmHWM') - before:,.0f} MiB measured, "
        f"{needed / 2**20:,.0f} MiB estimated (most for {stage})"
    )


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__)
