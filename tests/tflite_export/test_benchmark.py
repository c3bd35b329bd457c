"""Tests of tflite_export.benchmark."""

from __future__ import annotations

import importlib.metadata
import json

import pytest
import tensorflow as tf

from tests import tiny_tflite
from tests.tiny_tflite import convert
from tflite_export import benchmark as module
from tflite_export.benchmark import benchmark
from tflite_export.errors import ExportError


@pytest.fixture(scope="module")
def tflite() -> bytes:
    return convert(lambda x: tiny_tflite.classifier(x, bits=8), (1, 8, 8, 3))


class FakeClock:
    """Durations for the timed stretches, in turn, in nanoseconds."""

    def __init__(self, durations_ns):
        self.now_ns = 1_000
        self.durations_ns = list(durations_ns)
        self.num_reads = 0

    def read(self) -> int:
        # Every second reading ends a timed stretch.
        if self.num_reads % 2:
            self.now_ns += self.durations_ns.pop(0)
        self.num_reads += 1
        return self.now_ns


def test_statistics_of_known_durations(tflite, monkeypatch):
    init_ns, runs_ns = (
        7_000_000,
        [4_000_000, 1_000_000, 3_000_000, 2_000_000, 10_000_000],
    )
    clock = FakeClock([init_ns, *runs_ns])
    monkeypatch.setattr(module.time, "perf_counter_ns", clock.read)
    result = benchmark(tflite, num_threads=1, num_runs=5, warmup_runs=3)
    assert clock.durations_ns == []
    assert result.init_ms == 7.0
    assert result.median_ms == 3.0
    assert result.mean_ms == 4.0
    assert result.min_ms == 1.0
    # Between the 4th (4 ms) and the 5th (10 ms) of the sorted runs, 0.6 on.
    assert result.p90_ms == pytest.approx(7.6)


def test_the_least_times_of_files_in_turn_are_compared(tflite, monkeypatch):
    # One file, then the other, three times.
    clock = FakeClock(round(1e6 * ms) for ms in (9.0, 4.0, 6.0, 2.0, 7.0, 3.0))
    monkeypatch.setattr(module, "_SECONDS_IN_TURN", 0.0)
    monkeypatch.setattr(module, "_LEAST_RUNS_IN_TURN", 3)
    monkeypatch.setattr(module.time, "perf_counter_ns", clock.read)
    assert module.times_as_long(tflite, tflite) == 3.0
    assert clock.durations_ns == []


def test_a_file_takes_as_long_as_itself(tflite):
    assert module.times_as_long(tflite, tflite) == pytest.approx(1.0, abs=0.5)


def test_counts_sizes_and_versions(tflite):
    result = benchmark(tflite, num_threads=2, num_runs=4, warmup_runs=0)
    assert (result.num_threads, result.num_runs, result.warmup_runs) == (2, 4, 0)
    assert result.model_bytes == len(tflite)
    assert result.runtime == "ai-edge-litert"
    assert result.runtime_version == importlib.metadata.version("ai-edge-litert")
    assert "logical CPUs" in result.machine


def test_measured_times_are_positive_and_ordered(tflite):
    result = benchmark(tflite, num_threads=1, num_runs=30, warmup_runs=2)
    assert 0 < result.min_ms <= result.median_ms <= result.p90_ms
    assert result.min_ms <= result.mean_ms
    assert result.init_ms > 0


def test_warmup_and_timed_runs_are_all_invoked(tflite, monkeypatch):
    real = module.load_interpreter
    invocations = []

    class Counting:
        def __init__(self, interpreter):
            self._interpreter = interpreter

        def invoke(self):
            invocations.append(None)
            self._interpreter.invoke()

        def __getattr__(self, name):
            return getattr(self._interpreter, name)

    monkeypatch.setattr(
        module, "load_interpreter", lambda *arguments: Counting(real(*arguments))
    )
    benchmark(tflite, num_threads=1, num_runs=6, warmup_runs=4)
    assert len(invocations) == 10


def test_dict_is_json_with_every_attribute(tflite):
    result = benchmark(tflite, num_threads=1, num_runs=1, warmup_runs=0)
    read = json.loads(json.dumps(result.to_dict()))
    assert module.BenchmarkResult(**read) == result
    assert {"median_ms", "p90_ms", "init_ms", "model_bytes", "machine"} <= set(read)


def test_files_and_float_models_are_timed_too(tmp_path):
    path = tmp_path / "float.tflite"
    path.write_bytes(convert(lambda x: x + 1.0, (1, 3), quantize=False))
    result = benchmark(path, num_threads=1, num_runs=2, warmup_runs=1)
    assert result.model_bytes == path.stat().st_size


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"num_runs": 0}, "num_runs is 0"),
        ({"warmup_runs": -1}, "warmup_runs -1"),
        ({"num_threads": 0}, "num_threads is 0"),
    ],
)
def test_counts_out_of_range_are_refused(tflite, counts, message):
    with pytest.raises(ExportError, match=message):
        benchmark(tflite, **counts)


def test_other_input_types_are_refused():
    def function(x):
        return tf.cast(x, tf.int32)

    holder = tf.Module()
    holder.function = tf.function(function)
    concrete = holder.function.get_concrete_function(tf.TensorSpec((1, 3), tf.bool))
    tflite = tf.lite.TFLiteConverter.from_concrete_functions(
        [concrete], holder
    ).convert()
    with pytest.raises(
        ExportError, match="input is bool; expected int8, uint8 or float32"
    ):
        benchmark(tflite, num_runs=1)
