"""Kernel scales with which INT4 convolutions give the same on every processor.

An accumulator a becomes round(a r), r = m / 2^n with m in [1/2, 1), on processors that
round products once, and round(round(a m) / 2^n) on those that round twice; ties go up.
They differ where a r lies below a tie by up to 2^-(n + 1). That is more than r / 2, so
next to most ties there is such an accumulator. With r = 1 / q and q even, though, one
meets every tie, and the one before lies below it by r, which is more than 2^-(n + 1)
unless m is 1/2. As a fixed-point number r must not be less than 1 / q: then positive
accumulators still meet their ties, or pass them. Negative ones a ReLU makes zero.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from tflite_export.integer_network import IntegerNetwork, IntegerOp, Kernel, kernel_of
from tflite_export.litert.kernels import fixed_multipliers, rounds_unlike
from tflite_export.litert.rounding import activation_bounds
from tflite_export.quantization_params import (
    INT4_SCALE_BITS,
    INT8_MAX,
    INT8_MIN,
    QuantParams,
)

_LARGEST_CHANGE = 1 / 24
_MOST_CANDIDATES = 512


def with_common_scales(network: IntegerNetwork) -> IntegerNetwork:
    """The network with other scales, by 4 % at most, if it is then the same everywhere.

    It stays as it is where one of its operations cannot be: which processors round
    differently, and which has no ReLU or a channel without such a scale.
    """
    unlike = [op for op in network.ops if rounds_unlike(op)]
    if not all(op.relu for op in unlike):
        return network
    changed = {}
    for op in unlike:
        scales = _common_scales(op, network.quant_params(op.inputs[0]))
        if scales is None:
            return network
        changed[op.name] = _with_scales(op, scales)
    ops = tuple(changed.get(op.name, op) for op in network.ops)
    return dataclasses.replace(network, ops=ops)


def _with_scales(op: IntegerOp, scales: np.ndarray) -> IntegerOp:
    kernel = kernel_of(op)
    bias = np.rint(kernel.bias * (kernel.scale.astype(np.float64) / scales))
    kernel = dataclasses.replace(kernel, scale=scales, bias=bias.astype(np.int32))
    return dataclasses.replace(op, kernel=kernel)


def _common_scales(op: IntegerOp, taken: QuantParams) -> np.ndarray | None:
    """Those nearest to the channels' own; None if one has none near."""
    kernel, unit = kernel_of(op), op.quant_params.scale / taken.scale
    _, high = activation_bounds(op)
    num_levels = high - op.quant_params.zero_point
    found = []
    for scale, reach in zip(kernel.scale, _largest_sums(kernel, taken), strict=True):
        for period in _even_near(unit / float(scale)):
            candidate = _rounded_up(unit / period)
            # Ties that accumulators reach; behind the last level all is clamped.
            ties = period // 2 + period * np.arange(
                min(num_levels, reach // period + 1), dtype=object
            )
            if _rounds_alike(op, taken, candidate, ties):
                found.append(candidate)
                break
        else:
            return None
    return np.array(found, np.float32)


def _largest_sums(kernel: Kernel, taken: QuantParams) -> list[int]:
    """What no accumulator of each channel exceeds, however its scale is changed."""
    farthest = max(INT8_MAX - taken.zero_point, taken.zero_point - INT8_MIN)
    weights = np.abs(kernel.values.astype(np.int64)).reshape(-1, len(kernel.scale))
    bias = np.abs(kernel.bias.astype(np.int64)) * (1 + 2 * _LARGEST_CHANGE)
    return [int(x) + 1 for x in farthest * weights.sum(axis=0) + bias]


def _even_near(period: float) -> Iterator[int]:
    """Even numbers from the nearest on, as far as the change allows."""
    nearest = 2 * round(period / 2)
    for distance in range(0, 2 * _MOST_CANDIDATES, 2):
        if distance > _LARGEST_CHANGE * period + 1:
            return
        both = {nearest - distance, nearest + distance}
        for number in sorted(both, key=lambda number: abs(number - period)):
            if number > 0 and abs(number - period) <= _LARGEST_CHANGE * period:
                yield number


def _rounded_up(scale: float) -> float:
    mantissa, exponent = math.frexp(scale)
    steps = math.ceil(mantissa * 2**INT4_SCALE_BITS)
    return math.ldexp(steps, exponent - INT4_SCALE_BITS)


def _rounds_alike(
    op: IntegerOp, taken: QuantParams, scale: float, ties: np.ndarray
) -> bool:
    """Whether both ways give the same next to all ties, in a channel of that scale.

    `ties`: accumulators, of type object, as products have more than 64 bits.
    """
    kernel = dataclasses.replace(kernel_of(op), scale=np.array([scale], np.float32))
    channel = dataclasses.replace(op, kernel=kernel)
    multipliers, exponents = fixed_multipliers(channel, taken)
    multiplier, shift = int(multipliers[0]), -int(exponents[0])
    if shift <= 0:
        return True  # rounded once everywhere
    for near in range(-2, 2):
        products = (ties + near) * multiplier
        once = (products + 2 ** (30 + shift)) >> (31 + shift)
        first = (products + 2**30) >> 31
        if (once != (first + 2 ** (shift - 1)) >> shift).any():
            return False
    return True
