"""The loss falls, grids and statistics stay."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf.classifier import Head
from gdfq_tf.config import (
    DistillationConfig,
    ReconstructionConfig,
    parse_bit_widths,
)
from gdfq_tf.keras_compat import keras
from gdfq_tf.preprocessing import make_preprocessing
from gdfq_tf.progress import NullProgress
from gdfq_tf.quantization.distillation import (
    _schedule,
    augment,
    distill,
    make_distillation_loss,
    make_distillation_step,
)
from gdfq_tf.quantization.losses import distillation_loss, relative_error
from gdfq_tf.quantization.plan import make_plan
from gdfq_tf.quantization.reconstruction import reconstruct
from gdfq_tf.synthesis.generator_training import noise_images
from tests.tiny import INPUT_SHAPE, Recorder, alike, classifier_of

PREPROCESSING = make_preprocessing("tf", 3)
IMAGES = noise_images(INPUT_SHAPE, 64, seed=0)
CONFIG = DistillationConfig(40, batch_size=16, learning_rate=1e-2)


@pytest.fixture
def student(tiny_classifier):
    return reconstruct(
        classifier_of(tiny_classifier),
        make_plan(tiny_classifier, parse_bit_widths("w2a4/paper")),
        IMAGES,
        ReconstructionConfig(alike(64)),
        NullProgress(),
    )


def train(student, classifier, config=CONFIG, head=Head.LOGITS, seed=0, progress=None):
    distill(
        student,
        classifier_of(classifier, head=head),
        IMAGES,
        config,
        seed=seed,
        progress=progress or NullProgress(),
    )


def logits_of(student, classifier):
    return (
        classifier(PREPROCESSING.to_input(IMAGES.pixels), training=False),
        student.model(PREPROCESSING.to_student_input(IMAGES.pixels), training=False),
    )


def divergence(student, classifier) -> float:
    teacher_logits, student_logits = logits_of(student, classifier)
    return float(
        distillation_loss(
            teacher_logits=teacher_logits,
            student_logits=student_logits,
            temperature=CONFIG.temperature,
        )
    )


def test_the_student_comes_nearer_to_the_teacher(student, tiny_classifier):
    before = divergence(student, tiny_classifier)
    train(student, tiny_classifier)
    assert divergence(student, tiny_classifier) < 0.8 * before


@pytest.mark.parametrize(
    ("num_steps", "expected"),
    [
        # A quarter up, three quarters down: half of them later half of the rate.
        (8, {0: 0.0, 1: 0.5, 2: 1.0, 5: 0.5, 8: 0.0}),
        (3, {0: 1.0, 1: 0.75, 2: 0.25}),  # too few to rise
        (1, {0: 1.0}),
    ],
)
def test_rates_by_hand(num_steps, expected):
    schedule = _schedule(DistillationConfig(num_steps, learning_rate=1.0))
    found = {step: float(schedule(step)) for step in expected}
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("head", [Head.MULTI_LABEL, Head.FEATURES])
def test_outputs_without_classes_come_nearer_too(student, tiny_classifier, head):
    def error():
        targets, outputs = logits_of(student, tiny_classifier)
        return float(relative_error(targets=targets, outputs=outputs))

    before = error()
    train(student, tiny_classifier, head=head)
    assert error() < 0.9 * before


def test_trained_is_what_can_be_trained_and_nothing_else(student, tiny_classifier):
    trainable = {id(v) for v in student.model.trainable_variables}
    student_before = [v.numpy() for v in student.model.weights]
    teacher_before = tiny_classifier.get_weights()
    train(student, tiny_classifier)
    moved = 0
    for variable, before in zip(student.model.weights, student_before, strict=True):
        if id(variable) in trainable:
            moved += not np.array_equal(variable, before)
        else:  # scales and BatchNormalization statistics
            np.testing.assert_array_equal(variable, before)
    assert moved == len(trainable)
    for now, before in zip(tiny_classifier.get_weights(), teacher_before, strict=True):
        np.testing.assert_array_equal(now, before)


def test_a_seed_gives_the_same_bytes_another_one_others(student, tiny_classifier):
    start = student.model.get_weights()
    results = []
    for seed in (0, 0, 1):
        student.model.set_weights(start)
        train(student, tiny_classifier, seed=seed)
        results.append(np.concatenate([v.ravel() for v in student.model.get_weights()]))
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_a_step_is_relative_to_the_size_of_the_kernel(student, tiny_classifier):
    """A kernel in front of a BatchNormalization may be of any size."""
    small = DistillationConfig(1, batch_size=16, learning_rate=1e-3)
    kernels = [q.kernel for q in student.weight_quantizers.values()]
    before = [kernel.numpy() for kernel in kernels]
    train(student, tiny_classifier, small)
    for kernel, old in zip(kernels, before, strict=True):
        step = np.sqrt(np.mean((kernel - old) ** 2) / np.mean(old**2))
        # Adam's first step is the learning rate wherever there is a gradient.
        assert 0.5e-3 < step < 1.01e-3


def weights_of(student):
    return [weight.numpy() for weight in student.model.weights]


def test_a_student_that_training_spoils_is_left_as_it_was(student, tiny_classifier):
    before = weights_of(student)
    config = dataclasses.replace(CONFIG, num_steps=5, learning_rate=1e3)
    train(student, tiny_classifier, config)
    for now, then in zip(weights_of(student), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_training_ends_at_the_first_loss_that_is_not_finite(student, tiny_classifier):
    recorder = Recorder()
    config = dataclasses.replace(CONFIG, num_steps=50, learning_rate=float("nan"))
    before = weights_of(student)
    with pytest.warns(UserWarning, match="broke off at step 2 of 50: its loss became"):
        train(student, tiny_classifier, config, progress=recorder)
    # The first step's loss is that before it.
    assert recorder.stages == [("distillation", 50, 1)]
    for now, then in zip(weights_of(student), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_what_the_last_step_broke_is_told_and_undone(student, tiny_classifier):
    before = weights_of(student)
    config = dataclasses.replace(CONFIG, num_steps=1, learning_rate=float("nan"))
    with pytest.warns(UserWarning, match="at step 1 of 1: its loss became nan"):
        train(student, tiny_classifier, config)
    for now, then in zip(weights_of(student), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_steps_are_traced_once(student, tiny_classifier):
    classifier = classifier_of(tiny_classifier)
    loss_function = make_distillation_loss(student, classifier, CONFIG)
    trained = student.model.trainable_variables
    moves = [tf.Variable(tf.zeros_like(variable)) for variable in trained]
    step = make_distillation_step(
        loss_function, trained, moves, keras.optimizers.Adam(1e-3)
    )
    for number in range(3):
        step(augment(tf.constant(IMAGES.pixels[:16]), (0, number)))
    assert step.experimental_get_tracing_count() == 1


def test_augmented_images_are_blends_of_moved_and_mirrored_ones():
    """An image of one level has nothing to move or mirror: what is left is the blend,
    of which at least half is the image itself."""
    levels = np.array([0, 200, 40, 100], np.uint8)
    flat = np.broadcast_to(levels[:, None, None, None], (4, 10, 20, 3))
    blended = augment(tf.constant(flat), (0, 0)).numpy()
    assert blended.shape == flat.shape
    assert blended.dtype == np.float32
    for image, own, other in zip(blended, levels, levels[::-1], strict=True):
        assert np.ptp(image) < 1e-3
        share = (image.mean() - float(other)) / (float(own) - float(other))
        assert 0.5 <= share <= 1.0


def test_augmented_images_move_by_a_tenth_at_most():
    """A ramp from left to right shows where its columns went, and which way round."""
    ramp = np.broadcast_to(np.arange(20, dtype=np.uint8)[:, None], (1, 10, 20, 1))
    moves = set()
    for number in range(40):
        row = augment(tf.constant(ramp), (0, number)).numpy()[0, 5, 2:-2, 0]
        falling = row[0] > row[-1]
        moves.add((falling, round(float(row[-1] if falling else row[0])) - 2))
    assert {falling for falling, _ in moves} == {True, False}
    assert {move for _, move in moves} == {-2, -1, 0, 1, 2}


def test_signals_one_wide_are_augmented_along_time():
    signal = np.random.default_rng(0).integers(0, 256, (3, 50, 1, 4)).astype(np.uint8)
    assert augment(tf.constant(signal), (0, 0)).shape == signal.shape


def test_relative_error_by_hand():
    # Squared errors 1, 0, 0, 4: mean 5/4; variances of (0, 4) and (2, 6): 4.
    error = relative_error(
        targets=tf.constant([[0.0, 2.0], [4.0, 6.0]]),
        outputs=tf.constant([[1.0, 2.0], [4.0, 4.0]]),
    )
    assert float(error) == pytest.approx(0.3125, rel=1e-5)


def test_the_configuration_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONFIG.num_steps = 1
