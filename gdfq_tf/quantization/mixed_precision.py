"""Mixed precision: which layers lose most when quantized, which to keep at 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gdfq_tf.classifier import Classifier, predict_logits
from gdfq_tf.keras_compat import keras
from gdfq_tf.quantization.losses import distillation_loss
from gdfq_tf.quantization.quantizers import fake_quantize_weights
from gdfq_tf.quantization.student import Student


def measure_sensitivity(
    student: Student, classifier: Classifier, pixels: np.ndarray
) -> dict[str, float]:
    """Kernel layer name -> KL divergence (nats, mean over images) of the classifier's
    outputs when this one kernel is the student's.

    Args:
      student: its kernels rounded.
      classifier: the one that it was built from.
      pixels: synthetic images, uint8 (N, H, W, C); a few hundred do.
    """
    model, to_input = classifier.model, classifier.preprocessing.to_input
    teacher_logits = predict_logits(model, pixels, to_input)
    probe = keras.models.clone_model(model)
    probe.set_weights(model.get_weights())
    sensitivity = {}
    for name, quantizer in student.weight_quantizers.items():
        layer = probe.get_layer(name)
        kernel, *rest = weights = layer.get_weights()
        quantized = fake_quantize_weights(
            quantizer.channels_last(), quantizer.scale, quantizer.bits
        )
        layer.set_weights([np.reshape(quantized, kernel.shape), *rest])
        loss = distillation_loss(
            teacher_logits=teacher_logits,
            student_logits=predict_logits(probe, pixels, to_input),
            temperature=1.0,
        )
        sensitivity[name] = float(loss)
        layer.set_weights(weights)
    return sensitivity


def choose_kept_layers(
    ranked: Sequence[str],
    accuracy_loss: Callable[[frozenset[str]], float],
    max_accuracy_loss: float,
) -> frozenset[str]:
    """The fewest of the first layers of `ranked` that have to stay at 8 bits.

    Args:
      ranked: kernel layers, the most sensitive first.
      accuracy_loss: of a student that keeps the given layers; falls, up to noise,
        as more are kept.
      max_accuracy_loss: what it may be, in the same unit.

    Returns:
      All of `ranked` if even that loses more.
    """
    low, high = 0, len(ranked)  # keeping `high` suffices, or nothing does
    while low < high:
        middle = (low + high) // 2
        if accuracy_loss(frozenset(ranked[:middle])) <= max_accuracy_loss:
            high = middle
        else:
            low = middle + 1
    return frozenset(ranked[:high])
