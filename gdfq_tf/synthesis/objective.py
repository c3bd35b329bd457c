"""What synthetic images are fitted to, by the generator and by refinement alike."""

from __future__ import annotations

import tensorflow as tf

from gdfq_tf.classifier import Head
from gdfq_tf.synthesis.losses import (
    bn_statistics_loss,
    classification_loss,
    label_loss,
    relative_bn_statistics_loss,
    smoothness_loss,
)
from gdfq_tf.synthesis.teacher import Teacher

# Beside the cross-entropy, which images of any texture satisfy within a few steps.
_SMOOTHNESS_WEIGHT = 5.0


def image_losses(
    teacher: Teacher,
    images: tf.Tensor,
    labels: tf.Tensor,
    *,
    bn_weight: float,
    relative_bn_loss: bool = True,
    temperature: float = 1.0,
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Losses by name, "loss" their weighted sum, and the teacher's logits.

    Cross-entropy + bn_weight * BN-statistics loss (Xu et al. 2020, Eq. 5). A teacher
    without BatchNormalization knows nothing of its training images; that they were
    smooth is assumed in the statistics' place. Features have no cross-entropy.

    Args:
      images: model inputs, (N, H, W, C) float32.
      labels: (N,) int, the classes or labels they are to have.
      relative_bn_loss: see `SynthesisConfig`.
      temperature: of the cross-entropy.
    """
    outputs, head = teacher(images), teacher.classifier.head
    losses = {}
    if head is Head.MULTI_LABEL:
        losses["cross_entropy"] = label_loss(
            logits=outputs.logits, labels=labels, temperature=temperature
        )
    elif head.has_classes:
        losses["cross_entropy"] = classification_loss(
            logits=outputs.logits, labels=labels, temperature=temperature
        )
    if teacher.stored_statistics:
        statistics_loss = (
            relative_bn_statistics_loss if relative_bn_loss else bn_statistics_loss
        )
        losses["bn"] = statistics_loss(
            stored=teacher.stored_statistics, batch=outputs.statistics
        )
    else:
        losses["smoothness"] = smoothness_loss(images=images)
    weights = {"bn": bn_weight, "smoothness": _SMOOTHNESS_WEIGHT}
    loss = tf.add_n([weights.get(name, 1.0) * x for name, x in losses.items()])
    return {"loss": loss, **losses}, outputs.logits
