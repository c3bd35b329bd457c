"""The arrays of a model file -> the weights of the network built for them.

Which array is which weight is Keras' own knowledge, of several layouts: it loads them
from a copy that is written here and holds those arrays and lists of names alone.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from gdfq_tf.errors import UserError, option
from gdfq_tf.keras_compat import KerasModel, Layer
from gdfq_tf.model_files.failures import one_line
from gdfq_tf.model_files.file_cell import ModelFile, inspect_file, read_arrays


def inspect_weights(weights: str | os.PathLike[str]) -> ModelFile:
    """What a file of weights holds. Raises UserError if it cannot be read."""
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UserError(
            f"{option('weights', weights)} is no file; expected the path of a weights "
            "file (.weights.h5 or .h5), or 'imagenet' for keras.applications"
        )
    try:
        return inspect_file(path, "hdf5")
    except UserError as error:
        raise UserError(f"{option('weights')}: {error.render(option)}") from error


def num_floats_of(layer: Layer) -> int:
    """How many real numbers a layer or model has for weights, counters left out."""
    return sum(np.size(w) for w in layer.get_weights() if w.dtype.kind == "f")


def load_weights(model: KerasModel, file: ModelFile, complaint: str) -> None:
    """Loads a file's weights into a network that is built like the one they are of.

    Args:
      model: of Keras 3 or tf_keras.
      file: inspected, not yet read.
      complaint: how a message begins if they do not fit.

    Raises:
      UserError: they do not fit, or cannot be read.
    """
    expected = num_floats_of(model)
    # SavedModels hold some numbers twice; `_assign` finds each by its name.
    if file.format != "saved_model" and file.num_floats != expected:
        raise UserError(
            f"{complaint}: it holds {file.num_floats:,} numbers, expected "
            f"{expected:,}; pass weights that were saved from this very network"
        )
    arrays = read_arrays(file)
    try:
        if file.format == "saved_model":
            _assign(model, arrays)
        else:
            _load_copy(model, file, arrays)
    except Exception as error:  # Keras raises every type
        raise UserError(f"{complaint}: {one_line(error)}") from error


def _load_copy(
    model: KerasModel, file: ModelFile, arrays: Mapping[str, np.ndarray]
) -> None:
    """Lets Keras load a clean copy of an HDF5 file's weights."""
    # Lists of layers are of the older layout, which Keras tells by the suffix.
    is_old = any(
        key.startswith("layer_names") for notes in file.groups.values() for key in notes
    )
    suffix = ".h5" if is_old else ".weights.h5"
    with tempfile.TemporaryDirectory(prefix="gdfq-weights-") as folder:
        path = Path(folder, f"model{suffix}")
        with h5py.File(path, "w") as copy:
            for group, notes in file.groups.items():
                target = copy.require_group(group) if group else copy
                for attribute, text in notes.items():
                    target.attrs.create(attribute, text, dtype=h5py.string_dtype())
            for name, array in arrays.items():
                copy.create_dataset(name, data=array)
        model.load_weights(path)


def _assign(
    model: KerasModel, arrays: Mapping[str, np.ndarray], prefix: str = ""
) -> None:
    """Assigns arrays that are named as in Keras 2's checkpoints."""
    with_weights = [layer for layer in model.layers if layer.weights]
    for index, layer in enumerate(with_weights):
        path = f"{prefix}layer_with_weights-{index}/"
        if hasattr(layer, "layers"):
            _assign(layer, arrays, path)
            continue
        attributes = {id(value): name for name, value in vars(layer).items()}
        layer.set_weights([arrays[path + attributes[id(w)]] for w in layer.weights])
        layer.finalize_state()
