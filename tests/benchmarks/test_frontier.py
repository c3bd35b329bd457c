"""Budgets of the frontier as they are written."""

import pytest

from benchmarks.frontier import parse_budget
from gdfq_tf.config import DistillationConfig, RefinementConfig
from gdfq_tf.errors import UserError


@pytest.mark.parametrize(
    ("text", "generator", "refinement", "images", "training"),
    [
        ("g20-r25-n128", 20, RefinementConfig(25), 128, None),
        ("g10-r12-l.03-n512", 10, RefinementConfig(12, learning_rate=0.03), 512, None),
        ("g60-r0-n64-t200", 60, None, 64, DistillationConfig(200)),
        ("real-n96", None, None, 96, None),
    ],
)
def test_budgets_are_read(text, generator, refinement, images, training):
    budget = parse_budget(text)
    assert budget.generator_steps == generator
    assert budget.refinement == refinement
    assert budget.num_images == images
    assert budget.training == training


@pytest.mark.parametrize("text", ["g20-n128", "g20-r25", "g20-r25-l3-n128", "fast"])
def test_what_is_none_is_refused(text):
    with pytest.raises(UserError, match="expected steps and images such as"):
        parse_budget(text)
