"""The directory a run leaves behind: models, students, images, summary.json."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gdfq_tf.config import DEFAULT_RECIPE
from gdfq_tf.errors import UserError
from gdfq_tf.pipeline import QuantizationResult
from gdfq_tf.preprocessing import Preprocessing
from tflite_export.integer_network import save_network

SUMMARY = "summary.json"
SYNTHETIC_IMAGES = "synthetic.npz"


def check_output_directory(path: Path, *, overwrite: bool) -> None:
    """Refuses, before any work is done, a directory that could not be written.

    Raises:
      UserError: it exists and `overwrite` is off or it is no run directory, or
        its parent cannot be written.
    """
    if path.exists():
        if not overwrite:
            raise UserError(
                f"output directory {path} exists; pass --overwrite to replace it or "
                "another --output_dir"
            )
        if foreign := _what_no_run_wrote(path):
            raise UserError(
                f"{path} is not a directory of an earlier run ({foreign}), so it is "
                "not overwritten; pass another --output_dir"
            )
    existing = _real(path).parent
    while not existing.exists():
        existing = existing.parent
    try:
        os.rmdir(tempfile.mkdtemp(prefix=f".{path.name}.", dir=existing))
    except OSError as error:
        raise UserError(
            f"output directory {path} cannot be made: {existing} is not a writable "
            f"directory ({error.strerror}); pass another --output_dir"
        ) from error


def _what_no_run_wrote(path: Path) -> str | None:
    """What in or about a path shows that no run wrote it."""
    if not path.is_dir():
        return "it is a file"
    found = {entry.name for entry in path.iterdir()}
    if not found:
        return None
    if SUMMARY not in found:
        return f"it has no {SUMMARY}"
    try:
        models = model_and_student_files(read_summary(path))
    except UserError:
        return f"its {SUMMARY} is no run's"
    foreign = sorted(found - models - {SUMMARY, SYNTHETIC_IMAGES})
    return f"it holds {foreign[0]}" if foreign else None


def student_file(tflite_file: str) -> str:
    """Name of the student beside a `.tflite` file of a run."""
    return f"{tflite_file.removesuffix('.tflite')}_student.npz"


def _real(path: Path) -> Path:
    """Where a path leads, links followed: a link itself cannot be replaced."""
    return Path(os.path.realpath(path))


@contextlib.contextmanager
def written_at_once(path: Path) -> Iterator[Path]:
    """A directory to fill, which takes the place of `path` when the block is done.

    If the block fails, `path` is as it was and nothing else is left.

    Raises:
      UserError: the file system refused.
    """
    path = _real(path)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        if path.exists():
            replaced = path.with_name(f".{path.name}.replaced-{os.getpid()}")
            path.rename(replaced)
            try:
                partial.rename(path)
            except BaseException:
                replaced.rename(path)
                raise
            shutil.rmtree(replaced)
        else:
            partial.rename(path)
    except OSError as error:
        raise UserError(
            f"output directory {path} cannot be written: {error.strerror or error}; "
            "check the disk and the permissions"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """One `.tflite` file of a run.

    Attributes:
      title: for tables.
      file: its name in the run directory.
      tflite: its bytes.
    """

    title: str
    file: str
    tflite: bytes

    @property
    def sha256(self) -> str:
        """Of the bytes, in hexadecimal digits."""
        return hashlib.sha256(self.tflite).hexdigest()


def model_files(name: str, recipe: str, result: QuantizationResult) -> list[ModelFile]:
    """The run's `.tflite` files: float, noise-calibrated, then one per width."""
    label = "GDFQ" if recipe == DEFAULT_RECIPE else f"{recipe} recipe"
    return [
        ModelFile("float", f"{name}_float.tflite", result.baselines.float32),
        ModelFile(
            "int8 PTQ on noise",
            f"{name}_int8_noise.tflite",
            result.baselines.noise_ptq,
        ),
        *(
            ModelFile(
                f"{label} {model.widths.name}",
                f"{name}_{model.widths.name}.tflite",
                model.tflite,
            )
            for model in result.models
        ),
    ]


def write_run(
    directory: Path, name: str, files: list[ModelFile], result: QuantizationResult
) -> None:
    """Writes models, students and images (not the summary) into `directory`."""
    for file in files:
        (directory / file.file).write_bytes(file.tflite)
    for model in result.models:
        student = student_file(f"{name}_{model.widths.name}.tflite")
        save_network(model.network, directory / student)
    np.savez_compressed(
        directory / SYNTHETIC_IMAGES,
        pixels=result.images.pixels,
        labels=result.images.labels,
    )


def write_summary(directory: Path, summary: dict) -> None:
    """Writes summary.json."""
    text = json.dumps(summary, indent=2) + "\n"
    (directory / SUMMARY).write_text(text)


def read_summary(directory: Path) -> dict:
    """What `write_summary` wrote.

    Raises:
      UserError: there is none or it is damaged.
    """
    path = directory / SUMMARY
    try:
        summary = json.loads(path.read_text())
        _ = summary["classifier"]["head"], preprocessing_of(summary)
        _ = [row["file"] for row in summary["models"]]
        return summary
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is missing or damaged; expected a directory that "
            "tools/quantize.py wrote"
        ) from error


def model_and_student_files(summary: dict) -> set[str]:
    """Names of the `.tflite` files of a run and of the students beside them, if any."""
    files = {row["file"] for row in summary["models"]}
    return files | {student_file(file) for file in files}


def preprocessing_of(summary: dict) -> Preprocessing:
    """The input contract that a summary holds."""
    fields = summary["classifier"]["preprocessing"]
    return Preprocessing(
        fields["name"],
        tuple(fields["scale"]),
        tuple(fields["offset"]),
        fields["reverse_channels"],
    )
