"""`gdfq benchmark --device=cortex-m4`: what firmware of students takes, in QEMU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.box
import rich.markup
import rich.table

from gdfq_tf.cli import session
from gdfq_tf.cli.reporting import distinct_names
from gdfq_tf.run_directory import student_file
from tflite_export.c99.emulation import FirmwareFigures, measure_firmware
from tflite_export.operator_forms import in_forms_of
from tflite_export.student_file import load_network
from tflite_export.targets import TARGETS

_COLUMNS = ("flash", "memory", "needed", "instructions", "of each", "exact")


def emulate(
    paths: Sequence[str], device: str, *, profile: bool
) -> tuple[list[dict[str, Any]], list[rich.table.Table]]:
    """One row for each file, for JSON; profiles if asked for, and a table of all."""
    rows, tables = [], []
    table = rich.table.Table(
        title=f"firmware on {device}, GCC -O2, in QEMU",
        caption="needed: of the memory at one time; of each: multiply-add; exact: "
        "outputs equal to the simulation's",
        box=rich.box.SIMPLE_HEAVY,
    )
    table.add_column("model", no_wrap=True)
    for title in _COLUMNS:
        table.add_column(title, justify="right")
    for text, name in zip(paths, distinct_names(paths), strict=True):
        path = Path(text).expanduser()
        session.stage(f"QEMU on {text}")
        if path.suffix == ".tflite":
            path = path.with_name(student_file(path.name))
        network = in_forms_of(TARGETS["c99"], load_network(path))
        figures = measure_firmware(network, path.name, device)
        rows.append({"model": text, **figures.to_dict()})
        table.add_row(rich.markup.escape(name), *_cells(figures))
        if profile:
            tables.append(_profile(name, figures))
    return rows, [*tables, table]


def _cells(figures: FirmwareFigures) -> tuple[str, ...]:
    right = figures.num_inputs - figures.num_wrong
    return (
        f"{figures.flash_bytes:,}",
        f"{figures.arena_bytes:,}",
        f"{figures.arena_lower_bound:,}",
        f"{figures.instructions / 1e6:.2f} M",
        f"{figures.instructions / max(figures.multiply_adds, 1):.2f}",
        f"{right} of {figures.num_inputs}",
    )


def _profile(name: str, figures: FirmwareFigures) -> rich.table.Table:
    """One line for each step, in their order."""
    table = rich.table.Table(
        title=f"{rich.markup.escape(name)}, each step", box=rich.box.SIMPLE_HEAVY
    )
    table.add_column("operation")
    table.add_column("output", overflow="fold")
    for title in ("instructions", "multiply-adds", "of each"):
        table.add_column(title, justify="right")
    for step in figures.steps:
        each = step.instructions / step.multiply_adds if step.multiply_adds else None
        table.add_row(
            step.kind,
            rich.markup.escape(step.name),
            f"{step.instructions:,}",
            f"{step.multiply_adds:,}",
            "" if each is None else f"{each:.2f}",
        )
    return table
