"""The figures of a run, written beside its models."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gdfq_tf.report.event_file import write_events
from gdfq_tf.report.page import make_page
from gdfq_tf.run_directory import EVENTS, REPORT, layers_file
from gdfq_tf.synthesis.image_pool import ImagePool

# What programs for spreadsheets take for a formula.
_BEGINS_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_figures(directory: Path, summary: dict[str, Any], images: ImagePool) -> None:
    """Writes the report, TensorBoard's events and a table of layers for each model.

    Args:
      directory: of the run.
      summary: as `summary.json` holds it.
      images: of the run, as `synthetic.npz` holds them.
    """
    images = images[: summary["num_fitted_images"]]
    for row in summary["models"]:
        if "layers" in row:
            write_layers(directory / layers_file(row["file"]), row["layers"])
    write_events(directory / EVENTS, summary, images)
    (directory / REPORT).write_text(make_page(summary, images), encoding="utf-8")


def write_layers(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows of `LayerFigures` as CSV.

    Names that a spreadsheet would compute have an apostrophe before them.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "name": _as_text(row["name"])} for row in rows)


def _as_text(name: str) -> str:
    return f"'{name}" if name.startswith(_BEGINS_FORMULA) else name
