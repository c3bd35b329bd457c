"""The accuracy benchmark on a tiny classifier."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from tests import ROOT
from tests.tiny import INPUT_SHAPE, NUM_CLASSES, build_tiny_classifier


@pytest.fixture
def inputs(tmp_path):
    """A folder with a classifier and labelled images."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    build_tiny_classifier().save(folder / "tiny.keras")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (30, *INPUT_SHAPE)).astype(np.uint8)
    labels = rng.integers(0, NUM_CLASSES, 30)
    np.savez(folder / "data.npz", x_test=pixels, y_test=labels)
    return folder


def run(*arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the benchmark."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.accuracy", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_what_is_missing_is_measured_and_nothing_else(inputs, tmp_path):
    output = tmp_path / "accuracy.json"
    arguments = [
        f"--model={inputs / 'tiny.keras'}",
        "--preprocessing=tf",
        f"--data={inputs / 'data.npz'}",
        "--recipes=calibrate,real",
        "--seeds=0",
        f"--output={output}",
    ]
    code, stdout, stderr = run(*arguments, "--bits=w8a8,w4a8")
    assert code == 0, stderr
    assert "| tiny " in stdout
    rows = json.loads(output.read_text())
    assert [(row["recipe"], row["bits"]) for row in rows] == [
        ("calibrate", "w8a8"),
        ("calibrate", "w4a8"),
        ("ptq_on_calibrate", "w8a8"),
        ("real", "w8a8"),
        ("real", "w4a8"),
        ("ptq_on_real", "w8a8"),
    ]
    images = np.load(inputs / "data.npz")
    for row in rows:
        assert row["num_images"] == len(images["y_test"])
        assert row["top1"] * row["num_images"] == pytest.approx(
            round(row["top1"] * row["num_images"])
        )
    assert rows[0]["image_passes"] == rows[3]["image_passes"] == 0
    before = output.read_bytes()
    code, again, stderr = run(*arguments, "--bits=w8a8,w4a8")
    assert code == 0, stderr
    assert "reconstruction" not in stderr
    assert output.read_bytes() == before
    assert again == stdout
    more = [*arguments, "--recipes=calibrate", "--bits=w8a8,w4a8,w3a8"]
    code, _, stderr = run(*more)
    assert code == 0, stderr
    rows = json.loads(output.read_text())
    keys = [(row["recipe"], row["bits"]) for row in rows]
    assert len(set(keys)) == len(keys) == 7
    assert ("calibrate", "w3a8") in keys
