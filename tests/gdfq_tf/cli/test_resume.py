"""What users see of a run that goes on where another was."""

from __future__ import annotations

import types

import numpy as np
import pytest

from gdfq_tf.checkpoints import SavedCheckpoints
from gdfq_tf.cli.resuming import open_checkpoints
from gdfq_tf.cli.runner import CommandProgress
from gdfq_tf.config import RECIPES, parse_bit_widths
from gdfq_tf.job import Job
from gdfq_tf.provenance import classifier_digest, image_facts, pool_digest
from gdfq_tf.synthesis.image_pool import ImagePool
from tests.tiny import build_tiny_classifier, classifier_of


@pytest.fixture(scope="module")
def job():
    widths = (parse_bit_widths("w8a8"),)
    return Job(classifier_of(build_tiny_classifier()), RECIPES["fast"], widths)


def opened(tmp_path, job, *, fresh=False):
    values = types.SimpleNamespace(quiet=False, verbosity="info")
    checkpoints = SavedCheckpoints(tmp_path / ".run.state", image_facts(job))
    return open_checkpoints(checkpoints, CommandProgress(values), fresh=fresh)


def test_what_is_there_is_told_in_one_line(tmp_path, job, capsys):
    checkpoints = opened(tmp_path, job)
    assert not capsys.readouterr().err
    for stage, size in (("generator", 3), ("refinement", 1), ("refinement", 2)):
        checkpoints.of(stage, size=size).finish({"x": np.zeros(1)})
    assert opened(tmp_path, job).of("generator", size=3).finished() is not None
    assert capsys.readouterr().err == (
        "note: goes on where an interrupted run was, which has left generator, "
        "refinement (2); --fresh begins anew\n"
    )
    assert opened(tmp_path, job, fresh=True).of("generator", size=3).finished() is None
    assert not capsys.readouterr().err


def test_images_depend_on_the_model_but_not_on_widths(job):
    def facts(**changes):
        return image_facts(Job(**{**job.__dict__, **changes}))

    assert facts() == facts(bit_widths=(parse_bit_widths("w4a4"),), target="tflm")
    other = classifier_of(build_tiny_classifier(seed=1))
    for changes in ({"seed": 1}, {"recipe": RECIPES["best"]}, {"classifier": other}):
        assert facts(**changes) != facts()


def test_a_digest_is_of_weights_and_preprocessing(job):
    model = job.classifier.model
    digest = classifier_digest(job.classifier)
    assert classifier_digest(classifier_of(model)) == digest
    assert classifier_digest(classifier_of(model, "unit")) != digest
    pool = ImagePool(np.zeros((2, 1, 1, 1), np.uint8), np.array([0, 1], np.int32))
    assert pool_digest(pool) == pool_digest(pool[:]) != pool_digest(pool[:1])
