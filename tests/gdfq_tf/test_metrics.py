from __future__ import annotations

import numpy as np
import pytest

from gdfq_tf.metrics import (
    accuracy_of_logits,
    agreement,
    label_agreement,
    predict_in_batches,
    signal_to_noise,
    standard_error,
    wilson_interval,
)


def one_hot_of_pixel(images):
    """A classifier whose class is the image's only pixel."""
    return np.eye(4, dtype=np.float32)[images[:, 0]]


@pytest.mark.parametrize(
    ("batch_size", "expected_sizes"),
    [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (7, [5])],
)
def test_batches_cover_all_images_in_order(batch_size, expected_sizes):
    images = np.array([[3], [0], [2], [1], [3]])
    sizes = []

    def predict(batch):
        sizes.append(len(batch))
        return one_hot_of_pixel(batch)

    logits = predict_in_batches(predict, images, batch_size)
    assert sizes == expected_sizes
    np.testing.assert_array_equal(logits, np.eye(4)[[3, 0, 2, 1, 3]])


def test_predictions_keep_their_dtype():
    images = np.zeros((3, 1), np.uint8)
    logits = predict_in_batches(lambda x: np.zeros((len(x), 2), np.int8), images, 2)
    assert logits.dtype == np.int8


@pytest.mark.parametrize(("count", "batch_size"), [(0, 1), (1, 0), (3, -1)])
def test_nothing_to_predict_is_refused(count, batch_size):
    with pytest.raises(ValueError, match="at least 1"):
        predict_in_batches(one_hot_of_pixel, np.zeros((count, 1), int), batch_size)


@pytest.mark.parametrize("shape", [(2,), (3, 4), (2, 4, 1)])
def test_predict_of_a_wrong_shape_is_refused(shape):
    with pytest.raises(ValueError, match="2 images gave logits of shape"):
        predict_in_batches(lambda x: np.zeros(shape), np.zeros((2, 1)), 2)


def test_accuracy_counts_right_answers():
    images = np.array([[3], [0], [2], [1], [3]])
    labels = np.array([3, 0, 1, 1, 0])  # right, right, wrong, right, wrong
    logits = predict_in_batches(one_hot_of_pixel, images, 2)
    assert accuracy_of_logits(logits, labels) == pytest.approx(3 / 5)


def test_first_of_equal_logits_wins():
    logits = np.array([[5, 5], [5, 5]], np.int8)
    assert accuracy_of_logits(logits, np.array([0, 1])) == 0.5


def test_labels_must_be_one_per_image():
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        accuracy_of_logits(np.zeros((2, 3)), np.zeros((2, 1), int))
    with pytest.raises(ValueError, match=r"\(1,\)"):
        accuracy_of_logits(np.zeros((2, 3)), np.zeros(1, int))


def test_agreement_compares_peaks_not_values():
    logits = np.array([[0.1, 0.9], [2.0, 1.0], [0.0, 1.0], [5.0, 1.0]])
    other = np.array([[-9, 100], [1, 3], [-1, 0], [1, 0]], np.int8)
    assert agreement(logits, other) == 0.75
    assert agreement(logits, logits) == 1.0


def test_agreement_needs_equal_shapes():
    with pytest.raises(ValueError, match="expected the same"):
        agreement(np.zeros((2, 3)), np.zeros((2, 4)))


def test_standard_error_by_hand():
    assert standard_error(0.5, 100) == pytest.approx(0.05)
    assert standard_error(0.9, 900) == pytest.approx(0.01)
    assert standard_error(1.0, 10) == 0.0


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_of_published_examples(right, total, low, high):
    interval = wilson_interval(right / total, total)
    assert interval == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_mirrors():
    low, high = wilson_interval(0.0, 20)
    assert low == 0.0
    assert wilson_interval(1.0, 20) == pytest.approx((1.0 - high, 1.0))


def test_labels_agree_where_both_are_on_or_off():
    probabilities = np.array([[0.5, 0.1, 0.9], [0.2, 0.49, 1.0]])
    others = np.array([[0.7, 0.4, 0.2], [0.6, 0.5, 0.51]])
    # Alike are the first two of the first image and the last of the second.
    assert label_agreement(probabilities, others) == pytest.approx(3 / 6)
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 2\)"):
        label_agreement(probabilities, others[:, :2])


def test_signal_to_noise_by_hand():
    # Deviations of 2 and 0 from the means over images; an error of 0.2 in one output.
    reference = np.array([[7.0, 5.0], [3.0, 5.0]])
    outputs = reference + np.array([[0.2, 0.0], [-0.2, 0.0]])
    # Power 4 over 0.04, in both outputs alike.
    assert signal_to_noise(outputs, reference) == pytest.approx(20.0)
    # A constant added to both is neither signal nor error.
    shifted = signal_to_noise(outputs + 100, reference + 100)
    assert shifted == pytest.approx(20.0)
    assert signal_to_noise(reference, reference) == pytest.approx(120.0)
    assert signal_to_noise(reference * 0, reference * 0) == pytest.approx(0.0)
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(2, 1\)"):
        signal_to_noise(outputs, reference[:, :1])
