"""`keras.applications` names -> models with weights."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator

from gdfq_tf.errors import UserError, option
from gdfq_tf.keras_compat import KerasModel, keras
from gdfq_tf.model_files.failures import in_one_line
from gdfq_tf.model_files.libraries import library_of_weights
from gdfq_tf.model_files.model_weights import (
    inspect_weights,
    load_weights,
    num_floats_of,
)

APPLICATION_PREFIX = "keras.applications."

# Which preprocessing keras.applications trained with, by name; first match wins.
# Families missing here bring their own scaling layers and take raw pixels.
_APPLICATION_PREPROCESSING = (
    (r"MobileNet|MobileNetV2|Inception.*|Xception|NASNet.*|ResNet\d+V2", "tf"),
    (r"DenseNet.*", "torch"),
    (r"VGG.*|ResNet\d+", "caffe"),
)

_DOWNLOAD_TIMEOUT_SECONDS = 15.0


def read_application(
    name: str, weights: str | os.PathLike[str] | None, input_size: int | None
) -> KerasModel:
    """The model of a name, without its prefix; see `read_model` for the others.

    Raises:
      UserError: unknown application; weights missing, not to be had or of another.
    """
    if not name[:1].isupper() or not hasattr(keras.applications, name):
        raise UserError(
            f"{APPLICATION_PREFIX}{name} is unknown; expected a model of tf_keras."
            "applications, for example MobileNetV2, ResNet50, InceptionV3 or Xception"
        )
    if weights is None:
        raise UserError(
            f"{APPLICATION_PREFIX}{name} without {option('weights')} has random "
            f"weights and nothing to preserve; pass {option('weights', 'imagenet')} or "
            f"{option('weights', 'FILE.h5')}"
        )
    options = {"input_shape": (input_size, input_size, 3)} if input_size else {}
    if weights == "imagenet":
        message = (
            f"the ImageNet weights of {name} cannot be had, pass "
            f"{option('weights', 'FILE.h5')} with a copy of them"
        )
        with in_one_line(message), _download_timeout():
            return getattr(keras.applications, name)(weights="imagenet", **options)
    stored = inspect_weights(weights)
    library = library_of_weights(stored)
    # Keras 3 lacks some families; files of those are tf_keras' own.
    build = getattr(library.applications, name, getattr(keras.applications, name))
    with in_one_line(f"{APPLICATION_PREFIX}{name} cannot be built"):
        model = build(weights=None, **options)
        num_classes = _num_classes(model, stored.num_floats)
        if num_classes != model.output_shape[-1]:
            model = build(weights=None, classes=num_classes, **options)
    complaint = f"{option('weights', weights)} does not fit {APPLICATION_PREFIX}{name}"
    load_weights(model, stored, complaint)
    return model


def preprocessing_of(application: str) -> str:
    """Name of the preprocessing that an application was trained with."""
    for pattern, preprocessing in _APPLICATION_PREPROCESSING:
        if re.fullmatch(pattern, application):
            return preprocessing
    return "uint8"


def _num_classes(application: KerasModel, num_floats: int) -> int:
    """Of a variant of an application that has so many numbers for weights.

    The application's own if no other number of classes accounts for them.
    """
    num_classes = application.output_shape[-1]
    head = [layer for layer in application.layers if layer.get_weights()][-1]
    more, rest = divmod(
        num_floats - num_floats_of(application), num_floats_of(head) // num_classes
    )
    return num_classes + more if rest == 0 and num_classes + more > 1 else num_classes


@contextlib.contextmanager
def _download_timeout() -> Iterator[None]:
    """Keras downloads without a timeout of its own."""
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)
