"""Checks of values that come from JSON: what a field may hold, and which there are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.names import printable
from tflite_export.quantization_params import INT8_MAX, INT8_MIN, INT16_MAX

Check = Callable[[object], bool]
Fields = Mapping[str, Check]  # of an object, by name


def integer_within(low: int, high: int) -> Check:
    """The check for integers from `low` to `high`."""

    def check(value: object) -> bool:
        return type(value) is int and low <= value <= high

    return check


def list_of(length: int | None, is_entry: Check) -> Check:
    """The check for lists of that length (None: any) with such entries."""

    def check(value: object) -> bool:
        return (
            isinstance(value, list)
            and (length is None or len(value) == length)
            and all(map(is_entry, value))
        )

    return check


def is_name(value: object) -> bool:
    """Whether it is a text that is not empty."""
    return isinstance(value, str) and value != ""


def is_line(value: object) -> bool:
    """Whether it is a text of one line, perhaps empty, that UTF-8 can hold."""
    if not isinstance(value, str) or "\n" in value:
        return False
    return value == value.encode(errors="ignore").decode()


def is_bool(value: object) -> bool:
    """Whether it is true or false."""
    return isinstance(value, bool)


def is_object(value: object) -> bool:
    """Whether it has fields."""
    return isinstance(value, dict)


def is_finite(value: object) -> bool:
    """Whether it is a finite number with a fraction, if only .0."""
    return type(value) is float and math.isfinite(value)


def is_scale(value: object) -> bool:
    """Whether it is a positive number that float32 holds with all its bits."""
    smallest, largest = np.finfo(np.float32).tiny, np.finfo(np.float32).max
    return isinstance(value, float) and float(smallest) <= value <= float(largest)


is_quantized = integer_within(INT8_MIN, INT8_MAX)
is_int16 = integer_within(-INT16_MAX - 1, INT16_MAX)
is_size = integer_within(1, 2**15)
is_pair = list_of(2, is_size)  # (height, width)
is_margins = list_of(2, list_of(2, integer_within(0, 2**15)))


def check_fields(
    found: object, what: str, required: Fields, optional: Fields | None = None
) -> None:
    """Every required field, no other but optional ones, each with a value it takes.

    Raises:
      ExportError: `what` is not such an object.
    """
    fields = {**required, **(optional or {})}
    if not (
        isinstance(found, dict) and required.keys() <= found.keys() <= fields.keys()
    ):
        raise ExportError(f"{what} has other fields than {', '.join(fields) or 'none'}")
    for name, value in found.items():
        require(fields[name](value), f"{name} of {what} is {printable(repr(value))}")


def require(holds: object, otherwise: str) -> None:
    """Raises ExportError with the message `otherwise` unless something holds."""
    if not holds:
        raise ExportError(otherwise)
