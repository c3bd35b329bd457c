"""A source model -> list of primitive layers, producers first.

Models inside the model are entered: what they hold appears once for every call. So are
the functions of Lambda layers: called on symbolic tensors, they leave the operations
that they are made of.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import tensorflow as tf

from gdfq_tf.errors import UserError, option
from gdfq_tf.frontend.layer_importers import check_precision, translate
from gdfq_tf.frontend.ops import Op, Ops, reachable
from gdfq_tf.frontend.steps import Call, class_name, is_symbolic, refuse_layer
from gdfq_tf.keras_compat import KerasModel, Layer, SymbolicTensor
from gdfq_tf.model_files.model_inputs import Constants, bound_inputs
from tflite_export.names import shown

_Key: TypeAlias = tuple[int, int, int]  # a tensor: layer, its call, its output
_Value: TypeAlias = Any  # of a tensor: the name of its op, or what it always is
_Node: TypeAlias = Any  # a call of a layer, as either Keras notes it

# Kinds that take two tensors; of more they are computed one after the other.
_PAIRWISE = ("Add", "Maximum", "Minimum", "Multiply")


def read_graph(model: KerasModel, constants: Constants | None = None) -> Ops:
    """The primitive layers of a model of one input and one output.

    Args:
      model: of either Keras.
      constants: for its other inputs, see `read_constants`.

    Raises:
      UserError: names the layer that has no counterpart and what to do.
    """
    reader = _Reader(layer.name for layer in all_layers(model))
    # A model of fixed batch size computes constants for as many images.
    count = model.inputs[0].shape[0] or 1
    inputs = bound_inputs(model, constants or {}, count)
    bound = {_key(tensor): value for tensor, value in inputs}
    with _calls_forgotten(model):
        (output,) = reader.read(model.outputs, bound)
    if not isinstance(output, str):
        raise UserError(
            f"model {shown(model.name)} gives the same outputs for every image: they "
            "depend on its constants alone; expected a network that tells images apart"
        )
    return reachable(reader.ops, output)


@contextlib.contextmanager
def _calls_forgotten(model: KerasModel) -> Iterator[None]:
    """Lets a model's layers forget who read their outputs meanwhile.

    Functions that are called on symbolic tensors do; the model is its author's.
    """
    known = [(x._outbound_nodes, len(x._outbound_nodes)) for x in _producers(model)]
    try:
        yield
    finally:
        for nodes, count in known:
            del nodes[count:]


class _Reader:
    """Collects the ops of a model and of the models inside it."""

    def __init__(self, layer_names: Iterable[str]) -> None:
        self.ops: Ops = []
        self._names = _Names(layer_names)

    def read(
        self,
        outputs: Iterable[SymbolicTensor],
        bound: Mapping[_Key, _Value],
        name: str | None = None,
    ) -> list[_Value]:
        """Appends the ops behind some symbolic tensors.

        Args:
          outputs: of a model or a function.
          bound: what stands for its inputs, if there are.
          name: what all ops are named after; None: each after its own layer.

        Returns:
          For each output the name of its op, or its value if that is constant.
        """
        produced = dict(bound)
        outputs = list(outputs)
        for call in calls_behind(outputs, bound):
            layer, node_index, _ = _key(call.output)
            for index, result in enumerate(self._read_call(call, produced, name)):
                produced[layer, node_index, index] = result
        return [produced[_key(tensor)] for tensor in outputs]

    def _read_call(
        self, call: Call, produced: Mapping[_Key, _Value], name: str | None
    ) -> list[_Value]:
        """Appends the ops of one call; returns what `read` does of its outputs."""
        known = _with_constants(call, produced)
        if call.inputs and not known.inputs:
            return tf.nest.flatten(known.layer(*known.arguments, **known.keywords))
        if _is_model(known.layer):
            given = tf.nest.flatten((*known.arguments, *known.keywords.values())[0])
            values = [produced[_key(x)] if is_symbolic(x) else x for x in given]
            inner = map(_key, known.layer.inputs)
            bound = dict(zip(inner, values, strict=True))
            return self.read(known.layer.outputs, bound, name)
        if class_name(known.layer) == "Lambda":
            return [self._read_function(known, produced)]
        inputs = tuple(produced[_key(tensor)] for tensor in known.inputs)
        base = name or known.layer.name
        return [
            self._append(dataclasses.replace(known, output=output), inputs, base)
            for output in known.outputs
        ]

    def _read_function(self, call: Call, produced: Mapping[_Key, _Value]) -> _Value:
        """Appends the ops of a Lambda layer's function; returns the last's name.

        All are named after the layer: names that operations give themselves depend on
        what the process did before.
        """
        layer = call.layer
        check_precision(call)
        try:
            output = layer.call(*call.arguments, **call.keywords)
        except Exception as error:  # whatever a function may raise
            reason = str(error).strip().split("\n")[0].split(". ")[0]
            refuse_layer(
                layer,
                f"its code fails on symbolic tensors, {type(error).__name__}: "
                f"{reason[:200]}; expected operators and functions of the Keras that "
                "the model is of: use standard layers instead",
            )
        if not is_symbolic(output):
            refuse_layer(
                layer,
                f"its code gives {type(output).__name__}; expected one tensor, "
                "computed from the layer's inputs: use standard layers instead",
            )
        try:
            return self.read([output], produced, layer.name)[0]
        except UserError as error:
            refuse_layer(layer, f"in its code, {error.render(option)}")

    def _append(self, call: Call, inputs: tuple[str, ...], base: str) -> str:
        """Appends the ops of one call, named after `base`; returns the last's name."""
        values = list(inputs)
        taken = inputs
        for step in translate(call):
            if step.inputs is not None:
                taken = tuple(values[index] for index in step.inputs)
            while step.kind in _PAIRWISE and len(taken) > 2:
                partial = self._names.new(base, "_partial")
                self.ops.append(Op(step.kind, partial, taken[:2], {}))
                taken = (partial, *taken[2:])
            name = self._names.new(base, step.suffix)
            self.ops.append(Op(step.kind, name, taken, step.config, step.weights))
            values.append(name)
            taken = (name,)
        return values[-1]


def _with_constants(call: Call, produced: Mapping[_Key, _Value]) -> Call:
    """The call on the values of those of its tensors that are constant."""
    values = {_key(x): produced[_key(x)] for x in call.inputs}
    values = {key: x for key, x in values.items() if not isinstance(x, str)}
    if not values:
        return call
    arguments, keywords = tf.nest.map_structure(
        lambda x: values.get(_key(x), x) if is_symbolic(x) else x,
        (call.arguments, call.keywords),
    )
    inputs = tuple(x for x in call.inputs if _key(x) not in values)
    return dataclasses.replace(
        call, inputs=inputs, arguments=arguments, keywords=keywords
    )


def _is_model(layer: Layer) -> bool:
    """Whether a layer is a model whose graph can be entered."""
    return hasattr(layer, "inputs") and hasattr(layer, "layers")


def all_layers(model: KerasModel) -> Iterator[Layer]:
    """A model's layers and operations, also inside its models."""
    for layer in getattr(model, "operations", model.layers):
        if _is_model(layer):
            yield from all_layers(layer)
        else:
            yield layer


def _producers(model: KerasModel) -> Iterator[Layer]:
    """All that tensors of a model's graph come from, models inside it included."""
    yield model
    for tensor in model.inputs:
        yield tensor._keras_history[0]
    for layer in getattr(model, "operations", model.layers):
        if _is_model(layer):
            yield from _producers(layer)
        else:
            yield layer


def calls_behind(
    outputs: Iterable[SymbolicTensor], bound: Iterable[_Key] = ()
) -> Iterator[Call]:
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
            outputs = tuple(tf.nest.flatten(node.outputs))
            yield Call(layer, tuple(inputs), tensor, arguments, keywords, outputs)


def _arguments(node: _Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a layer was called with: by position, by name."""
    if hasattr(node, "arguments"):  # Keras 3
        return tuple(node.arguments.args), dict(node.arguments.kwargs)
    return tuple(node.call_args), dict(node.call_kwargs)


def _key(tensor: SymbolicTensor) -> _Key:
    layer, node_index, tensor_index = tensor._keras_history
    return id(layer), node_index, tensor_index


class _Names:
    """Unique layer names: a layer's own name first, derived ones beside them."""

    def __init__(self, layer_names: Iterable[str]) -> None:
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
