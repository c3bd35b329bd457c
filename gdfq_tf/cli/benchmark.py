"""`gdfq benchmark`: latency and size of `.tflite` files, or what Vela says of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import rich.box
import rich.console
import rich.markup
import rich.table
from absl import flags

from gdfq_tf.cli import session
from gdfq_tf.system.output_files import write_whole
from tflite_export.benchmark import BenchmarkResult, benchmark
from tflite_export.interpreter import read_tflite
from tflite_export.vela import VelaReport, vela_report


def main(values: flags.FlagValues) -> None:
    """Times every file, or asks Vela, and prints one row each."""
    if values.device:
        _main_of_npu(values)
        return
    results = {path: _benchmark(path, values) for path in values.model}
    _write({path: r.to_dict() for path, r in results.items()}, values)
    first = next(iter(results.values()))
    table = rich.table.Table(
        title=f"{first.runtime} {first.runtime_version}, {first.num_threads} "
        f"thread(s), {first.num_runs} runs after {first.warmup_runs} warm-up runs",
        caption=first.machine,
        box=rich.box.SIMPLE_HEAVY,
    )
    table.add_column("model")
    for name in ("median ms", "p90 ms", "min ms", "init ms", "bytes"):
        table.add_column(name, justify="right")
    for path, r in results.items():
        times = (r.median_ms, r.p90_ms, r.min_ms, r.init_ms)
        table.add_row(
            rich.markup.escape(Path(path).name),
            *(f"{t:.3f}" for t in times),
            f"{r.model_bytes:,}",
        )
    rich.console.Console().print(table)


def _write(results: Mapping[str, Mapping], values: flags.FlagValues) -> None:
    if not values.result_json:
        return
    rows = [{"model": path, **result} for path, result in results.items()]
    write_whole(
        Path(values.result_json),
        json.dumps(rows, indent=2).encode(),
        begin=session.holds,
    )


def _main_of_npu(values: flags.FlagValues) -> None:
    reports = {path: _report(path, values.device) for path in values.model}
    _write({path: report.to_dict() for path, report in reports.items()}, values)
    first = next(iter(reports.values()))
    table = rich.table.Table(
        title=f"{first.device}, estimated by Vela {first.version}, nothing was run",
        caption=first.system,
        box=rich.box.SIMPLE_HEAVY,
    )
    table.add_column("model")
    for name in ("cycles", "ms", "SRAM", "flash", "on the NPU"):
        table.add_column(name, justify="right")
    table.add_column("on the CPU")
    for path, report in reports.items():
        table.add_row(
            rich.markup.escape(Path(path).name),
            f"{report.cycles:,}",
            f"{report.inference_ms:.3f}",
            f"{report.sram_bytes:,}",
            f"{report.flash_bytes:,}",
            str(report.npu_operators),
            ", ".join(report.cpu_operators) or "none",
        )
    rich.console.Console().print(table)


def _report(path: str, device: str) -> VelaReport:
    session.stage(f"Vela on {path}")
    return vela_report(read_tflite(Path(path).expanduser()), device)


def _benchmark(path: str, values: flags.FlagValues) -> BenchmarkResult:
    session.stage(f"LiteRT on {path}")
    return benchmark(
        Path(path).expanduser(),
        num_threads=values.num_threads,
        num_runs=values.num_runs,
        warmup_runs=values.warmup_runs,
    )
