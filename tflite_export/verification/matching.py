"""Which operator of a file is which of the student's, and in what the two differ.

Operators are found by what they read, from the input on. None of it relies on names, or
on how the converter works.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from tflite_export.flatbuffer import Operator, Tensor, TFLiteModel, constant_values
from tflite_export.names import shown
from tflite_export.quantization_params import QuantParams
from tflite_export.verification.expected_graph import ExpectedGraph
from tflite_export.verification.expected_operators import Constant, ExpectedOperator
from tflite_export.verification.tflite_operators import TFLITE_OPERATORS

Offence = tuple[str, str]  # a key of `student_rules.RULES`, what was found


@dataclasses.dataclass(frozen=True, eq=False)
class Matching:
    """The student's operators in a file.

    Attributes:
      found: pairs of what was expected and the operator that is it, in the student's
        order; one operator may be several that are alike.
      offences: in what they differ, and what is missing or there besides.
    """

    found: tuple[tuple[ExpectedOperator, Operator], ...]
    offences: tuple[Offence, ...]


def match(model: TFLiteModel, graph: ExpectedGraph) -> Matching:
    """Looks for the operators of a graph in a file.

    Raises:
      LookupError, ValueError, TypeError: the file is damaged.
    """
    (first,), (last,) = model.inputs, model.outputs
    file = _File(model)
    # Where the student's tensors are in the file.
    places, used = {graph.input.name: first}, set()
    found: list[tuple[ExpectedOperator, Operator]] = []
    offences: list[Offence] = []
    for alternatives in graph.steps:
        candidates = _candidates(file, graph, alternatives, places)
        if candidates is None:
            continue  # behind what was not found
        # The converter makes one of operators that are alike.
        best = min(
            candidates,
            key=lambda one: (len(one.offences), one.operator.index in used),
            default=None,
        )
        if alternatives[0].optional and (best is None or best.offences):
            continue  # part of what follows; what reads the same is another one's
        if best is None:
            names = " or ".join(dict.fromkeys(step.name for step in alternatives))
            text = f"no {names} for {shown(alternatives[0].output)}"
            offences.append(("operators", text))
            continue
        offences += best.offences
        found.append((best.step, best.operator))
        used.add(best.operator.index)
        places[alternatives[0].output] = best.operator.outputs[0]
    offences += [
        ("operators", f"{operator.name} as operator {operator.index} besides")
        for operator in model.operators
        if operator.index not in used and operator.name != "RESHAPE"
    ]
    output = graph.output.name
    if file.source(last) != places.get(graph.source(output)):
        text = f"an output that is not the student's {shown(output)}"
        offences.append(("ends", text))
    return Matching(tuple(found), tuple(offences))


class _File:
    """A model's operators, to be found by what they read.

    RESHAPEs are ignored: a tensor and its reshaped forms, which hold the same values in
    the same order, count as one.
    """

    def __init__(self, model: TFLiteModel) -> None:
        """Takes a model of indices that are in range."""
        self.tensors = model.tensors
        self._sources: dict[int, int] = {}
        self._readers: dict[tuple, list[Operator]] = {}
        for operator in model.operators:
            if operator.name == "RESHAPE":
                (output,) = operator.outputs
                self._sources[output] = self.source(operator.inputs[0])
            else:
                key = self._key(operator.name, map(self.source, self.data(operator)))
                self._readers.setdefault(key, []).append(operator)

    def source(self, index: int) -> int:
        """The first tensor that holds the values of this one."""
        return self._sources.get(index, index)

    def data(self, operator: Operator) -> list[int]:
        """Inputs that are computed."""
        return [
            index
            for index in operator.inputs
            if index >= 0 and not self.tensors[index].is_constant
        ]

    def readers(self, name: str, sources: list[int]) -> list[Operator]:
        """The operators of that name that read these tensors and no others."""
        return self._readers.get(self._key(name, sources), [])

    @staticmethod
    def _key(name: str, sources: Iterable[int]) -> tuple:
        known = TFLITE_OPERATORS.get(name)
        in_any_order = known is not None and known.commutative
        return (name, *(sorted(sources) if in_any_order else sources))


@dataclasses.dataclass(frozen=True, eq=False)
class _Candidate:
    """An operator that may be a step, and in what it differs from that."""

    step: ExpectedOperator
    operator: Operator
    offences: list[Offence]


def _candidates(
    file: _File,
    graph: ExpectedGraph,
    alternatives: tuple[ExpectedOperator, ...],
    places: Mapping[str, int],
) -> list[_Candidate] | None:
    """Operators that may be one of the alternatives.

    None if what each of them reads was not found.
    """
    placed = {
        step: [places[graph.source(name)] for name in step.inputs]
        for step in alternatives
        if places.keys() >= {graph.source(name) for name in step.inputs}
    }
    if not placed:
        return None
    return [
        _Candidate(step, operator, list(_differences(file, operator, step, graph)))
        for step, sources in placed.items()
        for operator in file.readers(step.name, sources)
    ]


def _differences(
    file: _File, operator: Operator, step: ExpectedOperator, graph: ExpectedGraph
) -> Iterator[Offence]:
    what = f"{step.name} for {shown(step.output)}"
    count = len(step.inputs)
    data, constants = operator.inputs[:count], operator.inputs[count:]
    if step.read_as is not None:
        shapes = [step.read_as]
    else:
        shapes = [graph.shapes[name] for name in step.inputs]
    found_shapes = [file.tensors[index].shape for index in data]
    # FULLY_CONNECTED flattens what it reads, unless it keeps the dimensions.
    flattens = step.name == "FULLY_CONNECTED" and not step.options["keepNumDims"]
    if not flattens and sorted(found_shapes) != sorted(shapes):
        yield "activation", f"{what} reads shapes {found_shapes} instead of {shapes}"
    for text in _option_offences(operator, step):
        yield "operators", f"{what} has {text}"
    missing = [constant.values.any() for constant in step.constants[len(constants) :]]
    if any(missing) or len(constants) > len(step.constants):
        yield (
            "operators",
            f"{what} has {len(constants)} constants instead of {len(step.constants)}",
        )
    for index, expected in zip(constants, step.constants, strict=False):
        if index >= 0:
            yield from constant_offences(what, file.tensors[index], expected)
        elif expected.values.any():
            yield "operators", f"{what} has no {expected.what}"
    (output,) = operator.outputs
    for text in activation_offences(
        file.tensors[output], step.shape, step.quant_params, step.dtype
    ):
        yield "activation", text


def _option_offences(operator: Operator, step: ExpectedOperator) -> Iterator[str]:
    if operator.options_type != step.options_type:
        yield operator.options_type or "no options"
        return
    for name in {**step.options, **operator.options}:
        wanted, found = step.options.get(name), operator.options.get(name)
        if not np.array_equal(np.asarray(found), np.asarray(wanted)):
            yield f"{name} {found} instead of {wanted}"


# The rule of a constant's values; of all others it is "operators".
_RULE_OF_CONSTANT = {"kernel": "kernel", "bias": "bias"}


def constant_offences(
    what: str, tensor: Tensor, expected: Constant
) -> Iterator[Offence]:
    """In what a stored input of an operator, called `what`, differs."""
    rule = _RULE_OF_CONSTANT.get(expected.what, "operators")
    what = f"{expected.what} of {what}"
    if not tensor.is_constant or tensor.dtype != expected.dtype:
        kind = "constant" if tensor.is_constant else "computed"
        yield rule, f"{what} is {kind} {tensor.dtype} instead of {expected.dtype}"
        return
    found = constant_values(tensor)
    if found.shape != expected.values.shape:
        yield rule, f"{what} has shape {found.shape} instead of {expected.values.shape}"
        return
    different = np.argwhere(found != expected.values)
    if len(different):
        first = tuple(int(i) for i in different[0])
        yield (
            rule,
            f"{what} differs in {len(different)} of {found.size} values, first "
            f"{found[first]} instead of {expected.values[first]} at {first}",
        )
    if expected.scales is None:
        return
    scales = np.array(tensor.scales, np.float32)
    along = tensor.quantized_dimension if len(scales) > 1 else expected.dimension
    if not np.array_equal(scales, expected.scales) or along != expected.dimension:
        yield "scale", f"scales of {what} differ"
    if tensor.zero_points != (expected.zero_point,) * len(expected.scales):
        yield "scale", f"zero points of {what} are not {expected.zero_point}"


def activation_offences(
    tensor: Tensor, shape: tuple[int, ...], quant_params: QuantParams, dtype: str
) -> Iterator[str]:
    """In what a computed tensor, or an end, differs."""
    name = shown(tensor.name)
    if tensor.dtype != dtype:
        yield f"{name} is {tensor.dtype} instead of {dtype}"
    if tensor.shape != shape:
        yield f"{name} has shape {tensor.shape} instead of {shape}"
    if tensor.scales != (float(np.float32(quant_params.scale)),):
        found = _short(tensor.scales)
        yield f"{name} has scale {found} instead of {quant_params.scale!r}"
    if tensor.zero_points != (quant_params.zero_point,):
        found = _short(tensor.zero_points)
        yield f"{name} has zero point {found} instead of {quant_params.zero_point}"


def _short(values: tuple) -> str:
    """The only value, or how many there are."""
    return repr(values[0]) if len(values) == 1 else f"{len(values)} values"
