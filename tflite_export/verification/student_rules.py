"""What a `.tflite` file stores, compared with the student's own integers.

The operators of the file are found by what they read, from the input on, and compared
with those of `expected_graph.py`: kernels, biases, scales, zero points, options,
shapes, versions and names of the ends. None of it relies on how the converter works.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from tflite_export.flatbuffer import (
    Operator,
    Signature,
    Tensor,
    TFLiteModel,
    constant_values,
)
from tflite_export.integer_network import IntegerNetwork
from tflite_export.names import shown
from tflite_export.quantization_params import QuantParams
from tflite_export.verification.expected_graph import ExpectedGraph, expected_graph
from tflite_export.verification.expected_operators import Constant, ExpectedOperator
from tflite_export.verification.rules import Finding, collected, finding
from tflite_export.verification.tflite_operators import (
    TFLITE_OPERATORS,
    version_offences,
)

_SIGNATURE, _INPUT, _OUTPUT = "serving_default", "image", "output_0"
# What differs, by the rule that it breaks.
RULES: Mapping[str, str] = {
    "ends": "input and output with the student's shapes, scales and zero points",
    "signature": f"one signature {_SIGNATURE!r}: {_INPUT!r} to {_OUTPUT!r}",
    "operators": "the student's operators, each with its options",
    "kernel": "the student's kernels",
    "scale": "scales and zero points of constants as the student's",
    "bias": "the student's biases",
    "activation": "activations of the student's shapes, scales and zero points",
    "version": "operator versions as TFLite defines them",
}
Offence = tuple[str, str]  # a key of `RULES`, what was found


def student_findings(
    model: TFLiteModel, network: IntegerNetwork
) -> tuple[Finding, ...]:
    """One finding per rule of `RULES`, in their order.

    Raises:
      ExportError: shapes of the network's own operations do not fit each other.
    """
    offences = collected(
        _offences(model, expected_graph(network)), lambda text: ("operators", text)
    )
    return tuple(
        finding(rule, [text for broken, text in offences if broken == key])
        for key, rule in RULES.items()
    )


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


def _offences(model: TFLiteModel, graph: ExpectedGraph) -> Iterator[Offence]:
    yield from _signature_offences(model)
    yield from (("version", text) for text in version_offences(model))
    yield from _reshape_offences(model)
    (first,), (last,) = model.inputs, model.outputs
    file = _File(model)
    # Where the student's tensors are in the file.
    places, used = {graph.input: first}, set()
    for alternatives in graph.steps:
        candidates = _candidates(file, graph, alternatives, places)
        if candidates is None:
            continue  # behind what was not found
        # The converter makes one of operators that are alike.
        differences, operator = min(
            candidates,
            key=lambda found: (len(found[0]), found[1].index in used),
            default=([], None),
        )
        if alternatives[0].optional and (differences or operator is None):
            continue  # part of what follows; what reads the same is another one's
        if operator is None:
            names = " or ".join(dict.fromkeys(step.name for step in alternatives))
            yield "operators", f"no {names} for {shown(alternatives[0].output)}"
            continue
        yield from differences
        used.add(operator.index)
        places[alternatives[0].output] = operator.outputs[0]
    for operator in model.operators:
        if operator.index not in used and operator.name != "RESHAPE":
            yield "operators", f"{operator.name} as operator {operator.index} besides"
    if file.source(last) != places.get(graph.source(graph.output)):
        yield "ends", f"an output that is not the student's {shown(graph.output)}"
    yield from _end_offences(model, graph)


def _candidates(
    file: _File,
    graph: ExpectedGraph,
    alternatives: tuple[ExpectedOperator, ...],
    places: Mapping[str, int],
) -> list[tuple[list[Offence], Operator]] | None:
    """Operators that may be one of the alternatives, each with its differences from it.

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
        (list(_differences(file, operator, step, graph)), operator)
        for step, sources in placed.items()
        for operator in file.readers(step.name, sources)
    ]


def _end_offences(model: TFLiteModel, graph: ExpectedGraph) -> Iterator[Offence]:
    (first,), (last,) = model.inputs, model.outputs
    ends = (
        (first, graph.input, graph.input_quant_params),
        (last, graph.output, graph.output_quant_params),
    )
    for index, name, quant_params in ends:
        for text in _activation_offences(
            model.tensors[index], graph.shapes[name], quant_params
        ):
            yield "ends", text


def _signature_offences(model: TFLiteModel) -> Iterator[Offence]:
    expected = Signature(
        _SIGNATURE,
        tuple((_INPUT, index) for index in model.inputs),
        tuple((_OUTPUT, index) for index in model.outputs),
    )
    if len(model.signatures) != 1:
        yield "signature", f"{len(model.signatures)} signatures"
    for found in model.signatures:
        if found != expected:
            ends = ", ".join(
                f"{shown(name)} tensor {index}"
                for name, index in (*found.inputs, *found.outputs)
            )
            yield "signature", f"{shown(found.key)} with {ends}"


def _reshape_offences(model: TFLiteModel) -> Iterator[Offence]:
    for operator in model.operators:
        if operator.name != "RESHAPE":
            continue
        source, shape = (model.tensors[index] for index in operator.inputs)
        output = model.tensors[operator.outputs[0]]
        what = f"RESHAPE as operator {operator.index}"
        if operator.options:
            yield "operators", f"{what} with options"
        yield from _constant_offences(
            what, shape, Constant("shape", np.array(output.shape, np.int32))
        )
        if math.prod(source.shape) != math.prod(output.shape):
            yield "activation", f"{what} from {source.shape} to {output.shape}"
        if (source.dtype, source.scales, source.zero_points) != (
            output.dtype,
            output.scales,
            output.zero_points,
        ):
            yield "activation", f"{what} with another type, scale or zero point"


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
            yield from _constant_offences(what, file.tensors[index], expected)
        elif expected.values.any():
            yield "operators", f"{what} has no {expected.what}"
    (output,) = operator.outputs
    for text in _activation_offences(
        file.tensors[output], step.shape, step.quant_params
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


def _constant_offences(
    what: str, tensor: Tensor, expected: Constant
) -> Iterator[Offence]:
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


def _activation_offences(
    tensor: Tensor, shape: tuple[int, ...], quant_params: QuantParams
) -> Iterator[str]:
    name = shown(tensor.name)
    if tensor.dtype != "INT8":
        yield f"{name} is {tensor.dtype} instead of INT8"
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
