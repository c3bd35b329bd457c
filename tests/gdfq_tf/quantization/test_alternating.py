from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf.classifier import Classifier
from gdfq_tf.config import (
    RECIPES,
    FineTuningConfig,
    SynthesisConfig,
    parse_bit_widths,
)
from gdfq_tf.errors import UserError
from gdfq_tf.graph.bn_statistics import batch_normalization_layers
from gdfq_tf.keras_compat import keras
from gdfq_tf.preprocessing import make_preprocessing
from gdfq_tf.progress import NullProgress
from gdfq_tf.quantization import alternating
from gdfq_tf.quantization.alternating import (
    _step_decay,
    make_student_step,
    train_alternating,
)
from gdfq_tf.quantization.calibration import calibrate
from gdfq_tf.quantization.plan import make_plan
from gdfq_tf.quantization.student import build_student
from gdfq_tf.synthesis.image_pool import ImagePool
from tests.tiny import (
    INPUT_SHAPE,
    NUM_CLASSES,
    Recorder,
    build_tiny_classifier,
    classifier_of,
)

NUM_STEPS = 4


@dataclasses.dataclass
class Run:
    """One short training, seen from inside."""

    classifier: Classifier
    student: object
    images: object
    stages: list
    generated: list  # (images, labels, teacher's logits) of every generator step
    trained_on: list  # (pixels, labels, teacher's logits) of every student step
    initial: dict  # id of student variable -> value before the student's steps
    steps: tuple  # the two graph functions


@pytest.fixture(scope="module")
def run():
    classifier = classifier_of(build_tiny_classifier())
    published = RECIPES["gdfq"]
    recipe = dataclasses.replace(
        published,
        synthesis=dataclasses.replace(
            published.synthesis, num_steps=NUM_STEPS, batch_size=16
        ),
        student=dataclasses.replace(
            published.student,
            num_steps=NUM_STEPS,
            learning_rate=1e-2,
            least_warm_up_steps=3,
            num_calibration_images=32,
            num_images=24,
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
            kept = (made[key].numpy() for key in ("images", "labels", "logits"))
            seen.generated.append(tuple(kept))
            return made

        return call

    def spied_student_step(student, *args):
        step = make_student_step(student, *args)
        seen.steps += (step,)
        seen.initial |= {id(v): v.numpy() for v in student.model.variables}

        def call(pixels, labels, teacher_logits):
            given = pixels, labels, teacher_logits
            seen.trained_on.append(tuple(x.numpy() for x in given))
            return step(*given)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alternating, "make_generator_step", spied_generator_step)
        patch.setattr(alternating, "make_student_step", spied_student_step)
        seen.student, seen.images = train_alternating(
            classifier,
            make_plan(classifier.model, parse_bit_widths("w4a4/paper")),
            recipe.synthesis,
            recipe.student,
            seed=0,
            progress=recorder,
        )
    seen.stages = recorder.stages
    return seen


def test_the_generator_warms_up_alone_and_then_both_train(run):
    assert run.stages == [
        ("warm-up", 3, 3),
        ("generator and student", NUM_STEPS, NUM_STEPS),
    ]
    assert len(run.generated) == 3 + NUM_STEPS
    assert len(run.trained_on) == NUM_STEPS


def test_both_train_on_the_same_images(run):
    for (images, labels, logits), (pixels, student_labels, teacher_logits) in zip(
        run.generated[3:], run.trained_on, strict=True
    ):
        np.testing.assert_array_equal(labels, student_labels)
        np.testing.assert_array_equal(logits, teacher_logits)
        np.testing.assert_allclose(
            logits, run.classifier.model(images, training=False), atol=1e-4
        )
        expected = run.classifier.preprocessing.to_pixels(images)
        np.testing.assert_array_equal(pixels, expected)
        assert pixels.dtype == np.uint8


def test_every_step_has_fresh_images(run):
    for one, two in zip(run.generated[:-1], run.generated[1:], strict=True):
        assert not np.array_equal(one[1], two[1])


def test_both_steps_are_traced_once(run):
    assert [step.experimental_get_tracing_count() for step in run.steps] == [1, 1]


def test_scales_stay_as_calibrated_and_all_other_variables_move(run):
    trained = {id(v) for v in run.student.model.trainable_variables}
    assert any("_scale" in v.name for v in run.student.model.variables)
    for variable in run.student.model.variables:
        moved = np.any(variable.numpy() != run.initial[id(variable)])
        assert moved == (id(variable) in trained), variable.name


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


def test_of_large_images_the_pool_holds_fewer(monkeypatch):
    monkeypatch.setattr("gdfq_tf.config._PIXELS_IN_POOL", 1)  # all are large
    _, images = train_alternating(
        classifier_of(build_tiny_classifier()),
        make_plan(build_tiny_classifier(), parse_bit_widths("w4a8")),
        SynthesisConfig(1, batch_size=64),
        FineTuningConfig(1, num_images=700),
        seed=0,
        progress=NullProgress(),
    )
    assert len(images.labels) == 350  # half


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


PREPROCESSING = make_preprocessing("tf", 3)
CONFIG = FineTuningConfig(num_steps=60, learning_rate=1e-3)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, *INPUT_SHAPE)).astype(np.uint8)
    logits = build_tiny_classifier()(PREPROCESSING.to_input(pixels), training=False)
    return ImagePool(pixels, np.argmax(logits, axis=-1).astype(np.int32))


def make_student(classifier, images):
    plan = make_plan(classifier, parse_bit_widths("w2a8/paper"))
    inputs = PREPROCESSING.to_input(images.pixels).numpy()
    calibration = calibrate(classifier_of(classifier), plan, inputs)
    return build_student(classifier_of(classifier), plan, calibration)


@pytest.fixture
def student(tiny_classifier, images):
    return make_student(tiny_classifier, images)


def make_step(student, config=CONFIG):
    return make_student_step(
        student,
        classifier_of(build_tiny_classifier()),
        keras.optimizers.Adam(config.learning_rate),
        config,
    )


def run_step(step, classifier, images) -> dict[str, float]:
    pixels = tf.constant(images.pixels[:16])
    teacher_logits = classifier(PREPROCESSING.to_input(pixels), training=False)
    metrics = step(pixels, tf.constant(images.labels[:16]), teacher_logits)
    return {name: float(value) for name, value in metrics.items()}


def test_distillation_is_divided_by_the_classes_and_cross_entropy_weighted(
    student, tiny_classifier, images
):
    config = dataclasses.replace(CONFIG, classification_weight=0.3)
    metrics = run_step(make_step(student, config), tiny_classifier, images)
    expected = metrics["distillation"] / NUM_CLASSES + 0.3 * metrics["cross_entropy"]
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)
    assert metrics["distillation"] > 0.001  # or its part of the sum shows nothing


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def test_the_student_sees_its_own_quant_params_and_is_compared_with_the_logits_given(
    student, tiny_classifier, images
):
    pixels = images.pixels[:16]
    logits = student.model(PREPROCESSING.to_student_input(pixels)).numpy()
    teacher = tiny_classifier(PREPROCESSING.to_input(pixels), training=False).numpy()
    config = dataclasses.replace(CONFIG, temperature=5.0)
    metrics = run_step(make_step(student, config), tiny_classifier, images)
    shares = softmax(logits)[np.arange(16), images.labels[:16]]
    assert metrics["cross_entropy"] == pytest.approx(-np.log(shares).mean(), rel=1e-4)
    p, q = softmax(teacher / 5), softmax(logits / 5)
    expected = 25 * np.sum(p * np.log(p / q), axis=1).mean()
    assert metrics["distillation"] == pytest.approx(expected, rel=1e-3)


def test_student_steps_move_what_is_trainable_only(student, tiny_classifier, images):
    before = {id(v): v.numpy() for v in student.model.variables}
    step = make_step(student)
    for _ in range(3):
        run_step(step, tiny_classifier, images)
    assert step.experimental_get_tracing_count() == 1
    moved = {
        id(v) for v in student.model.variables if np.any(v.numpy() != before[id(v)])
    }
    assert moved == {id(v) for v in student.model.trainable_variables}


def test_student_steps_lower_the_loss_and_leave_the_stored_statistics(
    student, tiny_classifier, images
):
    wrapped = [
        student.layer(layer.name)
        for layer in batch_normalization_layers(tiny_classifier)
    ]
    statistics = [(x.moving_mean.numpy(), x.moving_variance.numpy()) for x in wrapped]
    gammas = [x.gamma.numpy() for x in wrapped]
    step = make_step(student)
    history = [run_step(step, tiny_classifier, images) for _ in range(CONFIG.num_steps)]
    assert history[-1]["loss"] < 0.85 * history[0]["loss"]
    for layer, (mean, variance), gamma in zip(wrapped, statistics, gammas, strict=True):
        np.testing.assert_array_equal(layer.moving_mean, mean)
        np.testing.assert_array_equal(layer.moving_variance, variance)
        assert not np.array_equal(layer.gamma, gamma)


def test_a_student_loss_that_is_not_finite_stops_the_training(monkeypatch):
    monkeypatch.setattr(
        alternating, "distillation_loss", lambda **_: tf.constant(np.inf)
    )
    classifier = classifier_of(build_tiny_classifier())
    synthesis = dataclasses.replace(RECIPES["gdfq"].synthesis, batch_size=8)
    with pytest.raises(UserError, match="'loss' became inf at step 1 of 5") as error:
        train_alternating(
            classifier,
            make_plan(classifier.model, parse_bit_widths("w4a8")),
            synthesis,
            FineTuningConfig(
                num_steps=5, least_warm_up_steps=1, num_calibration_images=16
            ),
            seed=0,
            progress=NullProgress(),
        )
    assert "\n" not in str(error.value)
