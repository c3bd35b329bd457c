"""`gdfq benchmark --device=android`: `.tflite` files on the phone that is attached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich.box
import rich.markup
import rich.table
from absl import flags

from gdfq_tf.cli import session
from gdfq_tf.cli.reporting import distinct_names
from tflite_export.interpreter import read_tflite
from tflite_export.phone import PhoneReport, phone_report


def run_on_phone(
    values: flags.FlagValues,
) -> tuple[list[dict[str, Any]], rich.table.Table]:
    """One row for each file, for JSON and as a table."""
    paths = list(dict.fromkeys(values.model))
    reports = [_report(path, values) for path in paths]
    table = rich.table.Table(
        title=f"{reports[0].phone}, benchmark_model, {values.num_threads} thread(s)",
        caption="milliseconds, MB: peak memory",
        box=rich.box.SIMPLE_HEAVY,
    )
    table.add_column("model", no_wrap=True)
    for name in ("average", "median", "5-95 %", "init", "MB", "bytes", "runs"):
        table.add_column(name, justify="right")
    for name, report in zip(distinct_names(paths), reports, strict=True):
        low, high, peak = report.p5_ms, report.p95_ms, report.peak_memory_bytes
        table.add_row(
            rich.markup.escape(name),
            f"{report.avg_ms:.3f}",
            "" if report.median_ms is None else f"{report.median_ms:.3f}",
            "" if low is None or high is None else f"{low:.3f}-{high:.3f}",
            f"{report.init_ms:.1f}",
            "" if peak is None else f"{peak / 1e6:.1f}",
            f"{report.model_size_bytes:,}",
            str(report.num_runs),
        )
    rows = [
        {"model": path, **report.to_dict(), "num_threads": values.num_threads}
        for path, report in zip(paths, reports, strict=True)
    ]
    return rows, table


def _report(path: str, values: flags.FlagValues) -> PhoneReport:
    session.stage(f"benchmark_model on {path}")
    file = Path(path).expanduser()
    read_tflite(file)
    return phone_report(
        file,
        num_threads=values.num_threads,
        num_runs=values.num_runs,
        warmup_runs=values.warmup_runs,
    )
