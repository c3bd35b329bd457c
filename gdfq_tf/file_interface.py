"""How a classifier's files present themselves: ends, metadata, labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gdfq_tf.classifier import Classifier, Head
from gdfq_tf.config import BitWidths
from gdfq_tf.errors import UserError, option
from tflite_export.interface import END_TYPES_OF_BITS, Interface, Meaning
from tflite_export.presentation import require_labels

_CONTENT_OF_CHANNELS = {1: "gray", 3: "rgb"}


def interface_of(
    classifier: Classifier,
    bit_widths: BitWidths,
    *,
    input_type: str,
    output_type: str,
    labels: Sequence[str],
) -> Interface:
    """The interface of the file with those widths.

    Args:
      classifier: what is quantized.
      bit_widths: of the student.
      input_type: of the file's input, "int8" or "uint8"; with activations of 16 bits
        it is "int16" in any case.
      output_type: of its output, likewise.
      labels: names of the classes, or none; see `check_labels`.
    """
    input_format, preprocessing = classifier.input_format, classifier.preprocessing
    mean, std = preprocessing.mean_and_std()
    has_features = classifier.head is Head.FEATURES
    end_types = END_TYPES_OF_BITS[bit_widths.stored_activation_bits]
    return Interface(
        input_type if input_type in end_types else end_types[0],
        output_type if output_type in end_types else end_types[0],
        "image" if input_format.takes_pixels else "features",
        "outputs" if has_features else "scores",
        Meaning(
            name=classifier.name,
            description=(
                f"{classifier.name} with {bit_widths.weight_bits}-bit weights and "
                f"{bit_widths.activation_bits}-bit activations, quantized without data "
                "by GDFQ-TF"
            ),
            input_description="; ".join(
                [
                    input_format.in_words(),
                    *(f"as {end}: {preprocessing.formula(end)}" for end in end_types),
                ]
            ),
            content=_content(classifier),
            mean=mean,
            std=std,
            labels=tuple(labels),
        ),
    )


def _content(classifier: Classifier) -> str:
    picture = classifier.input_format.picture_shape
    if not classifier.input_format.takes_pixels:
        return "features"
    # Metadata have no word for channels in BGR order.
    if picture is None or classifier.preprocessing.reverse_channels:
        return "image"
    return _CONTENT_OF_CHANNELS[picture[-1]]


def read_labels(labels: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Names of classes: themselves, or one in each line of the file at a path.

    Raises:
      UserError: the file cannot be read or is no text.
    """
    if not isinstance(labels, (str, Path)):
        return tuple(labels)
    path = Path(labels).expanduser()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(
            f"{option('labels', path)} cannot be read ({error.strerror}); expected a "
            "text file with one class name in each line"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{option('labels', path)} is no text; expected one class name in each line"
        ) from error
    return tuple(line.strip() for line in lines if line.strip())


def check_labels(labels: Sequence[str], classifier: Classifier) -> None:
    """Refuses labels that are not one for each class; none at all are taken.

    Raises:
      UserError: another number of them; the classifier has no classes.
    """
    if not labels:
        return
    if classifier.head is Head.FEATURES:
        raise UserError(
            f"{option('labels')} names classes, and {classifier.name} gives features; "
            f"drop {option('labels')}"
        )
    require_labels(labels, classifier.num_classes, classifier.name)
