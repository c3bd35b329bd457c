"""The calls of a file's layers: JSON of either Keras -> `CallSpec`s."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from gdfq_tf.model_files.argument_values import (
    NAME,
    UNFIT,
    Json,
    integer,
    number,
    numbers,
)
from gdfq_tf.model_files.layer_arguments import ArgumentError
from gdfq_tf.model_files.model_spec import CallSpec, Structure, TensorRef
from gdfq_tf.model_files.operation_arguments import OPERANDS, OPERATION_ARGUMENTS

_DEEPEST = 16  # lists inside lists
_CONSTANT = "_CONSTANT_VALUE"


def read_calls(nodes: Json, *, is_operation: bool) -> tuple[CallSpec, ...]:
    """The calls of one layer.

    Raises:
      ArgumentError: a call has a value that may not stand there.
      One of `UNFIT`: it is no list of calls.
    """
    return tuple(_call(node, is_operation) for node in _list(nodes))


def read_refs(value: Json, depth: int = 0) -> Structure:
    """The inputs or outputs of a model."""
    if depth > _DEEPEST:
        raise ValueError
    if isinstance(value, dict):
        return {NAME.read(k): read_refs(v, depth + 1) for k, v in value.items()}
    if _is_entry(value):
        return _ref(value)
    return [read_refs(item, depth + 1) for item in _list(value)]


def read_keywords(keywords: Mapping[str, Json]) -> dict[str, Structure]:
    """Arguments of an operation, by `OPERANDS` and `OPERATION_ARGUMENTS`."""
    found = {}
    for keyword, value in keywords.items():
        if value is None or keyword in ("name", "var"):
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


def _list(value: Json) -> list:
    if not isinstance(value, list):
        raise TypeError
    return value


def _call(node: Json, is_operation: bool) -> CallSpec:
    """A call as Keras 3 writes it, a dict, or as Keras 2 does, nested lists."""
    if isinstance(node, dict):
        arguments = tuple(_value(x, "inputs") for x in _list(node["args"]))
        return CallSpec(arguments, _call_keywords(node["kwargs"], is_operation))
    if not node:
        raise ValueError
    entries = list(_entries(node, depth=0))
    keywords: Json = next((x[3] for x in reversed(entries) if len(x) == 4), {})
    first = _first_argument(node)
    if isinstance(first, list) and len(first) == 1 and not is_operation:
        (first,) = first
    return CallSpec((first,), _call_keywords(keywords, is_operation))


def _is_entry(node: Json) -> bool:
    """[layer, call, output] or the same with keywords."""
    return isinstance(node, list) and bool(node) and isinstance(node[0], str)


def _entries(node: Json, depth: int) -> Iterator[list]:
    if depth > _DEEPEST:
        raise ValueError
    if _is_entry(node):
        if len(node) not in (3, 4):
            raise ValueError
        yield node
    else:
        for item in _list(node):
            yield from _entries(item, depth + 1)


def _first_argument(node: Json) -> Structure:
    """The entries as tensors and constants, lists as they are."""
    if not _is_entry(node):
        return [_item(item) for item in node]
    if node[0] == _CONSTANT:
        return _value(node[2], "inputs")
    return _ref(node[:3])


def _item(node: Json) -> Structure:
    """An entry of a list, where a constant in lists would be taken for tensors."""
    argument = _first_argument(node)
    if _is_entry(node) and node[0] == _CONSTANT and isinstance(argument, list):
        return np.asarray(numbers(argument), np.float32)
    return argument


def _call_keywords(keywords: Json, is_operation: bool) -> dict[str, Structure]:
    """What a call has by name; of layers only whether they are being trained."""
    if is_operation:
        return read_keywords(keywords)
    found = {}
    for keyword, value in keywords.items():
        if keyword == "inputs":
            found[keyword] = _value(value, keyword)
        elif value is not None and not _masks_nothing(keyword, value):
            if keyword != "training" or not isinstance(value, bool):
                raise ArgumentError(keyword, value, "tensors and `training` only")
            found[keyword] = value
    return found


def _masks_nothing(keyword: str, value: Json) -> bool:
    """Whether it is what Keras 3 notes of models called on constants: no mask each."""
    return keyword == "mask" and isinstance(value, list) and not any(value)


def _value(value: Json, argument: str, depth: int = 0) -> Structure:
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


def _is_constant(value: Json) -> bool:
    """Whether nested lists end in a number that is no integer: no indices."""
    while isinstance(value, list) and value:
        value = value[0]
    return type(value) is float


def _object(value: Mapping[str, Json]) -> Structure:
    if "class_name" not in value:  # a slice as tf_keras writes it
        if set(value) != {"start", "stop", "step"}:
            raise ValueError
        return {key: _index(item) for key, item in value.items()}
    class_name = value["class_name"]
    if class_name == "__ellipsis__":
        return Ellipsis
    content = value["config"]
    if class_name == "__keras_tensor__":
        return _ref(content["keras_history"])
    if class_name == "__slice__":
        return slice(*(_index(content[key]) for key in ("start", "stop", "step")))
    return np.asarray(numbers(value))


def _index(value: Json) -> int | None:
    return None if value is None else integer(value, -(2**31), 2**31 - 1)


def _ref(value: Json) -> TensorRef:
    layer, call, output = value
    return TensorRef(NAME.read(layer), integer(call, 0), integer(output, 0))
