"""A source model -> list of primitive layers, producers first.

Models inside the model are entered: what they hold appears once for every call.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from gdfq_tf.source_layers import translate
from gdfq_tf.source_steps import Call, is_symbolic


@dataclasses.dataclass(frozen=True)
class Op:
    """One primitive layer.

    Attributes:
      kind: class name in `tf_keras.layers`, "DepthToSpace", "Affine" or "Resizing"
        (see `Step`).
      name: layer name, unique in the graph.
      inputs: names of the producers.
      config: arguments of the class.
      weights: in the order of `layer.get_weights()`, float32.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    config: dict[str, Any]
    weights: tuple[np.ndarray, ...] = ()


_Key = tuple[int, int, int]  # a symbolic tensor: layer, its call, its output


def read_graph(model: Any) -> list[Op]:
    """The primitive layers of a model of one input and one output.

    Raises:
      UserError: names the layer that has no counterpart and what to do.
    """
    reader = _Reader(layer.name for layer in all_layers(model))
    (output,) = reader.read(model, {})
    return reachable(reader.ops, output)


def reachable(ops: Iterable[Op], output: str) -> list[Op]:
    """The ops that `output` depends on; it comes last."""
    needed, result = {output}, []
    for op in reversed(list(ops)):
        if op.name in needed:
            needed |= set(op.inputs)
            result.append(op)
    return result[::-1]


class _Reader:
    """Collects the ops of a model and of the models inside it."""

    def __init__(self, layer_names: Iterable[str]):
        self.ops: list[Op] = []
        self._names = _Names(layer_names)

    def read(self, model: Any, bound: Mapping[_Key, str]) -> list[str]:
        """Appends a model's ops; returns the names of those that make its outputs.

        `bound`: names of the ops that stand for the model's inputs, if there are.
        """
        produced = dict(bound)
        for call in _calls(model.outputs, set(bound)):
            inputs = tuple(produced[_key(tensor)] for tensor in call.inputs)
            if _is_model(call.layer):
                inner = map(_key, call.layer.inputs)
                outputs = self.read(call.layer, dict(zip(inner, inputs, strict=True)))
            else:
                outputs = [self._append(call, inputs)]
            layer, node_index, _ = _key(call.output)
            for index, name in enumerate(outputs):
                produced[layer, node_index, index] = name
        return [produced[_key(tensor)] for tensor in model.outputs]

    def _append(self, call: Call, inputs: tuple[str, ...]) -> str:
        """Appends the ops of one call; returns the name of the one that ends it."""
        values = list(inputs)
        taken = inputs
        for step in translate(call):
            if step.inputs is not None:
                taken = tuple(values[index] for index in step.inputs)
            while step.kind == "Add" and len(taken) > 2:
                partial = self._names.new(call.layer.name, "_partial")
                self.ops.append(Op("Add", partial, taken[:2], {}))
                taken = (partial, *taken[2:])
            name = self._names.new(call.layer.name, step.suffix)
            self.ops.append(Op(step.kind, name, taken, step.config, step.weights))
            values.append(name)
            taken = (name,)
        return values[-1]


def _is_model(layer: Any) -> bool:
    """Whether a layer is a model whose graph can be entered."""
    return hasattr(layer, "inputs") and hasattr(layer, "layers")


def all_layers(model: Any) -> Iterator[Any]:
    """A model's layers and operations, also inside its models."""
    for layer in getattr(model, "operations", model.layers):
        if _is_model(layer):
            yield from all_layers(layer)
        else:
            yield layer


def _calls(outputs: Iterable[Any], bound: set[_Key]) -> Iterator[Call]:
    """The calls between the bound tensors and some outputs, producers first."""
    done = {key[:2] for key in bound}
    stack = list(reversed(list(outputs)))
    while stack:
        tensor = stack[-1]
        layer, node_index, _ = tensor._keras_history
        if _key(tensor)[:2] in done:
            stack.pop()
            continue
        node = layer._inbound_nodes[node_index]
        arguments, keywords = _arguments(node)
        # In whatever structure the call was given, among constants.
        inputs = [t for t in tf.nest.flatten((arguments, keywords)) if is_symbolic(t)]
        missing = [t for t in inputs if _key(t)[:2] not in done]
        stack.extend(reversed(missing))
        if not missing:
            done.add(_key(tensor)[:2])
            yield Call(layer, tuple(inputs), tensor, arguments, keywords)


def _arguments(node: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a layer was called with: by position, by name."""
    if hasattr(node, "arguments"):  # Keras 3
        return tuple(node.arguments.args), dict(node.arguments.kwargs)
    return tuple(node.call_args), dict(node.call_kwargs)


def _key(tensor: Any) -> _Key:
    layer, node_index, tensor_index = tensor._keras_history
    return id(layer), node_index, tensor_index


class _Names:
    """Unique layer names: a layer's own name first, derived ones beside them."""

    def __init__(self, layer_names: Iterable[str]):
        self._reserved = {valid_name(name) for name in layer_names}
        self._used: set[str] = set()

    def new(self, layer_name: str, suffix: str) -> str:
        own = valid_name(layer_name)
        name, count = own + suffix, 0
        while name in self._used or (name in self._reserved and name != own):
            count += 1
            name = f"{own}{suffix}_{count}"
        self._used.add(name)
        return name


def valid_name(name: str) -> str:
    """A name that TensorFlow accepts as a scope, and tables and files as text."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip("_-") or "layer"
