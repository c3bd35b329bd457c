"""How networks end, and what they give of what canonical models end in.

| head | the network gives | exported as |
|---|---|---|
| logits | one logit per class | the same |
| softmax | their softmax | the same |
| sigmoid | p of one sigmoid unit | the softmax of two logits, (1 - p, p) |
| multi_label | a sigmoid per label, any number of which may be on | the same |
| features | numbers that stand for no class: embedding, regression, image | the same |
"""

from __future__ import annotations

import tensorflow as tf


def has_classes(head: str) -> bool:
    """Whether each image belongs to one of the classes."""
    return head in ("logits", "softmax", "sigmoid")


def num_labels(num_outputs: int, head: str) -> int:
    """How many labels images can be asked to have; one for all where there are none."""
    return 1 if head == "features" else num_outputs


def outputs_of(logits: tf.Tensor, head: str) -> tf.Tensor:
    """What the exported model gives where the canonical one gives `logits` (N, C)."""
    if head in ("softmax", "sigmoid"):
        return tf.nn.softmax(logits)
    if head == "multi_label":
        return tf.sigmoid(logits)
    return logits
