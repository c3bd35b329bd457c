from __future__ import annotations

import numpy as np
import pytest

from gdfq_tf.heads import has_classes, num_labels, outputs_of

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
    np.testing.assert_allclose(outputs_of(LOGITS, head), expected, rtol=1e-6)
    assert has_classes(head) == (head not in ("multi_label", "features"))
    assert num_labels(7, head) == (1 if head == "features" else 7)
