from __future__ import annotations

import pytest

from gdfq_tf.recording import Point, RecordingProgress, titles
from tests.tiny import Recorder


def test_everything_is_handed_on_and_remembered():
    shown = Recorder()
    progress = RecordingProgress(shown)
    with progress.stage("generator", 3, 16) as advance:
        advance()
        advance(2, loss=0.5, bn=0.25)
    with progress.stage("conversion", 1):
        pass
    assert shown.stages == [("generator", 3, 3), ("conversion", 1, 0)]
    assert shown.metrics == [{"loss": 0.5, "bn": 0.25}]
    first, second = progress.stages
    assert (first.name, first.total, first.images_per_step) == ("generator", 3, 16)
    (point,) = first.points
    assert point == Point(3, point.seconds, {"loss": 0.5, "bn": 0.25})
    assert 0 <= point.seconds <= first.seconds
    assert second.points == []


def test_a_stage_that_fails_is_there_as_far_as_it_came():
    progress = RecordingProgress(Recorder())
    with pytest.raises(ValueError), progress.stage("generator", 2) as advance:
        advance(loss=1.0)
        raise ValueError
    assert [point.step for point in progress.stages[0].points] == [1]


def test_long_stages_are_thinned_evenly_and_keep_their_end():
    progress = RecordingProgress(Recorder())
    with progress.stage("distillation", 999) as advance:
        for step in range(999):
            advance(loss=float(step))
    steps = [point.step for point in progress.stages[0].points]
    # ceil(999 / 400) = 3 steps lie between two points.
    assert steps == [*range(1, 999, 3), 999]


def test_stages_that_come_again_are_numbered():
    assert titles(["a", "b", "a", "a"]) == ["a", "b", "a 2", "a 3"]
