"""What LiteRT's benchmark_model says of a `.tflite` file on a phone, over adb."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

from tflite_export.errors import ExportError
from tflite_export.names import printable
from tflite_export.programs import last_line, run_program

_ADB = "adb"
_FOLDER = "/data/local/tmp"
_PROGRAM, _FILE = f"{_FOLDER}/benchmark_model", f"{_FOLDER}/gdfq_benchmark.tflite"
_TIMEOUT_SECONDS = 600
# Of all invocations, microseconds; older versions tell no quantiles. The last line of
# its sort is that of the timed ones, the one before it of those that warm up.
_TIMES = re.compile(r"count=\d+ first=.*")
_VALUE = re.compile(r"(\w+)=([\d.e+]+)")
_INIT = re.compile(r"Init: ([\d.e+]+)")
_MEMORY = re.compile(r"\(MB\): .*overall=([\d.e+]+)")


@dataclasses.dataclass(frozen=True)
class PhoneReport:
    """Times of one invocation of batch 1, milliseconds; names as of `Latency`.

    Attributes:
      phone: model and version of Android.
      init_ms: loading.
      avg_ms, min_ms, max_ms, std_ms: over the timed invocations.
      median_ms, p5_ms, p95_ms: likewise, None if benchmark_model does not tell.
      num_runs: timed invocations, at least as many as were asked for.
      peak_memory_bytes: by which the program grows; None if it does not tell.
      model_size_bytes: of the file.
    """

    phone: str
    init_ms: float
    avg_ms: float
    min_ms: float
    max_ms: float
    std_ms: float
    median_ms: float | None
    p5_ms: float | None
    p95_ms: float | None
    num_runs: int
    peak_memory_bytes: int | None
    model_size_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The attributes by name, ready for JSON."""
        return dataclasses.asdict(self)


def phone_report(
    path: Path, *, num_threads: int, num_runs: int, warmup_runs: int
) -> PhoneReport:
    """Runs a file on the phone that is attached.

    Raises:
      ExportError: adb is not installed, no phone is attached or more than one,
        benchmark_model is not on it, or fails.
    """
    phone = _attached_phone()
    _adb("push", str(path), _FILE)
    try:
        said = _adb(
            "shell", _PROGRAM, f"--graph={_FILE}", f"--num_threads={num_threads}",
            f"--num_runs={num_runs}", f"--warmup_runs={warmup_runs}",
        )  # fmt: skip
    finally:
        _adb("shell", "rm", "-f", _FILE)
    lines, init = _TIMES.findall(said), _INIT.search(said)
    times = dict(_VALUE.findall(lines[-1])) if lines else {}
    if init is None or not {"count", "avg", "min", "max", "std"} <= set(times):
        raise ExportError(
            f"benchmark_model on the phone tells no times ({last_line(said)}); "
            "expected a line with count=, avg= and others: take that of another version"
        )

    in_ms = {name: float(value) / 1e3 for name, value in times.items()}
    memory = _MEMORY.search(said)
    return PhoneReport(
        phone=phone,
        init_ms=float(init[1]) / 1e3,
        avg_ms=in_ms["avg"],
        min_ms=in_ms["min"],
        max_ms=in_ms["max"],
        std_ms=in_ms["std"],
        median_ms=in_ms.get("median"),
        p5_ms=in_ms.get("p5"),
        p95_ms=in_ms.get("p95"),
        num_runs=int(times["count"]),
        peak_memory_bytes=None if memory is None else int(float(memory[1]) * 2**20),
        model_size_bytes=path.stat().st_size,
    )


def _attached_phone() -> str:
    """What the one phone is, after a look for benchmark_model there."""
    if shutil.which(_ADB) is None:
        raise ExportError(
            "adb is not installed; Android's platform-tools have it, and so does "
            "Debian's package adb"
        )
    listed = [line.split() for line in _adb("devices").splitlines()[1:] if line.strip()]
    states = [f"{serial} {state}" for serial, state, *_ in listed if state != "device"]
    if len(states) == len(listed):
        raise ExportError(
            f"no phone is attached ({', '.join(states) or 'adb lists none'}); expected "
            "one with USB debugging that allows this computer: see adb devices"
        )
    try:
        _adb("shell", "ls", _PROGRAM)
    except ExportError as error:
        raise ExportError(
            f"{_PROGRAM} is not on the phone, or more than one is attached ({error}); "
            "push LiteRT's benchmark_model for Android there and make it executable, "
            "or name one phone by the environment variable ANDROID_SERIAL"
        ) from error
    properties = ("ro.product.model", "ro.build.version.release")
    model, android = (_adb("shell", "getprop", x).strip() for x in properties)
    return printable(f"{model}, Android {android}")


def _adb(*arguments: str) -> str:
    """What a command prints, on both of its outputs.

    Raises:
      ExportError: it fails, or takes too long.
    """
    done = run_program(
        (_ADB, *arguments),
        name=f"adb {arguments[0]}",
        expected="expected a phone that answers",
        seconds=_TIMEOUT_SECONDS,
    )
    return done.stdout + done.stderr
