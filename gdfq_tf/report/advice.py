"""Layers that lose most, and the flag that keeps them at 8 bits."""

from __future__ import annotations

import csv
import dataclasses
import glob
import io
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

_MOST_NAMED = 3
_ENTIRE_BITS = 8


@dataclasses.dataclass(frozen=True)
class Advice:
    """What to do about the layers of one file that lose most.

    Attributes:
      worst: their rows, the worst first.
      flag: keeps them, and what the run kept already, at 8 bits; None where none of
        them has fewer.
      num_bytes: that those which the flag would change take now.
    """

    worst: tuple[Mapping[str, Any], ...]
    flag: str | None
    num_bytes: int


def advise(layers: Sequence[Mapping[str, Any]], kept: Sequence[str]) -> Advice:
    """The layers whose own error is largest, in steps of their output.

    Those that can be kept at 8 bits come before others.

    Args:
      layers: rows of `LayerFigures`.
      kept: names of layers that the run was told to keep.
    """
    with_kernel = [row for row in layers if row["weight_bits"] is not None]
    few = [row for row in with_kernel if row["weight_bits"] < _ENTIRE_BITS]
    worst = sorted(few or with_kernel, key=lambda row: -row["rmse_over_scale"])
    worst = worst[:_MOST_NAMED]
    if not few:
        return Advice(tuple(worst), None, 0)
    names = dict.fromkeys([*kept, *(row["name"] for row in worst)])
    num_bytes = sum(row["weight_bytes"] for row in worst)
    return Advice(tuple(worst), keep_layers_flag(list(names)), num_bytes)


def keep_layers_flag(names: Sequence[str]) -> str:
    """`--keep_layers` for layers of any names, as a shell takes it.

    Names are patterns there, in a list as in CSV files.
    """
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([glob.escape(name) for name in names])
    return shlex.quote(f"--keep_layers={line.getvalue()}")
