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
from gdfq_tf.synthesis.image_pool import ImagePool


def agreeing(share, num_classes, num_images=1000):
    """Outputs of a student that agrees on that share of a teacher's images."""
    teacher = np.eye(num_classes)[np.arange(num_images) % num_classes]
    student = np.roll(teacher, 1, axis=1)
    student[: round(share * num_images)] = teacher[: round(share * num_images)]
    return 40 * student - 7, teacher  # scale and offset do not matter


@pytest.mark.parametrize("share", [1.0, 0.99, 0.95, 0.9])
@pytest.mark.parametrize("num_classes", [10, 1000])
def test_small_disagreements_cost_in_proportion(share, num_classes):
    found = estimate_accuracy(*agreeing(share, num_classes))
    assert (found.num_images, found.agreement) == (1000, pytest.approx(share))
    expected = 100 * (1 - share) * LOSS_PER_DISAGREEMENT
    assert found.accuracy_loss == pytest.approx(expected, abs=0.002)
    assert 0 < LOSS_PER_DISAGREEMENT < LARGEST_LOSS_PER_DISAGREEMENT <= 1


@pytest.mark.parametrize(
    ("share", "num_classes", "above_chance"),
    [
        (0.5, 2, 50.0),
        (0.3, 2, 50.0),
        (0.25, 4, 75.0),
        (0.0, 4, 75.0),
        (0.0, 1000, 99.9),
    ],
)
def test_agreement_by_chance_loses_all_that_lies_above(
    share, num_classes, above_chance
):
    found = estimate_accuracy(*agreeing(share, num_classes))
    assert found.accuracy_loss == pytest.approx(above_chance)
    assert found.largest_accuracy_loss == pytest.approx(above_chance)


def test_the_loss_by_hand_between_small_and_all():
    # Half of what chance leaves of four classes: 75 * (0.1 / 2 + 0.9 / 32).
    found = estimate_accuracy(*agreeing(0.625, 4))
    assert found.accuracy_loss == pytest.approx(5.859375)


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_the_loss_rises_with_every_disagreement(num_classes):
    chance = 1 / num_classes
    found = [
        estimate_accuracy(*agreeing(share, num_classes))
        for share in np.linspace(1, chance + 0.01, 20)
    ]
    for figure in ("accuracy_loss", "largest_accuracy_loss"):
        losses = [getattr(x, figure) for x in found]
        assert losses == sorted(losses) and losses[0] < losses[-1]
    assert all(x.accuracy_loss < x.largest_accuracy_loss for x in found)


@pytest.mark.parametrize(
    ("num_images", "num_disagreements", "possible"),
    # A hundred images without disagreement leave three of a hundred possible.
    [(100, 0, 3), (100, 7, 10), (300, 0, 1), (300, 27, 10)],
)
def test_few_images_say_little_of_the_largest_loss(
    num_images, num_disagreements, possible
):
    share = 1 - num_disagreements / num_images
    found = estimate_accuracy(*agreeing(share, 100, num_images))
    expected = possible * LARGEST_LOSS_PER_DISAGREEMENT
    assert found.largest_accuracy_loss == pytest.approx(expected, abs=0.002)


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
    blended = blend(ImagePool(pixels, np.array([5, 6, 7], np.int32)))
    # With the next: 0 + 37.5; 62.5 + 95.625 = 158.125; 159.375 + 0; halves go to even.
    # With the one after that: 0 + 95.625; 62.5 + 0; 159.375 + 37.5 = 196.875.
    assert blended.pixels.ravel().tolist() == [38, 158, 159, 96, 62, 197]
    assert blended.pixels.dtype == np.uint8
    assert blended.labels.tolist() == [5, 6, 7, 5, 6, 7]


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, 1), (2, 2), (12, 132), (60, 180), (128, 128), (200, 200)],
)
def test_small_pools_are_blended_several_times(count, expected):
    """132 of 12: with all 11 others; 180 of 60: with 3, as 2 would give but 120."""
    pixels = np.zeros((count, 1, 1, 1), np.uint8)
    blended = blend(ImagePool(pixels, np.zeros(count, np.int32)))
    assert len(blended) == len(blended.pixels) == expected
