"""Which of the two generations of Keras a file is for."""

from __future__ import annotations

from pathlib import Path

from gdfq_tf.errors import UserError
from gdfq_tf.keras_compat import KerasLibrary, import_keras_3, keras
from gdfq_tf.model_files.file_cell import ModelFile
from tflite_export.names import listed


def library_of_version(version: str, path: Path) -> KerasLibrary:
    """The Keras that opens files of this Keras version.

    Raises:
      UserError: neither does, or Keras 3 cannot be had.
    """
    major = version.split(".")[0]
    if major in ("1", "2"):
        return keras
    if major != "3":
        raise UserError(
            f"{path} was written by Keras {listed([version])}; expected Keras 2 or 3: "
            "save it again with one of those"
        )
    return import_keras_3()


def library_of_weights(file: ModelFile) -> KerasLibrary:
    """The Keras that wrote a weights file."""
    # Without a version both write one layout, and only Keras 3 notes names in it.
    version = file.keras_version or ("3" if file.notes_names else "2")
    return library_of_version(version, file.path)
