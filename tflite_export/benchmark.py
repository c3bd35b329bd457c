"""Measures how long LiteRT takes for one image."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import math
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tflite_export.errors import ExportError
from tflite_export.interpreter import litert_refusals, load_interpreter, read_tflite

_SECONDS_IN_TURN, _LEAST_RUNS_IN_TURN = 1.0, 5


@dataclasses.dataclass(frozen=True)
class BenchmarkResult:
    """Latency of one invocation of batch 1, and what it was measured on.

    Attributes:
      median_ms, p90_ms, mean_ms, min_ms: over the runs, milliseconds.
      init_ms: construction of the interpreter and allocation of its tensors.
      model_bytes: size of the file.
      num_threads: threads of one invocation.
      num_runs: timed invocations.
      warmup_runs: invocations before them, not timed.
      runtime: the package that ran the model.
      runtime_version: its version.
      machine: processor, logical CPUs and system.
    """

    median_ms: float
    p90_ms: float
    mean_ms: float
    min_ms: float
    init_ms: float
    model_bytes: int
    num_threads: int
    num_runs: int
    warmup_runs: int
    runtime: str
    runtime_version: str
    machine: str

    def to_dict(self) -> dict[str, float | int | str]:
        """The attributes by name, ready for JSON."""
        return dataclasses.asdict(self)


def benchmark(
    tflite: bytes | Path,
    *,
    num_threads: int = 1,
    num_runs: int = 50,
    warmup_runs: int = 5,
) -> BenchmarkResult:
    """Times invocations of a `.tflite` model on the same random inputs.

    Only `invoke` is timed; setting inputs and reading outputs are not.

    Args:
      tflite: the file's bytes or path; inputs int8, uint8 or float32.
      num_threads: threads of one invocation.
      num_runs: timed invocations, 1 or more.
      warmup_runs: invocations before them, 0 or more.

    Raises:
      ExportError: unreadable or refused file, other input types, counts out of
        range.
    """
    if num_runs < 1 or warmup_runs < 0:
        raise ExportError(
            f"num_runs is {num_runs} and warmup_runs {warmup_runs}; expected at least "
            "1 and 0"
        )
    tflite = read_tflite(tflite)
    start = time.perf_counter_ns()
    interpreter = load_interpreter(tflite, num_threads)
    init_ns = time.perf_counter_ns() - start
    with litert_refusals(len(tflite)):
        _set_random_inputs(interpreter)
        for _ in range(warmup_runs):
            interpreter.invoke()
        times_ms = np.array([_invoked_ms(interpreter) for _ in range(num_runs)])
    return BenchmarkResult(
        median_ms=float(np.median(times_ms)),
        p90_ms=float(np.percentile(times_ms, 90)),
        mean_ms=float(times_ms.mean()),
        min_ms=float(times_ms.min()),
        init_ms=init_ns / 1e6,
        model_bytes=len(tflite),
        num_threads=num_threads,
        num_runs=num_runs,
        warmup_runs=warmup_runs,
        runtime="ai-edge-litert",
        runtime_version=importlib.metadata.version("ai-edge-litert"),
        machine=_machine(),
    )


def times_as_long(tflite: bytes, reference: bytes) -> float:
    """How many times as long a `.tflite` model takes as another one here.

    Both run in turn, and the least time of each counts: what else the machine does
    hardly matters then.

    Raises:
      ExportError: a refused file, other input types.
    """
    files = (tflite, reference)
    interpreters = [load_interpreter(file) for file in files]
    least = [math.inf, math.inf]
    with litert_refusals(max(map(len, files))):
        for interpreter in interpreters:
            _set_random_inputs(interpreter)
        end = time.monotonic() + _SECONDS_IN_TURN
        for run in itertools.count():
            if run >= _LEAST_RUNS_IN_TURN and time.monotonic() > end:
                break
            for place, interpreter in enumerate(interpreters):
                interpreter.invoke()  # as the other one took the caches
                least[place] = min(least[place], _invoked_ms(interpreter))
    return least[0] / least[1]


def _set_random_inputs(interpreter: Interpreter) -> None:
    rng = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        values = _random_values(rng, detail["shape"], np.dtype(detail["dtype"]))
        interpreter.set_tensor(detail["index"], values)


def _invoked_ms(interpreter: Interpreter) -> float:
    start = time.perf_counter_ns()
    interpreter.invoke()
    return (time.perf_counter_ns() - start) / 1e6


def _random_values(
    rng: np.random.Generator, shape: Sequence[int], dtype: np.dtype
) -> np.ndarray:
    if dtype in (np.int8, np.uint8):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    if dtype == np.float32:
        return rng.uniform(-1.0, 1.0, shape).astype(np.float32)
    raise ExportError(f"the model's input is {dtype}; expected int8, uint8 or float32")


def _machine() -> str:
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
