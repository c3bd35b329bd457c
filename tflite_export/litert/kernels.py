"""LiteRT's convolutions and dense layers, bit by bit.

XNNPACK runs those with INT8 kernels, and FULLY_CONNECTED, which dense and pointwise
layers are, with INT4 kernels and an even number of inputs: a float32 multiply rounded
to even. LiteRT's built-in kernels run the other INT4 ones: a 31-bit fixed-point
multiply rounded, then a right shift rounded up again; on arm64 often the shift alone
is rounded, see `processors.py`. The double rounding favours larger results by half a
unit of the first one; see `common_rounding_bias`, which is taken out of the bias.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from tflite_export.integer_network import IntegerOp, Kernel, kernel_of
from tflite_export.litert.processors import ARM64, Processor
from tflite_export.litert.rounding import clamp_to_activation, round_away
from tflite_export.operators.kernels import (
    conv_sums,
    dense_sums,
    depthwise_sums,
    pointwise_sums,
)
from tflite_export.operators.record import Operand
from tflite_export.quantization_params import QuantParams

_CHANNELS_AT_ONCE = 8  # of built-in depthwise kernels
_OF_ONE_POSITION = frozenset({"dense", "dense_convolution"})
_SEVERAL = 2
_FULLY_CONNECTED = frozenset({"dense", "pointwise"})


def rounding_bias(op: IntegerOp, taken: QuantParams) -> np.ndarray:
    """What rounding adds to each accumulator of an operation, in accumulator units.

    Args:
      op: with a kernel, whose bias does not matter.
      taken: quantization parameters of its input.

    Returns:
      float64 (output channels,); zeros where results are rounded once.
    """
    kernel = kernel_of(op)
    if not uses_double_rounding(op.kind, kernel):
        return np.zeros(kernel.scale.shape)
    step = taken.scale * kernel.scale.astype(np.float64)
    return first_rounding_bias(step / op.quant_params.scale)


def common_rounding_bias(op: IntegerOp, taken: QuantParams) -> np.ndarray:
    """What rounding adds on processors of any kind, give or take as little as can be.

    Midway between those that round once, which adds nothing, and twice; else see
    `rounding_bias`.
    """
    bias = rounding_bias(op, taken)
    return bias / 2 if rounds_unlike(op) else bias


def first_rounding_bias(multiplier: np.ndarray) -> np.ndarray:
    """What double rounding adds to every accumulator, in accumulator units.

    A multiplier m * 2^-n with m in [1/2, 1) is applied as round(acc * m), then
    round(· / 2^n). Nested rounding is one rounding of acc * m + 1/2, so the
    accumulator is in effect 1 / (2 m) larger; nothing if n < 1.
    """
    mantissa, exponent = np.frexp(np.asarray(multiplier, np.float64))
    return np.where(exponent < 0, 0.5 / mantissa, 0.0)


def xnnpack_takes_int4(num_inputs: int) -> bool:
    """Whether it takes a FULLY_CONNECTED with an INT4 kernel of so many inputs."""
    return num_inputs % 2 == 0


def uses_double_rounding(kind: str, kernel: Kernel) -> bool:
    """Whether LiteRT runs an op of this kind and kernel through its INT4 kernels."""
    if kernel.bits > 4:
        return False
    return kind not in _FULLY_CONNECTED or not xnnpack_takes_int4(
        kernel.values.shape[0]
    )


def rounds_unlike(op: IntegerOp) -> bool:
    """Whether there are processors that round an operation once, and others twice."""
    if op.quant_params.bits == 16:  # see `int16.py`
        return False
    positions = 1 if op.kind in _OF_ONE_POSITION else _SEVERAL
    return op.kernel is not None and _rounds_once(op, positions, ARM64)


def conv(op: IntegerOp, source: Operand, processor: Processor) -> tf.Tensor:
    """Stored integers of a convolution's output."""
    return _scaled(op, source, conv_sums(op, source.centered), processor)


def depthwise(op: IntegerOp, source: Operand, processor: Processor) -> tf.Tensor:
    """Stored integers of a depthwise convolution's output."""
    return _scaled(op, source, depthwise_sums(op, source.centered), processor)


def dense(op: IntegerOp, source: Operand, processor: Processor) -> tf.Tensor:
    """Stored integers of a dense layer's output."""
    return _scaled(op, source, dense_sums(op, source.centered), processor)


def pointwise(op: IntegerOp, source: Operand, processor: Processor) -> tf.Tensor:
    """Stored integers of a pointwise layer's output."""
    return _scaled(op, source, pointwise_sums(op, source.centered), processor)


def _scaled(
    op: IntegerOp, source: Operand, sums: tf.Tensor, processor: Processor
) -> tf.Tensor:
    """Sums of products with the bias, from accumulator to output."""
    kernel = kernel_of(op)
    accumulators = sums + kernel.bias.astype(np.float64)
    if uses_double_rounding(op.kind, kernel):
        once = _rounds_once(op, math.prod(sums.shape[1:-1]), processor)
        left_last = op.kind == "depthwise" and processor.shifts_left_last
        outputs = _multiply_fixed(
            accumulators, op, source.quant_params, once=once, left_last=left_last
        )
    else:
        single = float_multipliers(op, source.quant_params)
        product = tf.cast(accumulators, tf.float32) * single
        outputs = tf.cast(tf.round(product), tf.float64)
    return clamp_to_activation(outputs, op)


def float_multipliers(op: IntegerOp, taken: QuantParams) -> np.ndarray:
    """What XNNPACK multiplies accumulators by, float32 (output channels,)."""
    single = np.float32(taken.scale) * kernel_of(op).scale
    return single / np.float32(op.quant_params.scale)


def fixed_multipliers(
    op: IntegerOp, taken: QuantParams
) -> tuple[np.ndarray, np.ndarray]:
    """What LiteRT's own kernels do: integers m and n of m * 2^(n - 31), of each."""
    exact = kernel_of(op).scale.astype(np.float64) * taken.scale
    mantissa, exponent = np.frexp(exact / op.quant_params.scale)
    return np.floor(mantissa * 2**31 + 0.5), exponent


def first_in_scalar_code(op: IntegerOp) -> int:
    """The first output channel that no vector code of INT4 kernels computes."""
    count = len(kernel_of(op).scale)
    if op.kind == "depthwise":
        return count // _CHANNELS_AT_ONCE * _CHANNELS_AT_ONCE
    return 0 if op.attributes.get("groups", 1) > 1 else count


def _rounds_once(op: IntegerOp, positions: int, processor: Processor) -> bool:
    """Whether it is rounded once; `positions` are those of its output."""
    kernel = kernel_of(op)
    if not uses_double_rounding(op.kind, kernel) or op.kind == "depthwise":
        return False
    *size, outputs = kernel.values.shape
    is_product = op.attributes.get("groups", 1) == 1
    return is_product and processor.rounds_once(positions, math.prod(size), outputs)


def _multiply_fixed(
    accumulators: tf.Tensor,
    op: IntegerOp,
    taken: QuantParams,
    *,
    once: bool,
    left_last: bool,
) -> tf.Tensor:
    """In vector code rounded `once`, or twice, the left shift before or `left_last`."""
    multiplier, exponent = fixed_multipliers(op, taken)
    left_shift = 2.0 ** np.maximum(exponent, 0)
    right_shift = 2.0 ** np.maximum(-exponent, 0)
    product = accumulators * left_shift * (multiplier / 2**31)
    first = in_vectors = tf.floor(product + 0.5)
    if left_last:
        in_vectors = tf.floor(accumulators * (multiplier / 2**31) + 0.5) * left_shift
    # Vector code rounds ties up, scalar code away from zero.
    upwards = tf.floor((product if once else in_vectors) / right_shift + 0.5)
    in_scalar_code = np.arange(len(multiplier)) >= first_in_scalar_code(op)
    return tf.where(in_scalar_code, round_away(first / right_shift), upwards)
