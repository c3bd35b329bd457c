"""The classifier that flags name."""

from __future__ import annotations

from absl import flags

from gdfq_tf.classifier import Classifier, Head
from gdfq_tf.cli.flags import numbers
from gdfq_tf.errors import UserError
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
        allow_unsafe=values.allow_unsafe,
        preprocessing=values.preprocessing,
        mean=numbers(values, "mean"),
        std=numbers(values, "std"),
        input_range=numbers(values, "input_range"),
        task=values.task,
        without_bn_statistics=values.without_bn_statistics,
    )


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
