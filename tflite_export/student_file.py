"""Students on disk: one `.npz` with a JSON description and the kernels' arrays.

Such a file may come from anybody. What it declares is checked before it is read into
memory, and what it holds before anything is computed from it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.integer_network import KINDS, IntegerNetwork, IntegerOp, Kernel
from tflite_export.names import printable, shown
from tflite_export.quantization_params import (
    INT8_MAX,
    INT8_MIN,
    QuantParams,
    weight_limit,
)
from tflite_export.tensor_shapes import tensor_shapes

_DESCRIPTION = "network"
_ARRAY_DTYPES = {"values": np.int8, "scale": np.float32, "bias": np.int32}
_KERNEL_DIMENSIONS = {"conv": 4, "depthwise": 4, "dense": 2}
# A description has about half a kilobyte for each operation; the largest classifiers
# known have four hundred million weights of a byte.
_LARGEST_DESCRIPTION = 2**24
_LARGEST_FILE = 2**29
_LARGEST_TENSOR = 2**27  # values
_MOST_SCALE_BITS = 16  # see `export_graph`
# What damaged bytes raise on their way through zipfile, zlib, numpy and json.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    MemoryError,
    OverflowError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def save_network(network: IntegerNetwork, path: Path) -> None:
    """Writes one `.npz`: a JSON description and the kernels' arrays."""
    arrays, ops = {}, []
    for op in network.ops:
        description = {
            "name": op.name,
            "kind": op.kind,
            "inputs": op.inputs,
            "grid": dataclasses.asdict(op.quant_params),
            "relu": op.relu,
            "relu6": op.relu6,
            "attributes": dict(op.attributes),
            "kernel_bits": op.kernel.bits if op.kernel else None,
        }
        ops.append(description)
        if op.kernel:
            for field in _ARRAY_DTYPES:
                arrays[f"{op.name}/{field}"] = getattr(op.kernel, field)
    description = {
        "input_name": network.input_name,
        "input_shape": network.input_shape,
        "input_grid": dataclasses.asdict(network.input_quant_params),
        "softmax": network.softmax,
        "ops": ops,
    }
    text = json.dumps(description).encode()
    with Path(path).open("wb") as file:
        np.savez_compressed(file, network=np.frombuffer(text, np.uint8), **arrays)


def load_network(path: Path) -> IntegerNetwork:
    """Reads what `save_network` wrote.

    Raises:
      ExportError: missing, damaged or another kind of file; larger than any student;
        a network that cannot be computed.
    """
    try:
        with Path(path).open("rb") as stream, zipfile.ZipFile(stream) as archive:
            _check_sizes(archive)
            with np.lib.npyio.NpzFile(stream) as arrays:
                return _network(json.loads(arrays[_DESCRIPTION].tobytes()), arrays)
    except FileNotFoundError as error:
        raise ExportError(
            f"student {path} does not exist; expected a student.npz that "
            "tools/quantize.py wrote"
        ) from error
    except _DAMAGE as error:
        reason = str(error) if isinstance(error, ExportError) else type(error).__name__
        raise ExportError(
            f"{path} is not a student file or is damaged "
            f"({printable(reason)}); expected a student.npz that "
            "tools/quantize.py wrote"
        ) from error


def _check_sizes(archive: zipfile.ZipFile) -> None:
    """Bounds what reading takes; zipfile reads no more than an entry declares."""
    declared = sum(entry.file_size for entry in archive.infolist())
    if declared > _LARGEST_FILE:
        raise ExportError(
            f"it declares {declared:,} bytes, more than the {_LARGEST_FILE:,} of any "
            "student"
        )
    description = archive.getinfo(f"{_DESCRIPTION}.npy").file_size
    if description > _LARGEST_DESCRIPTION:
        raise ExportError(f"its description has {description:,} bytes")
    for entry in archive.infolist():
        with archive.open(entry) as member:
            version = np.lib.format.read_magic(member)
            read_header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(member)
            num_bytes = math.prod(shape) * dtype.itemsize
            # Numpy makes room for what the header says.
            if dtype.hasobject or num_bytes > entry.file_size:
                raise ExportError(f"array {shown(entry.filename)} is not what it says")


def _network(description: dict, arrays: Mapping[str, np.ndarray]) -> IntegerNetwork:
    _check_fields(description, "the network", _NETWORK_FIELDS)
    ops = description["ops"]
    _require(isinstance(ops, list) and ops, "it has no operations")
    network = IntegerNetwork(
        description["input_name"],
        tuple(description["input_shape"]),
        _quant_params(description["input_grid"], "the input"),
        tuple(_operation(op, arrays) for op in ops),
        description["softmax"],
    )
    known = {network.input_name}
    for op in network.ops:
        what = f"operation {shown(op.name)}"
        _require(op.name not in known, f"{what} is there twice")
        _require(known.issuperset(op.inputs), f"{what} reads what no earlier one gives")
        known.add(op.name)
    shapes = tensor_shapes(network)
    for name, shape in shapes.items():
        _require(
            math.prod(shape) <= _LARGEST_TENSOR,
            f"tensor {shown(name)} has {math.prod(shape):,} values, more than the "
            f"{_LARGEST_TENSOR:,} that are taken",
        )
    _require(
        len(shapes[network.ops[-1].name]) == 2,
        f"its output has shape {shapes[network.ops[-1].name]} instead of (1, classes)",
    )
    return network


def _operation(description: dict, arrays: Mapping[str, np.ndarray]) -> IntegerOp:
    _check_fields(description, "an operation", _OPERATION_FIELDS)
    name, kind = description["name"], description["kind"]
    what = f"operation {shown(name)} ({kind})"
    required, optional = _ATTRIBUTES.get(kind, _NONE)
    attributes = description["attributes"]
    _check_fields(attributes, what, required, optional)
    inputs = tuple(description["inputs"])
    _require(
        len(inputs) == _NUM_INPUTS.get(kind, 1) or (kind == "concatenate" and inputs),
        f"{what} has {len(inputs)} inputs",
    )
    bits = description["kernel_bits"]
    _require(
        (bits is not None) == (kind in _KERNEL_DIMENSIONS),
        f"{what} has {'no' if bits is None else 'a'} kernel",
    )
    return IntegerOp(
        name=name,
        kind=kind,
        inputs=inputs,
        quant_params=_quant_params(description["grid"], what),
        relu=description["relu"],
        relu6=description["relu6"],
        kernel=None if bits is None else _kernel(name, kind, bits, arrays),
        attributes=attributes,
    )


def _kernel(
    name: str, kind: str, bits: int, arrays: Mapping[str, np.ndarray]
) -> Kernel:
    what = f"operation {shown(name)} ({kind})"
    fields = {}
    for field, dtype in _ARRAY_DTYPES.items():
        array = fields[field] = arrays[f"{name}/{field}"]
        _require(
            array.dtype == dtype, f"{field} of {what} are {array.dtype}, not {dtype}"
        )
    kernel = Kernel(bits=bits, **fields)
    values, scale = kernel.values, kernel.scale.astype(np.float64)
    channels = scale.size
    _require(
        values.ndim == _KERNEL_DIMENSIONS[kind]
        and values.size > 0
        and kernel.scale.shape == kernel.bias.shape == (channels,)
        and channels == _num_channels(kind, values.shape),
        f"values, scale and bias of {what} have shapes {values.shape}, "
        f"{kernel.scale.shape} and {kernel.bias.shape}, which do not fit each other",
    )
    largest = int(np.abs(values.astype(np.int64)).max())
    _require(
        largest <= weight_limit(bits),
        f"a kernel value of {what} is {largest}, beyond its {bits} bits",
    )
    steps = np.ldexp(np.frexp(scale)[0], _MOST_SCALE_BITS)
    _require(
        bool(np.isfinite(scale).all() and (scale > 0).all())
        and np.array_equal(steps, np.rint(steps)),
        f"kernel scales of {what} are not positive numbers of at most "
        f"{_MOST_SCALE_BITS} bits",
    )
    return kernel


def _num_channels(kind: str, shape: tuple[int, ...]) -> int:
    return shape[2] * shape[3] if kind == "depthwise" else shape[-1]


def _quant_params(description: dict, what: str) -> QuantParams:
    _check_fields(description, f"the grid of {what}", _GRID_FIELDS)
    return QuantParams(description["scale"], description["zero_point"])


def _is_integer(value, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _is_name(value) -> bool:
    return isinstance(value, str) and value != ""


def _is_bool(value) -> bool:
    return isinstance(value, bool)


def _is_scale(value) -> bool:
    smallest, largest = np.finfo(np.float32).tiny, np.finfo(np.float32).max
    return isinstance(value, float) and float(smallest) <= value <= float(largest)


def _is_list_of(length: int | None, is_entry: Callable[[Any], bool]):
    def check(value) -> bool:
        return (
            isinstance(value, list)
            and (length is None or len(value) == length)
            and all(map(is_entry, value))
        )

    return check


def _is_level(value) -> bool:
    return _is_integer(value, INT8_MIN, INT8_MAX)


def _is_size(value) -> bool:
    return _is_integer(value, 1, 2**15)


def _is_margin(value) -> bool:
    return _is_integer(value, 0, 2**15)


_is_pair = _is_list_of(2, _is_size)
_is_margins = _is_list_of(2, _is_list_of(2, _is_margin))
_Fields = Mapping[str, Callable[[Any], bool]]
_GRID_FIELDS: _Fields = {"scale": _is_scale, "zero_point": _is_level}
_NETWORK_FIELDS: _Fields = {
    "input_name": _is_name,
    "input_shape": _is_list_of(3, _is_size),
    "input_grid": lambda value: isinstance(value, dict),
    "softmax": _is_bool,
    "ops": lambda value: isinstance(value, list),
}
_OPERATION_FIELDS: _Fields = {
    "name": _is_name,
    "kind": lambda value: value in KINDS,
    "inputs": _is_list_of(None, _is_name),
    "grid": lambda value: isinstance(value, dict),
    "relu": _is_bool,
    "relu6": _is_bool,
    "attributes": lambda value: isinstance(value, dict),
    "kernel_bits": lambda value: value is None or _is_integer(value, 2, 8),
}
_WINDOW: dict[str, Callable[[Any], bool]] = {
    "strides": _is_pair,
    "padding": lambda value: value in ("same", "valid"),
}
# Of each kind: attributes it has, and those it may have.
_NONE: tuple[_Fields, _Fields] = ({}, {})
_ATTRIBUTES: Mapping[str, tuple[_Fields, _Fields]] = {
    "conv": (_WINDOW | {"dilation": _is_pair}, {"groups": _is_size}),
    "depthwise": (_WINDOW | {"dilation": _is_pair}, {}),
    "average_pool": (_WINDOW | {"pool_size": _is_pair}, {}),
    "max_pool": (_WINDOW | {"pool_size": _is_pair}, {}),
    "minimum": ({"level": _is_level}, {}),
    "leaky_relu": (
        {"slope": lambda value: type(value) is float and math.isfinite(value)},
        {},
    ),
    "global_average": ({}, {"keepdims": _is_bool}),
    "l2_normalize": (
        {
            "constant_level": lambda value: _is_integer(value, -255, 255),
            "num_constants": lambda value: _is_integer(value, 0, 2**15),
        },
        {},
    ),
    "reshape": ({"shape": _is_list_of(None, lambda v: _is_integer(v, 1, 2**31))}, {}),
    "pad": ({"pads": _is_margins}, {}),
    "crop": ({"crops": _is_margins}, {}),
    "depth_to_space": ({"block_size": _is_pair, "crops": _is_margins}, {}),
    "resize_nearest": ({"size": _is_pair}, {}),
    "resize_bilinear": ({"size": _is_pair}, {}),
}
_NUM_INPUTS = {"add": 2, "subtract": 2, "multiply": 2}


def _check_fields(
    found, what: str, required: _Fields, optional: _Fields | None = None
) -> None:
    """Every required field, no other but optional ones, each with a value it takes."""
    fields = {**required, **(optional or {})}
    _require(
        isinstance(found, dict) and required.keys() <= found.keys() <= fields.keys(),
        f"{what} has other fields than {', '.join(fields) or 'none'}",
    )
    for name, value in found.items():
        _require(fields[name](value), f"{name} of {what} is {printable(repr(value))}")


def _require(holds: object, otherwise: str) -> None:
    if not holds:
        raise ExportError(otherwise)
