"""What a `.tflite` file holds: tensors, operators and constants.

`read_model` gives a read-only view with names instead of codes; `unpack_model`
and `pack_model` give the mutable object tree of the schema to passes that
rewrite a file.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from tensorflow.lite.python import (
    conversion_metadata_schema_py_generated as conversion_schema,
)

from tflite_export.bounded_reading import check_bounded
from tflite_export.errors import ExportError
from tflite_export.names import printable, shown

_IDENTIFIER = b"TFL3"
_CONVERSION_METADATA = b"CONVERSION_METADATA"
# The C++ schema forces this alignment on constants (runtimes map them in place
# and read them with vector instructions); the Python builder would give 4.
_BUFFER_ALIGNMENT = 16
# What offsets out of a damaged file raise on their way through flatbuffers and numpy,
# and what a tree with parts missing raises where they are looked for.
DAMAGE = (struct.error, ValueError, TypeError, LookupError, AttributeError)


_Numbers = Sequence[float] | np.ndarray


def _names_by_code(enum: type) -> dict[int, str]:
    return {code: name for name, code in vars(enum).items() if isinstance(code, int)}


_TENSOR_TYPES = _names_by_code(schema.TensorType)
_OPERATORS = _names_by_code(schema.BuiltinOperator)
_NUMPY_TYPES = {
    "FLOAT16": np.float16,
    "FLOAT32": np.float32,
    "FLOAT64": np.float64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor.

    Attributes:
      index: position in `TFLiteModel.tensors`, what operators refer to.
      name: as the converter wrote it.
      shape: -1 where the dimension is not known before running.
      dtype: the schema's name: "INT8", "INT4", "INT32", "FLOAT32"...
      scales: one per tensor or per channel; empty if not quantized.
      zero_points: as many as scales.
      quantized_dimension: the channel dimension the scales run along.
      data: bytes of a constant, little-endian and packed; None for activations.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    quantized_dimension: int
    data: bytes | None = dataclasses.field(repr=False)

    @property
    def is_constant(self) -> bool:
        """Whether the values are stored in the file."""
        return self.data is not None


@dataclasses.dataclass(frozen=True)
class Operator:
    """One operator, in execution order.

    Attributes:
      index: position in `TFLiteModel.operators`.
      name: the schema's name, "CONV_2D"; "CUSTOM:<code>" for custom operators.
      version: of the operator's definition, what a runtime must support.
      inputs: tensor indices; -1 where an optional input is absent.
      outputs: tensor indices.
      options_type: the schema's name, "Conv2DOptions"; empty without options.
      options: their fields, by the schema's names in Python.
    """

    index: int
    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options_type: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Signature:
    """What users call the model's ends.

    Attributes:
      key: of the signature, "serving_default".
      inputs: (name, tensor index) of each; `outputs` the same.
    """

    key: str
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class TFLiteModel:
    """The only subgraph of a `.tflite` file.

    Attributes:
      tensors: all tensors, by index.
      operators: in execution order.
      inputs: tensor indices of the model's inputs.
      outputs: tensor indices of the model's outputs.
      signatures: names of inputs and outputs.
      metadata: buffers beside the graph, by name.
    """

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    signatures: tuple[Signature, ...] = ()
    metadata: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


def unpack_model(tflite: bytes) -> schema.ModelT:
    """The schema's mutable object tree of a `.tflite` file.

    Raises:
      ExportError: not a `.tflite` file, damaged, or more than one subgraph.
    """
    if tflite[4:8] != _IDENTIFIER:
        raise ExportError(
            f"not a .tflite file: {len(tflite)} bytes whose identifier at offset 4 is "
            f"{bytes(tflite[4:8])!r}, expected {_IDENTIFIER!r}; pass a file written "
            "by the TFLite converter"
        )
    content = bytes(tflite)
    try:
        root = schema.Model.GetRootAs(content)
        check_bounded(root, len(content))
        model = schema.ModelT.InitFromObj(root)
    except ExportError:
        raise
    except DAMAGE as error:
        raise damaged(tflite, str(error)) from error
    if len(model.subgraphs or ()) != 1:
        raise ExportError(
            f"the .tflite file holds {len(model.subgraphs or ())} subgraphs; expected "
            "1: a classifier without control flow"
        )
    return model


def pack_model(model: schema.ModelT) -> bytes:
    """The `.tflite` file of an object tree."""
    builder = _AlignedBuilder(1024)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def read_model(tflite: bytes) -> TFLiteModel:
    """The tensors and operators of a `.tflite` file.

    Raises:
      ExportError: not a `.tflite` file, damaged, or more than one subgraph.
    """
    model = unpack_model(tflite)
    graph = model.subgraphs[0]
    try:
        if any(buffer.offset or buffer.size for buffer in model.buffers):
            raise ValueError("constants behind its end")
        constants = [
            None if buffer.data is None else bytes(buffer.data)
            for buffer in model.buffers
        ]
        read = TFLiteModel(
            tuple(
                _tensor(index, tensor, constants)
                for index, tensor in enumerate(graph.tensors)
            ),
            tuple(
                _operator(index, operator, model.operatorCodes)
                for index, operator in enumerate(graph.operators)
            ),
            _indices(graph.inputs),
            _indices(graph.outputs),
            tuple(_signature(signature) for signature in model.signatureDefs or ()),
            {
                (entry.name or b"").decode(): constants[entry.buffer] or b""
                for entry in model.metadata or ()
            },
        )
    except DAMAGE as error:
        raise damaged(tflite, f"{type(error).__name__} {error}") from error
    used = [read.inputs, read.outputs]
    used += [ends for op in read.operators for ends in (op.inputs, op.outputs)]
    if any(not -1 <= index < len(read.tensors) for ends in used for index in ends):
        raise damaged(tflite, "a tensor index is out of range")
    return read


def converter_version(tflite: bytes) -> str | None:
    """The TensorFlow whose converter wrote a file; None if it does not tell."""
    try:
        model = unpack_model(tflite)
        (buffer,) = (
            model.buffers[entry.buffer]
            for entry in model.metadata or ()
            if entry.name == _CONVERSION_METADATA
        )
        read = conversion_schema.ConversionMetadata.GetRootAs(bytes(buffer.data))
        version: bytes = read.Environment().TensorflowVersion()
        return version.decode()
    except DAMAGE:
        return None


def constant_values(tensor: Tensor) -> np.ndarray:
    """The stored values of a constant tensor, of its shape.

    INT4 comes as int8: two values a byte, low nibble first, sign-extended.

    Raises:
      ExportError: not a constant, a type without numpy counterpart, or the
        number of bytes does not fit the shape.
    """
    if tensor.data is None:
        raise ExportError(
            f"tensor {shown(tensor.name)} is computed at run time; expected a constant"
        )
    if tensor.dtype != "INT4" and tensor.dtype not in _NUMPY_TYPES:
        raise ExportError(
            f"constant {shown(tensor.name)} is {tensor.dtype}; expected INT4 or one of "
            f"{', '.join(_NUMPY_TYPES)}"
        )
    dtype = np.dtype(_NUMPY_TYPES.get(tensor.dtype, np.int8)).newbyteorder("<")
    count = math.prod(tensor.shape)
    values_per_byte = 2 if tensor.dtype == "INT4" else 1
    num_bytes = -(-count // values_per_byte) * dtype.itemsize
    if min(tensor.shape, default=0) < 0 or len(tensor.data) != num_bytes:
        raise ExportError(
            f"constant {shown(tensor.name)} stores {len(tensor.data)} bytes, which do "
            f"not fit {tensor.dtype} of shape {tensor.shape}; the file is damaged: "
            "convert again"
        )
    values: np.ndarray = np.frombuffer(tensor.data, dtype)
    if tensor.dtype == "INT4":
        low = (values << 4) >> 4  # int8 shifts: >> repeats the sign bit
        # An odd count leaves half a byte of padding.
        values = np.stack([low, values >> 4], axis=-1).ravel()[:count]
    return values.reshape(tensor.shape)


def _tensor(
    index: int, tensor: schema.TensorT, constants: Sequence[bytes | None]
) -> Tensor:
    quantization = tensor.quantization or schema.QuantizationParametersT()
    signature = tensor.shapeSignature
    return Tensor(
        index=index,
        name=(tensor.name or b"").decode(),
        shape=_indices(tensor.shape if signature is None else signature),
        dtype=_TENSOR_TYPES[tensor.type],
        scales=tuple(float(s) for s in _or_empty(quantization.scale)),
        zero_points=_indices(quantization.zeroPoint),
        quantized_dimension=quantization.quantizedDimension,
        data=constants[tensor.buffer],
    )


def _operator(
    index: int, operator: schema.OperatorT, codes: Sequence[schema.OperatorCodeT]
) -> Operator:
    code = codes[operator.opcodeIndex]
    name = operator_name(code)
    if name == "CUSTOM":
        name = f"CUSTOM:{(code.customCode or b'').decode()}"
    options = operator.builtinOptions
    return Operator(
        index,
        name,
        code.version,
        _indices(operator.inputs),
        _indices(operator.outputs),
        "" if options is None else type(options).__name__.removesuffix("T"),
        {} if options is None else vars(options),
    )


def _signature(signature: schema.SignatureDefT) -> Signature:
    if signature.subgraphIndex:
        raise ValueError(f"a signature of subgraph {signature.subgraphIndex}")
    inputs, outputs = (
        tuple((end.name.decode(), end.tensorIndex) for end in ends or ())
        for ends in (signature.inputs, signature.outputs)
    )
    return Signature(signature.signatureKey.decode(), inputs, outputs)


def operator_name(code: schema.OperatorCodeT) -> str:
    """The schema's name of an operator code, such as "CONV_2D"."""
    # Codes below 127 lived in the deprecated field alone before TF 2.4.
    return _OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def layers_named_in(tensor_name: str) -> frozenset[str]:
    """The layers, and scopes around them, that a tensor's name tells of.

    Fused operators join their names by ";"; behind a "/", the last part of each is a
    TensorFlow operation's.
    """
    paths = (name.split("/") for name in tensor_name.split(";"))
    return frozenset(part for path in paths for part in path[:-1] or path)


def _indices(values: _Numbers | None) -> tuple[int, ...]:
    return tuple(int(value) for value in _or_empty(values))


def _or_empty(values: _Numbers | None) -> _Numbers:
    return () if values is None else values


def damaged(tflite: bytes, reason: str) -> ExportError:
    """What is said of a file that a reader fails on, for such a reason."""
    return ExportError(
        f"damaged .tflite file of {len(tflite)} bytes ({printable(reason)}); expected "
        "a complete one: copy or convert it again"
    )


class _AlignedBuilder(flatbuffers.Builder):
    """A builder of files whose constants start where runtimes want them."""

    def CreateNumpyVector(  # noqa: N802 - the base class's name
        self, x: np.ndarray
    ) -> int:
        """Where the vector of those values is."""
        if x.dtype == np.uint8:  # the type of every constant's bytes
            self.Prep(_BUFFER_ALIGNMENT, x.nbytes)
        return super().CreateNumpyVector(x)
