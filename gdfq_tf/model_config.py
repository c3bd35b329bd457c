"""What a model file asks Keras to build: its JSON, checked and made lean.

Nothing here executes any of it. Keras' own safe mode does not cover every format and
version, so that a file is checked here before anything is built from it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from typing import Any

from gdfq_tf.errors import UserError

_KERAS_PACKAGES = ("keras", "tf_keras")
_MODEL_CLASSES = ("Functional", "Sequential", "Model")

# Layer arguments that matter to training only. Each Keras adds some; without them
# an older Keras reads the files of a newer one, and nobody's own initializers or
# regularizers are needed.
_TRAINING_ARGUMENTS = re.compile(
    r"\w+_(initializer|regularizer|constraint)|renorm\w*|quantization_config"
)

# Modules of the objects that layers may hold: numbers and names, no code. Older
# files give no module; a class is then looked up among its own kind only.
_PLAIN_MODULES = (
    None,
    "builtins",
    "keras",
    "keras.activations",
    "keras.dtype_policies",
    "keras.mixed_precision",
)
# Layers that may be other layers' activations: functions of one tensor.
ACTIVATION_LAYERS = ("LeakyReLU", "ReLU")
_CODE_CLASSES = ("Lambda", "__lambda__")
_CODE_ARGUMENTS = ("function", "mask", "output_shape")  # of Lambda layers
# Names of the author's modules. Keras 2 would let the code use what is in those of the
# same name here, which may be anything.
_CODE_MODULES = re.compile(r"(mask_|output_shape_)?module")

CheckLayer = Callable[[str, str], None]


def inference_config(
    config: dict, source: str, check_layer: CheckLayer, *, allow_unsafe: bool = False
) -> dict:
    """The JSON of a model without what only training needs.

    Args:
      config: of a Functional or Sequential model, from a .keras or .h5 file.
      source: where it comes from, for messages.
      check_layer: called with the name and class name of every layer; raises
        UserError for unwanted ones.
      allow_unsafe: takes Lambda layers whose code is in the file, unasked.

    Returns:
      A copy whose layers are listed under config/layers.

    Raises:
      UserError: the JSON asks for anything but layers of Keras and plain data.
      KeyError, TypeError, ...: it is no model's JSON.
    """
    if config["class_name"] not in _MODEL_CLASSES or not _is_of_keras(config):
        raise UserError(
            f"{source} holds a model of class {config['class_name']}; expected a "
            "Functional or Sequential model: rebuild it with keras.Model(inputs, "
            "outputs)"
        )
    content = config["config"]
    if isinstance(content, list):  # early Sequential files hold the bare list
        content = {"layers": content}
    layers = [
        _inference_layer(layer, source, check_layer, allow_unsafe)
        for layer in content["layers"]
    ]
    return config | {"config": content | {"layers": layers}}


def lambda_layers(config: dict) -> Iterator[dict]:
    """The JSON of every Lambda layer in what `inference_config` gave."""
    for layer in config["config"]["layers"]:
        if layer["class_name"] in _MODEL_CLASSES:
            yield from lambda_layers(layer)
        elif layer["class_name"] == "Lambda":
            yield layer


def bytecode(lambda_layer: dict) -> bytes:
    """The marshalled function of a Lambda layer's JSON.

    Raises:
      ValueError, KeyError, ...: there is none.
    """
    function = lambda_layer["config"]["function"]
    is_of_keras_3 = isinstance(function, dict)
    text = function["config"]["code"] if is_of_keras_3 else function[0]
    return base64.b64decode(text)


def _inference_layer(
    layer: dict, source: str, check_layer: CheckLayer, allow_unsafe: bool
) -> dict:
    if layer["class_name"] in _MODEL_CLASSES:
        layer = inference_config(layer, source, check_layer, allow_unsafe=allow_unsafe)
        name = layer["config"].get("name", "unnamed")
        rest = layer | {"config": layer["config"] | {"layers": []}}
    else:
        name = layer["config"].get("name", "unnamed")
        layer = rest = layer | {"config": _inference_arguments(layer["config"])}
        if layer["class_name"] == "Lambda" and allow_unsafe:
            arguments, plain = _lambda_arguments(layer["config"], name, source)
            layer, rest = layer | {"config": arguments}, layer | {"config": plain}
        else:
            function = layer["config"].get("function")
            check_layer(name, qualified_class_name(layer["class_name"], function))
    for value in _objects(rest):
        if not (_is_of_keras if value is rest else _is_plain)(value):
            raise UserError(
                f"layer {name!r} of {source} holds the object "
                f"{value.get('module')}.{value['class_name']}, which may bring "
                "code; expected Keras' own dtype policies and activations only"
            )
    return layer


def _lambda_arguments(config: dict, name: str, source: str) -> tuple[dict, dict]:
    """The arguments of a Lambda layer, and those among them that must be plain."""
    if not _is_code(config, "function"):
        raise UserError(
            f"layer {name!r} (Lambda) of {source} names a function or class that is "
            "kept outside the file; expected a Python function whose code is in the "
            "file: use a standard layer where the model is built, and save it again"
        )
    arguments, plain = {}, {}
    for key, value in config.items():
        if _is_code(config, key):
            arguments[key] = _with_tuples(value)
        elif not _CODE_MODULES.fullmatch(key):
            arguments[key] = plain[key] = value
    return arguments, plain


def _is_code(config: dict, argument: str) -> bool:
    """Whether an argument of a Lambda layer holds code, as Keras 3 or 2 writes it."""
    value = config.get(argument)
    if argument not in _CODE_ARGUMENTS:
        return False
    if isinstance(value, dict):
        return value.get("class_name") == "__lambda__"
    return isinstance(value, list) and config.get(f"{argument}_type") == "lambda"


def _with_tuples(code: dict | list) -> dict | list:
    """Stored code, its default arguments no list: Keras 3 wants back what it wrote."""
    if isinstance(code, dict) and isinstance(code["config"]["defaults"], list):
        defaults = tuple(code["config"]["defaults"])
        return code | {"config": code["config"] | {"defaults": defaults}}
    return code


def _inference_arguments(config: dict) -> dict:
    return {
        name: value
        for name, value in config.items()
        if not _TRAINING_ARGUMENTS.fullmatch(name)
    }


def qualified_class_name(name: str, function: Any) -> str:
    """What a layer is known as: its class, or "tf.FUNCTION".

    tf_keras wraps TensorFlow functions, of any module, in layers of two classes. HDF5
    files of Keras 2 name registered classes, some of keras.applications among them,
    with the package that they were registered in.
    """
    if name in ("TFOpLambda", "SlicingOpLambda"):
        return f"tf.{function}"
    return name.removeprefix("Custom>")


def _is_of_keras(value: dict) -> bool:
    return (value.get("module") or "keras").split(".")[0] in _KERAS_PACKAGES


def _is_plain(value: dict) -> bool:
    module, class_name = value.get("module"), value["class_name"]
    if module == "keras.layers" and class_name in ACTIVATION_LAYERS:
        return True
    return module in _PLAIN_MODULES and class_name not in _CODE_CLASSES


def _objects(value: Any) -> Iterator[dict]:
    """Every serialized object inside a JSON value."""
    if isinstance(value, dict):
        if isinstance(value.get("class_name"), str):
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _objects(item)
