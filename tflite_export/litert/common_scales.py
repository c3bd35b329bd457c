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
from tflite_export.quantization_params import INT4_SCALE_BITS, QuantParams

_LARGEST_CHANGE = 1 / 24
_LARGEST_PERIOD = 2**20  # products with fixed-point multipliers are int64 up to here


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
        taken, kernel = network.quant_params(op.inputs[0]), kernel_of(op)
        scales = [_common_scale(op, taken, float(scale)) for scale in kernel.scale]
        if None in scales:
            return network
        changed[op.name] = _with_scales(op, np.array(scales, np.float32))
    ops = tuple(changed.get(op.name, op) for op in network.ops)
    return dataclasses.replace(network, ops=ops)


def _with_scales(op: IntegerOp, scales: np.ndarray) -> IntegerOp:
    kernel = kernel_of(op)
    bias = np.rint(kernel.bias * (kernel.scale.astype(np.float64) / scales))
    kernel = dataclasses.replace(kernel, scale=scales, bias=bias.astype(np.int32))
    return dataclasses.replace(op, kernel=kernel)


def _common_scale(op: IntegerOp, taken: QuantParams, scale: float) -> float | None:
    """The one nearest to a channel's own scale; None if there is none near."""
    unit = op.quant_params.scale / taken.scale
    if not 2 <= unit / scale <= _LARGEST_PERIOD:
        return None
    for period in _even_near(unit / scale):
        found = _rounded_up(unit / period)
        if _rounds_alike(op, taken, found, period):
            return found
    return None


def _even_near(period: float) -> Iterator[int]:
    reach = math.ceil(_LARGEST_CHANGE * period)
    lowest = 2 * math.ceil((period - reach) / 2)
    near = range(max(2, lowest), math.floor(period + reach) + 1, 2)
    return iter(sorted(near, key=lambda number: abs(number - period)))


def _rounded_up(scale: float) -> float:
    mantissa, exponent = math.frexp(scale)
    steps = math.ceil(mantissa * 2**INT4_SCALE_BITS)
    return math.ldexp(steps, exponent - INT4_SCALE_BITS)


def _rounds_alike(op: IntegerOp, taken: QuantParams, scale: float, period: int) -> bool:
    """Whether both ways give the same of all accumulators, in a channel of that scale.

    `period`: accumulators from one tie to the next.
    """
    channel = Kernel(
        np.zeros(0, np.int8), 4, np.float32([scale]), np.zeros(1, np.int32)
    )
    multipliers, exponents = fixed_multipliers(
        dataclasses.replace(op, kernel=channel), taken
    )
    multiplier, shift = int(multipliers[0]), -int(exponents[0])
    if shift <= 0:
        return True  # nothing is rounded by it
    # Of ties between outputs: beyond the last all is clamped.
    _, high = activation_bounds(op)
    ties = np.arange(high - op.quant_params.zero_point) * period + period // 2
    products = (ties + np.arange(-2, 2)[:, np.newaxis]) * multiplier
    once = (products + 2 ** (30 + shift)) >> (31 + shift)
    first = (products + 2**30) >> 31
    return bool((once == (first + 2 ** (shift - 1)) >> shift).all())
