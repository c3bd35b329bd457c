"""Readers of Keras models: files and `keras.applications` names.

The only place that reads model files and the only one that imports Keras 3. A
file is opened by the generation of Keras that wrote it, in two steps that are the
same for all formats: build the model from its checked JSON, load its weights.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from gdfq_tf.errors import UserError
from gdfq_tf.hdf5_probe import is_readable
from gdfq_tf.keras_compat import keras as tf_keras
from gdfq_tf.keras_compat import saved_metadata_pb2
from gdfq_tf.model_config import CheckLayer, inference_config

APPLICATION_PREFIX = "keras.applications."

# Which preprocessing keras.applications trained with, by name; first match wins.
# Families missing here bring their own scaling layers and take raw pixels.
_APPLICATION_PREPROCESSING = (
    (r"MobileNet|MobileNetV2|Inception.*|Xception|NASNet.*|ResNet\d+V2", "tf"),
    (r"DenseNet.*", "torch"),
    (r"VGG.*|ResNet\d+", "caffe"),
)

_DOWNLOAD_TIMEOUT_SECONDS = 15.0


@dataclasses.dataclass(frozen=True)
class SourceModel:
    """A model as its author built it.

    Attributes:
      name: file stem or lower-case application name, safe for file names.
      model: `keras.Model` of Keras 3 or of tf_keras.
      preprocessing: name of the preprocessing it was trained with, if known.
    """

    name: str
    model: Any
    preprocessing: str | None = None


def read_model(
    model: str, *, weights: str | None = None, check_layer: CheckLayer
) -> SourceModel:
    """The model of a file or of a `keras.applications` name.

    Args:
      model: path of a .keras, .h5 or .hdf5 file or of a SavedModel that Keras 2
        wrote, or `keras.applications.NAME`.
      weights: for applications only: "imagenet" or the path of a weights file.
      check_layer: called with the name and class name of every layer a file
        holds, before any is built; raises UserError for unwanted ones.

    Raises:
      UserError: missing, damaged, unsupported or unsafe file; unknown
        application; weights missing, surplus or impossible to load.
    """
    if model.startswith(APPLICATION_PREFIX):
        name = model.removeprefix(APPLICATION_PREFIX)
        return SourceModel(
            name.lower(), _read_application(name, weights), _preprocessing_of(name)
        )
    if weights is not None:
        raise UserError(
            f"--weights={weights} was given with the model file {model}; it belongs "
            f"to --model={APPLICATION_PREFIX}NAME only: drop it"
        )
    path = Path(model)
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem).strip("._-")
    return SourceModel(name or "classifier", read_file(path, check_layer=check_layer))


def read_file(path: Path, *, check_layer: CheckLayer) -> Any:
    """The uncompiled model of a file or SavedModel; see `read_model`."""
    if not path.exists():
        raise UserError(
            f"model file {path} does not exist; expected a .keras, .h5 or .hdf5 file "
            f"or {APPLICATION_PREFIX}NAME"
        )
    readers = {".keras": _read_zip_config, ".h5": _read_h5_config}
    readers[".hdf5"] = _read_h5_config
    if path.is_dir():
        version, config = _read_saved_model_config(path)
    elif path.suffix.lower() in readers:
        version, config = readers[path.suffix.lower()](path)
    else:
        raise UserError(
            f"{path} ends in {path.suffix!r}; expected a .keras, .h5 or .hdf5 file: "
            "save the model with model.save('classifier.keras')"
        )
    with _one_line(f"{path} is damaged, save the model again"):
        config = inference_config(config, str(path), check_layer)
    library = _library(version, path)
    with _one_line(
        f"{path}, written by Keras {version}, cannot be loaded by the installed "
        f"{library.__name__} {library.__version__}"
    ):
        is_sequential = config["class_name"] == "Sequential"
        model_class = library.Sequential if is_sequential else library.Model
        model = model_class.from_config(config["config"])
        if path.is_dir():
            status = model.load_weights(path / "variables" / "variables")
            status.assert_existing_objects_matched()
        else:
            model.load_weights(path)
        return model


def _read_zip_config(path: Path) -> tuple[str, dict]:
    message = f"{path} is damaged or not a .keras file, save the model again"
    with _one_line(message), zipfile.ZipFile(path) as archive:
        version = json.loads(archive.read("metadata.json"))["keras_version"]
        return version, json.loads(archive.read("config.json"))


def _read_h5_config(path: Path) -> tuple[str, dict]:
    message = f"{path} is damaged or not an HDF5 file, save the model again"
    if not is_readable(path):
        raise UserError(message)
    with _one_line(message), h5py.File(path, "r") as file:
        # Files from before Keras 2 kept no version; tf_keras still tries them.
        version = _text(file.attrs.get("keras_version", "1"))
        config = json.loads(_text(file.attrs.get("model_config", "null")))
    if config is None:
        raise UserError(
            f"{path} holds weights only; expected a whole model: build the model, "
            "call model.load_weights and save it with model.save('classifier.keras')"
        )
    return version, config


def _read_saved_model_config(path: Path) -> tuple[str, dict]:
    """What Keras 2 keeps beside the graph, whose functions are never called."""
    metadata = path / "keras_metadata.pb"
    if not metadata.is_file():
        raise UserError(
            f"{path} is a directory without a keras_metadata.pb; expected one .keras, "
            ".h5 or .hdf5 file: load it where it was made and save it with "
            "model.save('classifier.keras')"
        )
    with _one_line(f"{path} is damaged, save the model again"):
        nodes = saved_metadata_pb2.SavedMetadata.FromString(metadata.read_bytes()).nodes
        root = next(node for node in nodes if node.node_path == "root")
        return "2", json.loads(root.metadata, object_hook=_without_tuples)


def _without_tuples(value: dict) -> Any:
    """A JSON object, or the list that stands for a tuple."""
    return value["items"] if value.get("class_name") == "__tuple__" else value


def _text(attribute: str | bytes) -> str:
    """Old versions of h5py wrote bytes."""
    return attribute.decode() if isinstance(attribute, bytes) else attribute


def _library(version: str, path: Path) -> Any:
    """The Keras that opens files of this Keras version."""
    major = version.split(".")[0]
    if major in ("1", "2"):
        return tf_keras
    if major != "3":
        raise UserError(
            f"{path} was written by Keras {version}; expected Keras 2 or 3: save it "
            "again with one of those"
        )
    with _one_line("Keras 3 cannot be imported, is KERAS_BACKEND=tensorflow set?"):
        import keras  # here, because most runs never need it

        return keras


def _read_application(name: str, weights: str | None) -> Any:
    build = getattr(tf_keras.applications, name, None)
    if not name[:1].isupper() or build is None:
        raise UserError(
            f"{APPLICATION_PREFIX}{name} is unknown; expected a model of tf_keras."
            "applications, for example MobileNetV2, ResNet50, InceptionV3 or Xception"
        )
    if weights is None:
        raise UserError(
            f"{APPLICATION_PREFIX}{name} without --weights has random weights and "
            "nothing to preserve; pass --weights=imagenet or --weights=FILE.h5"
        )
    if weights == "imagenet":
        message = f"the ImageNet weights of {name} cannot be downloaded, pass "
        message += "--weights=FILE.h5 with a copy of them"
        with _one_line(message), _download_timeout():
            return build(weights="imagenet")
    if not Path(weights).is_file():
        raise UserError(
            f"--weights={weights} is no file; expected 'imagenet' or the path of a "
            f"weights file (.h5) of {name}"
        )
    model = build(weights=None)
    with _one_line(f"--weights={weights} does not fit {APPLICATION_PREFIX}{name}"):
        model.load_weights(weights)
    return model


def _preprocessing_of(application: str) -> str:
    for pattern, preprocessing in _APPLICATION_PREPROCESSING:
        if re.fullmatch(pattern, application):
            return preprocessing
    return "uint8"


@contextlib.contextmanager
def _download_timeout() -> Iterator[None]:
    """Keras downloads without a timeout of its own."""
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)


@contextlib.contextmanager
def _one_line(message: str) -> Iterator[None]:
    """Turns any failure into one UserError line.

    Damaged or foreign files and failed downloads make zipfile, h5py and Keras
    raise almost every exception type, so this catches all of them; the original
    stays attached as the cause.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # Keras nests messages and ends with the innermost.
        inner = [line for line in lines if line.startswith("Exception encountered")]
        raise UserError(f"{message}: {(inner[-1:] or lines)[0][:300]}") from error
