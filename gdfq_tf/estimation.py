"""How accurate a student is, told from its agreement with the teacher, without labels.

On images that no step has used, the student's classes are compared with the teacher's.
Synthetic images lie nearer to the class boundaries than real ones or further away,
so that their disagreement is only proportional to what real images show.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from gdfq_tf.evaluation import agreement


@dataclasses.dataclass(frozen=True)
class AccuracyEstimate:
    """What agreement on held-out synthetic images says.

    Attributes:
      num_images: held-out synthetic images.
      agreement: share, 0..1, that student and teacher put into one class.
      accuracy_loss: estimated loss of top-1 accuracy, points.
    """

    num_images: int
    agreement: float
    accuracy_loss: float


def estimate_accuracy(
    student_outputs: np.ndarray, teacher_logits: np.ndarray
) -> AccuracyEstimate:
    """The estimate from outputs (N, classes) on the same held-out images."""
    share = agreement(student_outputs, teacher_logits)
    return AccuracyEstimate(
        len(teacher_logits), share, 100 * LOSS_PER_DISAGREEMENT * (1 - share)
    )


# Points of accuracy lost per point of synthetic disagreement; see README, "Estimate".
LOSS_PER_DISAGREEMENT = 0.3
