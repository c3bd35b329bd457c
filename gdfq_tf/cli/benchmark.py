"""Latency and size of `.tflite` files through LiteRT.

python tools/benchmark.py --model=a.tflite,b.tflite --num_threads=2
"""

from __future__ import annotations

import json
from pathlib import Path

import rich.box
import rich.console
import rich.markup
import rich.table
from absl import flags

from gdfq_tf.cli import session
from gdfq_tf.cli.output_files import write_whole
from gdfq_tf.errors import UserError
from tflite_export.benchmark import BenchmarkResult, benchmark

FLAGS = flags.FLAGS
flags.DEFINE_list("model", None, "`.tflite` files, separated by commas.", required=True)
flags.DEFINE_integer(
    "num_threads", 1, "Threads of one invocation.", lower_bound=1, upper_bound=256
)
flags.DEFINE_integer("num_runs", 50, "Timed invocations.", lower_bound=1)
flags.DEFINE_integer("warmup_runs", 5, "Invocations before them.", lower_bound=0)
flags.DEFINE_string("result_json", None, "Also write the results to this file.")


def main() -> None:
    """Times every file and prints one row each."""
    if not FLAGS.model:
        raise UserError("--model= names no file; pass --model=a.tflite,b.tflite")
    results = {path: _benchmark(path) for path in FLAGS.model}
    if FLAGS.result_json:
        rows = [{"model": path, **r.to_dict()} for path, r in results.items()]
        write_whole(Path(FLAGS.result_json), json.dumps(rows, indent=2).encode())
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


def _benchmark(path: str) -> BenchmarkResult:
    session.stage(f"LiteRT on {path}")
    return benchmark(
        Path(path),
        num_threads=FLAGS.num_threads,
        num_runs=FLAGS.num_runs,
        warmup_runs=FLAGS.warmup_runs,
    )
