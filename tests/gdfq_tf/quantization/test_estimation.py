from __future__ import annotations

import numpy as np
import pytest

from gdfq_tf.classifier import Head
from gdfq_tf.quantization.estimation import (
    LARGEST_LOSS_PER_DISAGREEMENT,
    LOSS_PER_DISAGREEMENT,
    FeaturesEstimate,
    LabelEstimate,
    blend,
    estimate_accuracy,
    estimate_of_outputs,
)


@pytest.mark.parametrize(
    ("winners", "agreement"),
    [([0, 1, 2, 0, 1], 1.0), ([0, 1, 2, 0, 2], 0.8), ([1, 2, 0, 1, 2], 0.0)],
)
def test_the_estimate_by_hand(winners, agreement):
    teacher = np.eye(3)[[0, 1, 2, 0, 1]]
    student = 40 * np.eye(3)[winners] - 7  # scale and offset do not matter
    estimate = estimate_accuracy(student, teacher)
    assert estimate.num_images == 5
    assert estimate.agreement == pytest.approx(agreement)
    # A fifth of the images is 20 points, of which so much is lost.
    expected = 100 * (1 - agreement) * LOSS_PER_DISAGREEMENT
    assert estimate.accuracy_loss == pytest.approx(expected)


def test_a_fifth_of_disagreement_in_points():
    estimate = estimate_accuracy(np.eye(5), np.eye(5)[[0, 1, 2, 3, 3]])
    assert estimate.accuracy_loss == pytest.approx(20 * LOSS_PER_DISAGREEMENT)
    assert 0 < LOSS_PER_DISAGREEMENT < LARGEST_LOSS_PER_DISAGREEMENT <= 1


@pytest.mark.parametrize(
    ("num_images", "num_disagreements", "possible"),
    # A hundred images without disagreement leave three of a hundred possible.
    [(100, 0, 3), (100, 7, 10), (300, 0, 1), (300, 60, 21)],
)
def test_few_images_say_little_of_the_largest_loss(
    num_images, num_disagreements, possible
):
    teacher = np.tile([[1.0, 0.0]], (num_images, 1))
    student = teacher.copy()
    student[:num_disagreements] = [0.0, 1.0]
    found = estimate_accuracy(student, teacher)
    expected = possible * LARGEST_LOSS_PER_DISAGREEMENT
    assert found.largest_accuracy_loss == pytest.approx(expected)


@pytest.mark.parametrize("head", [Head.LOGITS, Head.SOFTMAX, Head.SIGMOID])
def test_classes_are_estimated_by_their_winners(head):
    student, teacher = np.eye(3)[[0, 1, 2]], np.eye(3)[[0, 1, 1]]
    assert estimate_of_outputs(student, teacher, head) == estimate_accuracy(
        student, teacher
    )


def test_labels_are_estimated_one_by_one():
    student = np.array([[0.9, 0.8], [0.1, 0.2]])
    teacher = np.array([[0.6, 0.3], [0.1, 0.2]])
    assert estimate_of_outputs(student, teacher, Head.MULTI_LABEL) == LabelEstimate(
        2, 0.75
    )


def test_features_are_estimated_by_their_error():
    teacher = np.array([[2.0], [-2.0]])
    found = estimate_of_outputs(teacher * 1.1, teacher, Head.FEATURES)
    assert found == FeaturesEstimate(2, pytest.approx(20.0))


def test_blends_by_hand():
    pixels = np.array([0, 100, 255], np.uint8).reshape(3, 1, 1, 1)
    # 0 + 37.5; 62.5 + 95.625 = 158.125; 159.375 + 0; halves go to even.
    blended = blend(pixels)
    np.testing.assert_array_equal(blended.ravel(), [38, 158, 159])
    assert blended.dtype == np.uint8
