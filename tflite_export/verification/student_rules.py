"""What a `.tflite` file stores, held against the student's own integers.

The operators of the file are found by what they read, from the input on, and compared
with those of `expected_operators.py`: kernels, biases, scales, zero points, options,
shapes, versions and names of the ends. Nothing of it knows the converter.
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
from tflite_export.verification.expected_operators import (
    Constant,
    ExpectedGraph,
    ExpectedOperator,
    expected_graph,
)
from tflite_export.verification.rules import Finding, collected, finding

# The versions that TFLite defines for int8 operators; those of kernels by the
# kernel's type.
_VERSIONS: Mapping[str, int] = {
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "CONCATENATION": 2,
    "DEPTH_TO_SPACE": 2,
    "GELU": 2,
    "HARD_SWISH": 1,
    "L2_NORMALIZATION": 2,
    "LEAKY_RELU": 1,
    "LOGISTIC": 2,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "MINIMUM": 2,
    "MUL": 2,
    "PAD": 2,
    "PADV2": 2,
    "RELU": 2,
    "RELU6": 2,
    "RESHAPE": 1,
    "RESIZE_BILINEAR": 3,
    "RESIZE_NEAREST_NEIGHBOR": 3,
    "SLICE": 2,
    "SOFTMAX": 2,
    "SUB": 2,
    "TANH": 2,
    "TRANSPOSE": 2,
}
_KERNEL_VERSIONS: Mapping[str, Mapping[str, int]] = {
    "CONV_2D": {"INT8": 3, "INT4": 7},
    "DEPTHWISE_CONV_2D": {"INT8": 3, "INT4": 7},
    "FULLY_CONNECTED": {"INT8": 4, "INT4": 10},
}
_GROUPED_VERSION = 6
_SIGNATURE, _INPUT, _OUTPUT = "serving_default", "image", "output_0"
# The order of their inputs is the converter's choice.
_COMMUTATIVE = ("ADD", "MUL")

# What differs, by the rule that it breaks.
RULES: Mapping[str, str] = {
    "ends": "input and output with the student's shapes, scales and zero points",
    "signature": f"one signature {_SIGNATURE!r}: {_INPUT!r} to {_OUTPUT!r}",
    "operators": "the student's operators, each with its options",
    "kernel": "the student's kernels",
    "scale": "scales and zero points of constants as the student's",
    "bias": "the student's biases",
    "grid": "activations of the student's shapes, scales and zero points",
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

    RESHAPEs are seen through: a tensor stands for all that hold the same values in
    the same order.
    """

    def __init__(self, model: TFLiteModel):
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
        ordered = sorted(sources) if name in _COMMUTATIVE else list(sources)
        return (name, *ordered)


def _offences(model: TFLiteModel, graph: ExpectedGraph) -> Iterator[Offence]:
    yield from _signature_offences(model)
    yield from _version_offences(model)
    yield from _reshape_offences(model)
    (first,), (last,) = model.inputs, model.outputs
    file = _File(model)
    # Where the student's tensors are in the file.
    places, used = {graph.input: first}, set()
    for alternatives in graph.steps:
        placed = {
            step: [places[graph.source(name)] for name in step.inputs]
            for step in alternatives
            if places.keys() >= {graph.source(name) for name in step.inputs}
        }
        if not placed:
            continue  # behind what was not found
        candidates = [
            (list(_differences(file, operator, step, graph)), operator)
            for step, sources in placed.items()
            for operator in file.readers(step.name, sources)
        ]
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


def _version_offences(model: TFLiteModel) -> Iterator[Offence]:
    needed = [_needed_version(model, operator) for operator in model.operators]
    # One code serves all convolutions of a kind, the most demanding included, among
    # them those that became FULLY_CONNECTED (see `dense.fold_dense`).
    highest: dict[str, int] = {}
    for operator, version in zip(model.operators, needed, strict=True):
        highest[operator.name] = max(version, highest.get(operator.name, 0))
    int4 = {name: versions["INT4"] for name, versions in _KERNEL_VERSIONS.items()}
    if highest.get("FULLY_CONNECTED") == int4["FULLY_CONNECTED"]:
        highest["CONV_2D"] = max(int4["CONV_2D"], highest.get("CONV_2D", 0))
    for operator, version in zip(model.operators, needed, strict=True):
        if operator.name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            version = highest[operator.name]
        if operator.version != version:
            yield (
                "version",
                f"{operator.version} instead of {version} of {operator.name} as "
                f"operator {operator.index}",
            )


def _needed_version(model: TFLiteModel, operator: Operator) -> int:
    """0 for operators that no student has."""
    if operator.name not in _KERNEL_VERSIONS:
        return _VERSIONS.get(operator.name, 0)
    source, kernel = (model.tensors[index] for index in operator.inputs[:2])
    if operator.name == "CONV_2D" and source.shape[3] != kernel.shape[3]:
        return _GROUPED_VERSION
    return _KERNEL_VERSIONS[operator.name].get(kernel.dtype, 0)


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
            yield "grid", f"{what} from {source.shape} to {output.shape}"
        if (source.dtype, source.scales, source.zero_points) != (
            output.dtype,
            output.scales,
            output.zero_points,
        ):
            yield "grid", f"{what} with another type, scale or zero point"


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
    # FULLY_CONNECTED flattens what it reads.
    if step.name != "FULLY_CONNECTED" and sorted(found_shapes) != sorted(shapes):
        yield "grid", f"{what} reads shapes {found_shapes} instead of {shapes}"
    if operator.options_type != step.options_type:
        yield "operators", f"{what} has {operator.options_type or 'no options'}"
    else:
        for name in {**step.options, **operator.options}:
            wanted, found = step.options.get(name), operator.options.get(name)
            if not np.array_equal(np.asarray(found), np.asarray(wanted)):
                yield "operators", f"{what} has {name} {found} instead of {wanted}"
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
        yield "grid", text


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
