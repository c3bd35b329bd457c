"""Files of named arrays that are whole, and what was written, or are not read.

A file is a first line, a line of JSON, arrays as `np.save` writes them and the SHA-256
of all that. It is written beside its name, brought to the disk and renamed, so that at
every moment the name stands for the last whole file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

# Arrays by name.
Arrays = Mapping[str, npt.NDArray[Any]]

_FIRST_LINE = b"gdfq-tf state, version 1\n"
_DIGEST_SIZE = hashlib.sha256().digest_size
_CHUNK = 2**20


class DamagedError(Exception):
    """A file is not what `write_state` wrote, in words."""


class SavedState(NamedTuple):
    """What a file holds.

    Attributes:
      facts: JSON values by name.
      arrays: as they were given.
    """

    facts: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]


def write_state(path: Path, facts: Mapping[str, Any], arrays: Arrays) -> None:
    """Writes a file; what is there is replaced in one step.

    Raises:
      OSError: the file system refused; what was there is there.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            writer = _HashingWriter(file)
            header = json.dumps({"facts": facts, "arrays": list(arrays)})
            writer.write(_FIRST_LINE + header.encode() + b"\n")
            for array in arrays.values():
                np.lib.format.write_array(writer, np.asarray(array), allow_pickle=False)
            file.write(writer.digest())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_directory(path.parent)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def read_state(path: Path) -> SavedState:
    """Reads what `write_state` wrote, byte for byte.

    Raises:
      FileNotFoundError: there is none.
      OSError: it cannot be read.
      DamagedError: it is torn, altered or no such file.
    """
    with path.open("rb") as file:
        if file.read(len(_FIRST_LINE)) != _FIRST_LINE:
            raise DamagedError("it does not begin as one")
        if not _is_whole(file):
            raise DamagedError("its checksum is not that of its content")
        # From here on it is what was written, so nothing in it is doubted.
        file.seek(len(_FIRST_LINE))
        header = json.loads(file.readline())
        arrays = {
            name: np.lib.format.read_array(file, allow_pickle=False)
            for name in header["arrays"]
        }
        return SavedState(header["facts"], arrays)


class _HashingWriter:
    """A file to write to that knows the checksum of what it was given."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash = file, hashlib.sha256()

    def write(self, content: bytes) -> int:
        self._hash.update(content)
        return self._file.write(content)

    def digest(self) -> bytes:
        return self._hash.digest()


def _is_whole(file: BinaryIO) -> bool:
    """Whether a file ends with the checksum of all before."""
    left = file.seek(0, os.SEEK_END) - _DIGEST_SIZE
    file.seek(0)
    found = hashlib.sha256()
    while left > 0:
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            return False
        found.update(chunk)
        left -= len(chunk)
    return file.read() == found.digest()


def _sync_directory(path: Path) -> None:
    """Brings the names in a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
