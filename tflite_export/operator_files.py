"""Each operator of a `.tflite` file as a file of its own, to be timed alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import (
    DAMAGE,
    damaged,
    operator_name,
    pack_model,
    unpack_model,
)


def operator_files(tflite: bytes) -> Iterator[tuple[str, str, bytes]]:
    """Files of one operator each, in the order in which LiteRT runs them.

    Args:
      tflite: a whole file's bytes.

    Yields:
      The operator's name in the schema, that of the tensor that it computes, and the
      file's bytes.

    Raises:
      ExportError: not a `.tflite` file, damaged, or more than one subgraph.
    """
    model = unpack_model(tflite)
    (graph,) = model.subgraphs
    for operator in graph.operators:
        try:
            name = operator_name(model.operatorCodes[operator.opcodeIndex])
            output = (graph.tensors[operator.outputs[0]].name or b"").decode()
            content = pack_model(_alone(model, operator))
        except DAMAGE as error:
            raise damaged(tflite, str(error)) from error
        yield name, output, content


def _alone(model: schema.ModelT, operator: schema.OperatorT) -> schema.ModelT:
    """The operator with the tensors that it reads and writes."""
    (graph,) = model.subgraphs
    # An input that is left out is -1.
    inputs = [int(tensor) for tensor in operator.inputs if tensor >= 0]
    outputs = list(map(int, operator.outputs))
    used = list(dict.fromkeys([*inputs, *outputs]))
    place = {tensor: number for number, tensor in enumerate(used)}
    alone, alone_graph = schema.ModelT(), schema.SubGraphT()
    alone.version, alone.subgraphs = model.version, [alone_graph]
    alone.operatorCodes = [model.operatorCodes[operator.opcodeIndex]]
    alone.buffers = [schema.BufferT()]  # the first one is empty
    alone_graph.tensors, alone_graph.inputs = [], []
    for tensor in used:
        taken = copy.copy(graph.tensors[tensor])
        buffer = model.buffers[taken.buffer]
        is_constant = buffer.data is not None
        taken.buffer = len(alone.buffers) if is_constant else 0
        if is_constant:
            alone.buffers.append(buffer)
        elif tensor in inputs:
            alone_graph.inputs.append(place[tensor])
        alone_graph.tensors.append(taken)
    moved = copy.copy(operator)
    moved.opcodeIndex = 0
    moved.inputs = [place.get(int(tensor), -1) for tensor in operator.inputs]
    moved.outputs = [place[tensor] for tensor in outputs]
    alone_graph.operators, alone_graph.outputs = [moved], moved.outputs
    return alone
