"""Mixed precision: which layers lose most when quantized, which to keep at 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gdfq_tf.classifier import Classifier, predict_logits
from gdfq_tf.keras_compat import keras
from gdfq_tf.quantization.estimation import estimate_accuracy, outputs_of_both
from gdfq_tf.quantization.losses import distillation_loss
from gdfq_tf.quantization.student import Student
from gdfq_tf.synthesis.image_pool import ImagePool

_NUM_SENSITIVITY_IMAGES = 256


def measure_sensitivity(
    student: Student, classifier: Classifier, pixels: np.ndarray
) -> dict[str, float]:
    """What the classifier's outputs lose when one kernel is the student's.

    Args:
      student: its kernels rounded.
      classifier: the one that it was built from.
      pixels: synthetic images, uint8 (N, H, W, C); a few hundred do.

    Returns:
      Kernel layer name -> KL divergence, in nats, mean over images.
    """
    model, to_input = classifier.model, classifier.preprocessing.to_input
    teacher_logits = predict_logits(model, pixels, to_input)
    probe = keras.models.clone_model(model)
    probe.set_weights(model.get_weights())
    sensitivity = {}
    for name, quantizer in student.weight_quantizers.items():
        layer = probe.get_layer(name)
        kernel, *rest = weights = layer.get_weights()
        quantized = np.reshape(quantizer.quantized(), kernel.shape)
        layer.set_weights([quantized, *rest])
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


def reconstruct_within(
    max_accuracy_loss: float | None,
    student_with: Callable[[frozenset[str]], Student],
    classifier: Classifier,
    images: ImagePool,
    held_out: ImagePool,
) -> Student:
    """The student, with as many layers at 8 bits as a bound on its loss takes.

    Args:
      max_accuracy_loss: points of top-1, as estimated; None: there is no bound.
      student_with: makes the student that keeps the given layers at 8 bits besides
        those that always stay so.
      classifier: what students are built from; it has classes.
      images: to measure sensitivity on.
      held_out: for the estimate.
    """
    student = student_with(frozenset())
    if max_accuracy_loss is None:
        return student
    sensitivity = measure_sensitivity(
        student, classifier, images.pixels[:_NUM_SENSITIVITY_IMAGES]
    )
    open_layers = sensitivity.keys() - student.plan.layers_at_8_bits
    tried: dict[frozenset[str], Student] = {frozenset(): student}

    def accuracy_loss(extra: frozenset[str]) -> float:
        if extra not in tried:
            tried[extra] = student_with(extra)
        outputs = outputs_of_both(tried[extra], classifier, held_out.pixels)
        return estimate_accuracy(*outputs).accuracy_loss

    extra = choose_kept_layers(
        sorted(open_layers, key=lambda name: (-sensitivity[name], name)),
        accuracy_loss,
        max_accuracy_loss,
    )
    accuracy_loss(extra)  # builds it if that was not tried: all layers
    return tried[extra]
