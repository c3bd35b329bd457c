"""Layers that change images in training only, whichever of them a Keras has.

Every release brings new ones, so none is listed: what derives from Keras' own base of
such layers is built with the arguments given and tried at inference.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping

import numpy as np

from gdfq_tf.keras_compat import KerasLibrary, Layer, keras
from gdfq_tf.model_files.argument_values import Argument

# What the random layers of each Keras derive from, and where.
_BASES = {
    "keras": (
        "keras.src.layers.preprocessing.image_preprocessing."
        "base_image_preprocessing_layer",
        "BaseImagePreprocessingLayer",
    ),
    "tf_keras": ("tf_keras.src.engine.base_layer", "BaseRandomLayer"),
}
_MODULES = ".layers.preprocessing."
_SHAPE = (2, 12, 10, 3)

CHANGES_IMAGES = (
    "it changes images at inference, too; build the model without it, and do to the "
    "images beforehand what it does"
)


def is_augmentation(class_name: str) -> bool:
    """Whether any Keras that is imported has such a layer by this name."""
    imported = filter(None, (keras, sys.modules.get("keras")))
    return any(augmentation_class(library, class_name) for library in imported)


def augmentation_class(library: KerasLibrary, class_name: str) -> type | None:
    """The layer of one Keras by this name, if it derives from the base of such."""
    module, base = _BASES[library.__name__]
    found = getattr(library.layers, class_name, None)
    if not isinstance(found, type) or _MODULES not in found.__module__:
        return None
    base_class = getattr(importlib.import_module(module), base)
    return found if issubclass(found, base_class) else None


def make_augmentation(layer_class: type, arguments: Mapping[str, Argument]) -> Layer:
    """A layer as a file describes it.

    Keras writes some factors as the range from -f to f, of which it takes back f alone.

    Args:
      layer_class: see `augmentation_class`.
      arguments: checked.
    """
    try:
        return layer_class(**arguments)
    except ValueError:
        factors = {name: _without_sign(value) for name, value in arguments.items()}
        return layer_class(**factors)


def _without_sign(value: Argument) -> Argument:
    if isinstance(value, tuple) and len(value) == 2 and value[0] == -value[1]:
        return value[1]
    return value


def is_identity(layer: Layer) -> bool:
    """Whether a layer gives, at inference, the images that it takes.

    Args:
      layer: of Keras' own; it is called.
    """
    shape = layer.compute_output_shape(_SHAPE)
    # Some leave sizes open that change in training.
    keeps_shape = all(x in (None, y) for x, y in zip(shape, _SHAPE, strict=True))
    return keeps_shape and all(
        np.array_equal(layer(images, training=False), images)
        for images in _trial_images()
    )


def _trial_images() -> Iterator[np.ndarray]:
    """Images in every range, rich in contrast and poor, from noise to smooth."""
    noise = np.random.default_rng(0).uniform(0, 1, _SHAPE)
    smooth = np.sort(np.sort(noise, axis=1), axis=2)
    for low, high in ((0, 255), (60, 120), (0, 1), (-1, 1)):
        for images in (noise, smooth):
            yield (low + (high - low) * images).astype(np.float32)
