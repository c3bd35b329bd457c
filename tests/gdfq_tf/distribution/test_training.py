"""Replicas together compute what one device does."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tests.gdfq_tf.distribution import trial
from tests.gdfq_tf.distribution.processes import cluster, start


@pytest.fixture(scope="module")
def one_device():
    """What a single device finds, in this process."""
    return functools.cache(trial.found)


def results(processes, paths):
    for process in processes:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    return [np.load(path) for path in paths]


def assert_as_one_device(found, one_device):
    """Sums of floats are rounded in another order, and that is all."""
    np.testing.assert_allclose(found["losses"], one_device["losses"], rtol=1e-3)
    np.testing.assert_array_equal(found["labels"], one_device["labels"])
    for name in one_device.keys() & {"generated", "refined", "made"}:
        levels = np.abs(found[name].astype(int) - one_device[name])
        assert levels.max() <= 2, name
        assert np.mean(levels > 0) < 0.01, name
    for name in one_device.keys() & {"distilled", "fine_tuned"}:
        np.testing.assert_allclose(found[name], one_device[name], atol=1e-4)


def assert_exchanged(found):
    """Moments and gradients by hand, in float64."""
    values, count = trial.VALUES.astype(np.float64), len(trial.VALUES)
    mean, variance = values.mean(axis=0), values.var(axis=0)
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-6)
    np.testing.assert_allclose(found["variance"], variance, rtol=1e-3)
    loss = np.sum(mean * trial.TO_MEAN + variance * trial.TO_VARIANCE)
    assert found["loss"] == pytest.approx(loss, rel=1e-4)
    gradient = trial.TO_MEAN + 2 * trial.TO_VARIANCE * (values - mean)
    np.testing.assert_allclose(found["gradient"], gradient / count, atol=1e-3)


@pytest.mark.parametrize(
    "what", ["images", pytest.param("students", marks=pytest.mark.slow)]
)
def test_two_devices(one_device, tmp_path, what):
    path = tmp_path / "found.npz"
    (found,) = results([start(trial.__name__, "mirrored", what, path)], [path])
    assert_exchanged(found)
    assert_as_one_device(found, one_device(what))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_processes_of_a_cluster(one_device, tmp_path, size):
    paths = [tmp_path / f"{number}.npz" for number in range(size)]
    processes = [
        start(trial.__name__, "multi_worker", "students", path, task=task)
        for path, task in zip(paths, cluster(size), strict=True)
    ]
    first, *others = results(processes, paths)
    assert_exchanged(first)
    assert_as_one_device(first, one_device("students"))
    for other in others:
        for name in first:
            np.testing.assert_array_equal(other[name], first[name])
