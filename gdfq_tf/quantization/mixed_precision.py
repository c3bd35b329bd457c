"""Mixed precision: which layers lose most when quantized, which to keep at 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gdfq_tf.checkpoints import (
    NO_CHECKPOINTS,
    Checkpoints,
    once,
    part_of,
    together,
)
from gdfq_tf.classifier import Classifier, predict_logits
from gdfq_tf.config import Limits
from gdfq_tf.graph.queries import multiply_adds_by_layer
from gdfq_tf.keras_compat import keras
from gdfq_tf.quantization.estimation import estimate_accuracy, outputs_of_both
from gdfq_tf.quantization.losses import distillation_loss
from gdfq_tf.quantization.plan import window_layers
from gdfq_tf.quantization.student import Student
from gdfq_tf.quantization.trade_off import (
    TradeOff,
    best_measured,
    measure_trade_off,
)
from gdfq_tf.synthesis.image_pool import ImagePool
from tflite_export.integer_network import IntegerNetwork

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
      ranked: kernel layers, those that are to be kept first.
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


def reconstruct_within(  # noqa: PLR0913 - checkpoints are for the whole run
    limits: Limits,
    student_with: Callable[[frozenset[str]], Student],
    network_of: Callable[[Student], IntegerNetwork],
    classifier: Classifier,
    images: ImagePool,
    held_out: ImagePool,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> tuple[Student, TradeOff | None]:
    """The student, with those layers at 8 bits that limits ask for.

    Bytes and latency buy the least divergence that they can; a loss of accuracy costs
    the fewest layers, taken by the divergence that each byte saves. Where limits cannot
    all be held, those of bytes and latency are.

    Args:
      limits: of the file; files whose kernels are stored with 8 bits have none.
      student_with: makes the student that keeps the given layers at 8 bits besides
        those that always stay so.
      network_of: gives a student in integers, for the target.
      classifier: what students are built from; it has classes if accuracy has a limit.
      images: to measure sensitivity on.
      held_out: for the estimate.
      checkpoints: keep what was measured and chosen.

    Returns:
      The student, and what layers at 8 bits cost, if that was measured.
    """
    student = student_with(frozenset())
    few = {name for name, bits in student.plan.weight_bits.items() if bits < 8}
    if not limits.any or not few:
        return student, None
    network = network_of(student)
    tried: dict[frozenset[str], Student] = {frozenset(): student}

    def tried_with(extra: frozenset[str]) -> Student:
        if extra not in tried:
            tried[extra] = student_with(extra)
        return tried[extra]

    facts = {
        "plan": student.plan,
        "num_images": len(images),
        "target": network.target,
    }
    chosen = checkpoints.of("layers at 8 bits", limits=limits, **facts)
    if (made := chosen.finished()) is not None:
        extra = frozenset(part_of(made, "chosen")["names"].tolist())
        return tried_with(extra), TradeOff.of_arrays(part_of(made, "trade_off"))

    def measure() -> dict[str, np.ndarray]:
        sensitivity = measure_sensitivity(
            student, classifier, images.pixels[:_NUM_SENSITIVITY_IMAGES]
        )
        return measure_trade_off(
            network,
            {name: value for name, value in sensitivity.items() if name in few},
            multiply_adds_by_layer(classifier.model),
            window_layers(classifier.model),
        ).arrays()

    trade_off = TradeOff.of_arrays(once(checkpoints.of("trade-off", **facts), measure))

    def accuracy_loss(extra: frozenset[str]) -> float:
        outputs = outputs_of_both(tried_with(extra), classifier, held_out.pixels)
        return estimate_accuracy(*outputs).accuracy_loss

    extra = frozenset()
    if limits.max_accuracy_loss is not None:
        extra = choose_kept_layers(
            trade_off.ranked(), accuracy_loss, limits.max_accuracy_loss
        )
    if limits.max_accuracy_loss is None or not (
        trade_off.assignment(extra).within(limits)
    ):
        extra = best_measured(trade_off, network, limits).layers_at_8_bits
    chosen.finish(
        together(
            trade_off=trade_off.arrays(),
            chosen={"names": np.array(sorted(extra), np.str_)},
        )
    )
    return tried_with(extra), trade_off
