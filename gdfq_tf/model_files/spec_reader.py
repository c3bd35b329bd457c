"""The JSON of a model file, read by ourselves: what to build, in plain values.

Nothing here imports or executes anything that a file names. What a file holds is held
against the tables of `layer_arguments`; whatever they do not list is refused, and what
only training needs is not looked at. `model_builder.py` builds the result.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping

from gdfq_tf.errors import UserError
from gdfq_tf.model_files.argument_values import DTYPE, NAME, SHAPE, Argument, Json
from gdfq_tf.model_files.augmentation import is_augmentation
from gdfq_tf.model_files.call_reader import read_calls, read_keywords, read_refs
from gdfq_tf.model_files.layer_arguments import (
    ARGUMENTS,
    IDENTITIES,
    ArgumentError,
    plain_arguments,
)
from gdfq_tf.model_files.model_spec import (
    CallSpec,
    LayerSpec,
    ModelSpec,
    qualified_class_name,
)
from gdfq_tf.model_files.operation_arguments import OPERATION_MODULES
from tflite_export.names import shown

# The largest of keras.applications has a thousand.
_MOST_LAYERS = 10_000
_MOST_CALLS = 20_000  # models inside models counted once for every call
_DEEPEST = 16  # models inside models
_KERAS_PACKAGES = ("keras", "tf_keras")
_MODEL_CLASSES = ("Functional", "Sequential", "Model")
_FUNCTIONAL_KEYS = {"layers", "input_layers", "output_layers"}
_CODE_ARGUMENTS = ("function", "mask", "output_shape")  # of Lambda layers

CheckLayer = Callable[[str, str], None]


def read_model_spec(
    config: Json, source: str, check_layer: CheckLayer, *, allow_unsafe: bool = False
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


class _Reader:
    """Reads models and counts what they hold."""

    def __init__(
        self, source: str, check_layer: CheckLayer, allow_unsafe: bool
    ) -> None:
        self._source = source
        self._check_layer = check_layer
        self._allow_unsafe = allow_unsafe
        self._num_layers = 0

    def model(self, config: Json, depth: int) -> ModelSpec:
        content = config["config"]
        if isinstance(content, list):  # early Sequential files hold the bare list
            content = {"layers": content}
        kind = _kind_of_graph(config)
        if kind is None:
            raise UserError(
                f"{self._source} holds a model of the class {_object_name(config)} "
                "and no graph of layers, only code could tell what it computes; "
                "expected Keras' own Functional or Sequential, or a class built like "
                "them: rebuild it with keras.Model(inputs, outputs)"
            )
        subclass = None
        if not _is_own_model(config):
            _warn_of_class(config, self._source)
            subclass = NAME.read(config["class_name"])
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
        if kind == "Sequential":
            shape = content.get("build_input_shape")
            shape = None if shape is None else SHAPE.read(shape)
            return ModelSpec(name, layers, input_shape=shape, subclass=subclass)
        inputs, outputs = (
            read_refs(content[key]) for key in ("input_layers", "output_layers")
        )
        return ModelSpec(name, layers, inputs, outputs, subclass=subclass)

    def _layer(self, layer: Json, depth: int) -> LayerSpec | ModelSpec:
        class_name, config = layer["class_name"], layer["config"]
        calls = layer.get("inbound_nodes") or []
        if _kind_of_graph(layer):
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
        self, class_name: str, config: Mapping[str, Json], name: str, is_operation: bool
    ) -> dict[str, Argument]:
        if class_name in IDENTITIES or class_name.startswith("tf."):
            return {}
        try:
            if is_operation:
                # The dtype of all others is the precision to compute in.
                unread = () if class_name == "Cast" else ("dtype",)
                return read_keywords(
                    {key: x for key, x in config.items() if key not in unread}
                )
            return plain_arguments(class_name, config)
        except ArgumentError as error:
            raise self._refusal(class_name, name, error) from None

    def _calls(
        self, nodes: Json, name: str, is_operation: bool = False
    ) -> tuple[CallSpec, ...]:
        try:
            return read_calls(nodes, is_operation=is_operation)
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


def _is_own_model(value: Mapping[str, Json]) -> bool:
    return value["class_name"] in _MODEL_CLASSES and _is_of_keras(value)


def _kind_of_graph(value: Mapping[str, Json]) -> str | None:
    """Which of Keras' own models a JSON object is read as; None if it is no model.

    Subclasses with a graph, that train in a way of their own, write it as Keras' own
    models do.
    """
    class_name, content = value["class_name"], value["config"]
    if _is_own_model(value):
        return class_name
    if not isinstance(content, dict):
        return None
    if content.keys() >= _FUNCTIONAL_KEYS:
        return "Functional"
    return "Sequential" if _begins_with_an_input(content) else None


def _begins_with_an_input(content: Mapping[str, Json]) -> bool:
    """Whether it holds a list of layers as a Sequential model with an input does."""
    layers = content.get("layers")
    if not isinstance(layers, list) or not layers or not isinstance(layers[0], dict):
        return False
    return layers[0].get("class_name") == "InputLayer"


def _warn_of_class(value: Mapping[str, Json], source: str) -> None:
    warnings.warn(
        f"{source} holds a model of the class {_object_name(value)}, whose code is not "
        "run: it is taken for the graph of layers that it was built with; check the "
        "outputs if the class has a call method of its own",
        stacklevel=2,
    )


def _is_of_keras(value: Mapping[str, Json]) -> bool:
    module = value.get("module") or "keras"
    return isinstance(module, str) and module.split(".")[0] in _KERAS_PACKAGES


def _is_layer(known_as: str) -> bool:
    return (
        known_as in ARGUMENTS
        or known_as in IDENTITIES
        or known_as.startswith("tf.")
        or is_augmentation(known_as)
    )


def _is_operation(layer: Mapping[str, Json], class_name: str) -> bool:
    """Whether a JSON object is a Keras 3 operation; some are named like layers."""
    if class_name not in OPERATION_MODULES:
        return False
    module = layer.get("module")
    if module is not None:
        return module == f"keras.src.ops.{OPERATION_MODULES[class_name]}"
    # HDF5 files name no modules; all layers can be trained, or not.
    return class_name not in ARGUMENTS or "trainable" not in layer["config"]


def _object_name(value: Mapping[str, Json]) -> str:
    """Module, if noted, and class of a serialized object, fit for one line."""
    module = value.get("module")
    return shown(f"{module}.{value['class_name']}" if module else value["class_name"])


def _shown_value(value: Json) -> str:
    """A refused value, fit for one line."""
    if isinstance(value, dict) and "class_name" in value:
        return f"the object {_object_name(value)}"
    if isinstance(value, (dict, list)):
        return f"{shown(repr(value))}"
    return shown(value) if isinstance(value, str) else shown(str(value))[1:-1]


# ---- Lambda layers, with `allow_unsafe`


def _lambda_arguments(config: dict, name: str, source: str) -> dict[str, Argument]:
    """The arguments of a Lambda layer: its code, and plain values."""
    if not _is_code(config, "function"):
        raise UserError(
            f"layer {shown(name)} (Lambda) of {source} names a function or class that "
            "is kept outside the file; expected a Python function whose code is in the "
            "file: use a standard layer where the model is built, and save it again"
        )
    arguments: dict[str, Argument] = {}
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


def _objects(value: Json) -> Iterator[dict]:
    """Every serialized object inside a JSON value."""
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _objects(item)


def _is_code(config: Mapping[str, Json], argument: str) -> bool:
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
