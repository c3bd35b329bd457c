"""Tables of docs/ about runs that are killed or go wrong, from docs/results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reference_tables import markdown_table

_FOLDER = Path(__file__).resolve().parent.parent / "docs" / "results"

Row = Mapping[str, Any]


def kills() -> str:
    """Kills by stage: how many, whether runs ended with the same bytes, work lost."""
    kills: list[Row] = _read("kills")["kills"]
    groups: dict[str, list[Row]] = {}
    for row in sorted(kills, key=lambda row: row["place"]):
        groups.setdefault(row["stage"], []).append(row)
    cells = [_cells(stage, rows) for stage, rows in groups.items()]
    titles = ("killed in", "kills", "equal to the unbroken run", "work lost, at most")
    return markdown_table(titles, [*cells, _cells("all", kills)], "lrrr")


def _cells(stage: str, rows: Sequence[Row]) -> tuple[str, ...]:
    lost = max(row["seconds_lost"] for row in rows)
    equal = sum(not row["faults"] for row in rows)
    return stage, str(len(rows)), str(equal), f"{lost:.1f} s"


def faults() -> str:
    """What goes wrong, the command and the lines that it writes."""
    blocks = []
    for row in _read("faults"):
        text = "\n".join([f"$ {row['command']}", *row["lines"]])
        blocks.append(f"{row['fault']}:\n\n```text\n{text}\n```")
    return "\n\n".join(blocks)


def _read(name: str) -> Any:  # noqa: ANN401 - whatever the file holds
    return json.loads((_FOLDER / f"{name}.json").read_text())
