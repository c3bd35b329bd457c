"""`gdfq benchmark --device`: what Vela says of `.tflite` files on an NPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.box
import rich.markup
import rich.table

from gdfq_tf.cli import session
from gdfq_tf.cli.reporting import distinct_names
from tflite_export.interpreter import read_tflite
from tflite_export.vela import VelaReport, vela_report


def ask_vela(
    paths: Sequence[str], device: str
) -> tuple[list[dict[str, Any]], rich.table.Table]:
    """One row for each file, for JSON and as a table."""
    paths = list(dict.fromkeys(paths))
    reports = {path: _report(path, device) for path in paths}
    first = next(iter(reports.values()))
    table = rich.table.Table(
        title=f"{first.device}, estimated by Vela {first.version}, nothing was run",
        caption=first.system,
        box=rich.box.SIMPLE_HEAVY,
    )
    table.add_column("model", no_wrap=True)
    for name in ("cycles", "ms", "SRAM", "flash", "on the NPU"):
        table.add_column(name, justify="right")
    table.add_column("on the CPU")
    names = distinct_names(paths)
    for name, report in zip(names, reports.values(), strict=True):
        table.add_row(
            rich.markup.escape(name),
            f"{report.cycles:,}",
            f"{report.inference_ms:.3f}",
            f"{report.sram_bytes:,}",
            f"{report.flash_bytes:,}",
            str(report.npu_operators),
            ", ".join(report.cpu_operators) or "none",
        )
    rows = [{"model": path, **report.to_dict()} for path, report in reports.items()]
    return rows, table


def _report(path: str, device: str) -> VelaReport:
    session.stage(f"Vela on {path}")
    return vela_report(read_tflite(Path(path).expanduser()), device)
