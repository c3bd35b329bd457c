"""A phone over adb, for which a shell script stands."""

from __future__ import annotations

import json

import pytest

from tests.command import refusal, run_command
from tests.tiny_network import NetworkBuilder
from tflite_export.convert import convert_network
from tflite_export.errors import ExportError
from tflite_export.phone import phone_report

# What benchmark_model printed on a phone; older versions have no quantiles.
SAID = """\
INFO: Initialized session in 119.515ms.
INFO: count=9 first=87112 curr=51629 min=51629 max=87112 avg=58147.4 std=11478 p5=51629
INFO: count=50 first=52162 curr=49785 min=49088 max=68610 avg=63743.2 std=60716{more}
INFO: Inference timings in us: Init: 119515, First inference: 87112, Warmup (avg): 58147
INFO: Memory footprint delta from the start of the tool (MB): init=55.5 overall=64.0
"""
ADB = """#!/bin/sh
echo "$@" >> {folder}/calls
case "$*" in
  devices) cat {folder}/devices ;;
  "shell ls "*) test -e {folder}/program || {{ echo "No such file" >&2; exit 1; }} ;;
  "shell getprop ro.product.model") echo "Some Phone" ;;
  "shell getprop ro.build.version.release") echo 15 ;;
  push*) cp "$2" {folder}/pushed ;;
  "shell /data/local/tmp/benchmark_model"*)
    cat {folder}/said
    exit $(cat {folder}/code) ;;
esac
"""


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """A folder: what the phone is and says."""
    folder = tmp_path / "phone"
    folder.mkdir()
    contents = {
        "adb": ADB.format(folder=folder),
        "devices": "List of devices attached\nAB12\tdevice\n\n",
        "program": "",
        "said": SAID.format(more=" p5=49620 median=51891 p95=68628"),
        "code": "0",
    }
    for name, text in contents.items():
        (folder / name).write_text(text)
    (folder / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


@pytest.fixture
def tflite(tmp_path):
    b = NetworkBuilder()
    b.kernel("logits", "dense", b.flatten("image"), bits=8)
    path = tmp_path / "net.tflite"
    path.write_bytes(convert_network(b.build_ops()))
    return path


def report(path):
    return phone_report(path, num_threads=2, num_runs=50, warmup_runs=3)


def test_times_of_the_timed_runs_are_told(phone, tflite, tmp_path):
    result = tmp_path / "rows.json"
    code, stdout, stderr = run_command(
        "benchmark", str(tflite), "--device=android", "--num_threads=2",
        "--warmup_runs=3", f"--result_json={result}",
    )  # fmt: skip
    assert code == 0, stderr
    assert "Some Phone, Android 15" in stdout
    (row,) = json.loads(result.read_text())
    times = {"init_ms": 119.515, "avg_ms": 63.7432, "min_ms": 49.088, "max_ms": 68.61}
    quantiles = {"median_ms": 51.891, "p5_ms": 49.62, "p95_ms": 68.628}
    expected = times | quantiles
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert (row["num_runs"], row["peak_memory_bytes"]) == (50, 64 * 2**20)
    assert (phone / "pushed").read_bytes() == tflite.read_bytes()
    calls = (phone / "calls").read_text().splitlines()
    file = "/data/local/tmp/gdfq_benchmark.tflite"
    assert (
        f"shell /data/local/tmp/benchmark_model --graph={file} --num_threads=2 "
        "--num_runs=50 --warmup_runs=3" in calls
    )
    assert calls[-1] == f"shell rm -f {file}"


def test_older_versions_tell_no_quantiles(phone, tflite):
    (phone / "said").write_text(SAID.format(more=""))
    found = report(tflite)
    assert found.max_ms == 68.61
    assert (found.p5_ms, found.median_ms, found.p95_ms) == (None, None, None)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("devices", "List of devices attached\n\n", "no phone is attached"),
        ("devices", "List\nAB12\tunauthorized\n", r"\(AB12 unauthorized\)"),
        (
            "said",
            "ERROR: Op builtin_code out of range",
            "tells no times .*out of range",
        ),
        ("code", "1", "adb shell fails"),
    ],
)
def test_what_goes_wrong_is_told(phone, tflite, name, text, told):
    (phone / name).write_text(text)
    with pytest.raises(ExportError, match=told):
        report(tflite)


def test_the_program_has_to_be_there(phone, tflite):
    (phone / "program").unlink()
    with pytest.raises(ExportError, match=r"benchmark_model is not on .*No such file"):
        report(tflite)


def test_without_adb_it_is_one_line(tflite, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    message = refusal("benchmark", str(tflite), "--device=android", folder=tmp_path)
    assert "adb is not installed" in message
