"""Outputs of every kind of model on pixels, and the tables that tools print."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import rich.box
import rich.markup
import rich.table
import tensorflow as tf

from gdfq_tf.classifier import Classifier, Head
from gdfq_tf.metrics import (
    accuracy_of_logits,
    agreement,
    label_agreement,
    predict_in_batches,
    signal_to_noise,
    wilson_interval,
)
from gdfq_tf.preprocessing import Preprocessing
from tflite_export.integer_network import IntegerNetwork
from tflite_export.interpreter import TFLiteClassifier
from tflite_export.litert.simulator import infer

_BATCH_SIZE = 250


def float_logits(classifier: Classifier, pixels: np.ndarray) -> np.ndarray:
    """Logits (N, classes) of the float classifier on uint8 pixels (N, H, W, C)."""
    run = tf.function(classifier.model, reduce_retracing=True)
    return predict_in_batches(
        lambda batch: run(classifier.preprocessing.to_input(batch)).numpy(),
        pixels,
        _BATCH_SIZE,
    )


def student_outputs(
    network: IntegerNetwork, preprocessing: Preprocessing, pixels: np.ndarray
) -> np.ndarray:
    """int8 outputs (N, classes) of a student on uint8 pixels (N, H, W, C)."""
    return infer(network, preprocessing.to_int8(pixels))


def tflite_outputs(
    tflite: bytes, preprocessing: Preprocessing, pixels: np.ndarray
) -> np.ndarray:
    """Outputs (N, classes), float32, through LiteRT, on uint8 pixels (N, H, W, C)."""
    model = TFLiteClassifier(tflite)
    if model.dtype == np.float32:
        return model.run(preprocessing.to_input(pixels).numpy())
    ours = preprocessing.input_quantization()
    theirs = model.input_quantization
    same_scale = np.isclose(theirs.scale, ours.scale, rtol=1e-3)
    if same_scale and theirs.zero_point == ours.zero_point:
        return model.dequantize_output(model.run(preprocessing.to_int8(pixels)))
    # Another converter chose the input's grid.
    return model.logits(preprocessing.to_input(pixels).numpy())


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


def results_table(title: str, rows: Sequence[dict]) -> rich.table.Table:
    """A table of rows as summary.json holds them; columns nobody filled are left out.

    Keys: title, top1, agreement_with_float, label_agreement_with_float (0..1),
    signal_to_noise_db, size_bytes, latency_ms.
    """
    columns = {
        "top1": ("top-1", lambda x: f"{100 * x:.2f} %"),
        "agreement_with_float": ("agrees with float", lambda x: f"{100 * x:.2f} %"),
        "label_agreement_with_float": (
            "labels as in float",
            lambda x: f"{100 * x:.2f} %",
        ),
        "signal_to_noise_db": ("signal to error", lambda x: f"{x:.1f} dB"),
        "size_bytes": ("bytes", lambda x: f"{x:,}"),
        "latency_ms": ("latency", lambda x: f"{x:.3f} ms"),
    }
    shown = [key for key in columns if any(key in row for row in rows)]
    table = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAVY)
    table.add_column("model")
    for key in shown:
        table.add_column(columns[key][0], justify="right")
    for row in rows:
        cells = [columns[key][1](row[key]) if key in row else "-" for key in shown]
        table.add_row(rich.markup.escape(row["title"]), *cells)
    return table
