"""Questions on networks, against answers by hand."""

from __future__ import annotations

from gdfq_tf.graph.queries import tensors_at_once
from gdfq_tf.keras_compat import keras


def test_which_tensors_are_there_at_one_time():
    layers = keras.layers
    image = keras.Input((4, 4, 3), name="image")
    first = layers.Conv2D(3, 3, padding="same", name="first")(image)
    second = layers.ReLU(name="second")(first)
    added = layers.Add(name="added")([image, second])
    # Twice the same tensor.
    doubled = layers.Add(name="doubled")([added, added])
    outputs = layers.Dense(2, name="outputs")(layers.Flatten(name="flat")(doubled))
    found = list(tensors_at_once(keras.Model(image, outputs)))
    assert found == [
        {"image", "first"},
        {"image", "first", "second"},
        {"image", "second", "added"},
        {"added", "doubled"},
        {"doubled", "flat"},
        {"flat", "outputs"},
    ]
