"""What synthetic images are fitted to, by the generator and by refinement alike."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from gdfq_tf.classifier import Head
from gdfq_tf.synthesis.losses import (
    bn_statistics_loss,
    classification_loss,
    label_loss,
    relative_bn_gaps,
    relative_bn_statistics_loss,
    smoothness_loss,
)
from gdfq_tf.synthesis.teacher import Teacher

# Beside the cross-entropy, which images of any texture satisfy within a few steps.
_SMOOTHNESS_WEIGHT = 5.0


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Factors of the losses in their sum.

    Attributes:
      bn: of the BN-statistics loss.
      cross_entropy: of that with the classes, or labels, asked for.
    """

    bn: float
    cross_entropy: float = 1.0


def image_losses(
    teacher: Teacher,
    images: tf.Tensor,
    labels: tf.Tensor,
    *,
    weights: LossWeights,
    relative_bn_loss: bool = True,
    temperature: float = 1.0,
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """What images are to make small.

    Cross-entropy + weights.bn * BN-statistics loss. A teacher without
    BatchNormalization knows nothing of its training images; that they were smooth is
    assumed in the statistics' place. Features have no cross-entropy.

    Source: Xu et al. 2020, Eq. 5.

    Args:
      teacher: scores the images.
      images: model inputs, (N, H, W, C) float32.
      labels: (N,) int, the classes or labels they are to have.
      weights: of the sum.
      relative_bn_loss: see `SynthesisConfig`.
      temperature: of the cross-entropy.

    Returns:
      Scalar losses by name, "loss" their weighted sum, and beside them "bn_gaps", see
      `relative_bn_gaps`, (BatchNormalization layers,); the teacher's logits
      (N, classes).
    """
    outputs, head = teacher(images), teacher.classifier.head
    losses, gaps = {}, []
    if head is Head.MULTI_LABEL:
        losses["cross_entropy"] = label_loss(
            logits=outputs.logits, labels=labels, temperature=temperature
        )
    elif head.has_classes:
        losses["cross_entropy"] = classification_loss(
            logits=outputs.logits, labels=labels, temperature=temperature
        )
    if teacher.stored_statistics:
        stored, batch = teacher.stored_statistics, outputs.statistics
        gaps = relative_bn_gaps(stored=stored, batch=batch)
        losses["bn"] = (
            relative_bn_statistics_loss(gaps=gaps)
            if relative_bn_loss
            else bn_statistics_loss(stored=stored, batch=batch)
        )
    else:
        losses["smoothness"] = smoothness_loss(images=images)
    factors = {**dataclasses.asdict(weights), "smoothness": _SMOOTHNESS_WEIGHT}
    loss = tf.add_n([factors[name] * x for name, x in losses.items()])
    by_layer = tf.stack(gaps) if gaps else tf.zeros(0)
    return {"loss": loss, **losses, "bn_gaps": by_layer}, outputs.logits
