"""What every kind of model gives on pixels, and how good that is.

The library compares models on synthetic images; labelled ones come from its callers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gdfq_tf.classifier import Classifier, Head
from gdfq_tf.memory_needs import images_per_batch
from gdfq_tf.metrics import (
    accuracy_of_logits,
    agreement,
    label_agreement,
    predict_in_batches,
    signal_to_noise,
    wilson_interval,
)
from gdfq_tf.preprocessing import Preprocessing
from tflite_export.benchmark import benchmark
from tflite_export.integer_network import IntegerNetwork
from tflite_export.interface import END_TYPES
from tflite_export.interpreter import TFLiteClassifier
from tflite_export.target_kernels import infer

_BATCH_SIZE = 250
# Of the largest layer: what it takes, gives, and makes of it on the way.
_TENSORS_AT_ONCE = 3


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """One `.tflite` file of a run.

    Attributes:
      title: for tables.
      file: its name in the run directory.
      tflite: its bytes.
    """

    title: str
    file: str
    tflite: bytes


def compare(
    files: Sequence[ModelFile],
    classifier: Classifier,
    pixels: np.ndarray,
    labels: np.ndarray | None,
    advance: Callable[[], None],
) -> list[dict[str, Any]]:
    """One row for each file: accuracy, likeness to the float classifier, size, latency.

    Args:
      files: float ones or integer ones.
      classifier: what they were made of.
      pixels: uint8, or levels of features, (N, H, W, C).
      labels: int (N,), or None where the images are synthetic: rows have no top-1.
      advance: called once for each file.

    Returns:
      Rows as `summary.json` holds them.
    """
    logits = float_logits(classifier, pixels)
    reference = np.asarray(classifier.head.outputs_of(logits))
    rows = []
    for file in files:
        outputs = tflite_outputs(file.tflite, classifier.preprocessing, pixels)
        latency = benchmark(file.tflite).latency
        rows.append(
            {
                "title": file.title,
                "file": file.file,
                "sha256": hashlib.sha256(file.tflite).hexdigest(),
                "size_bytes": len(file.tflite),
                "latency_ms": latency.median_ms,
                "latency_p95_ms": latency.p95_ms,
                **accuracy_facts(outputs, labels, reference, classifier.head),
            }
        )
        advance()
    return rows


def float_logits(classifier: Classifier, pixels: np.ndarray) -> np.ndarray:
    """Logits (N, classes) of the float classifier on pixels or levels (N, H, W, C)."""
    run = tf.function(classifier.model, reduce_retracing=True, autograph=False)
    largest = max(math.prod(x.output_shape[1:]) for x in classifier.model.layers[1:])
    return predict_in_batches(
        lambda batch: run(classifier.preprocessing.to_input(batch)).numpy(),
        pixels,
        images_per_batch(_TENSORS_AT_ONCE * largest, _BATCH_SIZE),
    )


def student_outputs(
    network: IntegerNetwork, preprocessing: Preprocessing, pixels: np.ndarray
) -> np.ndarray:
    """Outputs (N, classes) of a student on pixels or levels (N, H, W, C), integers."""
    integers = preprocessing.to_integers(pixels, network.activation_bits)
    return infer(network, network.examples(integers))


def tflite_outputs(
    tflite: bytes, preprocessing: Preprocessing, pixels: np.ndarray
) -> np.ndarray:
    """Outputs (N, classes), float32, of LiteRT on pixels or levels (N, H, W, C)."""
    model = TFLiteClassifier(tflite)
    taken = (len(pixels), *model.input_shape[1:])
    inputs = preprocessing.to_input(pixels).numpy().reshape(taken)
    if model.dtype == np.float32:
        return model.run(inputs)
    bits = 16 if model.dtype == np.int16 else 8
    ours = preprocessing.input_quantization(bits)
    theirs = model.input_quantization
    same_scale = np.isclose(theirs.scale, ours.scale, rtol=1e-3)
    offset = END_TYPES[model.dtype.name]
    if same_scale and theirs.zero_point == ours.zero_point + offset:
        integers = preprocessing.to_integers(pixels, bits).reshape(taken)
        return model.dequantize_output(
            model.run((integers.astype(np.int16) + offset).astype(model.dtype))
        )
    # Another converter chose the input's grid.
    return model.logits(inputs)


def accuracy_facts(
    outputs: np.ndarray,
    labels: np.ndarray | None,
    reference: np.ndarray | None,
    head: Head = Head.LOGITS,
) -> dict:
    """Top-1 with its 95 % interval if labelled; likeness to `reference` if given.

    Outputs and reference (N, C) are those of networks of one head.
    """
    facts: dict = {"num_images": len(outputs)}
    if labels is not None:
        top1 = accuracy_of_logits(outputs, labels)
        facts["top1"] = top1
        facts["top1_interval_95"] = list(wilson_interval(top1, len(outputs)))
    if reference is None:
        return facts
    if head.has_classes:
        facts["agreement_with_float"] = agreement(outputs, reference)
    elif head == Head.MULTI_LABEL:
        facts["label_agreement_with_float"] = label_agreement(outputs, reference)
    else:
        facts["signal_to_noise_db"] = signal_to_noise(outputs, reference)
    return facts
