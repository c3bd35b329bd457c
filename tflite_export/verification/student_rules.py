"""What a `.tflite` file stores, compared with the student's own integers.

The operators of the file are found by `matching.py` and compared with those of
`expected_graph.py`: kernels, biases, scales, zero points, options, shapes, versions;
besides them names and metadata. None of it relies on how the converter works.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from tflite_export.flatbuffer import Signature, TFLiteModel
from tflite_export.integer_network import IntegerNetwork
from tflite_export.interface import Interface
from tflite_export.names import shown
from tflite_export.runtimes import runtime_offences
from tflite_export.verification.expected_graph import ExpectedGraph, expected_graph
from tflite_export.verification.expected_operators import Constant
from tflite_export.verification.matching import (
    Offence,
    activation_offences,
    constant_offences,
    match,
)
from tflite_export.verification.rules import Finding, collected, finding
from tflite_export.verification.tensor_names import tensor_names
from tflite_export.verification.tflite_operators import version_offences

_SIGNATURE = "serving_default"
# What differs, by the rule that it breaks.
RULES: Mapping[str, str] = {
    "ends": "input and output with the student's shapes, scales and zero points",
    "signature": f"one signature {_SIGNATURE!r} with the student's names of its ends",
    "operators": "the student's operators, each with its options",
    "kernel": "the student's kernels",
    "scale": "scales and zero points of constants as the student's",
    "bias": "the student's biases",
    "activation": "activations of the student's shapes, scales and zero points",
    "version": "operator versions as TFLite defines them, and the first runtime told",
    "names": "tensors named after the student's layers",
}


def student_findings(
    model: TFLiteModel, network: IntegerNetwork
) -> tuple[Finding, ...]:
    """One finding per rule of `RULES`, in their order.

    Raises:
      ExportError: shapes of the network's own operations do not fit each other.
    """
    offences = collected(
        _offences(model, expected_graph(network), network.interface),
        lambda text: ("operators", text),
    )
    return tuple(
        finding(rule, [text for broken, text in offences if broken == key])
        for key, rule in RULES.items()
    )


def _offences(
    model: TFLiteModel, graph: ExpectedGraph, interface: Interface
) -> Iterator[Offence]:
    yield from _signature_offences(model, interface)
    yield from (("version", text) for text in version_offences(model))
    yield from (("version", text) for text in runtime_offences(model))
    yield from _reshape_offences(model)
    matching = match(model, graph)
    yield from matching.offences
    yield from _end_offences(model, graph)
    yield from _name_offences(model, tensor_names(model, matching, interface))


def _end_offences(model: TFLiteModel, graph: ExpectedGraph) -> Iterator[Offence]:
    (first,), (last,) = model.inputs, model.outputs
    for index, end in ((first, graph.input), (last, graph.output)):
        for text in activation_offences(
            model.tensors[index], graph.shapes[end.name], end.quant_params, end.dtype
        ):
            yield "ends", text


def _name_offences(model: TFLiteModel, names: Mapping[int, str]) -> Iterator[Offence]:
    for index, name in names.items():
        found = model.tensors[index].name
        if found != name:
            yield "names", f"tensor {index} is {shown(found)} instead of {shown(name)}"


def _signature_offences(model: TFLiteModel, interface: Interface) -> Iterator[Offence]:
    expected = Signature(
        _SIGNATURE,
        tuple((interface.input_name, index) for index in model.inputs),
        tuple((interface.output_name, index) for index in model.outputs),
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
        yield from constant_offences(
            what, shape, Constant("shape", np.array(output.shape, np.int32), "INT32")
        )
        if math.prod(source.shape) != math.prod(output.shape):
            yield "activation", f"{what} from {source.shape} to {output.shape}"
        if (source.dtype, source.scales, source.zero_points) != (
            output.dtype,
            output.scales,
            output.zero_points,
        ):
            yield "activation", f"{what} with another type, scale or zero point"
