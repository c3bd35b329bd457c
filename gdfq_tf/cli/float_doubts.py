"""Whether the float model's accuracy on labelled images looks like a mistake.

The two that nothing else shows: another preprocessing than it was trained with, and
classes that are numbered otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gdfq_tf.classifier import Classifier, predict_logits
from gdfq_tf.cli.labelled_images import LabelledImages
from gdfq_tf.frontend.preprocessing_fit import candidates
from gdfq_tf.metrics import accuracy_of_logits, wilson_interval
from gdfq_tf.preprocessing import Preprocessing

# Enough to see what a wrong preprocessing costs.
_NUM_IMAGES = 256


def float_doubts(
    classifier: Classifier,
    given: Preprocessing,
    images: LabelledImages,
    row: Mapping[str, Any],
) -> list[str]:
    """What is to be checked before any figure is believed, in lines.

    Args:
      classifier: float.
      given: pixels -> input of the network as its author built it.
      images: labelled.
      row: of the float model, with top-1 and its interval.
    """
    lines = []
    if row["top1_interval_95"][0] <= 1 / classifier.num_classes:
        lines.append(
            "! float: no better than chance: check --preprocessing, and whether the "
            "images number the classes as the model does (--labels for class folders)"
        )
    better = _better(classifier, given, images)
    if better is not None:
        name, top1, own = better
        lines.append(
            f"! float: --preprocessing={name} gives {100 * top1:.1f} % on "
            f"{min(len(images.labels), _NUM_IMAGES)} of these images, {given.name} "
            f"{100 * own:.1f} %; check what the model was trained with"
        )
    return lines


def _better(
    classifier: Classifier, given: Preprocessing, images: LabelledImages
) -> tuple[str, float, float] | None:
    """Name and accuracy of another preprocessing beyond doubt, and the given one's."""
    if given.input_range is not None:
        return None
    spread = np.linspace(0, len(images.labels) - 1, _NUM_IMAGES).astype(int)
    chosen = np.unique(spread)
    pixels, labels = images.pixels[chosen], images.labels[chosen]
    scale, offset = classifier.preprocessing.after(given)

    def top1(preprocessing: Preprocessing) -> float:
        to_input = preprocessing.then(scale, offset).to_input
        logits = predict_logits(classifier.model, pixels, to_input)
        return accuracy_of_logits(logits, labels)

    own = top1(given)
    others = {x.name: top1(x) for x in candidates(len(given.scale)) if x != given}
    name = max(others, key=others.__getitem__)
    low, _ = wilson_interval(others[name], len(labels))
    _, high = wilson_interval(own, len(labels))
    return (name, others[name], own) if low > high else None
