"""Which operators layers become where a target has no kernel for them, or a slow one.

A convolution of each position alone is a FULLY_CONNECTED of its channels, and a dense
layer a convolution of one position: which of them a layer with an INT4 kernel becomes,
its target decides. The integer sums are the same; what differs is how fast runtimes
are, what they refuse, and how they round. Hard-swish of int16 becomes a product.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from tflite_export.integer_network import IntegerNetwork, IntegerOp, Kernel, Shape
from tflite_export.litert.kernels import xnnpack_takes_int4
from tflite_export.operators.table import KINDS
from tflite_export.quantization_params import (
    QuantParams,
    coarse,
    storage_bits,
    symmetric_quant_params,
)
from tflite_export.target_kernels import rounding_bias
from tflite_export.target_rules import require_activations_taken
from tflite_export.targets import TARGETS, Target
from tflite_export.tensor_shapes import tensor_shapes

_DENSE = frozenset({"dense", "dense_convolution"})
# Of kinds that have any.
_ATTRIBUTES: Mapping[str, dict[str, Any]] = {
    "conv": {"strides": [1, 1], "padding": "valid", "dilation": [1, 1], "groups": 1}
}
# Kinds for INT4 kernels alone -> what the layer is with 8 bits.
_AT_8_BITS = {"pointwise": "conv", "dense_convolution": "dense"}
_RESHAPES = 2  # around dense layers that are convolutions, and others
# No layer has a slash in its name.
_GATE, _FLAT, _TURNED = "/gate", "/flat", "/turned"
_GATE_LEVEL = 64  # of all its weights
_IMAGE = 4  # dimensions


def is_pointwise(kernel_shape: Shape, attributes: Mapping[str, Any]) -> bool:
    """Whether a convolution can be a FULLY_CONNECTED that XNNPACK takes with INT4.

    Args:
      kernel_shape: (height, width, inputs, outputs).
      attributes: those of a "conv".
    """
    height, width, inputs, _ = kernel_shape
    return (
        (height, width) == (1, 1)
        and list(attributes["strides"]) == [1, 1]
        and attributes.get("groups", 1) == 1
        and xnnpack_takes_int4(inputs)
    )


def can_be_fully_connected(
    kind: str, kernel_shape: Shape, attributes: Mapping[str, Any]
) -> bool:
    """Whether XNNPACK takes an operation with INT4: as fast as INT8, rounded once."""
    if kind == "conv":
        return is_pointwise(kernel_shape, attributes)
    return kind == "dense" and xnnpack_takes_int4(kernel_shape[0])


def in_form_of(target: Target, op: IntegerOp) -> IntegerOp:
    """The operation as the kind that its target takes, or runs fastest.

    Scales and biases stay as they are; see `rounding_bias` for the latter.
    """
    kernel = op.kernel
    if kernel is None or storage_bits(kernel.bits) == 8 or op.quant_params.bits == 16:
        return op
    return _as_kind(op, kernel, _kind(op, kernel, target))


def _as_kind(op: IntegerOp, kernel: Kernel, kind: str) -> IntegerOp:
    layout = KINDS[kind].kernel
    if kind == op.kind or layout is None:
        return op
    ones = (1,) * (layout.num_dimensions - 2)
    values = kernel.values.reshape(*ones, *kernel.values.shape[-2:])
    return dataclasses.replace(
        op,
        kind=kind,
        attributes=_ATTRIBUTES.get(kind, {}),
        kernel=dataclasses.replace(kernel, values=values),
    )


def in_forms_of(target: Target, network: IntegerNetwork) -> IntegerNetwork:
    """A finished network for another target.

    To change the target and back again gives the same kernels and biases.

    Raises:
      ExportError: the target does not take the network's activations.
    """
    require_activations_taken(target, network)
    made_for = TARGETS[network.target]
    ops = []
    for op in network.ops:
        formed = in_form_of(target, op)
        if formed.kernel is not None:
            taken = network.quant_params(op.inputs[0])
            # Each is rounded before they are added, so that the way back is exact.
            before = np.rint(rounding_bias(made_for, op, taken))
            after = np.rint(rounding_bias(target, formed, taken))
            bias = formed.kernel.bias + (before - after).astype(np.int32)
            kernel = dataclasses.replace(formed.kernel, bias=bias)
            formed = dataclasses.replace(formed, kernel=kernel)
        ops.append(formed)
    return dataclasses.replace(network, ops=tuple(ops), target=target.name)


def in_int16_kinds(network: IntegerNetwork) -> IntegerNetwork:
    """The network without kinds that LiteRT has no int16 kernel for, if others do.

    Hard-swish is a product of its input and a gate, x / 6 + 1 / 2 from 0 to 1, which is
    a depthwise layer. Blocks of positions are laid out by a transposition.
    """
    shapes = tensor_shapes(network)
    ops: list[IntegerOp] = []
    for op in network.ops:
        source, *_ = op.inputs
        if op.kind == "hard_swish":
            ops += _gated(op, shapes[source], network.quant_params(source))
        elif op.kind == "depth_to_space":
            ops += _transposed(op, shapes[source])
        else:
            ops.append(op)
    return dataclasses.replace(network, ops=tuple(ops))


def _gated(op: IntegerOp, shape: Shape, taken: QuantParams) -> list[IntegerOp]:
    """A hard-swish of an input of that shape, batch 1 first."""
    (source,) = op.inputs
    if len(shape) == _IMAGE:
        ops = [_gate(f"{op.name}{_GATE}", source, shape[-1], taken)]
    else:
        size = [math.prod(shape[1:-1]), 1, shape[-1]]
        image = _reshape(f"{op.name}/image", source, size, taken)
        gate = _gate(f"{op.name}{_GATE}", image.name, shape[-1], taken)
        flat = _reshape(
            f"{op.name}{_FLAT}", gate.name, list(shape[1:]), gate.quant_params
        )
        ops = [image, gate, flat]
    inputs = (source, ops[-1].name)
    return [*ops, dataclasses.replace(op, kind="multiply", inputs=inputs)]


def _transposed(op: IntegerOp, shape: Shape) -> list[IntegerOp]:
    """A depth_to_space of an input of that shape, batch 1 first."""
    (source,), (_, height, width, channels) = op.inputs, shape
    rows, columns = op.attributes["block_size"]
    channels //= rows * columns
    size = [height, width, rows, columns * channels]
    apart = _reshape(f"{op.name}/apart", source, size, op.quant_params)
    turned = dataclasses.replace(
        op,
        name=f"{op.name}{_TURNED}",
        kind="transpose",
        inputs=(apart.name,),
        attributes={"permutation": [1, 3, 2, 4]},
    )
    size = [height * rows, width * columns, channels]
    together = _reshape(f"{op.name}/together", turned.name, size, op.quant_params)
    crops = {"crops": op.attributes["crops"]}
    cut = dataclasses.replace(
        op, kind="crop", inputs=(together.name,), attributes=crops
    )
    return [apart, turned, together, cut]


def _gate(name: str, source: str, channels: int, taken: QuantParams) -> IntegerOp:
    scale = coarse(np.full(channels, 1 / (6 * _GATE_LEVEL)))
    kernel = Kernel(
        values=np.full((1, 1, channels, 1), _GATE_LEVEL, np.int8),
        bits=8,
        scale=scale.astype(np.float32),
        bias=np.rint(0.5 / (taken.scale * scale)).astype(np.int64),
    )
    quant_params = symmetric_quant_params(1.0)
    quant_params = dataclasses.replace(
        quant_params, scale=float(coarse(quant_params.scale))
    )
    return IntegerOp(
        name,
        "depthwise",
        (source,),
        quant_params,
        relu=True,
        kernel=kernel,
        attributes={"strides": [1, 1], "padding": "valid", "dilation": [1, 1]},
    )


def _reshape(
    name: str, source: str, shape: list[int], quant_params: QuantParams
) -> IntegerOp:
    attributes = {"shape": shape}
    return IntegerOp(name, "reshape", (source,), quant_params, attributes=attributes)


def gated_layers(network: IntegerNetwork) -> frozenset[str]:
    """Names of the layers that have a gate, whose kernel has 8 bits in any case."""
    names = (op.name for op in network.ops if op.kernel is not None)
    return frozenset(x.removesuffix(_GATE) for x in names if x.endswith(_GATE))


def at_8_bits(network: IntegerNetwork, names: Collection[str]) -> IntegerNetwork:
    """A network as large and as fast as if some of its kernels had 8 bits.

    What it computes is not what a student with such kernels does.
    """
    ops = []
    for op in network.ops:
        if op.kernel is not None and op.name in names:
            kernel = dataclasses.replace(op.kernel, bits=8)
            op = dataclasses.replace(op, kernel=kernel)
            op = _as_kind(op, kernel, _AT_8_BITS.get(op.kind, op.kind))
        ops.append(op)
    return dataclasses.replace(network, ops=tuple(ops))


def num_added_operators(network: IntegerNetwork) -> int:
    """How many operators forms and ends take at most that the layers would not."""
    num_reshaped = sum(
        op.kind == "dense_convolution" or op.name.endswith((_FLAT, _TURNED))
        for op in network.ops
    )
    return (
        _RESHAPES * num_reshaped
        + len(gated_layers(network))
        + network.interface.num_conversions
    )


def _kind(op: IntegerOp, kernel: Kernel, target: Target) -> str:
    if op.kind in _DENSE:
        return target.int4_dense
    if op.kind == "pointwise" or (
        op.kind == "conv" and is_pointwise(kernel.values.shape, op.attributes)
    ):
        return target.int4_pointwise
    return op.kind
