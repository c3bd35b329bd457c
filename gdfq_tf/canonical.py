"""Any supported Keras graph -> one flat tf_keras graph of primitive layers.

The source model (Keras 3 or tf_keras) is read as a list of `Op`s, producers
first, the rules are checked on that list, and the list is built. The rest of the
program relies on this vocabulary and on nothing else of the source:

InputLayer; Conv2D, DepthwiseConv2D, Dense (linear); BatchNormalization (last
axis, directly behind one of those three and its only consumer); ReLU (with or
without max_value); Add (two inputs of one shape); Concatenate (last axis);
MaxPooling2D, AveragePooling2D, GlobalAveragePooling2D (no keepdims); Flatten,
Reshape, ZeroPadding2D.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from gdfq_tf.errors import UserError
from gdfq_tf.keras_compat import keras
from gdfq_tf.source_layers import Call, refuse, translate

_LINEAR = ("Conv2D", "DepthwiseConv2D", "Dense")


@dataclasses.dataclass(frozen=True)
class Op:
    """One primitive layer.

    Attributes:
      kind: class name in `tf_keras.layers`.
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


def canonicalize(source: Any) -> tuple[keras.Model, str]:
    """The canonical copy of a classifier, and how the classifier ended.

    Args:
      source: Functional or Sequential model of Keras 3 or tf_keras; input
        (N, H, W, C), output (N, classes).

    Returns:
      The tf_keras model float32 (N, H, W, C) -> logits (N, classes), and
      "softmax" if the source turned those logits into probabilities, else
      "logits".

    Raises:
      UserError: names the layer that has no counterpart and what to do.
    """
    _check_ends(source)
    ops = _read_graph(source.inputs[0], source.outputs[0])
    head = "logits"
    if ops[-1].kind == "Softmax":
        ops, head = ops[:-1], "softmax"
    _check_placement(ops)
    return _build(ops, _valid_name(source.name)), head


def _check_ends(source: Any) -> None:
    """Refuses what is no classifier of images of one size."""
    inputs = getattr(source, "inputs", None) or []
    outputs = getattr(source, "outputs", None) or []
    if not outputs or not all(hasattr(t, "_keras_history") for t in outputs):
        raise UserError(
            f"model {source.name!r} has no fixed graph; expected a Functional model "
            "or a Sequential model with an Input layer: rebuild it that way"
        )
    if len(inputs) != 1 or len(outputs) != 1:
        raise UserError(
            f"model {source.name!r} has {len(inputs)} inputs and {len(outputs)} "
            "outputs; expected one image input and one class output: cut it with "
            "keras.Model(image, logits)"
        )
    shape, out = tuple(inputs[0].shape), tuple(outputs[0].shape)
    if len(shape) != 4:
        raise UserError(
            f"model {source.name!r} takes {shape}; expected images (None, height, "
            "width, channels)"
        )
    if None in shape[1:]:
        raise UserError(
            f"model {source.name!r} takes {shape}, images of no fixed size; fix it and "
            "save that: fixed = keras.models.clone_model(model, "
            "keras.Input((224, 224, 3))); fixed.set_weights(model.get_weights())"
        )
    if len(out) != 2 or out[1] is None or out[1] < 2:
        raise UserError(
            f"model {source.name!r} gives {out}, so it is not a classifier; expected "
            "(None, classes) with 2 or more classes"
        )


def _read_graph(source_input: Any, output: Any) -> list[Op]:
    """The source as primitive layers, producers first, the output last."""
    calls = list(_calls(source_input, output))
    times = Counter(id(call.layer) for call in calls)
    names = _Names(call.layer.name for call in calls)
    produced: dict[tuple[int, int], str] = {}  # source tensor -> its Op
    ops: list[Op] = []
    for call in calls:
        steps = translate(call)
        layer = call.layer
        if times[id(layer)] > 1 and any(step.weights for step in steps):
            refuse(
                layer.name,
                type(layer).__name__,
                f"it is called {times[id(layer)]} times and shares its weights; "
                "use one layer for each call",
            )
        inputs = tuple(produced[_key(tensor)] for tensor in call.inputs)
        for step in steps:
            while step.kind == "Add" and len(inputs) > 2:
                partial = names.new(layer.name, "_partial")
                ops.append(Op("Add", partial, inputs[:2], {}))
                inputs = (partial, *inputs[2:])
            name = names.new(layer.name, step.suffix)
            ops.append(Op(step.kind, name, inputs, step.config, step.weights))
            inputs = (name,)
        produced[_key(call.output)] = inputs[0]
    return ops


def _calls(source_input: Any, output: Any) -> Iterator[Call]:
    """The layer calls between input and output, producers first."""
    done: set[tuple[int, int]] = set()
    stack = [output]
    while stack:
        tensor = stack[-1]
        layer, node_index, _ = tensor._keras_history
        node = layer._inbound_nodes[node_index]
        inputs = []
        if not node.is_input and _key(tensor) != _key(source_input):
            # Keras 3 gives a list, tf_keras whatever structure the call was given.
            nested = tf.nest.flatten(node.input_tensors)
            inputs = [t for t in nested if hasattr(t, "_keras_history")]
        missing = [t for t in inputs if _key(t) not in done]
        stack.extend(reversed(missing))
        if missing:
            continue
        stack.pop()
        if _key(tensor) not in done:
            done.add(_key(tensor))
            yield Call(layer, tuple(inputs), tensor)


def _key(tensor: Any) -> tuple[int, int]:
    """Identifies the layer call that made a tensor."""
    layer, node_index, _ = tensor._keras_history
    return id(layer), node_index


class _Names:
    """Unique layer names: a layer's own name first, derived ones beside them."""

    def __init__(self, layer_names):
        self._reserved = {_valid_name(name) for name in layer_names}
        self._used: set[str] = set()

    def new(self, layer_name: str, suffix: str) -> str:
        own = _valid_name(layer_name)
        name, count = own + suffix, 0
        while name in self._used or (name in self._reserved and name != own):
            count += 1
            name = f"{own}{suffix}_{count}"
        self._used.add(name)
        return name


def _valid_name(name: str) -> str:
    """A name that TensorFlow accepts as a scope, and tables and files as text."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip("_-") or "layer"


def _check_placement(ops: list[Op]) -> None:
    """Refuses a softmax inside the graph and what cannot be folded."""
    kinds = {op.name: op.kind for op in ops}
    consumers = Counter(name for op in ops for name in op.inputs)
    for op in ops:
        if op.kind == "Softmax":
            refuse(op.name, op.kind, "softmax is supported as the last layer only")
        if op.kind != "BatchNormalization":
            continue
        producer = op.inputs[0]
        if kinds[producer] not in _LINEAR:
            refuse(
                op.name,
                op.kind,
                f"it follows {producer!r} ({kinds[producer]}); expected it directly "
                f"behind one of {', '.join(_LINEAR)}, where it can be folded",
            )
        if consumers[producer] > 1:
            refuse(
                op.name,
                op.kind,
                f"its input {producer!r} is used by other layers too, so it cannot be "
                "folded; let them use its output instead",
            )


def _build(ops: list[Op], name: str) -> keras.Model:
    tensors: dict[str, Any] = {}
    for op in ops:
        if op.kind == "InputLayer":
            tensors[op.name] = keras.Input(name=op.name, **op.config)
            continue
        layer = getattr(keras.layers, op.kind)(name=op.name, **op.config)
        inputs = [tensors[producer] for producer in op.inputs]
        tensors[op.name] = layer(inputs[0] if len(inputs) == 1 else inputs)
        layer.set_weights(op.weights)
    return keras.Model(tensors[ops[0].name], tensors[ops[-1].name], name=name)
