"""Memory that a run takes, beside what `memory_needs` says before it.

    python -m benchmarks.peak_memory --model=... --preprocessing=... --recipe=calibrate

The largest resident size (Linux) less that after loading. Few steps of training are
taken: memory is as after many.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import gdfq_tf.cli.quiet_tensorflow  # noqa: F401

from absl import flags

from gdfq_tf.cli import classifier_flags, runner
from gdfq_tf.cli.classifier_flags import load_classifier_from_flags
from gdfq_tf.config import (
    DistillationConfig,
    Recipe,
    ReconstructionConfig,
    RefinementConfig,
    get_recipe,
    parse_bit_widths,
)
from gdfq_tf.memory_needs import memory_needs
from gdfq_tf.pipeline import quantize

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(classifier_flags)  # so that --help shows them
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident_mib(field: str) -> float:
    """ "VmRSS", the size now, or "VmHWM", the largest since the last reset."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def with_few_steps(recipe: Recipe) -> Recipe:
    """The same images and batches, trained for three steps each."""
    student = recipe.student
    if recipe.refinement is not None:
        recipe = dataclasses.replace(recipe, refinement=RefinementConfig(3))
    if isinstance(student, ReconstructionConfig) and student.distillation is not None:
        student = dataclasses.replace(student, distillation=DistillationConfig(3))
    return dataclasses.replace(recipe, student=student)


def main() -> None:
    """One run; prints both figures."""
    classifier = load_classifier_from_flags()
    num_steps = None if FLAGS.recipe == "calibrate" else 3
    recipe = with_few_steps(get_recipe(FLAGS.recipe, num_steps))
    bit_widths = [parse_bit_widths(FLAGS.bits)]
    stage, needed = max(
        memory_needs(classifier.model, recipe, bit_widths).items(), key=lambda x: x[1]
    )
    _RESET.write_text("5")
    before = resident_mib("VmRSS")
    quantize(classifier, recipe, bit_widths)
    print(
        f"{classifier.name} {classifier.input_shape} {FLAGS.recipe} {FLAGS.bits}: "
        f"{resident_mib('VmHWM') - before:,.0f} MiB measured, "
        f"{needed / 2**20:,.0f} MiB estimated (most for {stage})"
    )


if __name__ == "__main__":
    flags.DEFINE_string("recipe", "calibrate", "As of tools/quantize.py.")
    flags.DEFINE_string("bits", "w4a4/paper", "One width, as of tools/quantize.py.")
    runner.run(main)
