"""Readers of Keras models: files and `keras.applications` names.

The only place that imports Keras 3. A file is opened in a process of its own, its JSON
is held against the positive list, and the network is built in the generation of Keras
that wrote it by constructors and calls; then it gets the file's arrays for weights.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import json
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gdfq_tf.errors import UserError
from gdfq_tf.keras_compat import keras as tf_keras
from gdfq_tf.model_files.file_cell import ModelFile, inspect_file, one_line
from gdfq_tf.model_files.model_builder import ParameterBudget, build_model
from gdfq_tf.model_files.model_spec import (
    CheckLayer,
    LayerSpec,
    bytecode,
    read_model_spec,
)
from gdfq_tf.model_files.model_weights import load_weights, num_floats_of
from gdfq_tf.model_files.stored_functions import is_of_this_python, missing_names
from tflite_export.names import listed, shown

APPLICATION_PREFIX = "keras.applications."

# Which preprocessing keras.applications trained with, by name; first match wins.
# Families missing here bring their own scaling layers and take raw pixels.
_APPLICATION_PREPROCESSING = (
    (r"MobileNet|MobileNetV2|Inception.*|Xception|NASNet.*|ResNet\d+V2", "tf"),
    (r"DenseNet.*", "torch"),
    (r"VGG.*|ResNet\d+", "caffe"),
)

# Suffix of a file -> what its reader takes it for.
_FORMATS = {".keras": "zip", ".h5": "hdf5", ".hdf5": "hdf5", ".json": "json"}

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
    model: str,
    *,
    weights: str | None = None,
    input_size: int | None = None,
    output_name: str | None = None,
    allow_unsafe: bool = False,
    check_layer: CheckLayer,
) -> SourceModel:
    """The model of a file or of a `keras.applications` name.

    Args:
      model: path of a .keras, .h5, .hdf5 or .json file or of a SavedModel that
        Keras 2 wrote, or `keras.applications.NAME`.
      weights: for a .json file: the path of a weights file; for applications that or
        "imagenet".
      input_size: for applications only: height and width of the images, None: the
        application's own. The number of classes is told by the weights file.
      output_name: of a model file with several outputs: the one to keep, by its name
        or that of the layer it comes from.
      allow_unsafe: takes Lambda layers and runs the code that the file holds for
        them; it may do whatever this process may. Other code stays refused.
      check_layer: called with the name and class name of every layer a file
        holds, before any is built; raises UserError for unwanted ones.

    Raises:
      UserError: missing, damaged, unsupported or unsafe file; unknown
        application or output; weights missing, surplus or impossible to load.
    """
    source = _read_source(model, weights, input_size, allow_unsafe, check_layer)
    if output_name is None:
        return source
    chosen = _with_one_output(source.model, output_name)
    return dataclasses.replace(source, model=chosen)


def _read_source(
    model: str,
    weights: str | None,
    input_size: int | None,
    allow_unsafe: bool,
    check_layer: CheckLayer,
) -> SourceModel:
    if model.startswith(APPLICATION_PREFIX):
        name = model.removeprefix(APPLICATION_PREFIX)
        return SourceModel(
            name.lower(),
            _read_application(name, weights, input_size),
            _preprocessing_of(name),
        )
    if input_size is not None:
        raise UserError(
            f"--input_size={input_size} was given with the model file {model}, which "
            f"tells its own; it belongs to --model={APPLICATION_PREFIX}NAME: drop it"
        )
    path = Path(model)
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", path.stem).strip("._-")
    source = read_file(
        path, weights=weights, allow_unsafe=allow_unsafe, check_layer=check_layer
    )
    return SourceModel(name or "classifier", source)


def _with_one_output(model: Any, output_name: str) -> Any:
    layer_names = [tensor._keras_history[0].name for tensor in model.outputs]
    # A Sequential model of Keras 3 has no names for its one output.
    names = list(getattr(model, "output_names", layer_names))
    pairs = zip(names, layer_names, strict=True)
    found = [index for index, pair in enumerate(pairs) if output_name in pair]
    if len(found) != 1:
        raise UserError(
            f"--output_name={output_name} names {len(found)} outputs of the model; "
            f"expected one of {listed(names)}"
        )
    if len(names) == 1:
        return model
    inputs = model.inputs if len(model.inputs) > 1 else model.inputs[0]
    return type(model)(inputs, model.outputs[found[0]])


def read_file(
    path: Path,
    *,
    weights: str | None = None,
    allow_unsafe: bool = False,
    check_layer: CheckLayer,
) -> Any:
    """The uncompiled model of a file or SavedModel; see `read_model`."""
    if not path.exists():
        raise UserError(
            f"model file {path} does not exist; expected a .keras, .h5, .hdf5 or "
            f".json file, a SavedModel or {APPLICATION_PREFIX}NAME"
        )
    file_format = _format_of(path)
    if weights is not None and file_format != "json":
        raise UserError(
            f"--weights={weights} was given with the model file {path}, which holds "
            f"its own; it belongs to --model={APPLICATION_PREFIX}NAME or a .json file: "
            "drop it"
        )
    if weights is None and file_format == "json":
        raise UserError(
            f"{path} without --weights has no weights; pass --weights=FILE.weights.h5"
        )
    stored = None if weights is None else inspect_weights(weights)
    file = inspect_file(path, file_format)
    if file.config is None:
        raise UserError(
            f"{path} holds weights only; expected a whole model: build the model, "
            "call model.load_weights and save it with model.save('classifier.keras')"
        )
    with _one_line(f"{path} is damaged or no model's JSON, save the model again"):
        config = json.loads(file.config, object_hook=_without_tuples)
        spec = read_model_spec(
            config, str(path), check_layer, allow_unsafe=allow_unsafe
        )
    # Without a version: HDF5 files from before Keras 2, and the JSON of Keras 3.
    version = file.keras_version or config.get("keras_version")
    version = str(version or ("3" if file_format == "json" else "1"))
    library = _library(version, path)
    for layer in spec.all_layers():
        if layer.class_name == "Lambda":
            _check_code(layer, library, path)
    source = file if stored is None else stored
    with _one_line(
        f"{path}, written by Keras {listed([version])}, cannot be loaded by the "
        f"installed {library.__name__} {library.__version__}"
    ):
        model = build_model(
            spec,
            library,
            ParameterBudget(source.num_floats),
            functools.partial(_make_lambda, library),
        )
    has_lambdas = any(x.class_name == "Lambda" for x in spec.all_layers())
    if has_lambdas and not getattr(model, "inputs", None):
        # Keras 3 leaves a Sequential model unfinished where a layer fails.
        raise UserError(
            f"{path} has Lambda layers and no fixed graph: their code fails here, or "
            "there is no Input layer; use standard layers where the model is built, "
            "and save it again"
        )
    complaint = f"{path} is damaged, save the model again"
    if weights is not None:
        complaint = f"--weights={weights} does not fit {path}"
    load_weights(model, source, complaint)
    return model


def _format_of(path: Path) -> str:
    """What `inspect_file` is to take a file for."""
    if path.is_dir():
        if not (path / "keras_metadata.pb").is_file():
            raise UserError(
                f"{path} is a directory without a keras_metadata.pb; expected one "
                ".keras, .h5 or .hdf5 file: load it where it was made and save it with "
                "model.save('classifier.keras')"
            )
        return "saved_model"
    if path.suffix.lower() not in _FORMATS:
        raise UserError(
            f"{path} ends in {path.suffix!r}; expected a .keras, .h5, .hdf5 or .json "
            "file or a SavedModel: save the model with model.save('classifier.keras')"
        )
    return _FORMATS[path.suffix.lower()]


def _make_lambda(library: Any, arguments: Mapping[str, Any]) -> Any:
    """A Lambda layer, its code restored by the Keras that wrote it.

    The only object that Keras deserializes, after --allow_unsafe.
    """
    described = {
        "module": "keras.layers",
        "class_name": "Lambda",
        "registered_name": None,
        # A copy, because Keras puts the functions it restores into what it is given.
        "config": copy.deepcopy(dict(arguments)),
    }
    return library.saving.deserialize_keras_object(described, safe_mode=False)


def _check_code(layer: LayerSpec, library: Any, path: Path) -> None:
    """Refuses a Lambda layer whose function can be restored but not run here."""
    name = f"layer {shown(layer.name)} (Lambda) of {path}"
    advice = "use standard layers where the model is built, and save it again"
    python = ".".join(map(str, sys.version_info[:2]))
    other_python = (
        f"{name} holds code that Python {python} cannot run, damaged or of another "
        f"version; load the model with the Python that saved it, or {advice}"
    )
    with _one_line(other_python):
        if not is_of_this_python(bytecode(layer)):
            raise UserError(other_python)
        function = _make_lambda(library, layer.arguments).function
    if missing := missing_names(function):
        raise UserError(
            f"{name} uses {listed(missing)}, which the file does not hold; expected "
            "code that uses its arguments and what it imports itself, and under Keras "
            f"2 tf and np: {advice}"
        )


def _without_tuples(value: dict) -> Any:
    """A JSON object, or the list that stands for a tuple in SavedModels."""
    return value["items"] if value.get("class_name") == "__tuple__" else value


def _library(version: str, path: Path) -> Any:
    """The Keras that opens files of this Keras version."""
    major = version.split(".")[0]
    if major in ("1", "2"):
        return tf_keras
    if major != "3":
        raise UserError(
            f"{path} was written by Keras {listed([version])}; expected Keras 2 or 3: "
            "save it again with one of those"
        )
    with _one_line("Keras 3 cannot be imported, is KERAS_BACKEND=tensorflow set?"):
        import keras  # here, because most runs never need it

        return keras


def _read_application(name: str, weights: str | None, input_size: int | None) -> Any:
    if not name[:1].isupper() or not hasattr(tf_keras.applications, name):
        raise UserError(
            f"{APPLICATION_PREFIX}{name} is unknown; expected a model of tf_keras."
            "applications, for example MobileNetV2, ResNet50, InceptionV3 or Xception"
        )
    if weights is None:
        raise UserError(
            f"{APPLICATION_PREFIX}{name} without --weights has random weights and "
            "nothing to preserve; pass --weights=imagenet or --weights=FILE.h5"
        )
    options = {"input_shape": (input_size, input_size, 3)} if input_size else {}
    if weights == "imagenet":
        message = f"the ImageNet weights of {name} cannot be had, pass "
        message += "--weights=FILE.h5 with a copy of them"
        with _one_line(message), _download_timeout():
            return getattr(tf_keras.applications, name)(weights="imagenet", **options)
    stored = inspect_weights(weights)
    library = _library_of_weights(stored)
    # Keras 3 lacks some families; files of those are tf_keras' own.
    build = getattr(library.applications, name, getattr(tf_keras.applications, name))
    with _one_line(f"{APPLICATION_PREFIX}{name} cannot be built"):
        model = build(weights=None, **options)
        num_classes = _num_classes(model, stored.num_floats)
        if num_classes != model.output_shape[-1]:
            model = build(weights=None, classes=num_classes, **options)
    complaint = f"--weights={weights} does not fit {APPLICATION_PREFIX}{name}"
    load_weights(model, stored, complaint)
    return model


def _num_classes(application: Any, num_floats: int) -> int:
    """Of a variant of an application that has so many numbers for weights.

    The application's own if no other number of classes accounts for them.
    """
    num_classes = application.output_shape[-1]
    head = [layer for layer in application.layers if layer.get_weights()][-1]
    more, rest = divmod(
        num_floats - num_floats_of(application), num_floats_of(head) // num_classes
    )
    return num_classes + more if rest == 0 and num_classes + more > 1 else num_classes


def inspect_weights(weights: str) -> ModelFile:
    """What a file of weights holds. Raises UserError if it cannot be read."""
    path = Path(weights)
    if not path.is_file():
        raise UserError(
            f"--weights={weights} is no file; expected the path of a weights file "
            "(.weights.h5 or .h5), or 'imagenet' for keras.applications"
        )
    try:
        return inspect_file(path, "hdf5")
    except UserError as error:
        raise UserError(f"--weights={error}") from error


def _library_of_weights(file: ModelFile) -> Any:
    """The Keras that wrote a weights file."""
    # Without a version both write one layout, and only Keras 3 notes names in it.
    version = file.keras_version or ("3" if file.notes_names else "2")
    return _library(version, file.path)


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
        text = re.sub(r"\x1b\[\d*m", "", str(error))  # Keras 3 sets some in bold
        lines = [line for line in text.splitlines() if line.strip()]
        lines = lines or [type(error).__name__]
        # Keras nests messages and ends with the innermost.
        inner = [
            i for i, x in enumerate(lines) if x.startswith("Exception encountered")
        ]
        first = inner[-1] if inner else 0
        has_reason_behind = lines[first].startswith("Exception encountered when")
        reason = " ".join(lines[first : first + 1 + has_reason_behind])
        raise UserError(f"{message}: {one_line(reason)}") from error
