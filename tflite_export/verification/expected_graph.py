"""The TFLite operators that compute an integer network, and how they are connected."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tflite_export.integer_network import IntegerNetwork, IntegerOp, Shape, kernel_of
from tflite_export.quantization_params import BETWEEN_0_AND_1, QuantParams
from tflite_export.tensor_shapes import tensor_shapes
from tflite_export.verification.expected_operators import (
    EXPECTED,
    PADDINGS,
    ExpectedOperator,
    Steps,
    TensorFormats,
)


@dataclasses.dataclass(frozen=True, eq=False)
class ExpectedGraph:
    """What a file must hold.

    Attributes:
      input, output: names of its ends.
      input_quant_params, output_quant_params: of these.
      shapes: of the tensors by name, batch 1 first.
      steps: in executable order; each is given by the operators that may stand
        there, any one of which will do.
      sources: of each tensor that is another one reshaped or the very same, that
        other one; to be followed to its end.
    """

    input: str
    output: str
    input_quant_params: QuantParams
    output_quant_params: QuantParams
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
    steps: Steps = []
    sources: dict[str, str] = {}
    pads: dict[str, IntegerOp] = {}
    for op in network.ops:
        made = EXPECTED[op.kind](op, formats)
        if op.kind == "pad":
            pads[op.name] = op
        elif made and op.kernel is not None and op.inputs[0] in pads:
            made = _without_pad(made, op, pads[op.inputs[0]], shapes)
        steps += made
        last = made[-1][0].output if made else op.inputs[0]
        if last != op.name:
            sources[op.name] = last
    output, output_quant_params = network.ops[-1].name, network.ops[-1].quant_params
    if network.softmax:
        softmax = _softmax(output, shapes[output])
        steps.append((softmax,))
        output, output_quant_params = softmax.output, softmax.quant_params
    inner = {step.output: step.shape for (step, *_) in steps}
    return ExpectedGraph(
        network.input_name,
        output,
        network.input_quant_params,
        output_quant_params,
        inner | shapes,
        tuple(steps),
        sources,
    )


def _softmax(source: str, shape: Shape) -> ExpectedOperator:
    return ExpectedOperator(
        "SOFTMAX",
        (source,),
        f"{source}/softmax",
        shape,
        BETWEEN_0_AND_1,
        options={"beta": 1.0},
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
