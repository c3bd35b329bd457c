"""C source text: constants, arrays, comments."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Sequence

import numpy as np

_WIDTH = 88


# Bytes of a value.
_SIZES = {
    **dict.fromkeys(("int8_t", "uint8_t"), 1),
    "int16_t": 2,
    **dict.fromkeys(("int32_t", "uint32_t", "float"), 4),
}


@dataclasses.dataclass(frozen=True)
class Constant:
    """A declaration: its text and the bytes of its array, 0 of structures."""

    text: str
    num_bytes: int = 0


def float_literal(value: float) -> str:
    """A float32 that every compiler reads as that very one: nine digits tell it."""
    text = f"{np.float32(value):.9g}"
    if not re.search(r"[.e]", text):
        text += ".0"
    return f"{text}f"


def array(kind: str, name: str, values: np.ndarray) -> Constant:
    """A constant array of an integer type or float, in the order of its values."""
    if kind == "float":
        entries = [float_literal(x) for x in values.ravel()]
    elif kind == "uint32_t":
        entries = [f"0x{int(x):08X}" for x in values.ravel()]
    else:
        entries = [_integer(int(x)) for x in values.ravel()]
    body = textwrap.fill(
        ", ".join(entries), _WIDTH, initial_indent="  ", subsequent_indent="  "
    )
    text = f"static const {kind} {name}[{len(entries)}] = {{\n{body}\n}};\n"
    return Constant(text, len(entries) * _SIZES[kind])


def structure(kind: str, name: str, **fields: object) -> Constant:
    """A constant structure; fields are in the order of its declaration."""
    entries = ", ".join(_field(value) for value in fields.values())
    body = textwrap.fill(entries, _WIDTH, initial_indent="  ", subsequent_indent="  ")
    return Constant(f"static const {kind} {name} = {{\n{body}\n}};\n")


def structures(
    kind: str, name: str, rows: Sequence[Sequence[object]], size: int
) -> Constant:
    """A constant array of structures of `size` bytes each, given by their fields."""
    entries = ", ".join(_field(list(row)) for row in rows)
    body = textwrap.fill(entries, _WIDTH, initial_indent="  ", subsequent_indent="  ")
    text = f"static const {kind} {name}[{len(rows)}] = {{\n{body}\n}};\n"
    return Constant(text, len(rows) * size)


def comment(text: str) -> str:
    """A comment, whatever the text holds, in lines of ordinary width."""
    safe = text.replace("*/", "* /").replace("/*", "/ *")
    safe = safe.encode("ascii", "replace").decode()
    lines = textwrap.wrap(safe, _WIDTH - 6)
    return "/* " + "\n   ".join(lines) + " */"


def _integer(value: int) -> str:
    # The positive half of INT32_MIN is no int32.
    return "-2147483647 - 1" if value == -(2**31) else str(value)


def _field(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float | np.floating):
        return float_literal(float(value))
    if isinstance(value, list | tuple):
        return "{" + ", ".join(_field(x) for x in value) + "}"
    return _integer(int(value))  # type: ignore[call-overload]
