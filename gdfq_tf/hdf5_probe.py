"""Reads all of an HDF5 file; run as a process of its own.

The HDF5 library may loop for ever or crash on damaged files, and neither can be
caught in the process that it happens in.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py

_TIMEOUT_SECONDS = 60.0  # a gigabyte takes a few


def is_readable(path: Path) -> bool:
    """Whether every attribute and data set of the file can be read."""
    command = [sys.executable, __file__, str(path)]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _read(name: str, item: h5py.Group | h5py.Dataset) -> None:
    dict(item.attrs)
    if isinstance(item, h5py.Dataset):
        item[()]


if __name__ == "__main__":
    with h5py.File(sys.argv[1], "r") as file:
        _read("/", file)
        file.visititems(_read)
