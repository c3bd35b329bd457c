"""The tables that commands print."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.box
import rich.markup
import rich.table


def _share(key: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: f"{100 * row[key]:.2f} %"


def _top1(row: Mapping[str, Any]) -> str:
    low, high = row["top1_interval_95"]
    return f"{100 * row['top1']:.2f} % ({100 * low:.1f}-{100 * high:.1f})"


# Key of a row -> title of its column, how it is written.
_COLUMNS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "top1": ("top-1 (95 % interval)", _top1),
    "agreement_with_float": ("as float", _share("agreement_with_float")),
    "label_agreement_with_float": (
        "labels as in float",
        _share("label_agreement_with_float"),
    ),
    "signal_to_noise_db": (
        "signal to error",
        lambda row: f"{row['signal_to_noise_db']:.1f} dB",
    ),
    "size_bytes": ("bytes", lambda row: f"{row['size_bytes']:,}"),
    "latency_ms": ("latency", lambda row: f"{row['latency_ms']:.3f} ms"),
}


def results_table(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    marked: Collection[str] = (),
    foot: str | None = None,
) -> rich.table.Table:
    """A table of rows as summary.json holds them; columns nobody filled are left out.

    Args:
      title: above the table.
      rows: with `title` and any of top1 and its interval, agreement_with_float,
        label_agreement_with_float (0..1), signal_to_noise_db, size_bytes, latency_ms.
      marked: titles of rows that something is wrong with.
      foot: below the table.
    """
    shown = [key for key in _COLUMNS if any(key in row for row in rows)]
    caption = None if foot is None else rich.markup.escape(foot)
    table = rich.table.Table(title=title, caption=caption, box=rich.box.SIMPLE_HEAVY)
    table.add_column("model")
    for key in shown:
        table.add_column(_COLUMNS[key][0], justify="right")
    for row in rows:
        cells = [_COLUMNS[key][1](row) if key in row else "-" for key in shown]
        bad = row["title"] in marked
        name = rich.markup.escape(f"{'! ' if bad else ''}{row['title']}")
        table.add_row(name, *cells, style="bold red" if bad else None)
    return table


def trade_off_table(title: str, curve: Sequence[Mapping[str, Any]]) -> rich.table.Table:
    """What layers at 8 bits buy, a line for each number of bytes.

    Args:
      title: of the file.
      curve: as `TradeOff.rows` gives it.
    """
    table = rich.table.Table(
        title=f"{rich.markup.escape(title)}: what layers at 8 bits buy",
        box=rich.box.SIMPLE_HEAVY,
    )
    for name in ("bytes", "latency", "divergence", "layers at 8 bits"):
        table.add_column(name, justify="right")
    for point in curve:
        table.add_row(
            f"{point['num_bytes']:,}",
            f"{point['latency_ratio']:.2f} x int8",
            f"{point['divergence']:.4f}",
            f"{len(point['layers_at_8_bits'])}",
        )
    return table


def distinct_names(paths: Sequence[str]) -> list[str]:
    """Names of files for the lines of a table: what tells them apart.

    Of one file, and of files that have nothing in common, it is the whole name.
    """
    names = [Path(path).name for path in paths]
    alike = len({Path(name).suffix for name in names}) == 1
    parts = [(Path(name).stem if alike else name).split("_") for name in names]
    while min(map(len, parts)) > 1 and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    found = ["_".join(part) for part in parts]
    tells = len(names) > 1 and len(set(found)) == len(names) and all(found)
    return found if tells else names
