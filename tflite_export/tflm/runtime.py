"""TensorFlow Lite for Microcontrollers itself, where its Python package is installed.

The package has the reference kernels, compiled for this machine. It is optional: the
extra `tflm` brings it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import re
from typing import Any

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.flatbuffer import Tensor, read_model
from tflite_export.interface import END_TYPES
from tflite_export.names import printable
from tflite_export.quiet import captured_stderr

_MODULE, _DISTRIBUTION = "tflite_micro", "tflite-micro"
INSTALL = "pip install 'gdfq-tf[tflm]'"
_ARENA_SIZE, _LARGEST_ARENA_SIZE = 2**21, 2**31
_ARENA_TOTAL = re.compile(r"Arena allocation total (\d+) bytes")
_TOO_SMALL = re.compile(
    r"arena size is too small|Failed to (resize|allocate)|Requested: \d+", re.IGNORECASE
)


def is_installed() -> bool:
    """Whether the package is there."""
    return importlib.util.find_spec(_MODULE) is not None


def version() -> str:
    """That of the package, where it is installed."""
    return importlib.metadata.version(_DISTRIBUTION)


class TFLMClassifier:
    """A `.tflite` classifier of batch 1, run by TFLM image by image.

    Attributes:
      arena_bytes: what its tensors and the runtime's own records take of the arena on
        this machine, whose pointers are twice as long as a microcontroller's.
    """

    def __init__(self, tflite: bytes) -> None:
        """Loads a classifier and runs it once.

        Raises:
          ExportError: TFLM is not installed, or refuses the file.
        """
        if not is_installed():
            raise ExportError(
                f"TensorFlow Lite for Microcontrollers is not installed: {INSTALL}"
            )
        model = read_model(tflite)
        self._input: Tensor = model.tensors[model.inputs[0]]
        self._output: Tensor = model.tensors[model.outputs[0]]
        self._interpreter = _loaded(tflite)
        self.run(np.zeros((1, *self._input.shape[1:]), np.int8))
        with captured_stderr() as notes:
            self._interpreter.print_allocations()
        total = _ARENA_TOTAL.search(notes.text)
        if total is None:
            raise ExportError(
                f"TFLM {version()} does not tell the size of its arena; expected "
                "'Arena allocation total': install another version"
            )
        self.arena_bytes = int(total[1])

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """int8 outputs (N, classes) of int8 inputs (N, ...), whatever the ends' types.

        A uint8 end has 128 more.

        Raises:
          ExportError: TFLM gives up.
        """
        taken, given = self._input.dtype.lower(), self._output.dtype.lower()
        outputs = np.empty((len(inputs), self._output.shape[-1]), given)
        inputs = (np.asarray(inputs, np.int16) + END_TYPES[taken]).astype(taken)
        with captured_stderr() as notes:
            for image, output in zip(inputs, outputs, strict=True):
                self._interpreter.set_input(image[np.newaxis], 0)
                try:
                    self._interpreter.invoke()
                except RuntimeError as error:
                    raise _refusal(notes.text) from error
                output[:] = self._interpreter.get_output(0)[0]
        return (outputs.astype(np.int16) - END_TYPES[given]).astype(np.int8)


def _loaded(tflite: bytes) -> Any:  # noqa: ANN401 - of a package that is optional
    from tflite_micro import runtime

    size = _ARENA_SIZE
    while True:
        with captured_stderr() as notes, contextlib.redirect_stdout(io.StringIO()):
            try:
                return runtime.Interpreter.from_bytes(tflite, arena_size=size)
            except RuntimeError as error:
                if size < _LARGEST_ARENA_SIZE and _TOO_SMALL.search(notes.text):
                    size *= 4
                    continue
                raise _refusal(notes.text) from error


def _refusal(notes: str) -> ExportError:
    reason = printable(" ".join(notes.split())) or "no reason is given"
    return ExportError(
        f"TensorFlow Lite for Microcontrollers refuses the file ({reason}); convert it "
        "for that target"
    )
