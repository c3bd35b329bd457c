"""A run that was killed has one record, as if nobody had killed it."""

from __future__ import annotations

import numpy as np
import pytest

from gdfq_tf.checkpoints import NO_CHECKPOINTS, once
from gdfq_tf.config import RefinementConfig, SynthesisConfig
from gdfq_tf.progress import NullProgress, whole_stage
from gdfq_tf.recorded_checkpoints import RecordedCheckpoints
from gdfq_tf.recording import RecordingProgress, times_resumed
from gdfq_tf.synthesis.generator_training import synthesize
from gdfq_tf.synthesis.refinement import Refiner
from tests.checkpoints import KilledError, MemoryCheckpoints
from tests.tiny import build_tiny_classifier, classifier_of


@pytest.fixture(scope="module")
def classifier():
    return classifier_of(build_tiny_classifier())


def process(checkpoints):
    progress = RecordingProgress(NullProgress())
    return progress, RecordedCheckpoints(checkpoints, progress)


def make_images(classifier, progress, checkpoints):
    pool = synthesize(
        classifier,
        SynthesisConfig(13, batch_size=8, num_snapshots=2),
        20,
        seed=1,
        progress=progress,
        checkpoints=checkpoints,
    )
    refiner = Refiner(classifier, progress, checkpoints)
    return refiner.refine(pool, RefinementConfig(3, batch_size=10), seed=1)


def facts(stage):
    losses = [(point.step, point.metrics) for point in stage.points]
    return stage.name, stage.total, stage.images_per_step, losses


def test_losses_are_those_of_an_unbroken_run_and_seconds_of_all_parts(classifier):
    progress, _ = process(NO_CHECKPOINTS)
    make_images(classifier, progress, NO_CHECKPOINTS)
    unbroken = progress.stages
    assert [point.step for point in unbroken[0].points] == [1, 11, 13]

    memory = MemoryCheckpoints(11)  # keeps; the next one is in the generator
    killed, checkpoints = process(memory)
    with pytest.raises(KilledError):
        make_images(classifier, killed, checkpoints)
    memory.num_keeps = 4  # one in the generator, three in refinement
    killed_again, checkpoints = process(memory)
    with pytest.raises(KilledError):
        make_images(classifier, killed_again, checkpoints)
    memory.num_keeps = None
    last, checkpoints = process(memory)
    make_images(classifier, last, checkpoints)

    assert list(map(facts, last.stages)) == list(map(facts, unbroken))
    assert times_resumed(last.stages) == 2
    assert times_resumed(unbroken) == 0
    generator, refinement = last.stages
    assert generator.processes == [killed._began, killed_again._began]
    assert refinement.processes == [killed_again._began, last._began]
    assert generator.seconds == generator.earlier_seconds
    assert 0 < refinement.earlier_seconds < refinement.seconds
    for stage in last.stages:
        seconds = [0.0, *(point.seconds for point in stage.points), stage.seconds]
        assert seconds == sorted(seconds)
    assert generator.started == killed.stages[0].started


def test_what_is_made_within_a_stage_counts_as_the_stage(monkeypatch):
    memory, now = MemoryCheckpoints(), 0.0
    monkeypatch.setattr("gdfq_tf.recording.time.monotonic", lambda: now)

    def run(seconds):
        nonlocal now

        def make():
            nonlocal now
            now += seconds
            return {"x": np.ones(2)}

        progress, checkpoints = process(memory)
        with whole_stage(progress, "conversion"):
            once(checkpoints.of("conversion"), make)
            now += 1.0
        return progress.stages

    (first,) = run(20.0)
    assert (first.seconds, first.earlier_seconds) == (21.0, 0.0)
    (second,) = run(40.0)
    assert (second.seconds, second.earlier_seconds) == (21.0, 20.0)


def test_a_stage_in_two_states_is_there_once():
    memory = MemoryCheckpoints()

    def stage(progress, checkpoints):
        checkpoint = checkpoints.of("student")
        if checkpoint.finished() is None:
            with whole_stage(progress, "reconstruction"):
                pass
            checkpoint.finish({})

    progress, checkpoints = process(memory)
    outer = checkpoints.of("choice")
    stage(progress, checkpoints)
    outer.finish({})
    progress, checkpoints = process(memory)
    assert checkpoints.of("choice").finished() == {}
    stage(progress, checkpoints)
    assert [x.name for x in progress.stages] == ["reconstruction"]
