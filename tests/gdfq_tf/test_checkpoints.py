"""Killed stages end with the same bytes; what is torn or foreign is not used."""

from __future__ import annotations

import dataclasses
import errno
import os
import types

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf import checkpoints as module
from gdfq_tf.baselines import make_baselines
from gdfq_tf.checkpoints import (
    NO_CHECKPOINTS,
    NullCheckpoints,
    SavedCheckpoints,
    once,
    part_of,
    resumed_steps,
    together,
)
from gdfq_tf.config import (
    RECIPES,
    DistillationConfig,
    Limits,
    ReconstructionConfig,
    RefinementConfig,
    SynthesisConfig,
    parse_bit_widths,
)
from gdfq_tf.progress import NullProgress
from gdfq_tf.quantization import mixed_precision
from gdfq_tf.quantization.alternating import train_alternating
from gdfq_tf.quantization.distillation import distill
from gdfq_tf.quantization.mixed_precision import reconstruct_within
from gdfq_tf.quantization.plan import make_plan
from gdfq_tf.quantization.reconstruction import reconstruct
from gdfq_tf.quantization.trade_off import LayerCost, TradeOff
from gdfq_tf.synthesis.generator_training import noise_images, synthesize
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.synthesis.refinement import Refiner
from gdfq_tf.system.reproducibility import reproducible
from tests.checkpoints import KilledError, MemoryCheckpoints
from tests.tiny import (
    INPUT_SHAPE,
    NUM_CLASSES,
    Recorder,
    alike,
    build_tiny_classifier,
    classifier_of,
)

LABELS = np.arange(24, dtype=np.int32) % NUM_CLASSES
IMAGES = ImagePool(noise_images(INPUT_SHAPE, 24, seed=0).pixels, LABELS)
FACTS = {"model": "a", "seed": 0}
STATE = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(7)}


def student_arrays(student):
    return [variable.numpy() for variable in student.model.variables]


def generated(classifier, progress, checkpoints):
    config = SynthesisConfig(5, batch_size=8, num_snapshots=2)
    pool = synthesize(
        classifier, config, 20, seed=1, progress=progress, checkpoints=checkpoints
    )
    return [pool.pixels, pool.labels]


def refined(classifier, progress, checkpoints):
    config = RefinementConfig(3, batch_size=12)
    pool = Refiner(classifier, progress, checkpoints).refine(IMAGES, config, seed=1)
    return [pool.pixels, pool.labels]


def reconstructed(classifier, progress, checkpoints, *, images_are_noise=False):
    config = ReconstructionConfig(alike(24), images_are_noise=images_are_noise)
    plan = make_plan(classifier.model, parse_bit_widths("w3a4/paper"))
    student = reconstruct(classifier, plan, IMAGES, config, progress, checkpoints)
    return student_arrays(student)


def reconstructed_from_noise(classifier, progress, checkpoints):
    return reconstructed(classifier, progress, checkpoints, images_are_noise=True)


def distilled(classifier, progress, checkpoints):
    plan = make_plan(classifier.model, parse_bit_widths("w2a4/paper"))
    config = ReconstructionConfig(alike(24))
    student = reconstruct(classifier, plan, IMAGES, config, NullProgress())
    distill(
        student,
        classifier,
        IMAGES,
        DistillationConfig(6, batch_size=8, learning_rate=1e-2),
        seed=1,
        progress=progress,
        checkpoints=checkpoints,
    )
    return student_arrays(student)


def alternated(classifier, progress, checkpoints):
    recipe = RECIPES["gdfq"]
    student, pool = train_alternating(
        classifier,
        make_plan(classifier.model, parse_bit_widths("w4a4/paper")),
        dataclasses.replace(recipe.synthesis, num_steps=4, batch_size=8),
        dataclasses.replace(
            recipe.student,
            num_steps=4,
            least_warm_up_steps=2,
            num_calibration_images=8,
            num_images=8,
        ),
        seed=1,
        progress=progress,
        checkpoints=checkpoints,
    )
    return [*student_arrays(student), pool.pixels, pool.labels]


# Stage -> which of its moments it is killed at, from 0 on.
STAGES = [
    (generated, (2, 4)),  # between and behind the parts of the pool
    (refined, (1, 4)),  # in both batches
    (reconstructed, (0, 2)),  # before and between kernels
    (reconstructed_from_noise, (1,)),
    (distilled, (3,)),
    (alternated, (0, 3)),  # while the generator warms up, while both are trained
]


@pytest.fixture(scope="module")
def classifier():
    """One for all: layers without a name get another one each time."""
    return classifier_of(build_tiny_classifier())


@pytest.fixture(scope="module")
def unbroken(classifier):
    """What stages give that nobody kills, computed once."""
    found = {}

    def of(stage):
        if stage not in found:
            with reproducible(0):
                found[stage] = stage(classifier, NullProgress(), NO_CHECKPOINTS)
        return found[stage]

    return of


@pytest.mark.parametrize(
    ("stage", "moment"),
    [(stage, moment) for stage, moments in STAGES for moment in moments],
)
def test_a_killed_stage_goes_on_and_ends_with_the_same_bytes(
    stage, moment, classifier, unbroken
):
    checkpoints, recorder = MemoryCheckpoints(moment), Recorder()
    with reproducible(0):
        with pytest.raises(KilledError):
            stage(classifier, NullProgress(), checkpoints)
        assert checkpoints.states
        checkpoints.num_keeps = None
        resumed = stage(classifier, recorder, checkpoints)
        # What has ended is there at once, without a step.
        at_once = Recorder()
        again = stage(classifier, at_once, checkpoints)
    for a, b, c in zip(resumed, unbroken(stage), again, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(c, b)
    assert all(taken == total for _, total, taken in recorder.stages)
    assert not at_once.stages


def test_steps_that_were_done_are_not_done_again():
    checkpoints, done = MemoryCheckpoints(2), []

    def run():
        checkpoint = checkpoints.of("stage")
        for step in resumed_steps(checkpoint, 5, lambda n=1: done.append(f"+{n}")):
            done.append(step)

    with pytest.raises(KilledError):
        run()
    checkpoints.num_keeps = None
    run()
    assert done == [0, 1, 2, "+3", 3, 4]


def test_baselines_are_made_once(tiny_classifier, monkeypatch):
    checkpoints = MemoryCheckpoints()
    first = make_baselines(classifier_of(tiny_classifier), 0, checkpoints)
    monkeypatch.setattr("gdfq_tf.baselines.convert_float", None)
    assert dataclasses.astuple(
        make_baselines(classifier_of(tiny_classifier), 0, checkpoints)
    ) == dataclasses.astuple(first)


def test_layers_at_8_bits_are_chosen_once(monkeypatch):
    costs = (LayerCost("a", 0.5, 10, 0.25), LayerCost("b", -1e-9, 3, 0.0))
    trade_off, asked = TradeOff(100, 1.5, costs), []
    monkeypatch.setattr(mixed_precision, "measure_sensitivity", lambda *_: {})
    monkeypatch.setattr(mixed_precision, "measure_trade_off", lambda *_: trade_off)
    monkeypatch.setattr(mixed_precision, "multiply_adds_by_layer", lambda _: {})
    monkeypatch.setattr(mixed_precision, "window_layers", lambda _: ())

    def best_measured(*args):
        asked.append(args[0])
        return trade_off.assignment(["b"])

    monkeypatch.setattr(mixed_precision, "best_measured", best_measured)
    checkpoints = MemoryCheckpoints()

    def run(limits):
        return reconstruct_within(
            limits,
            lambda extra: types.SimpleNamespace(
                plan=types.SimpleNamespace(weight_bits={"a": 4, "b": 4}), extra=extra
            ),
            lambda student: types.SimpleNamespace(target="litert"),
            types.SimpleNamespace(model=None),
            IMAGES,
            IMAGES,
            checkpoints,
        )

    for limits, times in ((Limits(max_bytes=99), 1), (Limits(max_bytes=98), 2)):
        for _ in range(2):
            student, found = run(limits)
            assert student.extra == {"b"}
            assert found == trade_off
            assert len(asked) == times
    assert asked == [trade_off] * 2  # also where it was read


def test_without_checkpoints_nothing_is_kept():
    assert NullCheckpoints().of("stage", seed=1).finished() is None
    assert once(NO_CHECKPOINTS.of("stage"), lambda: STATE) is STATE


def test_parts_of_a_state():
    state = together(a={"x": 1, "y/z": 2}, b={"x": 3})
    assert state == {"a/x": 1, "a/y/z": 2, "b/x": 3}
    assert part_of(state, "a") == {"x": 1, "y/z": 2}


def saved(tmp_path, **facts):
    return SavedCheckpoints(tmp_path / ".run.state", {**FACTS, **facts})


def file_of(checkpoints):
    (path,) = checkpoints.path.glob("*.state")
    return path


def assert_is_state(found):
    assert found.keys() == STATE.keys()
    for name, array in STATE.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_what_a_stage_left_is_there_in_another_process(tmp_path):
    saved(tmp_path).of("a stage", config=SynthesisConfig(3)).finish(STATE)
    again = saved(tmp_path)
    assert again.stages() == ["a-stage"]
    checkpoint = again.of("a stage", config=SynthesisConfig(3))
    assert_is_state(checkpoint.finished())
    assert checkpoint.unfinished() is None
    assert again.of("a stage", config=SynthesisConfig(4)).finished() is None
    again.forget()
    assert not again.path.exists()
    assert saved(tmp_path).stages() == []


def test_half_a_stage_is_kept_from_time_to_time(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    checkpoints = saved(tmp_path)
    checkpoint = checkpoints.of("stage")
    now = 129.0
    checkpoint.keep(lambda: pytest.fail("too early"))
    now = 130.0
    checkpoint.keep(lambda: STATE)
    checkpoint.keep(lambda: pytest.fail("again"))
    assert_is_state(saved(tmp_path).of("stage").unfinished())
    checkpoint.finish(STATE)
    assert checkpoint.unfinished() is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_not_gone_on_from(tmp_path, monkeypatch, value):
    checkpoints = saved(tmp_path)
    monkeypatch.setattr(checkpoints, "is_due", lambda: True)
    checkpoints.of("stage").keep(lambda: {**STATE, "x": tf.constant(STATE["x"])})
    broken = np.array([1.0, value])
    checkpoints.of("stage").keep(lambda: {**STATE, "x": broken})
    checkpoints.of("stage").keep(lambda: {**STATE, "x": tf.constant(broken)})
    assert_is_state(saved(tmp_path).of("stage").unfinished())


def test_slow_disks_are_asked_less_often(tmp_path, monkeypatch):
    now = 0.0

    def write_state(*args):
        nonlocal now
        now += 6.0  # a twentieth of two minutes

    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    monkeypatch.setattr(module, "write_state", write_state)
    checkpoints = saved(tmp_path)
    checkpoints.of("stage").finish(STATE)
    now += 119.0
    assert not checkpoints.is_due()
    now += 1.0
    assert checkpoints.is_due()


@pytest.mark.parametrize("where", [0, 30, 0.5, -40, -1])
def test_torn_and_altered_states_are_named_and_not_used(tmp_path, where):
    checkpoints = saved(tmp_path)
    checkpoint = checkpoints.of("stage")
    for change in ("altered", "cut"):
        checkpoint.finish(STATE)
        path = file_of(checkpoints)
        content = bytearray(path.read_bytes())
        place = int(where * len(content)) if 0 < where < 1 else where % len(content)
        if change == "cut":
            del content[place:]
        else:
            content[place] ^= 1
        path.write_bytes(content)
        with pytest.warns(UserWarning, match="stage-.*is not used.*begins anew"):
            assert checkpoint.finished() is None
        assert not path.exists()


def test_a_state_of_another_stage_or_run_is_named_and_not_used(tmp_path):
    first, second = saved(tmp_path / "a"), saved(tmp_path / "b", seed=1)
    first.of("stage").finish(STATE)
    second.of("stage").finish(STATE)
    file_of(second).replace(file_of(first))
    with pytest.warns(UserWarning, match="another stage's or another run's"):
        assert first.of("stage").finished() is None


def test_states_of_changed_runs_are_named_and_stay(tmp_path):
    old = saved(tmp_path)
    old.of("stage").finish(STATE)
    (tmp_path / ".run.state" / "letter.txt").write_text("private")
    with pytest.warns(UserWarning) as warned:
        new = saved(tmp_path, seed=1, model="b")
    told = [str(w.message).split(" is not used: ")[1].split("; ")[0] for w in warned]
    assert sorted(told) == [
        "it is not what an interrupted run leaves",
        "the interrupted run that left it had another model, seed",
    ]
    assert new.of("stage").finished() is None
    assert_is_state(saved(tmp_path).of("stage").finished())


def test_a_full_disk_is_told_once_and_what_was_written_stays(tmp_path, monkeypatch):
    checkpoints = saved(tmp_path)
    checkpoints.of("stage").finish(STATE)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(UserWarning, match="cannot be saved.*No space left") as warned:
        checkpoints.of("stage").finish({"x": np.zeros(3)})
        checkpoints.of("other").finish(STATE)
    assert len(warned) == 1
    assert_is_state(checkpoints.of("stage").finished())
    assert [path.suffix for path in checkpoints.path.iterdir()].count(".partial") == 0
