"""Students on disk: one `.npz` with a JSON description and the kernels' arrays.

Such a file may come from anybody. What it declares is checked before it is read into
memory, and what it holds before anything is computed from it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.integer_network import IntegerNetwork, IntegerOp, Kernel
from tflite_export.interface import CONTENTS, END_TYPES, Interface, Meaning
from tflite_export.json_values import (
    Fields,
    check_fields,
    integer_within,
    is_bool,
    is_finite,
    is_line,
    is_name,
    is_object,
    is_quantized,
    is_scale,
    is_size,
    list_of,
    require,
)
from tflite_export.names import printable, shown
from tflite_export.operators.record import KernelLayout
from tflite_export.operators.table import KINDS
from tflite_export.quantization_params import (
    INT4_SCALE_BITS,
    SCALE_BITS,
    QuantParams,
    storage_bits,
    weight_levels,
)
from tflite_export.targets import DEFAULT_TARGET, TARGETS
from tflite_export.tensor_shapes import tensor_shapes

_DESCRIPTION = "network"
_ARRAYS = ("values", "scale", "bias")
# By bits of activations.
_BIAS_DTYPES: Mapping[int, type[np.integer]] = {8: np.int32, 16: np.int64}
# A description has about half a kilobyte for each operation; the largest classifiers
# known have four hundred million weights of a byte.
_LARGEST_DESCRIPTION = 2**24
_LARGEST_FILE = 2**29
_LARGEST_TENSOR = 2**27  # values
_is_bits = integer_within(2, 8)
_GRID_FIELDS: Fields = {"scale": is_scale, "zero_point": is_quantized}
# Of students with activations of 16 bits.
_OPTIONAL_GRID_FIELDS: Fields = {"bits": lambda value: value == 16}
_NETWORK_FIELDS: Fields = {
    "input_name": is_name,
    "input_shape": list_of(None, is_size),
    "input_grid": is_object,
    "softmax": is_bool,
    "ops": lambda value: isinstance(value, list),
    "interface": is_object,
}
_INTERFACE_FIELDS: Fields = {
    "input_type": lambda value: isinstance(value, str) and value in END_TYPES,
    "output_type": lambda value: isinstance(value, str) and value in END_TYPES,
    "input_name": lambda value: is_name(value) and is_line(value),
    "output_name": lambda value: is_name(value) and is_line(value),
    "meaning": is_object,
}
_MEANING_FIELDS: Fields = {
    "name": is_line,
    "description": is_line,
    "input_description": is_line,
    "content": lambda value: isinstance(value, str) and value in CONTENTS,
    "mean": list_of(None, is_finite),
    "std": list_of(None, is_scale),
    "labels": list_of(None, is_line),
}
# Of students for another target than the default one.
_OPTIONAL_NETWORK_FIELDS: Fields = {
    "target": lambda value: isinstance(value, str) and value in TARGETS
}
_OPERATION_FIELDS: Fields = {
    "name": is_name,
    "kind": lambda value: isinstance(value, str) and value in KINDS,
    "inputs": list_of(None, is_name),
    "grid": is_object,
    "relu": is_bool,
    "relu6": is_bool,
    "attributes": is_object,
    "kernel_bits": lambda value: value is None or _is_bits(value),
}
# What damaged bytes raise on their way through zipfile, zlib, numpy and json.
NPZ_DAMAGE = (
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
    with Path(path).open("wb") as file:
        np.savez_compressed(file, **_arrays_of(network))


def network_digest(network: IntegerNetwork) -> str:
    """SHA-256 of all that `save_network` writes."""
    found = hashlib.sha256()
    for name, array in _arrays_of(network).items():
        found.update(f"{name} {array.dtype} {array.shape}\0".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _arrays_of(network: IntegerNetwork) -> dict[str, Any]:
    """The description as bytes, and the kernels' arrays by name."""
    arrays, ops = {}, []
    for op in network.ops:
        description = {
            "name": op.name,
            "kind": op.kind,
            "inputs": op.inputs,
            "grid": _grid(op.quant_params),
            "relu": op.relu,
            "relu6": op.relu6,
            "attributes": dict(op.attributes),
            "kernel_bits": op.kernel.bits if op.kernel else None,
        }
        ops.append(description)
        if op.kernel:
            for field in _ARRAYS:
                arrays[f"{op.name}/{field}"] = getattr(op.kernel, field)
    description = {
        "input_name": network.input_name,
        "input_shape": network.input_shape,
        "input_grid": _grid(network.input_quant_params),
        "softmax": network.softmax,
        "ops": ops,
        "interface": dataclasses.asdict(network.interface),
    }
    if network.target != DEFAULT_TARGET:
        description["target"] = network.target
    text = json.dumps(description).encode()
    return {_DESCRIPTION: np.frombuffer(text, np.uint8), **arrays}


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
            "a run of `gdfq quantize` wrote"
        ) from error
    except NPZ_DAMAGE as error:
        reason = str(error) if isinstance(error, ExportError) else type(error).__name__
        raise ExportError(
            f"{path} is not a student file or is damaged "
            f"({printable(reason)}); expected a student.npz that "
            "a run of `gdfq quantize` wrote"
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
    check_fields(description, "the network", _NETWORK_FIELDS, _OPTIONAL_NETWORK_FIELDS)
    ops = description["ops"]
    require(isinstance(ops, list) and ops, "it has no operations")
    network = IntegerNetwork(
        description["input_name"],
        tuple(description["input_shape"]),
        _quant_params(description["input_grid"], "the input"),
        tuple(_operation(op, arrays) for op in ops),
        description["softmax"],
        _interface(description["interface"]),
        description.get("target", DEFAULT_TARGET),
    )
    known = {network.input_name}
    for op in network.ops:
        what = f"operation {shown(op.name)}"
        require(op.name not in known, f"{what} is there twice")
        require(known.issuperset(op.inputs), f"{what} reads what no earlier one gives")
        require(
            op.quant_params.bits == network.activation_bits,
            f"{what} has {op.quant_params.bits} bits, and the input another number",
        )
        known.add(op.name)
    shapes = tensor_shapes(network)
    for name, shape in shapes.items():
        require(
            math.prod(shape) <= _LARGEST_TENSOR,
            f"tensor {shown(name)} has {math.prod(shape):,} values, more than the "
            f"{_LARGEST_TENSOR:,} that are taken",
        )
    shape, labels = shapes[network.ops[-1].name], network.interface.meaning.labels
    require(len(shape) == 2, f"its output has shape {shape} instead of (1, classes)")
    require(
        len(labels) in (0, shape[1]), f"{len(labels)} labels for {shape[1]} outputs"
    )
    return network


def _interface(description: dict) -> Interface:
    check_fields(description, "the interface", _INTERFACE_FIELDS)
    meaning = description["meaning"]
    check_fields(meaning, "the interface's meaning", _MEANING_FIELDS)
    require(
        bool(meaning["mean"]) == bool(meaning["std"]),
        "the interface has a mean without std, or a std without mean",
    )
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in meaning.items()
    }
    return Interface(**{**description, "meaning": Meaning(**values)})


def _operation(description: dict, arrays: Mapping[str, np.ndarray]) -> IntegerOp:
    check_fields(description, "an operation", _OPERATION_FIELDS)
    name, kind = description["name"], description["kind"]
    what = f"operation {shown(name)} ({kind})"
    traits = KINDS[kind]
    attributes = description["attributes"]
    check_fields(attributes, what, traits.attributes, traits.optional_attributes)
    inputs = tuple(description["inputs"])
    require(traits.takes(len(inputs)), f"{what} has {len(inputs)} inputs")
    bits = description["kernel_bits"]
    require(
        (bits is None) == (traits.kernel is None),
        f"{what} has {'no' if bits is None else 'a'} kernel",
    )
    quant_params = _quant_params(description["grid"], what)
    kernel = None
    if traits.kernel is not None:
        bias_dtype = _BIAS_DTYPES[quant_params.bits]
        kernel = _kernel(description, traits.kernel, bias_dtype, arrays)
    return IntegerOp(
        name=name,
        kind=kind,
        inputs=inputs,
        quant_params=quant_params,
        relu=description["relu"],
        relu6=description["relu6"],
        kernel=kernel,
        attributes=attributes,
    )


def _kernel(
    description: dict,
    layout: KernelLayout,
    bias_dtype: type[np.integer],
    arrays: Mapping[str, np.ndarray],
) -> Kernel:
    """The kernel of an operation, whose own fields are right already."""
    name, bits = description["name"], description["kernel_bits"]
    what = f"operation {shown(name)} ({description['kind']})"
    fields = {}
    for field, dtype in zip(_ARRAYS, (np.int8, np.float32, bias_dtype), strict=True):
        array = fields[field] = arrays[f"{name}/{field}"]
        require(
            array.dtype == dtype, f"{field} of {what} are {array.dtype}, not {dtype}"
        )
    kernel = Kernel(bits=bits, **fields)
    values, scale = kernel.values, kernel.scale.astype(np.float64)
    channels = scale.size
    require(
        values.ndim == layout.num_dimensions
        and values.size > 0
        and kernel.scale.shape == kernel.bias.shape == (channels,)
        and channels == math.prod(values.shape[d] for d in layout.channel_dimensions),
        f"values, scale and bias of {what} have shapes {values.shape}, "
        f"{kernel.scale.shape} and {kernel.bias.shape}, which do not fit each other",
    )
    lowest, highest = weight_levels(bits)
    require(
        lowest <= values.min() and values.max() <= highest,
        f"kernel values of {what} are {values.min()} to {values.max()}, beyond its "
        f"{bits} bits",
    )
    scale_bits = SCALE_BITS if storage_bits(bits) == 8 else INT4_SCALE_BITS
    steps = np.ldexp(np.frexp(scale)[0], scale_bits)
    require(
        bool(np.isfinite(scale).all() and (scale > 0).all())
        and np.array_equal(steps, np.rint(steps)),
        f"kernel scales of {what} are not positive numbers of at most "
        f"{scale_bits} bits",
    )
    return kernel


def _quant_params(description: dict, what: str) -> QuantParams:
    fields = _GRID_FIELDS, _OPTIONAL_GRID_FIELDS
    check_fields(description, f"the grid of {what}", *fields)
    quant_params = QuantParams(**description)
    require(
        quant_params.bits == 8 or quant_params.zero_point == 0,
        f"the grid of {what} has 16 bits and another zero point than 0",
    )
    return quant_params


def _grid(quant_params: QuantParams) -> dict[str, Any]:
    """What `_quant_params` reads; bits are told where they are not 8."""
    fields = dataclasses.asdict(quant_params)
    if fields["bits"] == 8:
        del fields["bits"]
    return fields
