"""Where a network begins and ends: inputs that matter, scores of classes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from gdfq_tf.frontend.importer import calls_behind
from gdfq_tf.frontend.operation_importers import POST_PROCESSING, is_cast_to_real
from gdfq_tf.frontend.steps import Call, class_name, is_symbolic
from gdfq_tf.keras_compat import KerasModel, SymbolicTensor, library_of_model
from gdfq_tf.model_files.model_outputs import named_outputs
from tflite_export.names import listed, shown

_Producer: TypeAlias = tuple[int, int]  # a layer and its call

_OF_CLASSES = ("sigmoid", "softmax")


def trimmed(model: KerasModel, task: str) -> KerasModel:
    """The model without inputs that no output depends on, and up to class scores.

    Warns (UserWarning) if a classifier is taken only up to its scores, because what it
    does with them, argmax for instance, is no network's work.

    Args:
      model: of either Keras; stays as it is.
      task: one of `TASKS`.
    """
    outputs = list(getattr(model, "outputs", None) or [])
    if not outputs or not all(map(is_symbolic, outputs)):
        return model
    scores: list[SymbolicTensor] = outputs
    left_out: list[str] = []
    if task == "classification":
        scores, left_out = _scores(outputs)
    if len(scores) != 1:
        return model
    if left_out:
        warnings.warn(
            f"model {shown(model.name)} ends in {listed(left_out)}; it is taken up to "
            "the scores before, so the exported model gives those",
            stacklevel=2,
        )
    used = {
        key for call in _calls(scores).values() for key in map(_producer, call.inputs)
    }
    inputs = [x for x in model.inputs if _producer(x) in used]
    if not inputs or (len(inputs) == len(model.inputs) and not left_out):
        return model
    given = inputs[0] if len(inputs) == 1 else inputs
    return library_of_model(model).Model(given, scores[0], name=model.name)


def likely_output(model: KerasModel) -> str | None:
    """Name of the output of several that gives classes, if one alone looks like it.

    It ends in a softmax or sigmoid, or, if none does, is a row of numbers that no layer
    reads.
    """
    outputs = named_outputs(model)
    calls = _calls(outputs.values())
    read = {key for call in calls.values() for key in map(_producer, call.inputs)}
    ends = {name: calls[_producer(tensor)] for name, tensor in outputs.items()}
    likely = [name for name, call in ends.items() if _gives_classes(call)]
    likely = likely or [
        name
        for name, tensor in outputs.items()
        if len(tensor.shape) == 2 and _producer(tensor) not in read
    ]
    return likely[0] if len(likely) == 1 else None


def _calls(outputs: Iterable[SymbolicTensor]) -> Mapping[_Producer, Call]:
    return {_producer(call.output): call for call in calls_behind(outputs)}


def _producer(tensor: SymbolicTensor) -> _Producer:
    layer, node_index, _ = tensor._keras_history
    return id(layer), node_index


def _scores(
    outputs: Iterable[SymbolicTensor],
) -> tuple[list[SymbolicTensor], list[str]]:
    """What outputs are made of, each once, and the operations that make them."""
    calls = _calls(outputs)
    scores: list[SymbolicTensor] = []
    left_out: list[str] = []
    for tensor in outputs:
        call = calls[_producer(tensor)]
        while class_name(call.layer) in POST_PROCESSING and len(call.inputs) == 1:
            if not is_cast_to_real(call):
                left_out.append(class_name(call.layer))
            (tensor,) = call.inputs
            call = calls[_producer(tensor)]
        if all(tensor is not x for x in scores):
            scores.append(tensor)
    return scores, left_out


def _gives_classes(call: Call) -> bool:
    function = getattr(call.layer, "activation", None)
    name = getattr(function, "__name__", class_name(call.layer))
    return name.lower() in _OF_CLASSES
