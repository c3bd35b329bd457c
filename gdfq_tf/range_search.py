"""Activation ranges chosen by what they do to the logits, not to their own tensor.

Error-minimising clipping treats all errors alike; how much of a tensor's tail the
classifier needs only shows at its output. One range after the other is tried a step
smaller and a step larger, the rest as they stand, and the best is kept.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from gdfq_tf.losses import distillation_loss
from gdfq_tf.preprocessing import Preprocessing
from gdfq_tf.student import Student

# A smaller step than this changes the logits less than the images' choice does.
_STEP = 1.18
_TEMPERATURE = 4.0
_BATCH_SIZE = 64


def search_ranges(
    student: Student,
    pixels: np.ndarray,
    teacher_logits: np.ndarray,
    preprocessing: Preprocessing,
) -> None:
    """Moves the scales of activations below 8 bits, in place; the rest has no need.

    Args:
      student: calibrated, its kernels rounded.
      pixels: synthetic images, uint8 (N, H, W, C).
      teacher_logits: the classifier's on them, float32 (N, classes).
      preprocessing: the classifier's.
    """
    inputs = preprocessing.to_student_input(pixels)
    predict = tf.function(lambda batch: student.model(batch, training=False))
    starts = range(0, len(pixels), _BATCH_SIZE)

    def distance() -> float:
        logits = [predict(inputs[i : i + _BATCH_SIZE]) for i in starts]
        loss = distillation_loss(
            teacher_logits=teacher_logits,
            student_logits=tf.concat(logits, axis=0),
            temperature=_TEMPERATURE,
        )
        return float(loss)

    smallest = distance()
    for name, group in student.plan.groups.items():
        if group.bits == 8:
            continue
        log_scale = student.activation_quantizers[name].log_scale
        start = best = float(log_scale)
        for candidate in (start - math.log(_STEP), start + math.log(_STEP)):
            log_scale.assign(candidate)
            found = distance()
            if found < smallest:
                smallest, best = found, candidate
        log_scale.assign(best)
