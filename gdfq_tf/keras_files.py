"""Readers of Keras models: files and `keras.applications` names.

The only place that reads model files and the only one that imports Keras 3. A
file is opened by the generation of Keras that wrote it, in two steps that are the
same for all formats: build the model from its checked JSON, load its weights.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import json
import re
import socket
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gdfq_tf.errors import UserError
from gdfq_tf.hdf5_probe import is_readable
from gdfq_tf.keras_compat import keras as tf_keras
from gdfq_tf.keras_compat import saved_metadata_pb2
from gdfq_tf.model_config import (
    CheckLayer,
    bytecode,
    inference_config,
    lambda_layers,
)
from gdfq_tf.stored_functions import is_of_this_python, missing_names

APPLICATION_PREFIX = "keras.applications."

# Which preprocessing keras.applications trained with, by name; first match wins.
# Families missing here bring their own scaling layers and take raw pixels.
_APPLICATION_PREPROCESSING = (
    (r"MobileNet|MobileNetV2|Inception.*|Xception|NASNet.*|ResNet\d+V2", "tf"),
    (r"DenseNet.*", "torch"),
    (r"VGG.*|ResNet\d+", "caffe"),
)

# Layers of keras.applications that Keras does not always find by itself -> module.
_APPLICATION_LAYERS = {
    "CustomScaleLayer": "inception_resnet_v2",
    "LayerScale": "convnext",
    "StochasticDepth": "convnext",
}

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
            f"expected one of {', '.join(names)}"
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
    readers = {
        ".keras": _read_zip_config,
        ".h5": _read_h5_config,
        ".hdf5": _read_h5_config,
        ".json": _read_json_config,
    }
    is_json = path.suffix.lower() == ".json" and not path.is_dir()
    if weights is not None and not is_json:
        raise UserError(
            f"--weights={weights} was given with the model file {path}, which holds "
            f"its own; it belongs to --model={APPLICATION_PREFIX}NAME or a .json file: "
            "drop it"
        )
    if weights is None and is_json:
        raise UserError(
            f"{path} without --weights has no weights; pass --weights=FILE.weights.h5"
        )
    num_floats = _inspect_weights(weights)[1] if weights is not None else 0
    if path.is_dir():
        version, config = _read_saved_model_config(path)
    elif path.suffix.lower() in readers:
        version, config = readers[path.suffix.lower()](path)
    else:
        raise UserError(
            f"{path} ends in {path.suffix!r}; expected a .keras, .h5, .hdf5 or .json "
            "file or a SavedModel: save the model with model.save('classifier.keras')"
        )
    with _one_line(f"{path} is damaged, save the model again"):
        config = inference_config(
            config, str(path), check_layer, allow_unsafe=allow_unsafe
        )
    library = _library(version, path)
    for layer in lambda_layers(config):
        _check_code(layer, library, path)
    with _one_line(
        f"{path}, written by Keras {version}, cannot be loaded by the installed "
        f"{library.__name__} {library.__version__}"
    ):
        is_sequential = config["class_name"] == "Sequential"
        name = "keras.Sequential" if is_sequential else "keras.Model"
        model = _build(library, name, config["config"], allow_unsafe=allow_unsafe)
        if weights is not None:
            _load_weights(model, weights, num_floats, str(path))
        elif path.is_dir():
            status = model.load_weights(path / "variables" / "variables")
            status.assert_existing_objects_matched()
        else:
            model.load_weights(path)
    if any(lambda_layers(config)) and not getattr(model, "inputs", None):
        # Keras 3 leaves a Sequential model unfinished where a layer fails.
        raise UserError(
            f"{path} has Lambda layers and no fixed graph: their code fails here, or "
            "there is no Input layer; use standard layers where the model is built, "
            "and save it again"
        )
    return model


def _build(library: Any, name: str, config: dict, *, allow_unsafe: bool) -> Any:
    """An object of Keras' own class; code is restored in this call only, if at all."""
    module, _, class_name = name.rpartition(".")
    described = {
        "module": module,
        "class_name": class_name,
        "registered_name": None,
        # A copy, because Keras puts the functions it restores into what it is given.
        "config": copy.deepcopy(config),
    }
    with library.utils.custom_object_scope(_application_layers(library)):
        return library.saving.deserialize_keras_object(
            described, safe_mode=not allow_unsafe
        )


def _check_code(layer: dict, library: Any, path: Path) -> None:
    """Refuses a Lambda layer whose function can be restored but not run here."""
    name = f"layer {layer['config'].get('name')!r} (Lambda) of {path}"
    advice = "use standard layers where the model is built, and save it again"
    python = ".".join(map(str, sys.version_info[:2]))
    other_python = (
        f"{name} holds code that Python {python} cannot run, damaged or of another "
        f"version; load the model with the Python that saved it, or {advice}"
    )
    with _one_line(other_python):
        if not is_of_this_python(bytecode(layer)):
            raise UserError(other_python)
        function = _build(
            library, "keras.layers.Lambda", layer["config"], allow_unsafe=True
        ).function
    if missing := missing_names(function):
        raise UserError(
            f"{name} uses {', '.join(missing)}, which the file does not hold; expected "
            "code that uses its arguments and what it imports itself, and under Keras "
            f"2 tf and np: {advice}"
        )


def _application_layers(library: Any) -> dict[str, Any]:
    """One Keras' own classes of those names."""
    return {
        name: getattr(
            importlib.import_module(f"{library.__name__}.src.applications.{module}"),
            name,
        )
        for name, module in _APPLICATION_LAYERS.items()
    }


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


def _read_json_config(path: Path) -> tuple[str, dict]:
    """What `model.to_json()` gives; Keras 3 leaves its version out."""
    with _one_line(f"{path} is damaged or no model's JSON, save the model again"):
        config = json.loads(path.read_text())
        return config.get("keras_version", "3"), config


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
    library, num_floats = _inspect_weights(weights)
    # Keras 3 lacks some families; files of those are tf_keras' own.
    build = getattr(library.applications, name, getattr(tf_keras.applications, name))
    with _one_line(f"{APPLICATION_PREFIX}{name} cannot be built"):
        model = build(weights=None, **options)
        num_classes = _num_classes(model, num_floats)
        if num_classes != model.output_shape[-1]:
            model = build(weights=None, classes=num_classes, **options)
    _load_weights(model, weights, num_floats, f"{APPLICATION_PREFIX}{name}")
    return model


def _num_classes(application: Any, num_floats: int) -> int:
    """Of a variant of an application that has so many numbers for weights.

    The application's own if no other number of classes accounts for them.
    """
    num_classes = application.output_shape[-1]
    head = [layer for layer in application.layers if layer.get_weights()][-1]
    more, rest = divmod(
        num_floats - _num_floats(application), _num_floats(head) // num_classes
    )
    return num_classes + more if rest == 0 and num_classes + more > 1 else num_classes


def _num_floats(layer: Any) -> int:
    """How many numbers a layer or model has for weights, without counters."""
    return sum(np.size(w) for w in layer.get_weights() if w.dtype.kind == "f")


def _inspect_weights(weights: str) -> tuple[Any, int]:
    """The Keras that wrote a weights file, and how many numbers it holds for layers."""
    path = Path(weights)
    if not path.is_file():
        raise UserError(
            f"--weights={weights} is no file; expected the path of a weights file "
            "(.weights.h5 or .h5), or 'imagenet' for keras.applications"
        )
    message = f"--weights={weights} is damaged or not an HDF5 file, save it again"
    if not is_readable(path):
        raise UserError(message)
    sizes = []

    def visit(name: str, item: Any) -> None:
        is_float = isinstance(item, h5py.Dataset) and item.dtype.kind == "f"
        if is_float and not name.startswith("optimizer"):
            sizes.append(item.size)

    with _one_line(message), h5py.File(path, "r") as file:
        file.get("layers", file).visititems(visit)
        # Without a version both write one layout, and only Keras 3 notes names in it.
        has_names = "vars" in file and "name" in file["vars"].attrs
        version = _text(file.attrs.get("keras_version", "3" if has_names else "2"))
    return _library(version, path), sum(sizes)


def _load_weights(model: Any, weights: str, num_floats: int, name: str) -> None:
    """Loads a file of so many weights into the model of another file or a name."""
    message = f"--weights={weights} does not fit {name}"
    if num_floats != _num_floats(model):
        raise UserError(
            f"{message}: it holds {num_floats:,} numbers, expected "
            f"{_num_floats(model):,}; pass weights that were saved from this very "
            "network"
        )
    with _one_line(message):
        model.load_weights(weights)


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
        raise UserError(f"{message}: {reason[:300]}") from error
