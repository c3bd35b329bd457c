"""Measures how long LiteRT takes for one image, and how much memory.

Files are timed in turn, one invocation of each in every round, so that whatever else
the machine does meets all of them alike: ratios say more than times.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special
from ai_edge_litert.interpreter import Interpreter

from tflite_export import memory_probe
from tflite_export.errors import ExportError
from tflite_export.interface import END_TYPES
from tflite_export.interpreter import litert_refusals, load_interpreter, read_tflite
from tflite_export.operator_files import operator_files
from tflite_export.programs import run_program

_SECONDS_IN_TURN, _LEAST_RUNS_IN_TURN = 1.0, 5
_CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Interval:
    """A median over runs.

    Attributes:
      median: of them.
      low, high: between which that of endless runs is, at 95 % confidence.
    """

    median: float
    low: float
    high: float


def median_interval(values: np.ndarray) -> Interval:
    """The median of values that are independent of each other, and its interval.

    The interval reaches from one value, in their order, to another, of whatever
    distribution they are: fewer than 6 are too few for the confidence, and it reaches
    from the least to the largest.

    Args:
      values: (N,), N >= 1.
    """
    ordered, count = np.sort(values), len(values)
    # How likely so many of the values lie below the true median, or fewer.
    likely = scipy.special.bdtr(np.arange(count), count, 0.5)
    place = max(np.count_nonzero(likely < (1 - _CONFIDENCE) / 2) - 1, 0)
    return Interval(
        float(np.median(ordered)), float(ordered[place]), float(ordered[-1 - place])
    )


@dataclasses.dataclass(frozen=True)
class Latency:
    """Times of one invocation of batch 1, milliseconds; names as litert-benchmark's.

    Attributes:
      init_ms: construction of the interpreter and allocation of its tensors.
      warmup_avg_ms: of the invocations before, None if there are none.
      avg_ms, min_ms, max_ms, median_ms, std_ms, p5_ms, p95_ms: over the timed ones.
      median_low_ms, median_high_ms: see `Interval`.
      num_runs: timed invocations.
    """

    init_ms: float
    warmup_avg_ms: float | None
    avg_ms: float
    min_ms: float
    max_ms: float
    median_ms: float
    std_ms: float
    p5_ms: float
    p95_ms: float
    median_low_ms: float
    median_high_ms: float
    num_runs: int


@dataclasses.dataclass(frozen=True)
class BenchmarkResult:
    """Latency and memory of a file, and what they were measured on.

    Attributes:
      latency: of one image.
      times_as_long: as the first of the files that were timed in turn.
      peak_memory_bytes: by which a process grows that loads and runs the file; None
        where the system does not tell.
      model_size_bytes: of the file.
      num_threads: threads of one invocation.
      warmup_runs: invocations before the timed ones.
      runtime: the package that ran the model; `runtime_version`: its version.
      delegate: what computed the operators that it takes.
      device: processor, logical CPUs and system.
    """

    latency: Latency
    times_as_long: Interval
    peak_memory_bytes: int | None
    model_size_bytes: int
    num_threads: int
    warmup_runs: int
    runtime: str
    runtime_version: str
    delegate: str
    device: str

    def to_dict(self) -> dict[str, Any]:
        """The attributes by name, ready for JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class OperatorTime:
    """One operator of a file, timed alone.

    Attributes:
      name: the schema's, "CONV_2D".
      output: name of the tensor that it computes.
      milliseconds: the median.
    """

    name: str
    output: str
    milliseconds: float


def benchmark(
    tflite: bytes | Path,
    *,
    num_threads: int = 1,
    num_runs: int = 50,
    warmup_runs: int = 5,
) -> BenchmarkResult:
    """Times invocations of one file, see `benchmark_in_turn`."""
    (result,) = benchmark_in_turn(
        [tflite], num_threads=num_threads, num_runs=num_runs, warmup_runs=warmup_runs
    )
    return result


def benchmark_in_turn(
    files: Sequence[bytes | Path],
    *,
    num_threads: int = 1,
    num_runs: int = 50,
    warmup_runs: int = 5,
    measures_memory: bool = False,
) -> list[BenchmarkResult]:
    """Times invocations of `.tflite` models in turn, on random inputs.

    Only `invoke` is timed; setting inputs and reading outputs are not.

    Args:
      files: their bytes or paths, one or more.
      num_threads: threads of one invocation.
      num_runs: timed invocations of each, 1 or more.
      warmup_runs: invocations of each before them, 0 or more.
      measures_memory: whether each is run in a process of its own besides.

    Raises:
      ExportError: unreadable or refused file, other input types, counts out of
        range.
    """
    if num_runs < 1 or warmup_runs < 0:
        raise ExportError(
            f"num_runs is {num_runs} and warmup_runs {warmup_runs}; expected at least "
            "1 and 0"
        )
    contents = [read_tflite(file) for file in files]
    loaded = [_Loaded(content, num_threads) for content in contents]
    warmups = _timed_in_turn(loaded, warmup_runs)
    times = _timed_in_turn(loaded, num_runs)
    return [
        BenchmarkResult(
            latency=_latency(file.init_ms, warmup, ours),
            times_as_long=median_interval(ours / times[0]),
            peak_memory_bytes=peak_memory(content) if measures_memory else None,
            model_size_bytes=len(content),
            num_threads=num_threads,
            warmup_runs=warmup_runs,
            runtime="ai-edge-litert",
            runtime_version=importlib.metadata.version("ai-edge-litert"),
            delegate="XNNPACK",
            device=_device(),
        )
        for content, file, warmup, ours in zip(
            contents, loaded, warmups, times, strict=True
        )
    ]


class _Loaded:
    """A file in an interpreter, its inputs set."""

    def __init__(self, tflite: bytes, num_threads: int) -> None:
        self._num_bytes = len(tflite)
        start = time.perf_counter_ns()
        self._interpreter = load_interpreter(tflite, num_threads)
        self.init_ms = (time.perf_counter_ns() - start) / 1e6
        with litert_refusals(self._num_bytes):
            _set_random_inputs(self._interpreter)

    def invoked_ms(self) -> float:
        """Milliseconds of one more invocation."""
        with litert_refusals(self._num_bytes):
            start = time.perf_counter_ns()
            self._interpreter.invoke()
            return (time.perf_counter_ns() - start) / 1e6


def _timed_in_turn(loaded: Sequence[_Loaded], num_runs: int) -> np.ndarray:
    """Milliseconds of so many invocations of each, (files, num_runs)."""
    times = np.empty((len(loaded), num_runs))
    for run in range(num_runs):
        for place, file in enumerate(loaded):
            if len(loaded) > 1:
                file.invoked_ms()  # as the others took the caches
            times[place, run] = file.invoked_ms()
    return times


def _latency(init_ms: float, warmup_ms: np.ndarray, times_ms: np.ndarray) -> Latency:
    median = median_interval(times_ms)
    p5, p95 = np.percentile(times_ms, [5, 95])
    return Latency(
        init_ms=init_ms,
        warmup_avg_ms=float(warmup_ms.mean()) if len(warmup_ms) else None,
        avg_ms=float(times_ms.mean()),
        min_ms=float(times_ms.min()),
        max_ms=float(times_ms.max()),
        median_ms=median.median,
        std_ms=float(times_ms.std()),
        p5_ms=float(p5),
        p95_ms=float(p95),
        median_low_ms=median.low,
        median_high_ms=median.high,
        num_runs=len(times_ms),
    )


def peak_memory(tflite: bytes) -> int | None:
    """Bytes by which a process grows at most that loads and runs a file.

    The process is a new one without TensorFlow; what Python and LiteRT take without a
    file is not counted.

    Raises:
      ExportError: the process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(tflite)
        probe = run_program(
            [sys.executable, memory_probe.__file__, str(path)],
            name="LiteRT in a process of its own",
            expected="expected a .tflite file that it runs: convert it again",
        )
    grown: int | None = json.loads(probe.stdout)
    return grown


def operator_times(
    tflite: bytes | Path, *, num_threads: int = 1, num_runs: int = 50
) -> list[OperatorTime]:
    """How long each operator takes in a file of its own, in the file's order.

    What LiteRT computes together with another operator takes longer so, and small
    operators take the few microseconds of an invocation besides.

    Args:
      tflite: the file's bytes or path.
      num_threads: threads of one invocation.
      num_runs: timed invocations of each operator.

    Raises:
      ExportError: see `benchmark_in_turn`.
    """
    found = []
    for operator, output, content in operator_files(read_tflite(tflite)):
        alone = _Loaded(content, num_threads)
        _timed_in_turn([alone], max(1, num_runs // 10))
        (times,) = _timed_in_turn([alone], num_runs)
        found.append(OperatorTime(operator, output, float(np.median(times))))
    return found


def times_as_long(tflite: bytes, reference: bytes) -> float:
    """How many times as long a `.tflite` model takes as another one here.

    Both run in turn, and the least time of each counts: what else the machine does
    hardly matters then.

    Raises:
      ExportError: a refused file, other input types.
    """
    loaded = [_Loaded(file, 1) for file in (tflite, reference)]
    least, end = np.full(2, math.inf), time.monotonic() + _SECONDS_IN_TURN
    num_runs = 0
    while num_runs < _LEAST_RUNS_IN_TURN or time.monotonic() <= end:
        least = np.minimum(least, _timed_in_turn(loaded, 1)[:, 0])
        num_runs += 1
    ours, theirs = map(float, least)
    return ours / theirs


def _set_random_inputs(interpreter: Interpreter) -> None:
    rng = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        values = _random_values(rng, detail["shape"], np.dtype(detail["dtype"]))
        interpreter.set_tensor(detail["index"], values)


def _random_values(
    rng: np.random.Generator, shape: Sequence[int], dtype: np.dtype
) -> np.ndarray:
    if dtype.name in END_TYPES:
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    if dtype == np.float32:
        return rng.uniform(-1.0, 1.0, shape).astype(np.float32)
    raise ExportError(
        f"the model's input is {dtype}; expected {', '.join(END_TYPES)} or float32"
    )


def _device() -> str:
    return f"{processor()}, {os.cpu_count()} logical CPUs, {platform.system()}"


def processor() -> str:
    """What the machine's maker calls its processor."""
    cpuinfo = Path("/proc/cpuinfo")  # Linux has the model's name here alone
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        models = [line.partition(":")[2] for line in lines if "model name" in line]
        if models:
            return models[0].strip()
    return platform.processor() or platform.machine()
