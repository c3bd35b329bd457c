"""Tests of tflite_export.benchmark."""

from __future__ import annotations

import importlib.metadata
import json

import numpy as np
import pytest
import tensorflow as tf

from tests import tiny_tflite
from tests.tiny_tflite import convert
from tflite_export import benchmark as module
from tflite_export.benchmark import benchmark
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import read_model


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
    init_ms, warmups_ms, runs_ms = 7, [8, 6, 4], [4, 1, 3, 2, 10]
    clock = FakeClock(round(1e6 * ms) for ms in (init_ms, *warmups_ms, *runs_ms))
    monkeypatch.setattr(module.time, "perf_counter_ns", clock.read)
    result = benchmark(tflite, num_threads=1, num_runs=5, warmup_runs=3)
    assert clock.durations_ns == []
    # Percentiles between sorted runs, 0.05 * 4 and 0.95 * 4 = 3.8 of the way.
    assert result.latency == module.Latency(
        init_ms=7.0,
        warmup_avg_ms=6.0,
        avg_ms=4.0,
        min_ms=1.0,
        max_ms=10.0,
        median_ms=3.0,
        std_ms=pytest.approx(10**0.5),
        p5_ms=pytest.approx(1.2),
        p95_ms=pytest.approx(8.8),
        median_low_ms=1.0,
        median_high_ms=10.0,
        num_runs=5,
    )
    assert result.times_as_long == module.Interval(1.0, 1.0, 1.0)


def test_files_are_timed_in_turn_and_compared_round_by_round(tflite, monkeypatch):
    # Loading; then in each of 3 rounds one file, untimed and timed, and the other.
    first, second = (2.0, 4.0, 1.0), (6.0, 4.0, 2.0)
    runs = [x for a, b in zip(first, second, strict=True) for x in (99, a, 99, b)]
    clock = FakeClock(round(1e6 * ms) for ms in (5.0, 5.0, *runs))
    monkeypatch.setattr(module.time, "perf_counter_ns", clock.read)
    one, two = module.benchmark_in_turn([tflite, tflite], num_runs=3, warmup_runs=0)
    assert clock.durations_ns == []
    assert one.latency.median_ms == 2.0
    assert one.latency.warmup_avg_ms is None
    assert two.latency.median_ms == 4.0
    # 3, 1 and 2 times as long.
    assert two.times_as_long == module.Interval(2.0, 1.0, 3.0)


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [
        (1, 1, 1),
        (5, 1, 5),  # even from end to end 1 - 2 / 32 = 93.75 %
        (6, 1, 6),
        (9, 2, 8),  # 1 - 2 (1 + 9) / 512 = 96.1 %; from 3 to 7 82.0 %
        (20, 6, 15),  # as in tables of the sign test
        (50, 18, 33),
    ],
)
def test_intervals_of_medians_by_hand(count, low, high):
    values = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
    assert module.median_interval(values) == module.Interval(
        (count + 1) / 2, float(low), float(high)
    )


def test_the_least_times_of_files_in_turn_are_compared(tflite, monkeypatch):
    # One file, then the other, three times, each untimed first.
    timed = (9.0, 4.0, 6.0, 2.0, 7.0, 3.0)
    runs = [x for ms in timed for x in (1.0, ms)]
    clock = FakeClock(round(1e6 * ms) for ms in (5.0, 5.0, *runs))
    monkeypatch.setattr(module, "_SECONDS_IN_TURN", 0.0)
    monkeypatch.setattr(module, "_LEAST_RUNS_IN_TURN", 3)
    monkeypatch.setattr(module.time, "perf_counter_ns", clock.read)
    # Three runs, unless the clock has not moved yet.
    monkeypatch.setattr(module.time, "monotonic", iter(range(99)).__next__)
    assert module.times_as_long(tflite, tflite) == 3.0
    assert clock.durations_ns == []


def test_a_file_takes_as_long_as_itself(tflite):
    assert module.times_as_long(tflite, tflite) == pytest.approx(1.0, abs=0.5)


def test_counts_sizes_and_versions(tflite):
    result = benchmark(tflite, num_threads=2, num_runs=4, warmup_runs=0)
    assert (result.num_threads, result.latency.num_runs) == (2, 4)
    assert result.warmup_runs == 0
    assert result.model_size_bytes == len(tflite)
    assert result.peak_memory_bytes is None  # nobody asked
    assert result.runtime == "ai-edge-litert"
    assert result.runtime_version == importlib.metadata.version("ai-edge-litert")
    assert "logical CPUs" in result.device


def test_measured_times_are_positive_and_ordered(tflite):
    result = benchmark(tflite, num_threads=1, num_runs=30, warmup_runs=2)
    latency = result.latency
    assert 0 < latency.min_ms <= latency.p5_ms <= latency.median_ms <= latency.p95_ms
    assert latency.p95_ms <= latency.max_ms
    assert latency.median_low_ms <= latency.median_ms <= latency.median_high_ms
    assert latency.min_ms <= latency.avg_ms
    assert latency.init_ms > 0


def test_memory_is_that_of_the_model():
    """Beside LiteRT itself, of which a first file may take some more."""
    megabytes = 8
    kernel = np.ones((1024, megabytes * 256), np.float32)
    large = convert(lambda x: x @ kernel, (1, 1024), quantize=False)
    small = convert(lambda x: x + 1.0, (1, 3), quantize=False)
    least, grown = module.peak_memory(small), module.peak_memory(large)
    assert 0 <= least < 8e6
    assert megabytes * 2**20 <= grown < 4 * megabytes * 2**20


def test_memory_of_a_file_that_litert_refuses_is_an_error():
    with pytest.raises(
        ExportError, match=r"^LiteRT in a process of its own fails .*convert it again"
    ):
        module.peak_memory(b"none")


def test_operators_are_timed_alone_in_their_order(tflite):
    names = [operator.name for operator in read_model(tflite).operators]
    found = module.operator_times(tflite, num_runs=3)
    assert [operator.name for operator in found] == names
    assert all(operator.milliseconds > 0 for operator in found)


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


def test_dict_is_json_with_the_names_of_litert_benchmark(tflite):
    result = benchmark(tflite, num_threads=1, num_runs=1, warmup_runs=0)
    read = json.loads(json.dumps(result.to_dict()))
    assert {"num_threads", "model_size_bytes", "device", "delegate"} <= set(read)
    assert set(read["latency"]) >= {
        "init_ms", "warmup_avg_ms", "avg_ms", "min_ms", "max_ms", "median_ms", "std_ms",
        "p5_ms", "p95_ms", "num_runs",
    }  # fmt: skip
    assert read["latency"]["num_runs"] == 1


def test_files_and_float_models_are_timed_too(tmp_path):
    path = tmp_path / "float.tflite"
    path.write_bytes(convert(lambda x: x + 1.0, (1, 3), quantize=False))
    result = benchmark(path, num_threads=1, num_runs=2, warmup_runs=1)
    assert result.model_size_bytes == path.stat().st_size


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
        ExportError, match="input is bool; expected int8, uint8, int16 or float32"
    ):
        benchmark(tflite, num_runs=1)
