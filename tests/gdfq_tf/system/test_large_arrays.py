"""Arrays in memory and in files, against NumPy."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from gdfq_tf.errors import UserError
from gdfq_tf.system import large_arrays
from gdfq_tf.system.large_arrays import ArrayFile, in_file, stacked, zeros

WHOLE = np.random.default_rng(0).normal(size=(10, 3, 2)).astype(np.float32)
NUM_BYTES = 10 * 3 * 2 * 4


def parts():
    return iter([WHOLE[:4], WHOLE[4:8], WHOLE[8:]])


def test_as_much_as_memory_is_for_stays_there(monkeypatch):
    monkeypatch.setattr(large_arrays, "_LARGEST_BYTES_IN_MEMORY", NUM_BYTES)
    found = stacked(parts(), 10)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, WHOLE)


@pytest.fixture
def in_files(monkeypatch):
    monkeypatch.setattr(large_arrays, "_LARGEST_BYTES_IN_MEMORY", NUM_BYTES - 1)


def test_more_goes_to_a_file_and_reads_as_an_array_does(in_files):
    found = stacked(parts(), 10)
    assert isinstance(found, ArrayFile)
    assert (len(found), found.shape) == (10, (10, 3, 2))
    for images in (slice(0, 4), slice(3, 9), slice(8, 64), slice(None), slice(5, 2)):
        np.testing.assert_array_equal(found[images], WHOLE[images])
        assert found[images].dtype == np.float32


def test_a_full_disk_is_told_with_what_to_do(in_files, monkeypatch):
    with Path("/dev/full").open("r+b", buffering=0) as full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda: full)
        with pytest.raises(UserError, match=r"cannot take .*\(No space .*TMPDIR"):
            stacked(parts(), 10)


def test_small_arrays_to_be_filled_are_in_memory(monkeypatch):
    monkeypatch.setattr(large_arrays, "_LARGEST_UNMAPPED_BYTES", NUM_BYTES)
    found = zeros(WHOLE.shape, np.float32)
    assert found.base is None
    np.testing.assert_array_equal(found, np.zeros_like(WHOLE))
    assert in_file(WHOLE) is WHOLE


@pytest.fixture
def mapped(monkeypatch):
    monkeypatch.setattr(large_arrays, "_LARGEST_UNMAPPED_BYTES", NUM_BYTES - 1)


def test_large_ones_are_mapped_from_files(mapped, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = zeros(WHOLE.shape, np.float32)
    assert isinstance(found.base, np.memmap)
    np.testing.assert_array_equal(found, np.zeros_like(WHOLE))
    found[2:] = WHOLE[2:]
    np.testing.assert_array_equal(found[2:], WHOLE[2:])
    copy = in_file(WHOLE)
    assert isinstance(copy.base, np.memmap)
    np.testing.assert_array_equal(copy, WHOLE)
    assert list(tmp_path.iterdir()) == []  # it has no name


def test_a_disk_too_full_to_map_is_told_before_it_is_filled(mapped, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"cannot take .*\(No space .*TMPDIR"):
        zeros(WHOLE.shape, np.float32)
