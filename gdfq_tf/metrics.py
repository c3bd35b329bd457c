"""Top-1 accuracy and likeness of any `images -> logits` callable.

Knows arrays only; where the images come from is the caller's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Predict = Callable[[np.ndarray], npt.ArrayLike]


def predict_in_batches(
    predict: Predict, images: np.ndarray, batch_size: int
) -> np.ndarray:
    """Logits (N, classes) of images (N, ...), `batch_size` images at a time.

    The last batch holds what is left over, so `predict` sees at most two
    batch sizes.

    Raises:
      ValueError: no images, batch size below 1, or `predict` does not return
        one row of logits per image.
    """
    if len(images) < 1 or batch_size < 1:
        raise ValueError(
            f"got {len(images)} images in batches of {batch_size}; expected at "
            "least 1 of each"
        )
    batches = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        logits = np.asarray(predict(batch))
        if logits.ndim != 2 or len(logits) != len(batch):
            raise ValueError(
                f"{len(batch)} images gave logits of shape {logits.shape}; expected "
                f"({len(batch)}, classes)"
            )
        batches.append(logits)
    return np.concatenate(batches)


def accuracy_of_logits(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share, 0..1, of rows (N, classes) whose largest logit is at their label.

    Of equal logits, as int8 outputs may hold, the first counts as the largest.

    Raises:
      ValueError: labels are not one for each row.
    """
    if np.shape(labels) != (len(logits),):
        raise ValueError(
            f"labels have shape {np.shape(labels)}; expected ({len(logits)},)"
        )
    return float(np.mean(np.argmax(logits, axis=-1) == labels))


def agreement(logits: np.ndarray, other_logits: np.ndarray) -> float:
    """Share, 0..1, of rows in which both arrays (N, classes) peak at one class.

    Raises:
      ValueError: different shapes.
    """
    if np.shape(logits) != np.shape(other_logits):
        raise ValueError(
            f"logits have shapes {np.shape(logits)} and {np.shape(other_logits)}; "
            "expected the same"
        )
    return accuracy_of_logits(logits, np.argmax(other_logits, axis=-1))


def divergence(logits: np.ndarray, other_logits: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence of the others' classes from the first ones'.

    Both (N, classes), as logits, at temperature 1. It tells differences that agreement,
    which only counts answers, loses in its noise.
    """
    ours, others = _log_softmax(logits), _log_softmax(other_logits)
    return float(np.mean(np.sum(np.exp(ours) * (ours - others), axis=-1)))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def label_agreement(probabilities: np.ndarray, others: np.ndarray) -> float:
    """Share, 0..1, of labels that are on, or off, in both arrays (N, labels).

    On is a probability of a half and more.

    Raises:
      ValueError: different shapes.
    """
    if np.shape(probabilities) != np.shape(others):
        raise ValueError(
            f"probabilities have shapes {np.shape(probabilities)} and "
            f"{np.shape(others)}; expected the same"
        )
    return float(np.mean((probabilities >= 0.5) == (others >= 0.5)))


def signal_to_noise(outputs: np.ndarray, reference: np.ndarray) -> float:
    """Power of the reference, (N, C), over that of the error, dB, 120 at most.

    Counted is what differs between images: of each output the mean over images is
    taken off the reference, so that a constant is no signal.

    Raises:
      ValueError: different shapes.
    """
    if np.shape(outputs) != np.shape(reference):
        raise ValueError(
            f"outputs have shapes {np.shape(outputs)} and {np.shape(reference)}; "
            "expected the same"
        )
    reference = np.asarray(reference, np.float64)
    signal = np.mean((reference - reference.mean(axis=0)) ** 2)
    error = np.mean((outputs - reference) ** 2)
    tiny = np.finfo(np.float64).tiny
    return float(10 * np.log10((signal + tiny) / (error + 1e-12 * signal + tiny)))


def standard_error(accuracy: float, num_images: int) -> float:
    """Binomial standard error of an accuracy in 0..1 over `num_images`."""
    return math.sqrt(accuracy * (1.0 - accuracy) / num_images)


def wilson_interval(
    accuracy: float, num_images: int, z: float = 1.959964
) -> tuple[float, float]:
    """Wilson score interval (low, high) of an accuracy in 0..1.

    Unlike accuracy +- z standard errors it stays inside [0, 1] and keeps a
    width at accuracies of 0 and 1.

    Args:
      accuracy: share of right answers.
      num_images: how many it was measured on.
      z: standard normal quantile; the default gives 95 %.
    """
    weight = 1.0 + z * z / num_images
    centre = (accuracy + z * z / (2.0 * num_images)) / weight
    half_width = (
        z
        / weight
        * math.sqrt(
            standard_error(accuracy, num_images) ** 2 + (z / (2.0 * num_images)) ** 2
        )
    )
    return max(0.0, centre - half_width), min(1.0, centre + half_width)
