"""Model files, opened by a process of its own that can do nothing else.

See `file_reader` for what that process does and `sandbox` for what it may not do. Its
answer is held to what it announces; its crash is one line.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from gdfq_tf.errors import UserError
from gdfq_tf.model_files.failures import one_line
from gdfq_tf.system.memory import available_memory

_LONGEST_HEADER = 2**27
# Of the memory that is free, for the arrays of one file: they are held up to three
# times at once, by the reader, here and by Keras.
_SHARE_OF_MEMORY = 4
_KINDS = "fiub"


@dataclasses.dataclass(frozen=True)
class Reader:
    """The process that reads a file.

    Attributes:
      program: Python, started without the current directory and user settings on its
        path; it takes the path of this process and the request.
      seconds: how long it may take by the clock; its own limit is on processor time.
    """

    program: str = (
        "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
        "from gdfq_tf.model_files.file_reader import main; main()"
    )
    seconds: float = 120.0


_READER = Reader()


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """What a file says of its model and its weights, without their values.

    Attributes:
      path: of the file or SavedModel.
      config: the model's JSON as a text; None in files of weights only.
      keras_version: of the Keras that wrote it, as noted; None if it is not.
      notes_names: whether weights are noted with the names of their layers.
      groups: of HDF5 -> attribute -> names of layers or weights in order, or a text
        of who wrote them.
      shapes: name of each array -> its shape.
      num_floats: how many real numbers there are, counters left out.
      format: as asked for.
      arrays: of SavedModels, whose reader takes seconds to start and is asked once.
    """

    path: Path
    config: str | None
    keras_version: str | None
    notes_names: bool
    groups: Mapping[str, Mapping[str, str | list[str]]]
    shapes: Mapping[str, tuple[int, ...]]
    num_floats: int
    format: str
    arrays: Mapping[str, np.ndarray] | None = None


def inspect_file(path: Path, file_format: str, reader: Reader = _READER) -> ModelFile:
    """What a file holds.

    Args:
      path: it, or the directory of a SavedModel.
      file_format: "zip", "hdf5", "json" or "saved_model".
      reader: who reads it.

    Raises:
      UserError: damaged, hostile or too large.
    """
    is_slow = file_format == "saved_model"
    header, arrays = _ask(path, file_format, reader, with_arrays=is_slow)
    datasets = header.get("datasets", [])
    return ModelFile(
        path,
        header["config"],
        header.get("keras_version"),
        header.get("notes_names", False),
        header.get("groups", {}),
        {name: tuple(shape) for name, _, shape in datasets},
        sum(math.prod(shape) for _, kind, shape in datasets if kind == "f"),
        file_format,
        arrays if is_slow else None,
    )


def read_arrays(file: ModelFile) -> Mapping[str, np.ndarray]:
    """The values of `file.shapes`.

    Raises:
      UserError: the file is not what it was when it was inspected.
    """
    if file.arrays is not None:
        return file.arrays
    _, arrays = _ask(file.path, file.format, _READER, with_arrays=True)
    if {name: array.shape for name, array in arrays.items()} != dict(file.shapes):
        raise UserError(f"{file.path} changed while it was read; start again")
    return arrays


def _ask(
    path: Path, file_format: str, reader: Reader, *, with_arrays: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    max_bytes = available_memory() // _SHARE_OF_MEMORY
    request = {
        "path": str(path.absolute()),
        "format": file_format,
        "arrays": with_arrays,
        "max_bytes": max_bytes,
    }
    command = [sys.executable, "-I", "-c", reader.program, json.dumps(_import_path())]
    process = subprocess.Popen(
        [*command, json.dumps(request)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=os.sep,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    timer = threading.Timer(reader.seconds, process.kill)
    timer.start()
    try:
        with process, process.stdout as stream:  # type: ignore[union-attr]
            header, arrays = _answer(stream, max_bytes)
    finally:
        process.kill()
        timer.cancel()
    if header is None:
        raise UserError(f"{path} is damaged, save the model again: {_end(process)}")
    if "refusal" in header:
        raise UserError(f"{path} {one_line(header['refusal'])}")
    if "damage" in header:
        kind = {"zip": ".keras", "hdf5": "HDF5"}.get(file_format)
        or_not = f" or not a{'n' if kind == 'HDF5' else ''} {kind} file" if kind else ""
        raise UserError(
            f"{path} is damaged{or_not}, save the model again: "
            f"{one_line(header['damage'])}"
        )
    return header, arrays


def _answer(
    stream: IO[bytes], max_bytes: int
) -> tuple[dict[str, Any] | None, dict[str, np.ndarray]]:
    """Header and arrays; None and none if the answer is not what it should be."""
    try:
        header = json.loads(stream.readline(_LONGEST_HEADER))
        if "refusal" in header or "damage" in header:
            return header, {}
        arrays = dict(_arrays(stream, header["arrays"], max_bytes))
        return header, arrays
    except (ArithmeticError, LookupError, TypeError, ValueError, MemoryError):
        return None, {}


def _arrays(
    stream: IO[bytes], announced: list, max_bytes: int
) -> Iterator[tuple[str, np.ndarray]]:
    for name, dtype_name, shape in announced:
        dtype = np.dtype(str(dtype_name))
        size = math.prod(shape) * dtype.itemsize
        max_bytes -= size
        if dtype.kind not in _KINDS or max_bytes < 0 or min(shape, default=0) < 0:
            raise ValueError
        content = stream.read(size)
        if len(content) != size:
            raise ValueError
        yield name, np.frombuffer(content, dtype).reshape(shape)


def _end(process: subprocess.Popen) -> str:
    code = process.returncode
    if code == -signal.SIGKILL:
        return "reading it took too long"
    if code < 0:
        return f"reading it ended in {signal.Signals(-code).name}"
    return "it cannot be read"


def _import_path() -> list[str]:
    """Where the reader finds what this process found, the current directory aside."""
    package_root = str(Path(__file__).resolve().parents[2])
    return [*(entry for entry in sys.path if entry), package_root]
