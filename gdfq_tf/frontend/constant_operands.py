"""Constants beside tensors, written as what integer kernels have.

Passes over a list of ops that keep what it computes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from gdfq_tf.frontend.folding import merged_affine
from gdfq_tf.frontend.ops import (
    Op,
    Ops,
    find,
    new_name,
    rewrite_in_order,
    rewrite_pairs,
    substitute,
)


def place_constant_channels(ops: Ops) -> Ops:
    """Channels that are constant: in a bias, or added to channels of zeros."""
    ops = rewrite_pairs(rewrite_in_order(ops, _without_empty), _into_bias)
    for name in [op.name for op in ops if op.kind == "ConstantChannels"]:
        op = find(ops, name)
        ops = substitute(ops, op, _added_to_zeros(ops, op))
    return ops


def _without_empty(op: Op, _: Mapping[str, Op]) -> Op | str:
    is_empty = op.kind == "ConstantChannels" and not any(w.size for w in op.weights)
    return op.inputs[0] if is_empty else op


def _into_bias(op: Op, producer: Op) -> Ops | None:
    """What a linear layer makes of constant channels is part of its bias.

    Not where it pads: constants are zero there.
    """
    if producer.kind != "ConstantChannels" or op.kind not in ("Conv2D", "Dense"):
        return None
    kernel, *bias = op.weights
    is_padded = op.config.get("padding") == "same" and kernel.shape[:2] != (1, 1)
    differs = any(w.ndim > 1 for w in producer.weights)
    if is_padded or differs or op.config.get("groups", 1) > 1:
        return None
    before, behind = producer.weights
    first, last = len(before), kernel.shape[-2] - len(behind)
    of_constants = np.delete(kernel, np.s_[first:last], axis=-2)
    terms = of_constants * np.concatenate(producer.weights)[:, np.newaxis]
    shift = terms.sum(axis=tuple(range(kernel.ndim - 1)))
    weights = kernel[..., first:last, :], shift + (bias[0] if bias else 0.0)
    config = op.config | {"use_bias": True}
    return [Op(op.kind, op.name, producer.inputs, config, weights)]


def _added_to_zeros(ops: Ops, op: Op) -> Ops:
    (*positions, channels), (before, behind) = op.config["shape"], op.weights
    sides = before.shape[-1], behind.shape[-1]
    total = channels + sum(sides)
    rows = {"target_shape": (math.prod(positions), channels, 1)}
    common = np.broadcast_shapes(before.shape[:-1], behind.shape[:-1])
    offset = np.zeros((*common, total))
    offset[..., : sides[0]] = before
    offset[..., total - sides[1] :] = behind
    return _in_a_row(
        ops,
        op,
        Op("Reshape", "_rows", (), rows),
        Op("ZeroPadding2D", "_zeros", (), {"padding": ((0, 0), sides)}),
        Op("Reshape", "_joined", (), {"target_shape": (*positions, total)}),
        Op("Affine", "", (), {}, (np.ones(total), offset)),
    )


def spread_affines(ops: Ops) -> Ops:
    """Affine maps that differ from value to value: of the values as channels."""
    ops = rewrite_pairs(ops, _merged)
    for name in [op.name for op in ops if _is_of_values(op)]:
        op = find(ops, name)
        weights = np.broadcast_arrays(*op.weights)
        shape = weights[0].shape
        as_channels = {"target_shape": (1, 1, math.prod(shape))}
        replacement = _in_a_row(
            ops,
            op,
            Op("Reshape", "_values", (), as_channels),
            Op("Affine", "_map", (), {}, tuple(map(np.ravel, weights))),
            Op("Reshape", "", (), {"target_shape": shape}),
        )
        ops = substitute(ops, op, replacement)
    return ops


def _merged(op: Op, producer: Op) -> Ops | None:
    is_spread = _is_of_values(op) or _is_of_values(producer)
    return merged_affine(op, producer) if is_spread else None


def _is_of_values(op: Op) -> bool:
    return op.kind == "Affine" and any(w.ndim > 1 for w in op.weights)


def _in_a_row(ops: Ops, replaced: Op, *chain: Op) -> Ops:
    """A chain in the place of an op, its names as suffixes of that one's name."""
    inputs, result = replaced.inputs, []
    for op in chain:
        name = replaced.name
        if op.name:
            name = new_name(ops, replaced.name + op.name)
        result.append(dataclasses.replace(op, name=name, inputs=inputs))
        inputs = (name,)
    return result
