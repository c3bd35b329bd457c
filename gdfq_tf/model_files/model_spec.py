"""The JSON of a model file, read by ourselves: what to build, in plain values.

Nothing here imports or executes anything that a file names. What a file holds is held
against the tables of `layer_arguments`; whatever they do not list is refused, and what
only training needs is not looked at. `model_builder.py` builds the result.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from gdfq_tf.errors import UserError
from gdfq_tf.model_files.layer_arguments import (
    ARGUMENTS,
    DTYPE,
    IDENTITIES,
    NAME,
    OPERANDS,
    OPERATION_ARGUMENTS,
    OPERATION_MODULES,
    SHAPE,
    UNFIT,
    ArgumentError,
    integer,
    number,
    numbers,
    plain_arguments,
)
from tflite_export.names import shown

# The largest of keras.applications has a thousand.
_MOST_LAYERS = 10_000
_MOST_CALLS = 20_000  # models inside models counted once for every call
_DEEPEST = 16  # models inside models; lists inside lists
_KERAS_PACKAGES = ("keras", "tf_keras")
_MODEL_CLASSES = ("Functional", "Sequential", "Model")
# Layers of keras.applications, which HDF5 files of Keras 2 name with a prefix.
_APPLICATION_LAYERS = ("CustomScaleLayer", "LayerScale", "StochasticDepth")
_FUNCTION_LAYERS = ("TFOpLambda", "SlicingOpLambda")
_CONSTANT = "_CONSTANT_VALUE"
_CODE_ARGUMENTS = ("function", "mask", "output_shape")  # of Lambda layers

CheckLayer = Callable[[str, str], None]


@dataclasses.dataclass(frozen=True)
class TensorRef:
    """One tensor of a model.

    Attributes:
      layer: name of the layer that gives it.
      call: which call of the layer, as the file counts them.
      output: which of the call's tensors.
    """

    layer: str
    call: int
    output: int


@dataclasses.dataclass(frozen=True)
class CallSpec:
    """One call of a layer: values, lists and `TensorRef`s, by position and by name."""

    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]

    def tensors(self) -> Iterator[TensorRef]:
        """All that it takes, in order."""
        yield from tensors_in([*self.arguments, *self.keywords.values()])


@dataclasses.dataclass(frozen=True)
class LayerSpec:
    """A layer to build.

    Attributes:
      class_name: one of `ARGUMENTS` or `IDENTITIES`, of `OPERATION_MODULES` if it
        `is_operation`, "Lambda", or "tf.FUNCTION".
      name: unique in its model.
      arguments: of the constructor, checked; of Lambda layers, code and all.
      calls: in the model that holds it; none in Sequential models.
      is_operation: whether it is an operation of Keras 3.
    """

    class_name: str
    name: str
    arguments: Mapping[str, Any]
    calls: tuple[CallSpec, ...] = ()
    is_operation: bool = False


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A model to build.

    Attributes:
      name: as its author called it.
      layers: `LayerSpec`s and models inside it.
      inputs, outputs: `TensorRef`s in lists and dicts; None of Sequential models.
      input_shape: of Sequential models that have it noted beside their layers.
      calls: as of `LayerSpec`.
    """

    name: str
    layers: tuple[LayerSpec | ModelSpec, ...]
    inputs: Any = None
    outputs: Any = None
    input_shape: tuple[int | None, ...] | None = None
    calls: tuple[CallSpec, ...] = ()

    @property
    def is_sequential(self) -> bool:
        """Whether each layer takes what the one before it gives."""
        return self.outputs is None

    def all_layers(self) -> Iterator[LayerSpec]:
        """Its layers and those of the models inside it."""
        for layer in self.layers:
            if isinstance(layer, ModelSpec):
                yield from layer.all_layers()
            else:
                yield layer


def read_model_spec(
    config: Any, source: str, check_layer: CheckLayer, *, allow_unsafe: bool = False
) -> ModelSpec:
    """The model that a JSON value describes, as either Keras writes it.

    Args:
      config: of a Functional or Sequential model.
      source: where it comes from, for messages.
      check_layer: called with the name and class name of every layer; raises
        UserError for unwanted ones.
      allow_unsafe: takes Lambda layers whose code is in the file, unasked.

    Raises:
      UserError: the JSON asks for anything that is not on the positive list.
      One of `UNFIT`: it is no model's JSON.
    """
    reader = _Reader(source, check_layer, allow_unsafe)
    model = reader.model(config, depth=0)
    _count_calls(model, source)
    return model


def tensors_in(value: Any) -> Iterator[TensorRef]:
    """The `TensorRef`s inside lists, tuples and dicts, in order."""
    if isinstance(value, TensorRef):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)


def qualified_class_name(name: str, function: Any) -> str:
    """What a layer is known as: its class, or "tf.FUNCTION".

    tf_keras wraps TensorFlow functions, of any module, in layers of two classes. HDF5
    files of Keras 2 name registered classes, those of keras.applications among them,
    with the package that they were registered in.
    """
    if name in _FUNCTION_LAYERS:
        return f"tf.{function}"
    bare = name.removeprefix("Custom>")
    return bare if bare in _APPLICATION_LAYERS else name


def bytecode(lambda_layer: LayerSpec) -> bytes:
    """The marshalled function of a Lambda layer.

    Raises:
      ValueError, KeyError, ...: there is none.
    """
    function = lambda_layer.arguments["function"]
    is_of_keras_3 = isinstance(function, dict)
    text = function["config"]["code"] if is_of_keras_3 else function[0]
    return base64.b64decode(text)


class _Reader:
    """Reads models and counts what they hold."""

    def __init__(self, source: str, check_layer: CheckLayer, allow_unsafe: bool):
        self._source = source
        self._check_layer = check_layer
        self._allow_unsafe = allow_unsafe
        self._num_layers = 0

    def model(self, config: Any, depth: int) -> ModelSpec:
        class_name, content = config["class_name"], config["config"]
        if class_name not in _MODEL_CLASSES or not _is_of_keras(config):
            raise UserError(
                f"{self._source} holds a model of the class {_object_name(config)}; "
                "expected Keras' own Functional or Sequential: rebuild it with "
                "keras.Model(inputs, outputs)"
            )
        if isinstance(content, list):  # early Sequential files hold the bare list
            content = {"layers": content}
        if depth > _DEEPEST:
            raise UserError(
                f"{self._source} holds models inside models, more than {_DEEPEST} deep"
            )
        self._num_layers += len(content["layers"])
        if self._num_layers > _MOST_LAYERS:
            raise UserError(
                f"{self._source} holds {self._num_layers:,} layers and more; expected "
                f"{_MOST_LAYERS:,} at most"
            )
        layers = tuple(self._layer(layer, depth) for layer in content["layers"])
        _check_names(layers, self._source)
        name = NAME.read(content.get("name") or config.get("name") or "model")
        if class_name == "Sequential":
            shape = content.get("build_input_shape")
            return ModelSpec(
                name, layers, input_shape=None if shape is None else SHAPE.read(shape)
            )
        inputs, outputs = (
            _refs(content[key], depth=0) for key in ("input_layers", "output_layers")
        )
        return ModelSpec(name, layers, inputs, outputs)

    def _layer(self, layer: Any, depth: int) -> LayerSpec | ModelSpec:
        class_name, config = layer["class_name"], layer["config"]
        calls = layer.get("inbound_nodes") or []
        if class_name in _MODEL_CLASSES:
            model = self.model(layer, depth + 1)
            name, found = layer.get("name", model.name), self._calls(calls, model.name)
            return dataclasses.replace(model, name=NAME.read(name), calls=found)
        name = NAME.read(config.get("name") or layer.get("name"))
        if not isinstance(class_name, str):
            raise TypeError
        if class_name == "Lambda" and self._allow_unsafe:
            arguments = _lambda_arguments(config, name, self._source)
            return LayerSpec(class_name, name, arguments, self._calls(calls, name))
        known_as = qualified_class_name(class_name, config.get("function"))
        self._check_layer(name, known_as)
        is_operation = _is_operation(layer, known_as)
        if not (_is_of_keras(layer) and (is_operation or _is_layer(known_as))):
            raise UserError(
                f"layer {shown(name)} of {self._source} is of the class "
                f"{_object_name(layer)}, which may bring code; "
                "expected Keras' own layers and operations only"
            )
        return LayerSpec(
            known_as,
            name,
            self._arguments(known_as, config, name, is_operation=is_operation),
            self._calls(calls, name, is_operation or known_as.startswith("tf.")),
            is_operation,
        )

    def _arguments(
        self, class_name: str, config: Mapping[str, Any], name: str, is_operation: bool
    ) -> dict[str, Any]:
        if class_name in IDENTITIES or class_name.startswith("tf."):
            return {}
        try:
            if is_operation:
                return _keywords(config)
            return plain_arguments(class_name, config)
        except ArgumentError as error:
            raise self._refusal(class_name, name, error) from None

    def _calls(self, nodes: Any, name: str, is_operation: bool = False) -> tuple:
        try:
            return tuple(_call(node, is_operation) for node in _list(nodes))
        except ArgumentError as error:
            raise self._refusal("as called", name, error) from None

    def _refusal(self, what: str, name: str, error: ArgumentError) -> UserError:
        layer = f"layer {shown(name)} ({what}) of {self._source}"
        argument = shown(error.argument)
        if error.expected is None:
            return UserError(
                f"{layer} holds {argument}, an argument that is not known: a newer "
                "Keras wrote it, or it is no layer of Keras; use standard layers where "
                "the model is built, and save it again"
            )
        return UserError(
            f"{layer} holds {_shown_value(error.value)} as its {argument}; expected "
            f"{error.expected}: build the model with that, and save it again"
        )


def _check_names(layers: tuple[LayerSpec | ModelSpec, ...], source: str) -> None:
    names = [layer.name for layer in layers]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(
            f"{source} holds two layers named {shown(twice)}; expected one: save the "
            "model again"
        )


def _count_calls(model: ModelSpec, source: str) -> int:
    """How many layers are called, models inside counted for each of their calls."""
    total = 0
    for layer in model.layers:
        each = _count_calls(layer, source) if isinstance(layer, ModelSpec) else 1
        total += max(1, len(layer.calls)) * each
        if total > _MOST_CALLS:
            raise UserError(
                f"{source} calls more than {_MOST_CALLS:,} layers, those of models "
                "inside it counted for every call; expected a smaller network"
            )
    return total


def _is_of_keras(value: Mapping[str, Any]) -> bool:
    module = value.get("module") or "keras"
    return isinstance(module, str) and module.split(".")[0] in _KERAS_PACKAGES


def _is_layer(known_as: str) -> bool:
    return known_as in ARGUMENTS or known_as in IDENTITIES or known_as.startswith("tf.")


def _is_operation(layer: Mapping[str, Any], class_name: str) -> bool:
    """Whether a JSON object is a Keras 3 operation; some are named like layers."""
    if class_name not in OPERATION_MODULES:
        return False
    module = layer.get("module")
    if module is not None:
        return module == f"keras.src.ops.{OPERATION_MODULES[class_name]}"
    # HDF5 files name no modules; all layers can be trained, or not.
    return class_name not in ARGUMENTS or "trainable" not in layer["config"]


# ---- calls


def _list(value: Any) -> list:
    if not isinstance(value, list):
        raise TypeError
    return value


def _call(node: Any, is_operation: bool) -> CallSpec:
    """A call as Keras 3 writes it, a dict, or as Keras 2 does, nested lists."""
    if isinstance(node, dict):
        arguments = tuple(_value(x, "inputs") for x in _list(node["args"]))
        return CallSpec(arguments, _call_keywords(node["kwargs"], is_operation))
    if not node:
        raise ValueError
    entries = list(_entries(node, depth=0))
    keywords: Any = next((x[3] for x in reversed(entries) if len(x) == 4), {})
    first = _first_argument(node)
    if isinstance(first, list) and len(first) == 1 and not is_operation:
        (first,) = first
    return CallSpec((first,), _call_keywords(keywords, is_operation))


def _is_entry(node: Any) -> bool:
    """[layer, call, output] or the same with keywords."""
    return isinstance(node, list) and bool(node) and isinstance(node[0], str)


def _entries(node: Any, depth: int) -> Iterator[list]:
    if depth > _DEEPEST:
        raise ValueError
    if _is_entry(node):
        if len(node) not in (3, 4):
            raise ValueError
        yield node
    else:
        for item in _list(node):
            yield from _entries(item, depth + 1)


def _first_argument(node: Any) -> Any:
    """The entries as tensors and constants, lists as they are."""
    if not _is_entry(node):
        return [_first_argument(item) for item in node]
    if node[0] == _CONSTANT:
        return _value(node[2], "inputs")
    return _ref(node[:3])


def _call_keywords(keywords: Any, is_operation: bool) -> dict[str, Any]:
    """What a call has by name; of layers only whether they are being trained."""
    if is_operation:
        return _keywords(keywords)
    found = {}
    for keyword, value in keywords.items():
        if keyword == "inputs":
            found[keyword] = _value(value, keyword)
        elif value is not None:
            if keyword != "training" or not isinstance(value, bool):
                raise ArgumentError(keyword, value, "tensors and `training` only")
            found[keyword] = value
    return found


def _keywords(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of an operation, by `OPERANDS` and `OPERATION_ARGUMENTS`."""
    found = {}
    for keyword, value in keywords.items():
        if value is None or keyword in ("name", "dtype", "var"):
            continue  # of the operation itself, or of what may be assigned to
        if keyword in OPERANDS:
            found[keyword] = _value(value, keyword)
        elif keyword in OPERATION_ARGUMENTS:
            kind = OPERATION_ARGUMENTS[keyword]
            try:
                found[keyword] = kind.read(value)
            except UNFIT:
                raise ArgumentError(keyword, value, kind.expected) from None
        else:
            raise ArgumentError(keyword, value, None)
    return found


def _value(value: Any, argument: str, depth: int = 0) -> Any:
    """A tensor, a constant, an index or a list of them; nothing else, and no text."""
    try:
        if depth > _DEEPEST:
            raise ValueError
        if value is None or isinstance(value, bool):
            return value
        if type(value) is int:
            return integer(value, -(2**31), 2**31 - 1)
        if type(value) is float:
            return number(value)
        if isinstance(value, dict):
            return _object(value)
        if _is_entry(value):
            return _ref(value)
        if _is_constant(value):
            return numbers(value)
        return [_value(item, argument, depth + 1) for item in _list(value)]
    except ArgumentError:
        raise
    except UNFIT:
        raise ArgumentError(argument, value, "tensors, numbers and slices") from None


def _is_constant(value: Any) -> bool:
    """Whether nested lists end in a number that is no integer: no indices."""
    while isinstance(value, list) and value:
        value = value[0]
    return type(value) is float


def _object(value: Mapping[str, Any]) -> Any:
    if "class_name" not in value:  # a slice as tf_keras writes it
        if set(value) != {"start", "stop", "step"}:
            raise ValueError
        return {key: _index(item) for key, item in value.items()}
    class_name, content = value["class_name"], value["config"]
    if class_name == "__keras_tensor__":
        return _ref(content["keras_history"])
    if class_name == "__slice__":
        return slice(*(_index(content[key]) for key in ("start", "stop", "step")))
    if class_name == "__ellipsis__":
        return Ellipsis
    return np.asarray(numbers(value))


def _index(value: Any) -> int | None:
    return None if value is None else integer(value, -(2**31), 2**31 - 1)


def _ref(value: Any) -> TensorRef:
    layer, call, output = value
    return TensorRef(NAME.read(layer), integer(call, 0), integer(output, 0))


def _refs(value: Any, depth: int) -> Any:
    """The inputs or outputs of a model."""
    if depth > _DEEPEST:
        raise ValueError
    if isinstance(value, dict):
        return {NAME.read(k): _refs(v, depth + 1) for k, v in value.items()}
    if _is_entry(value):
        return _ref(value)
    return [_refs(item, depth + 1) for item in _list(value)]


def _object_name(value: Mapping[str, Any]) -> str:
    """Module, if noted, and class of a serialized object, fit for one line."""
    module = value.get("module")
    return shown(f"{module}.{value['class_name']}" if module else value["class_name"])


def _shown_value(value: Any) -> str:
    """A refused value, fit for one line."""
    if isinstance(value, dict) and "class_name" in value:
        return f"the object {_object_name(value)}"
    if isinstance(value, (dict, list)):
        return f"{shown(repr(value))}"
    return shown(value) if isinstance(value, str) else shown(str(value))[1:-1]


# ---- Lambda layers, with --allow_unsafe


def _lambda_arguments(config: dict, name: str, source: str) -> dict[str, Any]:
    """The arguments of a Lambda layer: its code, and plain values."""
    if not _is_code(config, "function"):
        raise UserError(
            f"layer {shown(name)} (Lambda) of {source} names a function or class that "
            "is kept outside the file; expected a Python function whose code is in the "
            "file: use a standard layer where the model is built, and save it again"
        )
    arguments: dict[str, Any] = {}
    for key, value in config.items():
        if _is_code(config, key):
            arguments[key] = _with_tuples(value)
        elif key == "dtype":
            arguments[key] = DTYPE.read(value)
        elif any(_objects(value)):
            described = _shown_value(next(_objects(value)))
            raise UserError(
                f"layer {shown(name)} (Lambda) of {source} holds {described} as its "
                f"{shown(key)}; expected plain values beside its code"
            )
        elif not key.endswith("module"):
            # Names of the author's modules: Keras 2 would let the code use what is in
            # those of the same name here, which may be anything.
            arguments[key] = value
    return arguments


def _objects(value: Any) -> Iterator[dict]:
    """Every serialized object inside a JSON value."""
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _objects(item)


def _is_code(config: Mapping[str, Any], argument: str) -> bool:
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
