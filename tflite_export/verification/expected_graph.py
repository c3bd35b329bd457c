"""The TFLite operators that compute an integer network, and how they are connected."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tflite_export.integer_network import IntegerNetwork, IntegerOp, Shape, kernel_of
from tflite_export.interface import END_TYPES
from tflite_export.quantization_params import QuantParams, softmax_quant_params
from tflite_export.tensor_shapes import tensor_shapes
from tflite_export.verification.expected_operators import (
    EXPECTED,
    PADDINGS,
    ExpectedOperator,
    Steps,
    TensorFormats,
)


@dataclasses.dataclass(frozen=True)
class End:
    """A tensor where a network begins or ends.

    Attributes:
      name: as operators read or write it.
      quant_params: of its values, whatever type they have.
      dtype: the schema's name of that type.
    """

    name: str
    quant_params: QuantParams
    dtype: str


@dataclasses.dataclass(frozen=True, eq=False)
class ExpectedGraph:
    """What a file must hold.

    Attributes:
      input, output: its ends.
      shapes: of the tensors by name, batch 1 first.
      steps: in executable order; each is given by the operators that may stand
        there, any one of which will do.
      sources: of each tensor that is another one reshaped or the very same, that
        other one; to be followed to its end.
    """

    input: End
    output: End
    shapes: Mapping[str, Shape]
    steps: tuple[tuple[ExpectedOperator, ...], ...]
    sources: Mapping[str, str]

    def source(self, name: str) -> str:
        """The tensor that holds the same values, in the same order, first."""
        while name in self.sources:
            name = self.sources[name]
        return name


def expected_graph(network: IntegerNetwork) -> ExpectedGraph:
    """The operators of a network.

    Raises:
      ExportError: its shapes do not fit each other.
    """
    shapes = tensor_shapes(network)
    formats = TensorFormats(
        shapes,
        {network.input_name: network.input_quant_params}
        | {op.name: op.quant_params for op in network.ops},
    )
    inside = _end(network.input_name, network.input_quant_params)
    first = _outside(inside, network.interface.input_type)
    shapes[first.name] = shapes[inside.name]
    steps = _conversion(first, inside, shapes[inside.name])
    sources: dict[str, str] = {}
    pads: dict[str, IntegerOp] = {}
    for op in network.ops:
        made = EXPECTED[op.kind](op, formats)
        if op.kind == "pad":
            pads[op.name] = op
        elif made and op.kernel is not None and op.inputs[0] in pads:
            made = _without_pad(made, op, pads[op.inputs[0]], shapes)
        steps += made
        computed = made[-1][0].output if made else op.inputs[0]
        if computed != op.name:
            sources[op.name] = computed
    inside = _end(network.ops[-1].name, network.ops[-1].quant_params)
    shape = shapes[inside.name]
    if network.softmax:
        softmax = _softmax(inside.name, shape, network.activation_bits)
        steps.append((softmax,))
        inside = _end(softmax.output, softmax.quant_params)
    last = _outside(inside, network.interface.output_type)
    steps += _conversion(inside, last, shape)
    inner = {step.output: step.shape for (step, *_) in steps}
    return ExpectedGraph(first, last, inner | shapes, tuple(steps), sources)


def _end(name: str, quant_params: QuantParams) -> End:
    return End(name, quant_params, quant_params.dtype.upper())


def _outside(inside: End, end_type: str) -> End:
    """The end of a file whose values are those of a tensor, or that tensor."""
    offset = END_TYPES[end_type]
    if not offset:
        return inside
    return End(
        f"{inside.name}/{end_type}",
        QuantParams(inside.quant_params.scale, inside.quant_params.zero_point + offset),
        end_type.upper(),
    )


def _conversion(source: End, target: End, shape: Shape) -> Steps:
    """The operator from an end's type to another; none if they are one tensor."""
    if source == target:
        return []
    operator = ExpectedOperator(
        "QUANTIZE",
        (source.name,),
        target.name,
        shape,
        target.quant_params,
        dtype=target.dtype,
    )
    return [(operator,)]


def _softmax(source: str, shape: Shape, bits: int) -> ExpectedOperator:
    quant_params = softmax_quant_params(bits)
    return ExpectedOperator(
        "SOFTMAX",
        (source,),
        f"{source}/softmax",
        shape,
        quant_params,
        options={"beta": 1.0},
        dtype=quant_params.dtype.upper(),
    )


def _without_pad(
    steps: Steps, op: IntegerOp, pad: IntegerOp, shapes: Mapping[str, Shape]
) -> Steps:
    """A kernel behind a pad, or the kernel alone where its own padding is the same."""
    if op.attributes.get("padding") != "valid" or not _pads_as_same(op, pad, shapes):
        return steps
    ((behind_pad,),) = steps
    alone = dataclasses.replace(
        behind_pad,
        inputs=pad.inputs,
        options={**behind_pad.options, "padding": PADDINGS["same"]},
    )
    return [(behind_pad, alone)]


def _pads_as_same(op: IntegerOp, pad: IntegerOp, shapes: Mapping[str, Shape]) -> bool:
    """Whether a pad adds what TensorFlow's padding "same" does."""
    axes = zip(
        pad.attributes["pads"],
        shapes[pad.inputs[0]][1:3],
        shapes[op.name][1:3],
        kernel_of(op).values.shape[:2],
        op.attributes["strides"],
        op.attributes["dilation"],
        strict=True,
    )
    for (before, after), length, outputs, size, stride, dilation in axes:
        reach = (size - 1) * dilation + 1
        total = max((-(-length // stride) - 1) * stride + reach - length, 0)
        if (before, after) != (total // 2, total - total // 2):
            return False
        if outputs != -(-length // stride):
            return False
    return True
