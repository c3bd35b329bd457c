from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf import alternating
from gdfq_tf.alternating import _step_decay, train_alternating
from gdfq_tf.bn_statistics import batch_normalization_layers
from gdfq_tf.classifiers import Classifier
from gdfq_tf.config import RECIPES, parse_bit_widths
from gdfq_tf.preprocessing import make_preprocessing
from gdfq_tf.quantization_plan import make_plan
from tests.tiny import INPUT_SHAPE, NUM_CLASSES, build_tiny_classifier

NUM_STEPS = 4


class Recorder:
    def __init__(self):
        self.stages = []

    @contextlib.contextmanager
    def stage(self, name, total):
        self.stages.append((name, total))
        yield lambda n=1, **metrics: None


@dataclasses.dataclass
class Run:
    """One short training, seen from inside."""

    classifier: Classifier
    student: object
    images: object
    stages: list
    generated: list  # (images, labels) of every generator step
    trained_on: list  # (pixels, labels) of every student step
    initial: dict  # id of student variable -> value before the student's steps
    steps: tuple  # the two graph functions


@pytest.fixture(scope="module")
def run():
    preprocessing = make_preprocessing("tf", 3)
    classifier = Classifier("tiny", build_tiny_classifier(), preprocessing, "logits")
    published = RECIPES["gdfq"]
    recipe = dataclasses.replace(
        published,
        synthesis=dataclasses.replace(
            published.synthesis, num_steps=NUM_STEPS, batch_size=16, pool_size=24
        ),
        fine_tuning=dataclasses.replace(
            published.fine_tuning,
            num_steps=NUM_STEPS,
            batch_size=16,
            learning_rate=1e-2,
        ),
    )
    seen = Run(classifier, None, None, [], [], [], {}, ())
    recorder = Recorder()
    make_generator_step = alternating.make_generator_step
    make_student_step = alternating.make_student_step

    def spied_generator_step(*args):
        step = make_generator_step(*args)
        seen.steps += (step,)

        def call(number):
            made = step(number)
            seen.generated.append((made["images"].numpy(), made["labels"].numpy()))
            return made

        return call

    def spied_student_step(student, *args):
        step = make_student_step(student, *args)
        seen.steps += (step,)
        seen.initial |= {id(v): v.numpy() for v in student.model.variables}

        def call(pixels, labels):
            seen.trained_on.append((pixels.numpy(), labels.numpy()))
            return step(pixels, labels)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alternating, "make_generator_step", spied_generator_step)
        patch.setattr(alternating, "make_student_step", spied_student_step)
        patch.setattr(alternating, "_MIN_WARM_UP_STEPS", 3)
        patch.setattr(alternating, "_NUM_CALIBRATION_IMAGES", 32)
        seen.student, seen.images = train_alternating(
            classifier,
            make_plan(classifier.model, parse_bit_widths("w4a4/paper")),
            recipe,
            seed=0,
            progress=recorder,
        )
    seen.stages = recorder.stages
    return seen


def test_the_generator_warms_up_alone_and_then_both_train(run):
    assert run.stages == [("warm-up", 3), ("generator and student", NUM_STEPS)]
    assert len(run.generated) == 3 + NUM_STEPS
    assert len(run.trained_on) == NUM_STEPS


def test_both_train_on_the_same_images(run):
    for (images, labels), (pixels, student_labels) in zip(
        run.generated[3:], run.trained_on, strict=True
    ):
        np.testing.assert_array_equal(labels, student_labels)
        expected = run.classifier.preprocessing.to_pixels(images)
        np.testing.assert_array_equal(pixels, expected)
        assert pixels.dtype == np.uint8


def test_every_step_has_fresh_images(run):
    for one, two in zip(run.generated[:-1], run.generated[1:], strict=True):
        assert not np.array_equal(one[1], two[1])


def test_both_steps_are_traced_once(run):
    assert [step.experimental_get_tracing_count() for step in run.steps] == [1, 1]


def test_scales_stay_as_calibrated_and_all_other_variables_move(run):
    free = {id(v) for v in run.student.variables_without_scales()}
    scales = [v for v in run.student.model.trainable_variables if id(v) not in free]
    assert scales
    for variable in run.student.model.trainable_variables:
        moved = np.any(variable.numpy() != run.initial[id(variable)])
        assert moved == (id(variable) in free), variable.name


def test_stored_statistics_stay(run):
    for layer in batch_normalization_layers(run.classifier.model):
        copy = run.student.layer(layer.name)
        for variable in (copy.moving_mean, copy.moving_variance):
            np.testing.assert_array_equal(variable, run.initial[id(variable)])


def test_images_of_the_final_generator_are_returned(run):
    assert run.images.pixels.shape == (24, *INPUT_SHAPE)
    assert run.images.pixels.dtype == np.uint8
    assert run.images.labels.shape == (24,)
    assert set(run.images.labels) <= set(range(NUM_CLASSES))


def test_learning_rates_fall_to_a_tenth_at_each_quarter():
    schedule = _step_decay(0.5, 400)
    rates = [float(schedule(tf.constant(step))) for step in range(400)]
    np.testing.assert_allclose(rates[:101], 0.5, rtol=1e-6)
    np.testing.assert_allclose(rates[101:201], 0.05, rtol=1e-6)
    np.testing.assert_allclose(rates[201:301], 0.005, rtol=1e-6)
    np.testing.assert_allclose(rates[301:], 0.0005, rtol=1e-6)


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_short_schedules_start_at_the_full_rate(num_steps):
    assert float(_step_decay(0.5, num_steps)(tf.constant(0))) == 0.5
