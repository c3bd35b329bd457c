"""Files with int16 activations: those of an int8 network, with other tensors.

From fake_quant of 16 bits the converter makes biases of 32 bits, in which sums of int16
times int8 overflow, and for some operators no file at all. So it is given a network of
int8 activations with the same operators and kernels, and tensors get the types, scales
and biases of the network itself in the file: int16 with zero point 0, and biases of 64
bits, as https://ai.google.dev/edge/litert/models/quantization_spec has it.
"""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.flatbuffer import TFLiteModel, pack_model, read_model, unpack_model
from tflite_export.fully_connected import drop_unused
from tflite_export.integer_network import IntegerNetwork, IntegerOp
from tflite_export.interface import DEFAULT_INTERFACE
from tflite_export.operators.table import FIXED_QUANT_PARAMS
from tflite_export.quantization_params import QuantParams
from tflite_export.verification.expected_graph import expected_graph
from tflite_export.verification.expected_operators import Constant, ExpectedOperator
from tflite_export.verification.matching import match
from tflite_export.verification.tflite_operators import needed_versions

_STEPS = 2**8  # of int16 to one of int8
_TOLD = ("potScaleInt16", "quantizedBiasType")  # options that int8 has otherwise
_TYPES = {dtype: getattr(schema.TensorType, dtype) for dtype in ("INT16", "INT64")}


def as_int8(network: IntegerNetwork) -> IntegerNetwork:
    """A network of the same operators and kernels whose activations are int8."""
    quant_params = {network.input_name: _coarse(network.input_quant_params)}
    ops = []
    for op in network.ops:
        first = op.inputs[0]
        fixed = FIXED_QUANT_PARAMS.get(op.kind)
        if fixed is None and op.quant_params == network.quant_params(first):
            fixed = quant_params[first]  # as operators that move values need it
        quant_params[op.name] = fixed or _coarse(op.quant_params)
        ops.append(_op_as_int8(op, quant_params[op.name]))
    return dataclasses.replace(
        network,
        input_quant_params=quant_params[network.input_name],
        ops=tuple(ops),
        interface=DEFAULT_INTERFACE,
    )


def _coarse(quant_params: QuantParams) -> QuantParams:
    return QuantParams(quant_params.scale * _STEPS, 0)


def _op_as_int8(op: IntegerOp, quant_params: QuantParams) -> IntegerOp:
    kernel, attributes = op.kernel, op.attributes
    if kernel is not None:
        bias = np.rint(kernel.bias / _STEPS).astype(np.int32)
        kernel = dataclasses.replace(kernel, bias=bias)
    if "level" in attributes:
        attributes = {**attributes, "level": attributes["level"] // _STEPS}
    return dataclasses.replace(
        op, quant_params=quant_params, kernel=kernel, attributes=attributes
    )


def as_int16(tflite: bytes, network: IntegerNetwork) -> bytes:
    """The file of `as_int8(network)` as that of the network.

    Raises:
      ExportError: not a `.tflite` file.
    """
    read, model = read_model(tflite), unpack_model(tflite)
    graph = model.subgraphs[0]
    before, after = map(expected_graph, (as_int8(network), network))
    become = {
        step: changed
        for alternatives, others in zip(before.steps, after.steps, strict=True)
        for step, changed in zip(alternatives, others, strict=True)
    }
    steps = {
        operator.index: become[step] for step, operator in match(read, before).found
    }
    _set_type(graph.tensors[graph.inputs[0]], network.input_quant_params)
    for index, operator in enumerate(graph.operators):
        operator.inputs = list(operator.inputs)
        output, step = graph.tensors[operator.outputs[0]], steps.get(index)
        if step is None:  # a RESHAPE
            source = graph.tensors[operator.inputs[0]]
            output.type, output.quantization = source.type, source.quantization
            continue
        _set_type(output, step.quant_params)
        _set_options(operator, step)
        for place, constant in enumerate(step.constants, len(step.inputs)):
            if constant.dtype in _TYPES:
                scales = constant.scales
                if scales is None:  # of a bias
                    source, kernel = (graph.tensors[i] for i in operator.inputs[:2])
                    scales = source.quantization.scale * kernel.quantization.scale
                old = graph.tensors[operator.inputs[place]]
                operator.inputs[place] = len(graph.tensors)
                graph.tensors.append(_with_values(old, model, constant, scales))
    drop_unused(model)
    _set_versions(model, read_model(pack_model(model)))
    return pack_model(model)


def _set_type(tensor: schema.TensorT, quant_params: QuantParams) -> None:
    tensor.type = _TYPES[quant_params.dtype.upper()]
    tensor.quantization = schema.QuantizationParametersT(
        scale=np.array([quant_params.scale], np.float32),
        zeroPoint=np.array([quant_params.zero_point], np.int64),
    )


def _set_options(operator: schema.OperatorT, step: ExpectedOperator) -> None:
    for name in _TOLD:
        if name in step.options:
            setattr(operator.builtinOptions, name, step.options[name])


def _with_values(
    tensor: schema.TensorT, model: schema.ModelT, constant: Constant, scales: np.ndarray
) -> schema.TensorT:
    """A copy of a tensor with those values and scales, which others may not share."""
    changed = copy.copy(tensor)
    changed.type, changed.buffer = _TYPES[constant.dtype], len(model.buffers)
    changed.quantization = copy.copy(tensor.quantization)
    changed.quantization.scale = scales.astype(np.float32)
    changed.quantization.zeroPoint = np.zeros(scales.shape, np.int64)
    values = constant.values.astype(constant.values.dtype.newbyteorder("<"))
    content = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(schema.BufferT(data=content))
    return changed


def _set_versions(model: schema.ModelT, read: TFLiteModel) -> None:
    """One code for each operator, of the version that it needs."""
    operators = model.subgraphs[0].operators
    codes: list[schema.OperatorCodeT] = []
    for operator, version in zip(operators, needed_versions(read), strict=True):
        code = copy.copy(model.operatorCodes[operator.opcodeIndex])
        code.version = version
        same = [i for i, known in enumerate(codes) if vars(known) == vars(code)]
        operator.opcodeIndex = same[0] if same else len(codes)
        codes += [] if same else [code]
    model.operatorCodes = codes
