"""`gdfq benchmark`: latency and size of `.tflite` files through LiteRT."""

from __future__ import annotations

import json
from pathlib import Path

import rich.box
import rich.console
import rich.markup
import rich.table
from absl import flags

from gdfq_tf.cli import session
from gdfq_tf.system.output_files import write_whole
from tflite_export.benchmark import BenchmarkResult, benchmark


def main(values: flags.FlagValues) -> None:
    """Times every file and prints one row each."""
    results = {path: _benchmark(path, values) for path in values.model}
    if values.result_json:
        rows = [{"model": path, **r.to_dict()} for path, r in results.items()]
        write_whole(
            Path(values.result_json),
            json.dumps(rows, indent=2).encode(),
            begin=session.holds,
        )
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


def _benchmark(path: str, values: flags.FlagValues) -> BenchmarkResult:
    session.stage(f"LiteRT on {path}")
    return benchmark(
        Path(path).expanduser(),
        num_threads=values.num_threads,
        num_runs=values.num_runs,
        warmup_runs=values.warmup_runs,
    )
