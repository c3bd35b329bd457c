"""A `ModelSpec` -> a Keras model, through constructors and calls alone.

Keras deserializes nothing here: classes come from tables, arguments are plain values,
and layers are called on each other as the specification says. Weights start as zeros,
no more of them than the file stores, and are loaded afterwards.
"""

from __future__ import annotations

import importlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from gdfq_tf.errors import UserError
from gdfq_tf.keras_compat import KerasLibrary, KerasModel, Layer, SymbolicTensor
from gdfq_tf.model_files.argument_values import Argument
from gdfq_tf.model_files.augmentation import (
    CHANGES_IMAGES,
    augmentation_class,
    is_identity,
    make_augmentation,
)
from gdfq_tf.model_files.layer_arguments import (
    ARGUMENTS,
    IDENTITIES,
    INITIALIZERS,
    InnerLayer,
)
from gdfq_tf.model_files.model_spec import (
    CallSpec,
    LayerSpec,
    ModelSpec,
    Structure,
    TensorRef,
)
from gdfq_tf.model_files.operation_arguments import OPERATION_MODULES
from tflite_export.names import shown

# Layers in modules that Keras does not export, or not among its layers.
_MODULES = {
    "CustomScaleLayer": "applications.inception_resnet_v2",
    "LayerScale": "applications.convnext",
    "SyncBatchNormalization": "layers.normalization.batch_normalization",
}
# float32 values of one tensor, for one image: half a gigabyte of them.
_LARGEST_TENSOR = 2**27

MakeLambda = Callable[[Mapping[str, Argument]], Layer]

_Key: TypeAlias = tuple[str, int]  # a layer and which of its calls
_Tensors: TypeAlias = dict[_Key, list[SymbolicTensor]]


class ParameterBudget:
    """Hands out the zeros that layers start from, no more than a file stores.

    Layers ask for their weights before these take any memory.

    Attributes:
      refusal: what was refused, if it was: Keras rewrites what an initializer raises.
    """

    def __init__(self, num_stored: int) -> None:
        """`num_stored`: how many numbers there are."""
        self._num_stored = num_stored
        self._num_declared = 0
        self.refusal: str | None = None

    def zeros(self, shape: Iterable[int]) -> np.ndarray:
        """float32 zeros. Raises UserError if that are too many."""
        shape = tuple(map(int, shape))
        self._num_declared += math.prod(shape)
        if self._num_declared > self._num_stored:
            self.refusal = (
                f"its layers declare {self._num_declared:,} parameters and more, but "
                f"{self._num_stored:,} are stored: save the model again with its "
                "weights"
            )
            raise UserError(self.refusal)
        return np.zeros(shape, np.float32)

    def initializer(self, library: KerasLibrary) -> Callable[..., np.ndarray]:
        """An initializer of one Keras that gives them."""
        budget = self

        class Zeros(library.initializers.Initializer):
            def __call__(
                self, shape: Iterable[int], dtype: object = None, **_: object
            ) -> np.ndarray:
                return budget.zeros(shape)

        return Zeros()


def build_model(
    spec: ModelSpec,
    library: KerasLibrary,
    budget: ParameterBudget,
    make_lambda: MakeLambda,
) -> KerasModel:
    """The model that `spec` describes, in Keras 3 or tf_keras.

    Args:
      spec: what to build.
      library: module of the Keras that wrote the file.
      budget: of what all its layers have for weights.
      make_lambda: Lambda layer from the arguments of its specification.

    Raises:
      UserError: calls that do not fit together, tensors that no memory holds, or more
        parameters than are stored.
      Whatever Keras raises for arguments that do not fit each other.
    """
    try:
        return _Builder(library, budget, make_lambda).model(spec)
    except Exception:
        if budget.refusal is not None:
            raise UserError(budget.refusal) from None
        raise


class _Builder:
    def __init__(
        self, library: KerasLibrary, budget: ParameterBudget, make_lambda: MakeLambda
    ) -> None:
        self._library = library
        self._is_keras_3 = library.__name__ == "keras"
        self._initializer = budget.initializer(library)
        self._make_lambda = make_lambda

    def model(self, spec: ModelSpec) -> KerasModel:
        if spec.is_sequential:
            return self._sequential(spec)
        layers = {layer.name: self._layer(layer) for layer in spec.layers}
        given = self._call_all(spec, layers)

        def tensors(refs: Structure) -> Structure:
            # Keras 3 counts a model's own call among those of outputs alone.
            own_calls = {
                layer.name: self._is_functional(layers[layer.name])
                for layer in spec.layers
                if isinstance(layer, ModelSpec)
            }
            return _resolved(refs, given, own_calls)

        model_class = _named(self._library.Model, spec.subclass)
        return model_class(tensors(spec.inputs), tensors(spec.outputs), name=spec.name)

    def _sequential(self, spec: ModelSpec) -> KerasModel:
        model = _named(self._library.Sequential, spec.subclass)(name=spec.name)
        for layer in spec.layers:
            model.add(self._layer(layer))
            if getattr(model, "inputs", None):
                _check_sizes(layer.name, model.outputs)
        if not getattr(model, "inputs", None) and spec.input_shape:
            model.build(spec.input_shape)
        return model

    def _layer(self, spec: LayerSpec | ModelSpec) -> Layer:
        if isinstance(spec, ModelSpec):
            return self.model(spec)
        if spec.class_name in IDENTITIES:
            return self._library.layers.Activation("linear", name=spec.name)
        if spec.class_name == "Lambda":
            return self._make_lambda(spec.arguments)
        if spec.class_name.startswith("tf."):
            return self._function_layer(spec)
        arguments = {
            name: self._inner(value) if isinstance(value, InnerLayer) else value
            for name, value in spec.arguments.items()
        }
        if spec.is_operation:
            module = importlib.import_module(
                f"keras.src.ops.{OPERATION_MODULES[spec.class_name]}"
            )
            return getattr(module, spec.class_name)(**arguments, name=spec.name)
        if spec.class_name not in ARGUMENTS:
            return self._augmentation(spec.class_name, arguments)
        layer_class = self._class(spec.class_name)
        if spec.class_name == "InputLayer":
            shape = arguments.get("batch_shape", arguments.get("batch_input_shape"))
            if shape is not None:
                _check_size(spec.name, shape)
        return layer_class(**arguments, **self._initializers(spec.class_name))

    def _augmentation(
        self, class_name: str, arguments: Mapping[str, Argument]
    ) -> Layer:
        """The identity, if that is what such a layer is at inference."""
        name, reason = arguments["name"], CHANGES_IMAGES
        layer_class = augmentation_class(self._library, class_name)
        if layer_class is None:
            reason = f"the {self._library.__name__} installed has no such layer"
        elif is_identity(make_augmentation(layer_class, arguments)):
            return self._library.layers.Activation("linear", name=name)
        raise UserError(
            f"layer {shown(name)} ({class_name}) is not supported: {reason}"
        )

    def _class(self, class_name: str) -> Callable[..., Layer]:
        if class_name in _MODULES:
            name = f"{self._library.__name__}.src.{_MODULES[class_name]}"
            return getattr(importlib.import_module(name), class_name)
        return getattr(self._library.layers, class_name)

    def _inner(self, layer: InnerLayer) -> Layer:
        arguments = {**layer.arguments, **self._initializers(layer.class_name)}
        return self._class(layer.class_name)(**arguments)

    def _initializers(self, class_name: str) -> dict[str, Argument]:
        return dict.fromkeys(INITIALIZERS.get(class_name, ()), self._initializer)

    def _function_layer(self, spec: LayerSpec) -> Layer:
        """tf_keras' layer around a TensorFlow function of `source_operations`."""
        module = importlib.import_module(
            f"{self._library.__name__}.src.layers.core.tf_op_layer"
        )
        symbol = spec.class_name.removeprefix("tf.")
        is_slicing = symbol == "__operators__.getitem"
        layer_class = module.SlicingOpLambda if is_slicing else module.TFOpLambda
        return layer_class.from_config({"name": spec.name, "function": symbol})

    def _is_functional(self, layer: Layer) -> bool:
        """Whether Keras counts a model's own call as the first of its calls."""
        if self._is_keras_3:
            return not isinstance(layer, self._library.Sequential)
        inputs = self._library.layers.InputLayer
        tracked = layer._self_tracked_trackables
        return not tracked or isinstance(tracked[0], inputs)

    def _call_all(self, spec: ModelSpec, layers: Mapping[str, Layer]) -> _Tensors:
        """Calls all layers; (layer, call) -> the tensors given.

        Layers of an inner model are shared by its calls.
        """
        given: _Tensors = {}
        calls: dict[_Key, CallSpec] = {}
        own_calls = {
            layer.name: self._is_functional(layers[layer.name])
            for layer in spec.layers
            if isinstance(layer, ModelSpec) and not self._is_keras_3
        }
        for layer in spec.layers:
            if isinstance(layer, LayerSpec) and layer.class_name == "InputLayer":
                given[layer.name, 0] = _outputs(layers[layer.name].output)
            for index, call in enumerate(layer.calls):
                calls[layer.name, index] = call
        producers = {
            key: {_producer(ref, own_calls) for ref in call.tensors()}
            for key, call in calls.items()
        }
        for key in _in_order(producers, set(given)):
            given[key] = self._call(
                key[0], layers[key[0]], calls[key], given, own_calls
            )
        return given

    def _call(
        self,
        name: str,
        layer: Layer,
        call: CallSpec,
        given: _Tensors,
        own_calls: Mapping[str, bool],
    ) -> list:
        arguments = _resolved(call.arguments, given, own_calls)
        keywords = _resolved(dict(call.keywords), given, own_calls)
        if isinstance(layer, self._library.Model):
            # Keras 3 calls models on tensors alone.
            arguments = tf.nest.map_structure(_as_tensor, arguments)
        outputs = _outputs(layer(*arguments, **keywords))
        _check_sizes(name, outputs)
        return outputs


def _as_tensor(value: Structure) -> Structure:
    return tf.constant(value) if isinstance(value, np.ndarray) else value


def _named(model_class: type, name: str | None) -> type:
    """A class of Keras, or one that adds to it nothing but a name."""
    if name is None or not name.isidentifier():
        return model_class
    return type(name, (model_class,), {})


def _in_order(producers: Mapping[_Key, set[_Key]], given: set[_Key]) -> Iterator[_Key]:
    """The calls, each behind all whose tensors it takes.

    Args:
      producers: of each call.
      given: what there is without a call.

    Raises:
      UserError: one takes what no call gives, or what is computed from itself.
    """
    waiting_for: dict[_Key, list[_Key]] = {}
    missing: dict[_Key, int] = {}
    for key, taken in producers.items():
        for producer in taken - given:
            if producer not in producers:
                raise UserError(
                    f"layer {shown(key[0])} takes output {producer[1]} of "
                    f"{shown(producer[0])}, which there is not: save the model again"
                )
            waiting_for.setdefault(producer, []).append(key)
        missing[key] = len(taken - given)
    ready = deque(key for key, count in missing.items() if not count)
    while ready:
        key = ready.popleft()
        yield key
        for consumer in waiting_for.get(key, ()):
            missing[consumer] -= 1
            if not missing[consumer]:
                ready.append(consumer)
    if unmet := [name for (name, _), count in missing.items() if count]:
        raise UserError(
            f"layer {shown(unmet[0])} takes what is computed from itself; expected "
            "layers that follow each other: save the model again"
        )


def _producer(ref: TensorRef, own_calls: Mapping[str, bool]) -> _Key:
    return ref.layer, ref.call - own_calls.get(ref.layer, False)


def _resolved(
    value: Structure, given: _Tensors, own_calls: Mapping[str, bool]
) -> Structure:
    """A structure with tensors in place of `TensorRef`s."""
    if isinstance(value, TensorRef):
        outputs = given.get(_producer(value, own_calls), [])
        if value.output >= len(outputs):
            raise UserError(
                f"output {value.output} of layer {shown(value.layer)} is used, which "
                "there is not; save the model again"
            )
        return outputs[value.output]
    if isinstance(value, dict):
        return {key: _resolved(x, given, own_calls) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_resolved(x, given, own_calls) for x in value)
    return value


def _outputs(tensors: SymbolicTensor) -> list:
    """The tensors that a call gave, in order."""
    if isinstance(tensors, dict):
        return [tensor for key in sorted(tensors) for tensor in _outputs(tensors[key])]
    if isinstance(tensors, (list, tuple)):
        return [x for tensor in tensors for x in _outputs(tensor)]
    return [tensors]


def _check_sizes(name: str, tensors: list) -> None:
    for tensor in tensors:
        _check_size(name, tensor.shape)


def _check_size(name: str, shape: Iterable[int | None]) -> None:
    """Refuses tensors that no memory holds, before anything of them is computed."""
    sizes = [1 if size is None else int(size) for size in tuple(shape)[1:]]
    if math.prod(sizes) > _LARGEST_TENSOR:
        raise UserError(
            f"layer {shown(name)} gives {tuple(shape)}, "
            f"{math.prod(sizes) * 4 / 2**30:,.1f} GiB for one image; expected "
            f"{_LARGEST_TENSOR * 4 / 2**30:,.1f} GiB at most: rebuild the model for "
            "smaller inputs"
        )
