"""Proves that a `.tflite` file is fully integer and computes what was trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.flatbuffer import read_model
from tflite_export.rules import CHECKS, Expectation, Finding


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Student and `.tflite` outputs, compared in steps of the output scale (LSB).

    Attributes:
      num_images: images compared.
      max_lsb: largest difference of any output.
      exact_outputs: share of outputs without difference, 0..1.
      exact_images: share of images with all outputs without difference, 0..1.
    """

    num_images: int
    max_lsb: int
    exact_outputs: float
    exact_images: float


def verify_structure(tflite: bytes, expectation: Expectation) -> tuple[Finding, ...]:
    """One finding per rule of `CHECKS`, in their order.

    Raises:
      ExportError: not a `.tflite` file, or damaged.
    """
    model = read_model(tflite)
    return tuple(check(model, expectation) for check in CHECKS)


def compare_outputs(student: np.ndarray, tflite: np.ndarray) -> Agreement:
    """Compares outputs (N, classes), both in steps of the output scale.

    Args:
      student: output / scale + zero_point; rounded to the nearest integer here,
        which takes off float noise.
      tflite: raw int8 outputs.

    Raises:
      ExportError: different or empty shapes, or values that are not finite.
    """
    student, tflite = np.asarray(student), np.asarray(tflite)
    if student.shape != tflite.shape or student.ndim != 2 or student.size == 0:
        raise ExportError(
            f"outputs have shapes {student.shape} and {tflite.shape}; expected the "
            "same (N, classes), not empty, of student and .tflite"
        )
    if tflite.dtype.kind != "i":
        raise ExportError(
            f".tflite outputs are {tflite.dtype}; expected raw int8, as "
            "`TFLiteClassifier.run` gives"
        )
    if not np.isfinite(student).all():
        raise ExportError("student outputs hold NaN or infinity; expected finite ones")
    lsb = np.abs(np.rint(student).astype(np.int64) - tflite)
    return Agreement(
        num_images=len(lsb),
        max_lsb=int(lsb.max()),
        exact_outputs=float((lsb == 0).mean()),
        exact_images=float((lsb == 0).all(axis=1).mean()),
    )


def require(
    findings: Iterable[Finding],
    agreement: Agreement | None = None,
    *,
    max_lsb: int = 1,
) -> None:
    """Raises unless all rules hold and the outputs agree.

    Args:
      findings: of `verify_structure`.
      agreement: of `compare_outputs`; None if outputs were not compared.
      max_lsb: largest difference allowed.

    Raises:
      ExportError: one line with every failed rule and what was found.
    """
    failed = [f"{f.rule}: found {f.detail}" for f in findings if not f.passed]
    if agreement is not None and agreement.max_lsb > max_lsb:
        failed.append(
            f"outputs within {max_lsb} LSB of the student's: found "
            f"{agreement.max_lsb} LSB over {agreement.num_images} images, "
            f"{agreement.exact_outputs:.2%} of outputs exact"
        )
    if failed:
        rules = "1 rule" if len(failed) == 1 else f"{len(failed)} rules"
        raise ExportError(f"the .tflite file breaks {rules}: {'; '.join(failed)}")
