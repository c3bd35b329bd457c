"""`gdfq benchmark`: time, memory and size of `.tflite` files here or on devices."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.box
import rich.console
import rich.markup
import rich.table
from absl import flags

from gdfq_tf.cli import session
from gdfq_tf.cli.firmware_benchmark import emulate
from gdfq_tf.cli.npu_benchmark import ask_vela
from gdfq_tf.cli.phone_benchmark import run_on_phone
from gdfq_tf.cli.reporting import distinct_names
from gdfq_tf.system.output_files import write_whole
from tflite_export.benchmark import (
    BenchmarkResult,
    OperatorTime,
    benchmark_in_turn,
    operator_times,
)
from tflite_export.targets import CORTEX_M, PHONE

_COLUMNS = ("model", "median", "5-95 %", "init", "MB", "bytes")


def main(values: flags.FlagValues) -> None:
    """Times all files in turn, or asks a device's tool, and prints one row each."""
    if values.device in CORTEX_M:
        rows, tables = emulate(values.model, values.device, profile=values.profile)
    elif values.device == PHONE:
        rows, table = run_on_phone(values)
        tables = [table]
    elif values.device:
        rows, table = ask_vela(values.model, values.device)
        tables = [table]
    else:
        rows, tables = _time(values)
    if values.result_json:
        write_whole(
            Path(values.result_json),
            json.dumps(rows, indent=2).encode(),
            begin=session.holds,
        )
    console = rich.console.Console()
    for table in tables:
        console.print(table)


def _time(
    values: flags.FlagValues,
) -> tuple[list[dict[str, Any]], list[rich.table.Table]]:
    """One row for each file, for JSON; profiles of their operators and a comparison."""
    session.stage(f"LiteRT on {', '.join(values.model)}")
    results = benchmark_in_turn(
        [Path(path).expanduser() for path in values.model],
        num_threads=values.num_threads,
        num_runs=values.num_runs,
        warmup_runs=values.warmup_runs,
        measures_memory=True,
    )
    rows, tables = [], []
    for path, result in zip(values.model, results, strict=True):
        row = {"model": path, **result.to_dict()}
        if values.profile:
            session.stage(f"LiteRT on the operators of {path}")
            operators = operator_times(
                Path(path).expanduser(),
                num_threads=values.num_threads,
                num_runs=values.num_runs,
            )
            row["operators"] = [dataclasses.asdict(x) for x in operators]
            tables.append(_profile(path, operators, result))
        rows.append(row)
    return rows, [*tables, _comparison(values.model, results)]


def _comparison(
    paths: Sequence[str], results: Sequence[BenchmarkResult]
) -> rich.table.Table:
    """One line for each file; how long it takes beside the first one."""
    first, *others = results
    table = rich.table.Table(
        title=f"{first.runtime} {first.runtime_version}, {first.delegate}, "
        f"{first.num_threads} thread(s), {first.latency.num_runs} runs after "
        f"{first.warmup_runs} warm-up runs",
        caption=f"{first.device}; milliseconds, MB: peak memory, in brackets: with 95 "
        "% confidence",
        box=rich.box.SIMPLE_HEAVY,
    )
    table.add_column(_COLUMNS[0], no_wrap=True)
    for name in _COLUMNS[1:]:
        table.add_column(name, justify="right")
    if others:
        table.add_column("times as long", justify="right")
    names = distinct_names(paths)
    for name, result in zip(names, results, strict=True):
        latency, ratio = result.latency, result.times_as_long
        peak = result.peak_memory_bytes
        row = [
            rich.markup.escape(name),
            f"{latency.median_ms:.3f}",
            f"{latency.p5_ms:.3f}-{latency.p95_ms:.3f}",
            f"{latency.init_ms:.1f}",
            "" if peak is None else f"{peak / 1e6:.1f}",
            f"{result.model_size_bytes:,}",
        ]
        if others:
            spread = f" ({ratio.low:.2f}-{ratio.high:.2f})"
            row.append("1" if result is first else f"{ratio.median:.2f}{spread}")
        table.add_row(*row)
    return table


def _profile(
    path: str, operators: Sequence[OperatorTime], result: BenchmarkResult
) -> rich.table.Table:
    """One line for each operator, the slowest first."""
    total, whole = sum(x.milliseconds for x in operators), result.latency.median_ms
    name = rich.markup.escape(Path(path).name)
    table = rich.table.Table(
        title=f"{name}, each operator in a file of its own",
        caption=f"{total:.3f} ms together, {whole:.3f} ms in one file",
        box=rich.box.SIMPLE_HEAVY,
    )
    table.add_column("operator")
    table.add_column("output", overflow="fold")
    table.add_column("ms", justify="right")
    table.add_column("%", justify="right")
    for operator in sorted(operators, key=lambda x: x.milliseconds, reverse=True):
        table.add_row(
            operator.name,
            rich.markup.escape(operator.output),
            f"{operator.milliseconds:.4f}",
            f"{100 * operator.milliseconds / total:.1f}",
        )
    return table
