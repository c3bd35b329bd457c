"""The classifier that flags name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from absl import flags

from gdfq_tf.classifier import Classifier, Head
from gdfq_tf.cli.flag_values import constant_inputs, numbers
from gdfq_tf.errors import UserError, option
from gdfq_tf.frontend.load import load_classifier
from gdfq_tf.preprocessing import (
    Preprocessing,
    make_preprocessing,
    preprocessing_of_features,
)


def load_classifier_from_flags(values: flags.FlagValues) -> Classifier:
    """The classifier that the flags name.

    Raises:
      UserError: see `load_classifier`.
    """
    return load_classifier(
        values.model,
        weights=values.weights,
        input_size=values.input_size,
        output_name=values.output_name,
        constant_inputs={
            name: _array(value) if isinstance(value, str) else value
            for name, value in constant_inputs(values).items()
        },
        allow_unsafe=values.allow_unsafe,
        preprocessing=values.preprocessing,
        mean=numbers(values, "mean"),
        std=numbers(values, "std"),
        input_range=numbers(values, "input_range"),
        task=values.task,
        without_bn_statistics=values.without_bn_statistics,
    )


def _array(file: str) -> np.ndarray:
    """What an .npy file holds; what would run code is refused."""
    path = Path(file).expanduser()
    try:
        with path.open("rb") as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}, of {option('constant_inputs')}, cannot be read: "
            f"{' '.join(str(error).split())}; expected an array that np.save wrote"
        ) from error


def require_classes(name: str, head: Head) -> None:
    """Refuses labelled images for a network that gives no class.

    Raises:
      UserError: it gives labels or features.
    """
    if not head.has_classes:
        raise UserError(
            f"--data holds one class per image, and the head of {name} is "
            f"{head.value!r}; run `gdfq quantize` without --data: it compares outputs "
            "with the float network's"
        )


def given_preprocessing(
    values: flags.FlagValues, classifier: Classifier
) -> Preprocessing:
    """Pixels -> input of the network that the flags name, as its author built it."""
    channels = classifier.input_shape[-1]
    return _input_contract(values, classifier.preprocessing.name, channels)


def preprocessing_from_flags(
    values: flags.FlagValues, num_channels: int
) -> Preprocessing:
    """The input contract that the flags name, for a model without a classifier."""
    return _input_contract(values, values.preprocessing, num_channels)


def _input_contract(
    values: flags.FlagValues, name: str, num_channels: int
) -> Preprocessing:
    if input_range := numbers(values, "input_range"):
        return preprocessing_of_features(input_range, num_channels)
    return make_preprocessing(
        name,
        num_channels,
        mean=numbers(values, "mean"),
        std=numbers(values, "std"),
    )
