"""Where two files differ, by the names of the schema's fields."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.flatbuffer import unpack_model
from tflite_export.names import shown

_CONTEXT = 20  # bytes shown before the first that differs


def differences(found: bytes, expected: bytes) -> Iterator[str]:
    """What differs between two `.tflite` files; nothing if all bytes are equal.

    Args:
      found: may be damaged.
      expected: sound.
    """
    if found == expected:
        return
    try:
        fields = list(_fields(unpack_model(found), unpack_model(expected), "model"))
    except ExportError:
        fields = []
    if fields:
        yield from fields
        return
    if len(found) != len(expected):
        yield f"{len(found)} bytes instead of {len(expected)}"
    for position, (byte, other) in enumerate(zip(found, expected, strict=False)):
        if byte != other:
            yield f"byte {position} is {byte:#04x} instead of {other:#04x}"
            return


def _fields(found: object, expected: object, path: str) -> Iterator[str]:
    """What differs between two object trees of the schema, by the path to it."""
    if isinstance(expected, list) and isinstance(found, list):
        yield from _list_fields(found, expected, path)
    elif isinstance(expected, np.ndarray) and isinstance(found, np.ndarray):
        yield from _array_fields(found, expected, path)
    elif isinstance(expected, bytes) and isinstance(found, bytes):
        yield from _text_fields(found, expected, path)
    elif hasattr(expected, "__dict__") and type(found) is type(expected):
        for name, value in vars(expected).items():
            yield from _fields(getattr(found, name), value, f"{path}.{name}")
    elif type(found) is not type(expected) or found != expected:
        yield f"{path} is {_short(found)} instead of {_short(expected)}"


def _list_fields(found: list, expected: list, path: str) -> Iterator[str]:
    if len(found) != len(expected):
        yield f"{path} has {len(found)} entries instead of {len(expected)}"
    for index, pair in enumerate(zip(found, expected, strict=False)):
        yield from _fields(*pair, f"{path}[{index}]")


def _array_fields(found: np.ndarray, expected: np.ndarray, path: str) -> Iterator[str]:
    if found.shape != expected.shape:
        yield f"{path} has {found.size} entries instead of {expected.size}"
    elif found.tobytes() != expected.tobytes():
        # Compared as bytes: NaN, which equals nothing, and signs of zero count.
        width = expected.itemsize
        rows = (
            np.frombuffer(array.tobytes(), np.uint8).reshape(-1, width)
            for array in (found, expected)
        )
        first = int(np.flatnonzero(np.not_equal(*rows).any(axis=1))[0])
        yield (
            f"{path}[{first}] is {found.flat[first]} instead of {expected.flat[first]}"
        )


def _text_fields(found: bytes, expected: bytes, path: str) -> Iterator[str]:
    if found == expected:
        return
    # Long names may differ beyond what is shown of them.
    pairs = zip(found, expected, strict=False)
    common = sum(1 for _ in itertools.takewhile(lambda p: p[0] == p[1], pairs))
    start = max(0, common - _CONTEXT)
    where = f" from byte {start} on" if start else ""
    parts = shown(found[start:]), shown(expected[start:])
    yield f"{path} is {parts[0]} instead of {parts[1]}{where}"


def _short(value: object) -> str:
    if isinstance(value, bytes):
        return shown(value)
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    return type(value).__name__
