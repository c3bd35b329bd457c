from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf import fine_tuning
from gdfq_tf.bn_statistics import batch_normalization_layers
from gdfq_tf.calibration import calibrate
from gdfq_tf.config import FineTuningConfig, parse_bit_widths
from gdfq_tf.errors import UserError
from gdfq_tf.fine_tuning import _batch_indices, fine_tune, make_student_step
from gdfq_tf.keras_compat import keras
from gdfq_tf.preprocessing import make_preprocessing
from gdfq_tf.progress import NullProgress
from gdfq_tf.quantization_plan import make_plan
from gdfq_tf.student import build_student
from gdfq_tf.synthesis import SyntheticImages
from gdfq_tf.teacher import Teacher
from tests.tiny import INPUT_SHAPE, NUM_CLASSES, build_tiny_classifier

PREPROCESSING = make_preprocessing("tf", 3)
CONFIG = FineTuningConfig(num_steps=60, batch_size=16, learning_rate=1e-3)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, *INPUT_SHAPE)).astype(np.uint8)
    logits = build_tiny_classifier()(PREPROCESSING.to_input(pixels), training=False)
    return SyntheticImages(pixels, np.argmax(logits, axis=-1).astype(np.int32))


@pytest.fixture
def student(tiny_classifier, images):
    plan = make_plan(tiny_classifier, parse_bit_widths("w2a8"))
    inputs = PREPROCESSING.to_input(images.pixels).numpy()
    calibration = calibrate(tiny_classifier, plan, inputs, PREPROCESSING)
    return build_student(tiny_classifier, plan, calibration, PREPROCESSING)


def make_step(student, classifier, config=CONFIG, variables=None):
    return make_student_step(
        student,
        Teacher(classifier),
        keras.optimizers.Adam(config.learning_rate),
        student.model.trainable_variables if variables is None else variables,
        config,
        PREPROCESSING,
    )


def run_step(step, images) -> dict[str, float]:
    metrics = step(tf.constant(images.pixels[:16]), tf.constant(images.labels[:16]))
    return {name: float(value) for name, value in metrics.items()}


def test_the_loss_is_the_weighted_sum_of_its_parts(student, tiny_classifier, images):
    config = dataclasses.replace(CONFIG, classification_weight=0.3, feature_weight=2.0)
    metrics = run_step(make_step(student, tiny_classifier, config), images)
    expected = metrics["distillation"] + 0.3 * metrics["cross_entropy"]
    expected += 2.0 * metrics["features"]
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)


def test_published_weights_divide_by_classes_and_leave_features_out(
    student, tiny_classifier, images
):
    config = dataclasses.replace(
        CONFIG,
        classification_weight=1.0,
        feature_weight=0.0,
        distillation_per_class=True,
    )
    metrics = run_step(make_step(student, tiny_classifier, config), images)
    expected = metrics["distillation"] / NUM_CLASSES + metrics["cross_entropy"]
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)
    assert "features" not in metrics


def test_the_teacher_sees_exact_pixels_and_the_student_its_own_grid(
    student, tiny_classifier, images
):
    metrics = run_step(make_step(student, tiny_classifier), images)
    pixels = images.pixels[:16]
    fresh = make_plan(tiny_classifier, parse_bit_widths("w2a8"))
    inputs = PREPROCESSING.to_input(images.pixels).numpy()
    calibration = calibrate(tiny_classifier, fresh, inputs, PREPROCESSING)
    untouched = build_student(tiny_classifier, fresh, calibration, PREPROCESSING)
    logits = untouched.model(PREPROCESSING.to_student_input(pixels)).numpy()
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = shifted / shifted.sum(axis=1, keepdims=True)
    expected = -np.log(shares[np.arange(16), images.labels[:16]]).mean()
    assert metrics["cross_entropy"] == pytest.approx(expected, rel=1e-4)


def test_steps_are_traced_once_and_move_the_variables_given_only(
    student, tiny_classifier, images
):
    chosen = student.variables_without_scales()
    before = {id(v): v.numpy() for v in student.model.variables}
    step = make_step(student, tiny_classifier, variables=chosen)
    for _ in range(3):
        run_step(step, images)
    assert step.experimental_get_tracing_count() == 1
    moved = {
        id(v) for v in student.model.variables if np.any(v.numpy() != before[id(v)])
    }
    assert moved == {id(v) for v in chosen}


def test_fine_tuning_lowers_the_loss_and_leaves_the_stored_statistics(
    student, tiny_classifier, images
):
    classifier_before = tiny_classifier.get_weights()
    wrapped = [
        student.layer(layer.name)
        for layer in batch_normalization_layers(tiny_classifier)
    ]
    statistics = [(x.moving_mean.numpy(), x.moving_variance.numpy()) for x in wrapped]
    gammas = [x.gamma.numpy() for x in wrapped]
    idle = dataclasses.replace(CONFIG, learning_rate=0.0)
    first = run_step(make_step(student, tiny_classifier, idle), images)
    fine_tune(
        student,
        tiny_classifier,
        images,
        CONFIG,
        PREPROCESSING,
        seed=0,
        progress=NullProgress(),
    )
    last = run_step(make_step(student, tiny_classifier, idle), images)
    assert last["loss"] < 0.85 * first["loss"]
    assert last["distillation"] < 0.5 * first["distillation"]
    assert last["features"] < first["features"]
    for layer, (mean, variance), gamma in zip(wrapped, statistics, gammas, strict=True):
        np.testing.assert_array_equal(layer.moving_mean, mean)
        np.testing.assert_array_equal(layer.moving_variance, variance)
        assert not np.array_equal(layer.gamma, gamma)
    for now, then in zip(tiny_classifier.get_weights(), classifier_before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_every_trainable_variable_is_reached(student, tiny_classifier, images):
    before = [v.numpy() for v in student.model.trainable_variables]
    step = make_step(student, tiny_classifier)
    run_step(step, images)
    for variable, value in zip(student.model.trainable_variables, before, strict=True):
        assert np.any(variable.numpy() != value), variable.name


def test_a_loss_that_is_not_finite_stops_the_training(
    student, tiny_classifier, images, monkeypatch
):
    monkeypatch.setattr(
        fine_tuning, "distillation_loss", lambda **_: tf.constant(np.inf)
    )
    with pytest.raises(UserError, match="became inf at step 1 of 60") as error:
        fine_tune(
            student,
            tiny_classifier,
            images,
            CONFIG,
            PREPROCESSING,
            seed=0,
            progress=NullProgress(),
        )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("num_images", "num_steps"), [(24, 12), (10, 7), (3, 2)])
def test_every_image_comes_once_before_any_comes_again(num_images, num_steps):
    config = FineTuningConfig(num_steps=num_steps, batch_size=8)
    indices = _batch_indices(num_images, config, seed=0)
    assert indices.shape == (num_steps, 8)
    flat = indices.ravel()
    for start in range(0, len(flat), num_images):
        epoch = flat[start : start + num_images]
        assert len(set(epoch)) == len(epoch)
    assert set(flat) <= set(range(num_images))


def test_epochs_are_shuffled_anew_by_the_seed():
    config = FineTuningConfig(num_steps=10, batch_size=10)
    indices = _batch_indices(50, config, seed=0)
    np.testing.assert_array_equal(indices, _batch_indices(50, config, seed=0))
    assert not np.array_equal(indices, _batch_indices(50, config, seed=1))
    assert not np.array_equal(indices[:5], indices[5:])
