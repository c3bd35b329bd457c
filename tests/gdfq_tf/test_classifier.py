from __future__ import annotations

import numpy as np
import pytest

from gdfq_tf.classifier import Head

LOGITS = np.log(np.array([[3.0, 1.0], [1.0, 1.0]], np.float32))


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("logits", LOGITS),
        ("softmax", [[3 / 4, 1 / 4], [1 / 2, 1 / 2]]),
        ("sigmoid", [[3 / 4, 1 / 4], [1 / 2, 1 / 2]]),
        ("multi_label", [[3 / 4, 1 / 2], [1 / 2, 1 / 2]]),
        ("features", LOGITS),
    ],
)
def test_outputs_by_hand(head, expected):
    head = Head(head)
    np.testing.assert_allclose(head.outputs_of(LOGITS), expected, rtol=1e-6)
    assert head.has_classes == (head not in ("multi_label", "features"))
    assert head.num_labels(7) == (1 if head == Head.FEATURES else 7)
