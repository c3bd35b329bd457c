"""`read_model`: whatever names a model -> the model, in the Keras it was built with.

A file is opened in a process of its own, its JSON is held against the positive list,
and the network is built in the generation of Keras that wrote it by constructors and
calls; then it gets the file's arrays for weights.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from gdfq_tf.errors import UserError, option
from gdfq_tf.keras_compat import KerasLibrary, KerasModel, Layer, library_of_model
from gdfq_tf.model_files.applications import (
    APPLICATION_PREFIX,
    preprocessing_of,
    read_application,
)
from gdfq_tf.model_files.failures import in_one_line
from gdfq_tf.model_files.file_cell import inspect_file
from gdfq_tf.model_files.float32_copy import in_float32
from gdfq_tf.model_files.libraries import library_of_version
from gdfq_tf.model_files.model_builder import ParameterBudget, build_model
from gdfq_tf.model_files.model_outputs import with_one_output
from gdfq_tf.model_files.model_spec import LayerSpec, bytecode
from gdfq_tf.model_files.model_weights import inspect_weights, load_weights
from gdfq_tf.model_files.spec_reader import CheckLayer, read_model_spec
from gdfq_tf.model_files.stored_functions import is_of_this_python, missing_names
from tflite_export.names import listed, shown

# Suffix of a file -> what its reader takes it for.
_FORMATS = {".keras": "zip", ".h5": "hdf5", ".hdf5": "hdf5", ".json": "json"}


@dataclasses.dataclass(frozen=True)
class SourceModel:
    """A model as its author built it.

    Attributes:
      name: file stem, lower-case application name or the model's own, safe for file
        names.
      model: `keras.Model` of Keras 3 or of tf_keras.
      preprocessing: name of the preprocessing it was trained with, if known.
    """

    name: str
    model: KerasModel
    preprocessing: str | None = None


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """What a name or a file leaves open.

    Attributes:
      weights: for a .json file: the path of a weights file; for applications that or
        "imagenet".
      input_size: for applications only: height and width of the images, None: the
        application's own. The number of classes is told by the weights file.
      output_name: of a model with several outputs: the one to keep, by its key in a
        dict, its name or that of the layer it comes from.
      allow_unsafe: takes Lambda layers of a file and runs the code that it holds for
        them; it may do whatever this process may. Other code stays refused.
    """

    weights: str | os.PathLike[str] | None = None
    input_size: int | None = None
    output_name: str | None = None
    allow_unsafe: bool = False


def read_model(
    model: str | os.PathLike[str] | KerasModel,
    options: ReadOptions | None = None,
    *,
    check_layer: CheckLayer,
) -> SourceModel:
    """The model of a file or of a `keras.applications` name, or one in memory.

    Args:
      model: path of a .keras, .h5, .hdf5 or .json file or of a SavedModel that
        Keras 2 wrote; `keras.applications.NAME`; or a model of either Keras, which
        stays as it is.
      options: what these leave open.
      check_layer: called with the name and class name of every layer a file
        holds, before any is built; raises UserError for unwanted ones.

    Raises:
      UserError: missing, damaged, unsupported or unsafe file; unknown
        application or output; weights missing, surplus or impossible to load; an
        object that is no model.
    """
    options = options or ReadOptions()
    if isinstance(model, (str, os.PathLike)):
        source = _read_named(os.fspath(model), options, check_layer)
    else:
        source = _take_live(model, options, check_layer)
    if options.output_name is None:
        return source
    chosen = with_one_output(source.model, options.output_name)
    return dataclasses.replace(source, model=chosen)


def _read_named(
    model: str, options: ReadOptions, check_layer: CheckLayer
) -> SourceModel:
    if model.startswith(APPLICATION_PREFIX):
        name = model.removeprefix(APPLICATION_PREFIX)
        application = read_application(name, options.weights, options.input_size)
        return SourceModel(name.lower(), application, preprocessing_of(name))
    if options.input_size is not None:
        raise UserError(
            f"{option('input_size', options.input_size)} was given with the model file "
            f"{model}, which tells its own; it belongs to "
            f"{option('model', APPLICATION_PREFIX + 'NAME')}: drop it"
        )
    path = Path(model).expanduser()
    source = read_file(
        path,
        weights=options.weights,
        allow_unsafe=options.allow_unsafe,
        check_layer=check_layer,
    )
    return SourceModel(_file_name(path.stem), source)


def _take_live(
    model: KerasModel, options: ReadOptions, check_layer: CheckLayer
) -> SourceModel:
    if library_of_model(model) is None:
        raise UserError(
            f"{option('model')} is a {type(model).__name__}; expected a path, "
            f"{APPLICATION_PREFIX}NAME or a model of Keras 3 or tf_keras"
        )
    for name in ("weights", "input_size", "allow_unsafe"):
        if getattr(options, name):
            raise UserError(
                f"{option(name, getattr(options, name))} was given with a model in "
                "memory, which holds all it has; it belongs to files and names: drop it"
            )
    return SourceModel(_file_name(model.name), in_float32(model, check_layer))


def _file_name(name: str) -> str:
    """A name that is safe for file names."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-") or "classifier"


def read_file(
    path: Path,
    *,
    weights: str | os.PathLike[str] | None = None,
    allow_unsafe: bool = False,
    check_layer: CheckLayer,
) -> KerasModel:
    """The uncompiled model of a file or SavedModel; see `read_model`."""
    if not path.exists():
        raise UserError(
            f"model file {path} does not exist; expected a .keras, .h5, .hdf5 or "
            f".json file, a SavedModel or {APPLICATION_PREFIX}NAME"
        )
    file_format = _format_of(path)
    _check_weights_wanted(path, file_format, weights)
    stored = None if weights is None else inspect_weights(weights)
    file = inspect_file(path, file_format)
    if file.config is None:
        raise UserError(
            f"{path} holds weights only; expected a whole model: build the model, "
            "call model.load_weights and save it with model.save('classifier.keras')"
        )
    with in_one_line(f"{path} is damaged or no model's JSON, save the model again"):
        config = json.loads(file.config, object_hook=_as_json)
        # Without a version: HDF5 files from before Keras 2, and the JSON of Keras 3.
        version = file.keras_version or config.get("keras_version")
        version = str(version or ("3" if file_format == "json" else "1"))
        library = library_of_version(version, path)
        spec = read_model_spec(
            config, str(path), check_layer, allow_unsafe=allow_unsafe
        )
    lambdas = [x for x in spec.all_layers() if x.class_name == "Lambda"]
    for layer in lambdas:
        _check_code(layer, library, path)
    source = file if stored is None else stored
    with in_one_line(
        f"{path}, written by Keras {listed([version])}, cannot be loaded by the "
        f"installed {library.__name__} {library.__version__}"
    ):
        model = build_model(
            spec,
            library,
            ParameterBudget(source.num_floats),
            functools.partial(_make_lambda, library),
        )
    if not getattr(model, "inputs", None):
        # Keras 3 leaves a Sequential model unfinished where a layer fails.
        cause = "no layer says what it takes; build it with an Input layer in front"
        if lambdas:
            cause = (
                "the code of its Lambda layers fails here, or there is no Input layer; "
                "use standard layers where the model is built"
            )
        raise UserError(f"{path} has no fixed graph: {cause}, and save it again")
    complaint = f"{path} is damaged, save the model again"
    if weights is not None:
        complaint = f"{option('weights', weights)} does not fit {path}"
    load_weights(model, source, complaint)
    return model


def _check_weights_wanted(
    path: Path, file_format: str, weights: str | os.PathLike[str] | None
) -> None:
    """Refuses weights beside a file that has some, and a file that has none."""
    if weights is not None and file_format != "json":
        raise UserError(
            f"{option('weights', weights)} was given with the model file {path}, which "
            f"holds its own; it belongs to "
            f"{option('model', APPLICATION_PREFIX + 'NAME')} or a .json file: drop it"
        )
    if weights is None and file_format == "json":
        raise UserError(
            f"{path} without {option('weights')} has no weights; pass "
            f"{option('weights', 'FILE.weights.h5')}"
        )


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


def _make_lambda(library: KerasLibrary, arguments: Mapping[str, object]) -> Layer:
    """A Lambda layer, its code restored by the Keras that wrote it.

    The only object that Keras deserializes, after `allow_unsafe`.
    """
    described = {
        "module": "keras.layers",
        "class_name": "Lambda",
        "registered_name": None,
        # A copy, because Keras puts the functions it restores into what it is given.
        "config": copy.deepcopy(dict(arguments)),
    }
    return library.saving.deserialize_keras_object(described, safe_mode=False)


def _check_code(layer: LayerSpec, library: KerasLibrary, path: Path) -> None:
    """Refuses a Lambda layer whose function can be restored but not run here."""
    name = f"layer {shown(layer.name)} (Lambda) of {path}"
    advice = "use standard layers where the model is built, and save it again"
    python = ".".join(map(str, sys.version_info[:2]))
    other_python = (
        f"{name} holds code that Python {python} cannot run, damaged or of another "
        f"version; load the model with the Python that saved it, or {advice}"
    )
    with in_one_line(other_python):
        if not is_of_this_python(bytecode(layer)):
            raise UserError(other_python)
        function = _make_lambda(library, layer.arguments).function
    if missing := missing_names(function):
        raise UserError(
            f"{name} uses {listed(missing)}, which the file does not hold; expected "
            "code that uses its arguments and what it imports itself, and under Keras "
            f"2 tf and np: {advice}"
        )


# What tf_keras writes for what JSON has no form for but a list.
_LISTS = ("__tuple__", "TensorShape")


def _as_json(value: dict[str, object]) -> object:
    """A JSON object, or the list that stands for a tuple or a shape of tf_keras."""
    return value["items"] if value.get("class_name") in _LISTS else value
