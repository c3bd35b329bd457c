"""Every loss against values by hand or from plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf.graph.bn_statistics import BNStatistics
from gdfq_tf.quantization.losses import distillation_loss
from gdfq_tf.synthesis.losses import (
    bn_statistics_loss,
    classification_loss,
    label_loss,
    relative_bn_gaps,
    relative_bn_statistics_loss,
    smoothness_loss,
)

RNG = np.random.default_rng(0)


def statistics(mean, variance) -> BNStatistics:
    return BNStatistics(
        tf.constant(mean, tf.float32), tf.constant(variance, tf.float32)
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def test_classification_by_hand():
    # -log of 3/4 and of 1/4.
    logits = tf.math.log([[3.0, 1.0], [3.0, 1.0]])
    loss = classification_loss(logits=logits, labels=tf.constant([0, 1]))
    assert float(loss) == pytest.approx(-(np.log(3 / 4) + np.log(1 / 4)) / 2, rel=1e-6)


def test_only_the_label_asked_for_counts():
    # Logits of 3/4 and 1/5; what is not asked for is free.
    logits = np.log([[3.0, 1e9], [1e-9, 1 / 4]]).astype(np.float32)
    loss = label_loss(logits=logits, labels=tf.constant([0, 1]))
    assert float(loss) == pytest.approx(-(np.log(3 / 4) + np.log(1 / 5)) / 2, rel=1e-6)


@pytest.mark.parametrize("loss", [classification_loss, label_loss])
def test_temperature_divides_logits_and_multiplies_the_loss(loss):
    logits, labels = tf.constant([[3.0, -1.5], [0.6, 0.9]]), tf.constant([0, 1])
    cooler = loss(logits=logits / 3, labels=labels)
    assert float(loss(logits=logits, labels=labels, temperature=3.0)) == pytest.approx(
        3 * float(cooler), rel=1e-6
    )


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[0, 1], [1, 0]], 1 / (2 * 0.25)),  # all four pairs differ by 1
        ([[0, 0], [1, 1]], 2 / 4 / (2 * 0.25)),  # two of the four
        ([[0], [1], [0], [1]], 1 / (2 * 0.25)),  # one column
        ([[0, 1, 2, 3]], 1 / (2 * 1.25)),  # one row
        ([[5]], 0.0),
        ([[3, 3], [3, 3]], 0.0),
    ],
)
def test_smoothness_by_hand(rows, expected):
    image = np.asarray(rows, np.float32)[np.newaxis, :, :, np.newaxis]
    assert float(smoothness_loss(images=image)) == pytest.approx(expected, rel=1e-3)
    # Of two images their mean; neither contrast nor a second channel counts.
    pair = np.concatenate([image, 0 * image])
    assert float(smoothness_loss(images=pair)) == pytest.approx(expected / 2, rel=1e-3)
    strong = np.concatenate([9 * image - 4] * 2, axis=-1)
    assert float(smoothness_loss(images=strong)) == pytest.approx(expected, rel=1e-3)


def test_white_noise_is_as_rough_as_its_variance():
    noise = RNG.normal(3, 5, (20, 32, 32, 3)).astype(np.float32)
    assert float(smoothness_loss(images=noise)) == pytest.approx(1.0, abs=0.02)


def relative_loss(*, stored, batch):
    gaps = relative_bn_gaps(stored=stored, batch=batch)
    return relative_bn_statistics_loss(gaps=gaps)


@pytest.mark.parametrize("loss", [bn_statistics_loss, relative_loss])
def test_matching_statistics_cost_nothing(loss):
    layers = [statistics([1.0, -2.0], [0.5, 4.0]), statistics([0.0], [0.0])]
    assert float(loss(stored=layers, batch=layers)) == 0.0


def test_bn_statistics_by_hand():
    stored = [statistics([1.0, 2.0], [1.0, 4.0]), statistics([0.0], [1.0])]
    batch = [statistics([2.0, 4.0], [1.0, 1.0]), statistics([0.5], [3.0])]
    # Layer 1: means (1 + 4) / 2, variances (0 + 9) / 2; layer 2: 0.25 + 4.
    expected = ((1 + 4) / 2 + (0 + 9) / 2 + 0.25 + 4) / 2
    assert float(bn_statistics_loss(stored=stored, batch=batch)) == expected


def test_relative_bn_statistics_by_hand():
    # One channel of deviation 2, met with mean off by 1 and deviation 3; the
    # floors change the result by 1e-3 at most.
    loss = relative_loss(
        stored=[statistics([5.0], [4.0])], batch=[statistics([6.0], [9.0])]
    )
    assert float(loss) == pytest.approx((1 / 2) ** 2 + (3 / 2 - 1) ** 2, rel=2e-3)


@pytest.mark.parametrize("factor", [1e-1, 1e2])
def test_relative_loss_does_not_change_with_a_layers_scale(factor):
    def layers(scale):
        rng = np.random.default_rng(1)
        return [
            statistics(
                scale * rng.normal(0, 1, 16), scale**2 * rng.uniform(0.5, 2.0, 16)
            )
            for _ in range(2)
        ]

    stored, batch = layers(1.0)
    scaled_stored, scaled_batch = layers(factor)
    one = statistics([0.0], [1.0]), statistics([0.3], [2.0])

    def losses(loss):
        plain = loss(stored=[stored, one[0]], batch=[batch, one[1]])
        scaled = loss(stored=[scaled_stored, one[0]], batch=[scaled_batch, one[1]])
        return float(plain), float(scaled)

    plain, scaled = losses(relative_loss)
    assert scaled == pytest.approx(plain, rel=5e-3)
    plain, scaled = losses(bn_statistics_loss)
    assert scaled != pytest.approx(plain, rel=5e-3)


def test_relative_loss_stays_finite_on_dead_channels():
    stored = [statistics([0.0, 1.0], [0.0, 1.0]), statistics([0.0], [0.0])]
    variance = tf.Variable([0.0, 0.5])
    with tf.GradientTape() as tape:
        batch = [
            BNStatistics(tf.zeros(2), tf.identity(variance)),
            statistics([0.0], [0.0]),
        ]
        loss = relative_loss(stored=stored, batch=batch)
    assert np.isfinite(loss)
    assert np.isfinite(tape.gradient(loss, variance)).all()


@pytest.mark.parametrize("loss", [bn_statistics_loss, relative_loss])
def test_layers_must_pair_up(loss):
    layer = statistics([0.0], [1.0])
    with pytest.raises(ValueError, match="zip"):
        loss(stored=[layer, layer], batch=[layer])


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_distillation_is_the_softened_kl_divergence_times_t_squared(temperature):
    teacher, student = RNG.normal(0, 5, (2, 6, 10))
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    # Summed over classes, averaged over images.
    expected = temperature**2 * (p * np.log(p / q)).sum(axis=-1).mean()
    loss = distillation_loss(
        teacher_logits=tf.constant(teacher, tf.float32),
        student_logits=tf.constant(student, tf.float32),
        temperature=temperature,
    )
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_distillation_from_oneself_is_nothing_and_the_order_matters():
    one = tf.constant([[2.0, 0.0, -1.0]])
    other = tf.constant([[0.0, 4.0, -1.0]])

    def loss(teacher, student):
        return float(
            distillation_loss(
                teacher_logits=teacher, student_logits=student, temperature=1.0
            )
        )

    assert loss(one, one) == 0.0
    assert loss(one, other) != pytest.approx(loss(other, one), rel=0.05)


def test_distillation_survives_certain_teachers():
    loss = distillation_loss(
        teacher_logits=tf.constant([[1000.0, 0.0]]),
        student_logits=tf.constant([[0.0, 0.0]]),
        temperature=1.0,
    )
    assert float(loss) == pytest.approx(np.log(2.0), rel=1e-5)
