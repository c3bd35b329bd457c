"""What a student is trained on: pure, keyword-only functions, one value per call."""

from __future__ import annotations

import tensorflow as tf

from gdfq_tf.distribution.replicas import global_moments

# Keeps relative errors finite where the targets never vary.
_EPSILON = 1e-5


def distillation_loss(
    *,
    teacher_logits: tf.Tensor,
    student_logits: tf.Tensor,
    temperature: float,
) -> tf.Tensor:
    """T^2 * KL(teacher || student) of the softened outputs, mean over images.

    Source: Hinton et al. 2015; Xu et al. 2020, Eq. 7 (T = 20 in its code, whose
    default reduction divides by the number of classes besides).
    """
    teacher_log = tf.nn.log_softmax(teacher_logits / temperature)
    student_log = tf.nn.log_softmax(student_logits / temperature)
    kl = tf.reduce_sum(tf.exp(teacher_log) * (teacher_log - student_log), axis=-1)
    return temperature**2 * tf.reduce_mean(kl)


def relative_error(*, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Mean squared error, relative to the targets' mean variance over images.

    Args:
      targets: (N, C) float32.
      outputs: likewise.
    """
    moments = tf.reduce_mean(targets, 0), tf.math.reduce_variance(targets, 0)
    ((_, variance),) = global_moments([moments], targets)
    return tf.reduce_mean(tf.square(outputs - targets)) / (
        tf.reduce_mean(variance) + _EPSILON
    )
