"""Runs a `.tflite` classifier with LiteRT."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tflite_export.errors import ExportError
from tflite_export.interface import END_TYPES
from tflite_export.names import printable
from tflite_export.quantization_params import QuantParams
from tflite_export.quiet import quiet_stderr

_LARGEST_FILE = 2**31 - 1  # what offsets in it can reach


def read_tflite(tflite: bytes | Path) -> bytes:
    """The bytes of a `.tflite` file given by path, or the bytes themselves.

    Raises:
      ExportError: the path cannot be read, or is larger than any `.tflite` file.
    """
    if isinstance(tflite, bytes):
        return tflite
    try:
        size = Path(tflite).stat().st_size
        if size > _LARGEST_FILE:
            raise ExportError(
                f"{str(tflite)!r} has {size:,} bytes; expected a .tflite file, which "
                f"cannot have more than {_LARGEST_FILE:,}"
            )
        return Path(tflite).read_bytes()
    except OSError as error:
        raise ExportError(
            f"cannot read {str(tflite)!r} ({error.strerror}); pass the path of a "
            ".tflite file"
        ) from error


def load_interpreter(tflite: bytes, num_threads: int = 1) -> Interpreter:
    """A LiteRT interpreter with its tensors allocated, ready to invoke.

    Raises:
      ExportError: LiteRT refuses the file, or `num_threads` < 1.
    """
    if num_threads < 1:
        raise ExportError(f"num_threads is {num_threads}; expected 1 or more")
    with litert_refusals(len(tflite)), quiet_stderr():
        interpreter = Interpreter(model_content=tflite, num_threads=num_threads)
        interpreter.allocate_tensors()
    return interpreter


@contextlib.contextmanager
def litert_refusals(num_bytes: int) -> Iterator[None]:
    """Makes what LiteRT raises about a file of `num_bytes` one line.

    Of damaged files, it finds some faults only when the model runs.

    Raises:
      ExportError: LiteRT raised something.
    """
    try:
        yield
    except ExportError:
        raise
    except (ValueError, RuntimeError, MemoryError) as error:
        reason = printable(" ".join(str(error).split()))
        raise ExportError(
            f"LiteRT refuses the {num_bytes} bytes ({reason}); expected a complete "
            ".tflite file with operators it has: convert it again"
        ) from error


class TFLiteClassifier:
    """A `.tflite` classifier of batch 1, run image by image.

    The tensors are allocated once. Not safe to share between threads.
    """

    def __init__(self, tflite: bytes | Path, num_threads: int = 1) -> None:
        """Loads a classifier.

        Args:
          tflite: the file's bytes or path; int8, uint8, int16 or float32 in and out.
          num_threads: threads of one invocation.

        Raises:
          ExportError: unreadable or refused file; not one input and one output of
            batch 1; the output is not (1, classes); types other than above.
        """
        tflite = read_tflite(tflite)
        self._num_bytes = len(tflite)
        self._interpreter = load_interpreter(tflite, num_threads)
        with litert_refusals(self._num_bytes):  # names may be no text
            self._input = _only(self._interpreter.get_input_details(), "input")
            self._output = _only(self._interpreter.get_output_details(), "output")
        if len(self._output["shape"]) != 2:
            raise ExportError(
                f"the model's output has shape {_shape(self._output)}; expected "
                "(1, classes): a classifier's logits"
            )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input with its batch of 1, such as (1, H, W, C)."""
        return _shape(self._input)

    @property
    def num_classes(self) -> int:
        """Number of outputs per image."""
        return _shape(self._output)[1]

    @property
    def dtype(self) -> np.dtype:
        """Type of the raw input: int8, uint8, int16 or float32."""
        return np.dtype(self._input["dtype"])

    @property
    def input_quantization(self) -> QuantParams:
        """Parameters of the input. Raises ExportError if it is float."""
        return _quantization(self._input, "input")

    @property
    def output_quantization(self) -> QuantParams:
        """Parameters of the output. Raises ExportError if it is float."""
        return _quantization(self._output, "output")

    def quantize_input(self, real: np.ndarray) -> np.ndarray:
        """Raw inputs of real ones, any shape: round to nearest even, saturate.

        Raises:
          ExportError: the model's input is float.
        """
        quant_params = self.input_quantization
        steps = np.rint(np.asarray(real, np.float32) / np.float32(quant_params.scale))
        limits = np.iinfo(self.dtype)
        quantized = np.clip(steps + quant_params.zero_point, limits.min, limits.max)
        return quantized.astype(self.dtype)

    def dequantize_output(self, quantized: np.ndarray) -> np.ndarray:
        """Real outputs, float32, of raw ones, any shape.

        Raises:
          ExportError: the model's output is float.
        """
        quant_params = self.output_quantization
        steps = np.asarray(quantized, np.int32) - quant_params.zero_point
        return np.float32(quant_params.scale) * steps.astype(np.float32)

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """Raw outputs of raw inputs.

        Args:
          inputs: (N, ...) of the model's own input type, `dtype`.

        Returns:
          (N, classes) of the model's own output type.

        Raises:
          ExportError: another type or shape; LiteRT gives up.
        """
        inputs = np.asarray(inputs)
        if inputs.dtype != self.dtype or inputs.shape[1:] != self.input_shape[1:]:
            raise ExportError(
                f"inputs are {inputs.dtype} of shape {inputs.shape}; expected "
                f"{self.dtype} of shape (N, {str(self.input_shape[1:])[1:-1]}), as "
                "`quantize_input` gives for an integer model"
            )
        outputs = np.empty((len(inputs), self.num_classes), self._output["dtype"])
        with litert_refusals(self._num_bytes):
            for image, output in zip(inputs, outputs, strict=True):
                self._interpreter.set_tensor(self._input["index"], image[np.newaxis])
                self._interpreter.invoke()
                output[:] = self._interpreter.get_tensor(self._output["index"])[0]
        return outputs

    def run_own(self, levels: np.ndarray) -> np.ndarray:
        """Outputs of inputs, both as the student's own whatever the ends' types.

        Args:
          levels: int8 or int16 (N, ...); a uint8 input is fed with 128 more.

        Returns:
          (N, classes) of the type of `levels`; those of a uint8 output less 128.

        Raises:
          ExportError: another shape; the model's input or output is float.
        """
        before, after = (
            END_TYPES.get(np.dtype(end["dtype"]).name)
            for end in (self._input, self._output)
        )
        if before is None or after is None:
            raise ExportError(
                f"the model takes {self.dtype} and gives "
                f"{np.dtype(self._output['dtype'])}; expected {' or '.join(END_TYPES)}"
            )
        levels = np.asarray(levels)
        inputs = (levels.astype(np.int16) + before).astype(self.dtype)
        outputs = self.run(inputs).astype(np.int16)
        return (outputs - after).astype(levels.dtype)

    def logits(self, real: np.ndarray) -> np.ndarray:
        """Real outputs (N, classes), float32, of real inputs (N, ...).

        Integer models quantize the inputs first and dequantize their outputs last.

        Raises:
          ExportError: another shape.
        """
        if self.dtype == np.float32:
            return self.run(np.asarray(real, np.float32))
        return self.dequantize_output(self.run(self.quantize_input(real)))


def _only(details: list[dict], what: str) -> dict:
    if len(details) != 1:
        raise ExportError(f"the model has {len(details)} {what}s; expected 1")
    (detail,) = details
    dtype = np.dtype(detail["dtype"])
    if dtype.name not in (*END_TYPES, "float32"):
        raise ExportError(
            f"the model's {what} is {dtype}; expected {', '.join(END_TYPES)} or "
            "float32: set the converter's inference_input_type and "
            "inference_output_type"
        )
    if _shape(detail)[:1] != (1,):
        raise ExportError(
            f"the model's {what} has shape {_shape(detail)}; expected a batch of 1 "
            "first: convert it with batch size 1"
        )
    return detail


def _shape(detail: dict) -> tuple[int, ...]:
    return tuple(int(size) for size in detail["shape"])


def _quantization(detail: dict, what: str) -> QuantParams:
    if detail["dtype"] == np.float32:
        raise ExportError(
            f"the model's {what} is {np.dtype(detail['dtype'])}, which has no "
            "quantization; expected int8 or uint8: use `logits` or `run`, or export an "
            "integer model"
        )
    scale, zero_point = detail["quantization"]
    return QuantParams(float(scale), int(zero_point))
