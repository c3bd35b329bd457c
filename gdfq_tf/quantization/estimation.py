"""How accurate a student is, told from its likeness to the teacher, without labels.

On images that no step has used, the student's outputs are compared with the teacher's.
Synthetic images lie nearer to the class boundaries than real ones or further away, so
that a small disagreement is only proportional to what real images show. A student that
agrees no more often than by chance has lost all that its teacher knew.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gdfq_tf.classifier import Classifier, Head, predict_logits
from gdfq_tf.metrics import agreement, label_agreement, signal_to_noise
from gdfq_tf.quantization.student import Student
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.system import large_arrays

# Fewer say little, and as many students answer at once.
_NUM_BLENDED = 128


@dataclasses.dataclass(frozen=True)
class AccuracyEstimate:
    """What agreement on held-out synthetic images says.

    Attributes:
      num_images: held-out synthetic images, or pairs of them.
      agreement: share, 0..1, that student and teacher put into one class.
      accuracy_loss: estimated loss of top-1 accuracy, points, of a teacher that is
        always right.
      largest_accuracy_loss: what it may be at worst, as far as is known, points.
    """

    num_images: int
    agreement: float
    accuracy_loss: float
    largest_accuracy_loss: float

    def in_words(self) -> str:
        """For people, in one line."""
        return (
            f"agrees on {100 * self.agreement:.1f} % of {self.num_images} synthetic "
            f"images, loses about {self.accuracy_loss:.1f} points "
            f"({self.largest_accuracy_loss:.1f} at worst, as far as is known)"
        )


@dataclasses.dataclass(frozen=True)
class LabelEstimate:
    """The same of a multi-label network.

    Attributes:
      num_images: held-out synthetic images, or pairs of them.
      label_agreement: share, 0..1, of labels on which student and teacher agree.
    """

    num_images: int
    label_agreement: float

    def in_words(self) -> str:
        """For people, in one line."""
        return f"agrees on {100 * self.label_agreement:.1f} % of labels"


@dataclasses.dataclass(frozen=True)
class FeaturesEstimate:
    """The same of a network that gives features.

    Attributes:
      num_images: held-out synthetic images, or pairs of them.
      signal_to_noise_db: power of the teacher's outputs over that of the student's
        error, see `signal_to_noise`.
    """

    num_images: int
    signal_to_noise_db: float

    def in_words(self) -> str:
        """For people, in one line."""
        return f"signal {self.signal_to_noise_db:.1f} dB above error"


Estimate = AccuracyEstimate | LabelEstimate | FeaturesEstimate


def estimate_of_dict(values: Mapping[str, Any]) -> Estimate:
    """What `dataclasses.asdict` made of one."""
    kinds = (AccuracyEstimate, LabelEstimate, FeaturesEstimate)
    (kind,) = (x for x in kinds if x.__dataclass_fields__.keys() == values.keys())
    return kind(**values)


def blend(pool: ImagePool) -> ImagePool:
    """Each image with three eighths of another one laid over it.

    Refined images belong to their class beyond doubt, as no student could miss; blended
    ones are about as doubtful to the teacher as real ones are. Of a small pool each
    image meets several of those after it, so that there are 128 pairs if possible.
    """
    count = len(pool)
    num_others = max(1, min(count - 1, math.ceil(_NUM_BLENDED / count)))
    shape = num_others * count, *pool.pixels.shape[1:]
    blended = large_arrays.zeros(shape, np.uint8)
    for i, image in enumerate(blended):
        ours = pool.pixels[i % count]
        other = pool.pixels[(i + i // count + 1) % count]
        image[...] = np.round(0.625 * ours.astype(np.float32) + 0.375 * other)
    return ImagePool(blended, np.tile(pool.labels, num_others))


def estimate(student: Student, classifier: Classifier, pixels: np.ndarray) -> Estimate:
    """How like its classifier a student is on held-out images, uint8 (N, H, W, C)."""
    outputs = outputs_of_both(student, classifier, pixels)
    return estimate_of_outputs(*outputs, classifier.head)


def outputs_of_both(
    student: Student, classifier: Classifier, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What a student and its classifier give, as their head has it, float32 (N, C).

    Args:
      student: of the classifier.
      classifier: what it was built from.
      pixels: uint8 (N, H, W, C).
    """
    preprocessing, head = classifier.preprocessing, classifier.head
    student_logits, logits = (
        predict_logits(model, pixels, to_input)
        for model, to_input in (
            (student.model, preprocessing.to_student_input),
            (classifier.model, preprocessing.to_input),
        )
    )
    return (
        np.asarray(head.outputs_of(student_logits)),
        np.asarray(head.outputs_of(logits)),
    )


def estimate_of_outputs(
    student_outputs: np.ndarray, teacher_outputs: np.ndarray, head: Head
) -> Estimate:
    """The estimate from what student and teacher give of the same held-out images.

    Args:
      student_outputs: (N, C), as the head gives them, see `Head.outputs_of`.
      teacher_outputs: likewise.
      head: of both.
    """
    if head.has_classes:
        return estimate_accuracy(student_outputs, teacher_outputs)
    count = len(teacher_outputs)
    if head is Head.MULTI_LABEL:
        return LabelEstimate(count, label_agreement(student_outputs, teacher_outputs))
    return FeaturesEstimate(count, signal_to_noise(student_outputs, teacher_outputs))


def estimate_accuracy(
    student_outputs: np.ndarray, teacher_logits: np.ndarray
) -> AccuracyEstimate:
    """`estimate` for networks with classes, (N, classes)."""
    count, share = len(teacher_logits), agreement(student_outputs, teacher_logits)
    chance = 1 / teacher_logits.shape[-1]
    return AccuracyEstimate(
        count,
        share,
        points_lost(1 - share, LOSS_PER_DISAGREEMENT, chance),
        points_lost(1 - share + UNSEEN / count, LARGEST_LOSS_PER_DISAGREEMENT, chance),
    )


def points_lost(disagreement: float, slope: float, chance: float) -> float:
    """Points of accuracy that a disagreement costs.

    In proportion to it as long as it is small; all that lies above chance where the two
    agree no more often than by chance.

    Args:
      disagreement: share of images, from 0 on.
      slope: points of accuracy per point of small disagreements, at most 1.
      chance: share of images on which guesses agree.
    """
    knowledge = 1 - chance
    forgotten = min(disagreement / knowledge, 1.0)
    share = slope * forgotten + (1 - slope) * forgotten**_COLLAPSE
    return 100 * knowledge * share


# Points of accuracy lost per point of synthetic disagreement, usually and at worst;
# see docs/method.md, "The estimate without data".
LOSS_PER_DISAGREEMENT = 0.1
LARGEST_LOSS_PER_DISAGREEMENT = 0.25
# How suddenly the rest goes: below half of the possible disagreement it costs nothing.
_COLLAPSE = 5
# Disagreements that a sample without any may have missed, at 95 % confidence.
UNSEEN = 3
