"""Which operator a layer with an INT4 kernel becomes: its target decides.

A convolution of each position alone is a FULLY_CONNECTED of its channels, and a dense
layer a convolution of one position. The integer sums are the same; what differs is how
fast runtimes are, what they refuse, and how they round.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from tflite_export.integer_network import IntegerNetwork, IntegerOp, Kernel, Shape
from tflite_export.litert.kernels import xnnpack_takes_int4
from tflite_export.operators.table import KINDS
from tflite_export.quantization_params import storage_bits
from tflite_export.target_kernels import rounding_bias
from tflite_export.targets import TARGETS, Target

_DENSE = frozenset({"dense", "dense_convolution"})
# Of kinds that have any.
_ATTRIBUTES: Mapping[str, dict[str, Any]] = {
    "conv": {"strides": [1, 1], "padding": "valid", "dilation": [1, 1], "groups": 1}
}
# Kinds for INT4 kernels alone -> what the layer is with 8 bits.
_AT_8_BITS = {"pointwise": "conv", "dense_convolution": "dense"}
_RESHAPES = 2  # around a dense layer that is a convolution


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
    if kernel is None or storage_bits(kernel.bits) == 8:
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
    """
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
    num_convolutions = sum(op.kind == "dense_convolution" for op in network.ops)
    return _RESHAPES * num_convolutions + network.interface.num_conversions


def _kind(op: IntegerOp, kernel: Kernel, target: Target) -> str:
    if op.kind in _DENSE:
        return target.int4_dense
    if op.kind == "pointwise" or (
        op.kind == "conv" and is_pointwise(kernel.values.shape, op.attributes)
    ):
        return target.int4_pointwise
    return op.kind
