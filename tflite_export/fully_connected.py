"""Turns 1x1 convolutions into FULLY_CONNECTED.

The TFLite converter cannot quantize a Dense kernel per channel from fake-quant
operators, but it can quantize a convolution's. So a Dense layer is exported as
RESHAPE -> 1x1 CONV_2D -> RESHAPE, and rewritten here; and so are pointwise layers,
whose FULLY_CONNECTED keeps the dimensions of its input. Both operators compute the
same integer sums from the same stored bytes; a runtime may round the last step
differently if it has one kernel for one and another kernel for the other (LiteRT
gives INT4 FULLY_CONNECTED, but not INT4 CONV_2D, to XNNPACK).
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable

from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import (
    layers_named_in,
    operator_name,
    pack_model,
    unpack_model,
)

# The versions the converter itself writes for int8 x int8 and int8 x int4. The former
# needs the same runtime as CONV_2D with such weights.
_VERSIONS = {schema.TensorType.INT8: 4, schema.TensorType.INT4: 10}


def as_fully_connected(
    tflite: bytes,
    dense: Collection[str],
    pointwise: Collection[str] = (),
    *,
    int8_may_stay: bool = True,
) -> bytes:
    """Rewrites the named layers' 1x1 convolutions as FULLY_CONNECTED.

    A convolution of `dense` loses the 1s of its shape if it maps (1, 1, 1, in) to
    (1, 1, 1, out), has a bias, and all that reads its output is RESHAPE or a
    rewritten convolution that flattens, too. Around it, the RESHAPE
    behind it goes if it only drops the two 1s, the one before it if it keeps the
    last dimension (the converter's own rule: FULLY_CONNECTED flattens its input).
    Where something else reads the output, dimensions are kept if the kernel is INT4,
    which is rounded as FULLY_CONNECTED's alone; an INT8 convolution computes the same
    and stays, unless its activations are to be int16. Convolutions of `pointwise` keep
    all dimensions.
    Tensors, buffers and operator codes that nothing uses are dropped.

    Args:
      tflite: a `.tflite` file.
      dense: names of layers, each a whole component of the convolution's
        tensor names: "quant_fc" is in "model/quant_fc/Conv2D", not in
        "model/quant_fc2/Conv2D". The converter makes one convolution of layers that
        are alike, so some may have none of their own.
      pointwise: the same of layers that work on each position of their input.
      int8_may_stay: whether convolutions with INT8 kernels compute the same.

    Returns:
      The rewritten `.tflite` file.

    Raises:
      ExportError: not a `.tflite` file.
    """
    model = unpack_model(tflite)
    graph = _Graph(model)
    flat, kept = graph.layers(dense), graph.layers(pointwise)
    if not int8_may_stay:
        kept = [*kept, *flat]
    # Backwards, so that a layer knows whether its readers were rewritten.
    for operator in reversed(tuple(graph.operators)):
        if operator in flat and graph.can_be_flat(operator):
            graph.flatten(operator)
        elif operator in kept or (operator in flat and graph.has_int4(operator)):
            graph.keep_dimensions(operator)
    graph.drop_unread_reshapes()
    drop_unused(model)
    return pack_model(model)


class _Graph:
    """The object tree's only subgraph, with the questions the rewrite asks."""

    def __init__(self, model: schema.ModelT) -> None:
        """Keeps the tree itself: what is rewritten here is rewritten there."""
        self.codes = model.operatorCodes
        self.tensors = model.subgraphs[0].tensors
        self.operators = model.subgraphs[0].operators
        self.outputs = set(model.subgraphs[0].outputs)

    def name(self, operator: schema.OperatorT) -> str:
        return operator_name(self.codes[operator.opcodeIndex])

    def shape(self, index: int) -> tuple[int, ...]:
        # The signature differs from the shape by its -1 for unknown dimensions,
        # which match no pattern here.
        tensor = self.tensors[index]
        shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
        return () if shape is None else tuple(int(size) for size in shape)

    def readers(self, index: int) -> list[schema.OperatorT]:
        return [op for op in self.operators if index in op.inputs]

    def is_layer(self, operator: schema.OperatorT, name: str) -> bool:
        if self.name(operator) not in ("CONV_2D", "FULLY_CONNECTED"):
            return False
        ends = (operator.inputs[1], operator.outputs[0])
        names = (self.tensors[index].name.decode() for index in ends)
        return any(name in layers_named_in(full) for full in names)

    def layers(self, names: Collection[str]) -> list[schema.OperatorT]:
        """The convolutions of the named layers, rewritten or not."""
        return [
            operator
            for operator in self.operators
            if any(self.is_layer(operator, name) for name in names)
        ]

    def is_pointwise(self, operator: schema.OperatorT) -> bool:
        """Whether it is a convolution of each position alone."""
        if self.name(operator) != "CONV_2D" or len(operator.inputs) != 3:
            return False
        source, filters, _ = operator.inputs
        (output,) = operator.outputs
        num_outputs, num_inputs = self.shape(filters)[0], self.shape(filters)[-1]
        positions = self.shape(source)[:-1]
        return (
            self.tensors[filters].type in _VERSIONS
            and self.shape(filters) == (num_outputs, 1, 1, num_inputs)
            and self.shape(source) == (*positions, num_inputs)
            and self.shape(output) == (*positions, num_outputs)
        )

    def has_int4(self, operator: schema.OperatorT) -> bool:
        return self.tensors[operator.inputs[1]].type == schema.TensorType.INT4

    def can_be_flat(self, operator: schema.OperatorT) -> bool:
        (output,) = operator.outputs
        return (
            self.is_pointwise(operator)
            and self.shape(output)[:-1] == (1, 1, 1)
            and output not in self.outputs
            and all(self._flattens(reader) for reader in self.readers(output))
        )

    def _flattens(self, operator: schema.OperatorT) -> bool:
        """Whether what it computes does not depend on the dimensions of its input."""
        if self.name(operator) == "FULLY_CONNECTED":
            return not operator.builtinOptions.keepNumDims
        return self.name(operator) == "RESHAPE"

    def flatten(self, operator: schema.OperatorT) -> None:
        source, (output,) = operator.inputs[0], operator.outputs
        self.tensors[output].shape = [1, self.shape(output)[-1]]
        self._rewrite(operator, self._before_reshape(source), keep_dimensions=False)
        for reader in self.readers(output):
            (result,) = reader.outputs
            is_reshape = self.name(reader) == "RESHAPE"
            if is_reshape and self.shape(result) == self.shape(output):
                self._bypass(reader, output, result)
                return

    def keep_dimensions(self, operator: schema.OperatorT) -> None:
        if self.is_pointwise(operator):
            self._rewrite(operator, operator.inputs[0], keep_dimensions=True)

    def _rewrite(
        self, operator: schema.OperatorT, source: int, *, keep_dimensions: bool
    ) -> None:
        _, filters, bias = operator.inputs
        num_outputs, _, _, num_inputs = self.shape(filters)
        # A new tensor: the filter may be shared with a convolution that stays.
        weights = copy.copy(self.tensors[filters])
        weights.shape = [num_outputs, num_inputs]
        self.tensors.append(weights)
        operator.inputs = [source, len(self.tensors) - 1, bias]
        operator.opcodeIndex = self._fully_connected(_VERSIONS[weights.type])
        operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        operator.builtinOptions = schema.FullyConnectedOptionsT(
            fusedActivationFunction=operator.builtinOptions.fusedActivationFunction,
            keepNumDims=keep_dimensions,
        )

    def _before_reshape(self, index: int) -> int:
        for operator in self.operators:
            if index in operator.outputs and self.name(operator) == "RESHAPE":
                source = int(operator.inputs[0])
                if self.shape(source)[-1:] == self.shape(index)[-1:]:
                    return source
        return index

    def _fully_connected(self, version: int) -> int:
        code = schema.BuiltinOperator.FULLY_CONNECTED
        for index, existing in enumerate(self.codes):
            if (existing.builtinCode, existing.version) == (code, version):
                return index
        self.codes.append(schema.OperatorCodeT(code, None, version, code))
        return len(self.codes) - 1

    def _bypass(self, reshape: schema.OperatorT, before: int, after: int) -> None:
        # The tensor behind the RESHAPE stays: it may be the model's output.
        self.operators.remove(reshape)
        for operator in self.operators:
            operator.inputs = [after if i == before else i for i in operator.inputs]
            operator.outputs = [after if i == before else i for i in operator.outputs]

    def drop_unread_reshapes(self) -> None:
        self.operators[:] = [
            operator
            for operator in self.operators
            if self.name(operator) != "RESHAPE"
            or operator.outputs[0] in self.outputs
            or self.readers(operator.outputs[0])
        ]


def drop_unused(model: schema.ModelT) -> None:
    """Renumbers tensors, operator codes and buffers without the unused ones."""
    graph = model.subgraphs[0]
    ends = [graph.inputs, graph.outputs]
    ends += [indices for op in graph.operators for indices in (op.inputs, op.outputs)]
    tensors = _new_numbers(index for indices in ends for index in indices if index >= 0)
    tensors[-1] = -1  # an absent optional input
    graph.tensors = [graph.tensors[old] for old in tensors if old >= 0]
    graph.inputs = [tensors[index] for index in graph.inputs]
    graph.outputs = [tensors[index] for index in graph.outputs]
    for signature in model.signatureDefs or ():
        for tensor_map in (*signature.inputs, *signature.outputs):
            tensor_map.tensorIndex = tensors[tensor_map.tensorIndex]

    codes = _new_numbers(operator.opcodeIndex for operator in graph.operators)
    model.operatorCodes = [model.operatorCodes[old] for old in codes]
    for operator in graph.operators:
        operator.opcodeIndex = codes[operator.opcodeIndex]
        operator.inputs = [tensors[index] for index in operator.inputs]
        operator.outputs = [tensors[index] for index in operator.outputs]

    holders = [*graph.tensors, *(model.metadata or ())]
    # Buffer 0 is the schema's empty one and always there.
    buffers = _new_numbers([0, *(holder.buffer for holder in holders)])
    model.buffers = [model.buffers[old] for old in buffers]
    for holder in holders:
        holder.buffer = buffers[holder.buffer]


def _new_numbers(used: Iterable[int]) -> dict[int, int]:
    return {old: new for new, old in enumerate(sorted(set(map(int, used))))}
