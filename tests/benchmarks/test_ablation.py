"""Each variant of the ablation takes one thing away from the whole recipe."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from benchmarks import ablation
from benchmarks.ablation import VARIANTS, Pools, Variant
from gdfq_tf.config import (
    StudentBudget,
    SynthesisConfig,
    parse_bit_widths,
)
from gdfq_tf.job import Job
from gdfq_tf.pipeline import quantize
from tests.tiny import classifier_of

SYNTHESIS = SynthesisConfig(4, batch_size=16, num_snapshots=2)
# Of 8x8 images none are made.
NOT_SEEN = {"no collages"}


def shortened(variant: Variant) -> Variant:
    recipe = variant.recipe
    refinement = recipe.refinement
    if refinement is not None:
        refinement = dataclasses.replace(refinement, num_steps=2, batch_size=16)
    recipe = dataclasses.replace(recipe, synthesis=SYNTHESIS, refinement=refinement)
    recipe = recipe.with_budgets(lambda _: StudentBudget(96))
    return dataclasses.replace(variant, recipe=recipe)


@dataclasses.dataclass
class Subject:
    classifier: object


@pytest.mark.slow
def test_each_variant_ends_in_another_student(tiny_classifier, monkeypatch):
    whole = shortened(Variant("whole", ablation.WHOLE)).recipe
    monkeypatch.setattr(ablation, "WHOLE", whole)
    classifier = classifier_of(tiny_classifier)
    pools = Pools(Subject(classifier), seed=0)
    bit_widths = (parse_bit_widths("w4a4/paper"),)
    files, images = {}, {}
    for variant in map(shortened, VARIANTS):
        pool = pools.of(variant)
        result = quantize(Job(classifier, variant.recipe, bit_widths), pool=pool)
        files[variant.name] = result.models[0].tflite
        images[variant.name] = result.images.pixels
    first = VARIANTS[0].name
    for variant in VARIANTS[1:]:
        same = files[variant.name] == files[first]
        assert same == (variant.name in NOT_SEEN), variant.name
    of_students = ("teacher's kernels as targets", "nearest levels")
    for name in (*of_students, "channels not equalized"):
        np.testing.assert_array_equal(images[name], images[first])
