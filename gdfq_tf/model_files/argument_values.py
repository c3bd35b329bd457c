"""JSON values of a model's description -> plain Python values, or a refusal.

Each function turns one JSON value into a plain value, or raises one of `UNFIT`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

# A value of a file's JSON, which may be anything, and one that was checked.
Json: TypeAlias = Any
Argument: TypeAlias = Any

# What damaged or hostile values raise inside a kind.
UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)

_POLICIES = re.compile(r"DTypePolicy|FloatDTypePolicy|Policy|PolicyV1")
# Precisions of real numbers, and of two of them: computed in one, stored in another.
FLOAT_POLICIES = (
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "mixed_float16",
    "mixed_bfloat16",
)
INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "bool")
_CONSTANT_DTYPES = ("float16", "float32", "float64", "int32", "int64", "uint8")
_LARGEST_COUNT = 2**24  # filters, units, pixels of one side
_MOST_CONSTANTS = 2**20  # numbers of one constant
LONGEST_NAME = 256
_MOST_PLAIN_VALUES = 16
_WORD = re.compile(r"[a-z_]{1,32}")


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of value.

    Attributes:
      expected: it in words, for messages.
      read: the checked value of a JSON value; raises one of `UNFIT` for any other.
    """

    expected: str
    read: Callable[[Json], Argument]


def read_name(value: Json) -> str:
    """A text that is not too long."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
        raise ValueError
    return value


def read_flag(value: Json) -> bool:
    """A bool."""
    if not isinstance(value, bool):
        raise TypeError
    return value


def integer(value: Json, low: int = -_LARGEST_COUNT, high: int = _LARGEST_COUNT) -> int:
    """An integer from `low` to `high`; no bool."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError
    return value


def number(value: Json) -> float:
    """A finite number; no bool."""
    if isinstance(value, dict):
        return float(numbers(value))  # of an array of one number only
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def numbers(value: Json) -> Argument:
    """Finite numbers: one, a list of them, or an array as Keras writes it."""
    if type(value) in (int, float):
        return number(value)
    if not isinstance(value, dict):
        _constant(value, "float64")
        return value
    if value["class_name"] not in ("__numpy__", "__tensor__"):
        raise ValueError
    return _constant(value["config"]["value"], value["config"]["dtype"])


def _constant(value: Json, dtype: str) -> np.ndarray:
    if dtype not in _CONSTANT_DTYPES or _count(value) > _MOST_CONSTANTS:
        raise ValueError
    array = np.array(value, dtype)
    if not np.isfinite(array).all():
        raise ValueError
    return array


def _count(value: Json) -> int:
    """How many numbers nested lists hold. Raises if they hold anything else."""
    if isinstance(value, list):
        return sum(map(_count, value))
    if type(value) not in (int, float):
        raise TypeError
    return 1


def per_dimension(low: int) -> Callable[[Json], Argument]:
    """One integer, or one for each dimension."""

    def read(value: Json) -> Argument:
        if isinstance(value, list):
            if not 1 <= len(value) <= 3:
                raise ValueError
            return tuple(integer(x, low) for x in value)
        return integer(value, low)

    return read


def sides(value: Json) -> Argument:
    """What is added or cut at each side: 1, [1, 1] or [[1, 1], [1, 1]]."""
    if isinstance(value, list):
        if not 1 <= len(value) <= 3:
            raise ValueError
        return tuple(
            tuple(integer(y, 0) for y in x) if isinstance(x, list) else integer(x, 0)
            for x in value
        )
    return integer(value, 0)


def shape_from(low: int) -> Callable[[Json], Argument]:
    """Sizes, None where one is open."""

    def read(value: Json) -> tuple[int | None, ...]:
        if not isinstance(value, list) or len(value) > 6:
            raise ValueError
        return tuple(None if x is None else integer(x, low) for x in value)

    return read


def axis(value: Json) -> Argument:
    """One axis, or a list of them."""
    if isinstance(value, list):
        if not 1 <= len(value) <= 6:
            raise ValueError
        return [integer(x, -6, 6) for x in value]
    return integer(value, -6, 6)


def per_part(value: Json) -> Argument:
    """How many parts, or a list with a size or an end for each."""
    if isinstance(value, list):
        return [integer(x) for x in value]
    return integer(value, 1)


def dtype(value: Json) -> str:
    """A dtype: that of integers, or float32 for every precision and policy.

    Policies say in what precision to train; the weights of all are real numbers.
    """
    if isinstance(value, dict):
        if not _POLICIES.fullmatch(value["class_name"]):
            raise ValueError
        value = value["config"]["name"]
    if value not in (*FLOAT_POLICIES, *INTEGERS):
        raise ValueError
    return value if value in INTEGERS else "float32"


def plain_value(value: Json) -> Argument:
    """Numbers, flags and words, or lists of them: nothing that names a file or code."""
    if isinstance(value, list) and len(value) <= _MOST_PLAIN_VALUES:
        return tuple(plain_value(item) for item in value)
    if isinstance(value, str):
        if not _WORD.fullmatch(value):
            raise ValueError
        return value
    if isinstance(value, bool):
        return value
    return integer(value) if type(value) is int else number(value)


def one_of(*choices: Argument) -> Kind:
    """The kind of those values."""
    return Kind(
        f"one of {', '.join(map(str, choices))}", lambda value: choice(value, choices)
    )


def choice(value: Json, choices: tuple[Argument, ...]) -> Argument:
    """One of `choices`; no bool for an integer."""
    # Equality alone would take 1 for True.
    if not any(type(value) is type(x) and value == x for x in choices):
        raise ValueError
    return value


NAME = Kind(f"a text of 1 to {LONGEST_NAME} characters", read_name)
FLAG = Kind("true or false", read_flag)
COUNT = Kind("a positive integer", lambda value: integer(value, 1))
NUMBER = Kind("a finite number", number)
NUMBERS = Kind("finite numbers", numbers)
SIZES = Kind("a positive integer, or one for each dimension", per_dimension(1))
SIDES = Kind("integers from 0 for each side", sides)
SHAPE = Kind("positive sizes, null where one is open", shape_from(1))
TARGET_SHAPE = Kind("sizes, -1 for the rest", shape_from(-1))
AXIS = Kind("an axis, or a list of them", axis)
AXES = Kind("a list of axes", lambda value: tuple(axis(list(value))))
PARTS = Kind("how many parts, or where they end", per_part)
DTYPE = Kind(
    f"one of {', '.join((*FLOAT_POLICIES, *INTEGERS))}, as before model.quantize(...)",
    dtype,
)
PLAIN = Kind("numbers, flags and words", plain_value)
DATA_FORMAT = one_of("channels_last", "channels_first")
PADDING = one_of("valid", "same", "causal")
