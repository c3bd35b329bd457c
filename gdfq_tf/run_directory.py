"""The directory a run leaves behind: models, students, images, figures."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gdfq_tf.config import BitWidths
from gdfq_tf.errors import UserError, option
from gdfq_tf.evaluation import ModelFile
from gdfq_tf.input_format import InputFormat
from gdfq_tf.manifest import MANIFEST
from gdfq_tf.preprocessing import Preprocessing
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.system import large_arrays
from gdfq_tf.system.output_directory import OutputDirectory, claim
from tflite_export.integer_network import IntegerNetwork
from tflite_export.student_file import NPZ_DAMAGE, save_network

SUMMARY = "summary.json"
SYNTHETIC_IMAGES = "synthetic.npz"
REPORT = "report.html"
# TensorBoard takes any file for one of events that has "tfevents" in its name.
EVENTS = "events.out.tfevents"
# Files that every run may have, besides those of its models.
_OF_RUNS = frozenset({SUMMARY, SYNTHETIC_IMAGES, MANIFEST, REPORT, EVENTS})

# Of summary.json, as gdfq_tf/report/files/summary.schema.json describes it. It grows
# when a key is gone or means something else; keys may be added to any version.
SCHEMA_VERSION = 1


def claim_run_directory(
    path: Path, *, overwrite: bool
) -> contextlib.AbstractContextManager[OutputDirectory]:
    """A claim on the directory of a run, see `output_directory.claim`.

    Raises, when entered:
      UserError: it exists and `overwrite` is off or it is no run's; another run has
        it; it could not be made.
    """
    return claim(path, overwrite=overwrite, foreign=_what_no_run_wrote)


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
        of_models = files_of_models(read_summary(path))
    except UserError:
        return f"its {SUMMARY} is no run's"
    foreign = sorted(found - of_models - _OF_RUNS)
    return f"it holds {foreign[0]}" if foreign else None


def student_file(tflite_file: str) -> str:
    """Name of the student beside a `.tflite` file of a run."""
    return f"{tflite_file.removesuffix('.tflite')}_student.npz"


def layers_file(tflite_file: str) -> str:
    """Name of the table of layers beside a `.tflite` file of a run."""
    return f"{tflite_file.removesuffix('.tflite')}_layers.csv"


def write_models(directory: Path, files: Sequence[ModelFile]) -> None:
    """Writes `.tflite` files into `directory`.

    Raises:
      UserError: one does not read back as it was verified.
    """
    for file in files:
        path = directory / file.file
        path.write_bytes(file.tflite)
        if path.read_bytes() != file.tflite:
            raise UserError(
                f"{file.file} reads back as other bytes than were written; check the "
                f"disk or pass another {option('output_dir')}"
            )


def write_student(
    directory: Path, name: str, bit_widths: BitWidths, network: IntegerNetwork
) -> None:
    """Writes the student of the classifier `name` with those widths."""
    file = student_file(f"{name}_{bit_widths.name}.tflite")
    save_network(network, directory / file)


def write_images(directory: Path, images: ImagePool) -> None:
    """Writes the images that students were made from, and estimates."""
    with (directory / SYNTHETIC_IMAGES).open("wb") as file:
        images.write(file)


def write_summary(
    directory: Path, summary: dict[str, Any], beside: Path | None = None
) -> None:
    """Writes summary.json, with the sha256 of all files beside it.

    Args:
      directory: where it is written.
      summary: all figures.
      beside: the directory of those files, if it is another one.
    """
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((beside or directory).iterdir())
        if path.name != SUMMARY
    }
    text = json.dumps({**summary, "sha256": digests}, indent=2) + "\n"
    (directory / SUMMARY).write_text(text)


def read_images(path: Path) -> ImagePool:
    """What `write_images` wrote, or any images in this form.

    Args:
      path: of an .npz file, perhaps a stranger's, or of a run's directory.

    Raises:
      UserError: it cannot be read, or does not hold uint8 pixels (N, H, W, C) and as
        many int32 labels.
    """
    path = path.expanduser()
    path = path / SYNTHETIC_IMAGES if path.is_dir() else path
    try:
        # NumPy leaves files open that it refuses.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            pixels, labels = arrays["pixels"], arrays["labels"]
    except NPZ_DAMAGE as error:
        raise UserError(
            f"{path} cannot be read: {' '.join(str(error).split()) or 'damaged'}; "
            f"expected an .npz file with pixels and labels, such as {SYNTHETIC_IMAGES}"
        ) from error
    if (
        pixels.dtype != np.uint8
        or pixels.ndim != 4
        or labels.dtype != np.int32
        or labels.shape != pixels.shape[:1]
        or not len(labels)
    ):
        raise UserError(
            f"{path} holds pixels {pixels.dtype} {pixels.shape} and labels "
            f"{labels.dtype} {labels.shape}; expected uint8 (N, H, W, C) and int32 (N,)"
        )
    return ImagePool(large_arrays.in_file(pixels), labels)


def read_summary(directory: Path) -> dict[str, Any]:
    """What `write_summary` wrote.

    Raises:
      UserError: there is none or it is damaged.
    """
    path = directory / SUMMARY
    try:
        summary = json.loads(path.read_text())
        _ = summary["classifier"]["head"], preprocessing_of(summary)
        _require_names(summary)
        return summary
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is missing or damaged; expected a directory that a run of "
            "`gdfq quantize` wrote"
        ) from error


def _require_names(summary: dict[str, Any]) -> None:
    """Raises ValueError unless all files lie in the directory of the summary."""
    names = [row["file"] for row in summary["models"]] + list(summary.get("sha256", {}))
    if any(name != Path(name).name for name in names):
        raise ValueError(f"{names} lead elsewhere")


def files_of_models(summary: dict[str, Any]) -> set[str]:
    """Names of the `.tflite` files of a run and of what may lie beside them."""
    files = {row["file"] for row in summary["models"]}
    beside = (student_file, layers_file)
    return files | {name_of(file) for file in files for name_of in beside}


def input_format_of(summary: dict[str, Any]) -> InputFormat:
    """How the models of a run take their examples."""
    facts = summary["classifier"]
    return InputFormat(
        tuple(facts["input_shape"]),
        tuple(facts["image_shape"]),
        preprocessing_of(summary),
    )


def preprocessing_of(summary: dict[str, Any]) -> Preprocessing:
    """The input contract that a summary holds."""
    fields = summary["classifier"]["preprocessing"]
    pairs = fields.get("input_range")
    return Preprocessing(
        fields["name"],
        tuple(fields["scale"]),
        tuple(fields["offset"]),
        fields["reverse_channels"],
        pairs and tuple((low, high) for low, high in pairs),
    )
