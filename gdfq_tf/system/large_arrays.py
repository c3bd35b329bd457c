"""Arrays of many images: small ones in memory, large ones in files without a name.

Such a file lies in the temporary directory and vanishes with its array, or with the
process, however that ends. Of an array mapped from one, the system keeps as much in
memory as nothing else needs.
"""

from __future__ import annotations

import itertools
import math
import os
import tempfile
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from gdfq_tf.errors import UserError

# Of one array; of one that is mapped, as a pool of images is, which has several copies.
_LARGEST_BYTES_IN_MEMORY, _LARGEST_UNMAPPED_BYTES = 2**27, 2**25


class ArrayFile:
    """An array that is written part by part and read in slices of its first axis.

    Attributes:
      shape: of all that was written, one part after the other.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Begins without values.

        Args:
          shape: of one image.
          dtype: of all values.
        """
        self.shape = (0, *shape)
        self._dtype, self._bytes_of_image = dtype, math.prod(shape) * dtype.itemsize
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the next line
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        """The number of images."""
        return self.shape[0]

    def append(self, values: np.ndarray) -> None:
        """Writes images, (n, *shape), behind all others.

        Raises:
          UserError: the temporary directory is full.
        """
        try:
            self._file.write(values.tobytes())
            self._file.flush()
        except OSError as error:
            raise _no_room(error) from error
        self.shape = (len(self) + len(values), *self.shape[1:])

    def __getitem__(self, images: slice) -> np.ndarray:
        """Those images, (n, *shape), in memory, read-only."""
        start, stop, _ = images.indices(len(self))
        self._file.seek(start * self._bytes_of_image)
        read = self._file.read(max(0, stop - start) * self._bytes_of_image)
        self._file.seek(0, os.SEEK_END)
        return np.frombuffer(read, self._dtype).reshape(-1, *self.shape[1:])


def zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array to be filled, mapped from a file if it is large.

    Raises:
      UserError: the temporary directory is full.
    """
    num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if not bytes_in_mapped_file(num_bytes):
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile() as file:
        try:
            # All of its room now: a page that finds none later ends the process.
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        except OSError as error:
            raise _no_room(error) from error
        return np.asarray(np.memmap(file, dtype, "r+", shape=shape))


def in_file(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array, or a copy of a large one, see `zeros`."""
    if not bytes_in_mapped_file(array.nbytes):
        return array
    copy = zeros(array.shape, array.dtype)
    copy[...] = array
    return copy


def bytes_in_file(num_bytes: int) -> int:
    """How many of an array's bytes `stacked` puts into a file: all or none."""
    return num_bytes if num_bytes > _LARGEST_BYTES_IN_MEMORY else 0


def bytes_in_mapped_file(num_bytes: int) -> int:
    """How many of an array's bytes `zeros` puts into a file: all or none."""
    return num_bytes if num_bytes > _LARGEST_UNMAPPED_BYTES else 0


def _no_room(error: OSError) -> UserError:
    return UserError(
        f"{tempfile.gettempdir()} is for intermediate results and cannot take "
        f"them ({error.strerror}); make room there or set TMPDIR to a folder that has "
        "some"
    )


def stacked(parts: Iterable[npt.ArrayLike], num_images: int) -> np.ndarray | ArrayFile:
    """All parts, one after the other, in a file if they are large together.

    Args:
      parts: alike but for the length of their first axis.
      num_images: the sum of those lengths, not 0.

    Raises:
      UserError: the temporary directory is full.
    """
    arrays = map(np.asarray, parts)
    first = next(arrays)
    if not bytes_in_file(num_images * first[:1].nbytes):
        return np.concatenate([first, *arrays])
    file = ArrayFile(first.shape[1:], first.dtype)
    for array in itertools.chain([first], arrays):
        file.append(array)
    return file
