"""What a model file describes, as values that are checked already."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from gdfq_tf.model_files.argument_values import Argument

# `TensorRef`s inside lists, tuples and dicts, perhaps among constants.
Structure: TypeAlias = Argument

# Layers of keras.applications, which HDF5 files of Keras 2 name with a prefix.
_APPLICATION_LAYERS = ("CustomScaleLayer", "LayerScale", "StochasticDepth")
_FUNCTION_LAYERS = ("TFOpLambda", "SlicingOpLambda")


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

    arguments: tuple[Structure, ...]
    keywords: Mapping[str, Argument]

    def tensors(self) -> Iterator[TensorRef]:
        """All that it takes, in order."""
        yield from tensors_in([*self.arguments, *self.keywords.values()])


@dataclasses.dataclass(frozen=True)
class LayerSpec:
    """A layer to build.

    Attributes:
      class_name: one of `ARGUMENTS` or `IDENTITIES`, of `OPERATION_MODULES` if it
        `is_operation`, a layer that `is_augmentation`, "Lambda", or "tf.FUNCTION".
      name: unique in its model.
      arguments: of the constructor, checked; of Lambda layers, code and all.
      calls: in the model that holds it; none in Sequential models.
      is_operation: whether it is an operation of Keras 3.
    """

    class_name: str
    name: str
    arguments: Mapping[str, Argument]
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
      subclass: name of its author's class, under which weights are stored; None if it
        is of Keras' own.
    """

    name: str
    layers: tuple[LayerSpec | ModelSpec, ...]
    inputs: Structure = None
    outputs: Structure = None
    input_shape: tuple[int | None, ...] | None = None
    calls: tuple[CallSpec, ...] = ()
    subclass: str | None = None

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


def tensors_in(value: Structure) -> Iterator[TensorRef]:
    """The `TensorRef`s inside lists, tuples and dicts, in order."""
    if isinstance(value, TensorRef):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)


def qualified_class_name(name: str, function: object) -> str:
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
