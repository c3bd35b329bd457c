"""An integer network computed in integers, with the rounding of LiteRT's kernels.

`SIMULATIONS` has one function for each kind of operation (see `simulation.py`). LiteRT
on a CPU runs

- int8 kernels, adds and subtractions through XNNPACK: a float32 multiply rounded to
  even for kernels, a 20-bit fixed-point multiply for the others, 11-bit weights for
  bilinear resizes (see `resize.py`);
- functions of one tensor by table, filled in float32, but for hard-swish (see
  `hard_swish.py`), leaky ReLU (see `leaky_relu.py`) and PReLU (see `prelu.py`); means
  and products by a float32 multiply rounded to even; L2 normalization in fixed point
  (see `l2_normalization.py`), softmax in float32 (see `softmax.py`);
- INT4 kernels as `kernels.py` tells.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tflite_export.integer_network import IntegerNetwork, IntegerOp
from tflite_export.litert.hard_swish import hard_swish_table
from tflite_export.litert.kernels import (
    common_rounding_bias,
    conv,
    dense,
    depthwise,
    pointwise,
)
from tflite_export.litert.l2_normalization import l2_normalize
from tflite_export.litert.leaky_relu import leaky_relu_table
from tflite_export.litert.look_up import look_up, look_up_by_slope
from tflite_export.litert.prelu import prelu_table
from tflite_export.litert.processors import ARM64, X86_64, Processor
from tflite_export.litert.resize import resize_quantized
from tflite_export.litert.rounding import clamp_to_activation, clamp_to_type, round_away
from tflite_export.litert.softmax import softmax_quantized
from tflite_export.operators import arithmetic, movement
from tflite_export.operators.pooling import max_pool, pad_channels, pool_arguments
from tflite_export.operators.record import Operand
from tflite_export.quantization_params import INT8_MAX, INT8_MIN, QuantParams
from tflite_export.simulation import Kernels, Simulation, compute


def infer(
    network: IntegerNetwork, images: np.ndarray, processor: Processor = X86_64
) -> np.ndarray:
    """int8 outputs (N, classes) of int8 inputs (N, H, W, C), as LiteRT gives them."""
    return compute(litert_on(processor), network, images)


def _add(op: IntegerOp, first: Operand, second: Operand) -> tf.Tensor:
    return _weighted_sum(op, (first, second), (1, 1))


def _subtract(op: IntegerOp, first: Operand, second: Operand) -> tf.Tensor:
    return _weighted_sum(op, (first, second), (1, -1))


def _weighted_sum(
    op: IntegerOp, operands: tuple[Operand, Operand], signs: tuple[int, int]
) -> tf.Tensor:
    multipliers, shift = sum_multipliers(op, [x.quant_params for x in operands])
    total = sum(
        x.centered * (sign * m)
        for x, sign, m in zip(operands, signs, multipliers, strict=True)
    )
    return clamp_to_activation(tf.floor(total / 2.0**shift + 0.5), op)


def sum_multipliers(
    op: IntegerOp, taken: Sequence[QuantParams]
) -> tuple[list[int], int]:
    """XNNPACK's factors of the inputs of a sum, and the shift that follows.

    The larger factor has 20 fractional bits.
    """
    output_scale = np.float32(op.quant_params.scale)
    scales = [np.float32(x.scale) / output_scale for x in taken]
    shift = 20 - (math.frexp(max(scales))[1] - 1)
    return [int(np.round(np.ldexp(np.float64(s), shift))) for s in scales], shift


def _multiply(op: IntegerOp, first: Operand, second: Operand) -> tf.Tensor:
    multiplier = product_multiplier(op, first.quant_params, second.quant_params)
    product = tf.cast(first.centered * second.centered, tf.float32) * multiplier
    return clamp_to_activation(tf.cast(tf.round(product), tf.float64), op)


def product_multiplier(
    op: IntegerOp, first: QuantParams, second: QuantParams
) -> np.float32:
    """What XNNPACK multiplies exact products by."""
    scale = np.float32(first.scale) * np.float32(second.scale)
    return scale / np.float32(op.quant_params.scale)


def _relu(op: IntegerOp, source: Operand) -> tf.Tensor:
    """By LiteRT's built-in kernel, as XNNPACK has none for a change of parameters.

    It rounds twice where the step becomes more than twice as wide.
    """
    ratio = np.float32(source.quant_params.scale) / np.float32(op.quant_params.scale)
    mantissa, exponent = math.frexp(float(ratio))
    # Below zero, where ties would go elsewhere, all is clamped.
    first = tf.floor(source.centered * 2.0 ** max(exponent, 0) * mantissa + 0.5)
    outputs = tf.floor(first / 2.0 ** max(-exponent, 0) + 0.5)
    return clamp_to_activation(outputs, op)


def _leaky_relu(op: IntegerOp, source: Operand) -> tf.Tensor:
    slope = op.attributes["slope"]
    return look_up(
        leaky_relu_table(source.quant_params, op.quant_params, slope), source
    )


def _prelu(op: IntegerOp, source: Operand) -> tf.Tensor:
    table = prelu_table(
        source.quant_params, op.quant_params, op.attributes["slope_scale"]
    )
    return look_up_by_slope(table, op, source)


def _minimum(op: IntegerOp, source: Operand) -> tf.Tensor:
    return tf.minimum(source.values, float(op.attributes["level"]))


def _hard_swish(op: IntegerOp, source: Operand) -> tf.Tensor:
    return look_up(hard_swish_table(source.quant_params, op.quant_params), source)


def _by_float_table(function: Callable[[tf.Tensor], tf.Tensor]) -> Simulation:
    def run(op: IntegerOp, source: Operand) -> tf.Tensor:
        real = source.centered * source.quant_params.scale
        outputs = function(real) / op.quant_params.scale
        return clamp_to_type(tf.round(outputs), op.quant_params)

    return Simulation(run, exact=False)


def _channel_mean(op: IntegerOp, source: Operand) -> tf.Tensor:
    return _mean(op, source, axes=[-1], keepdims=True)


def _global_average(op: IntegerOp, source: Operand) -> tf.Tensor:
    keepdims = op.attributes.get("keepdims", False)
    return _mean(op, source, axes=[1, 2], keepdims=keepdims)


def _mean(
    op: IntegerOp, source: Operand, *, axes: list[int], keepdims: bool
) -> tf.Tensor:
    count = math.prod(source.values.shape[axis] for axis in axes)
    multiplier, bias = mean_factors(op, source.quant_params, count)
    total = tf.reduce_sum(source.values, axes, keepdims=keepdims)
    outputs = tf.round(tf.cast(total, tf.float32) * multiplier + bias)
    return tf.clip_by_value(tf.cast(outputs, tf.float64), INT8_MIN, INT8_MAX)


def mean_factors(
    op: IntegerOp, taken: QuantParams, count: int
) -> tuple[np.float32, np.float32]:
    """XNNPACK's multiplier of a sum of `count` stored integers, and what it adds.

    It takes off what their zero points add with the output's zero point, before it
    rounds to even: all three decide ties.
    """
    number = np.float32(count)
    scale = np.float32(taken.scale) / np.float32(op.quant_params.scale)
    multiplier = scale * (np.float32(1) / number)
    return multiplier, np.float32(op.quant_params.zero_point) - (
        np.float32(taken.zero_point) * number * multiplier
    )


def _average_pool(op: IntegerOp, source: Operand) -> tf.Tensor:
    """Mean of the stored integers, padding left out, rounded away from zero."""
    mean = tf.nn.avg_pool2d(source.values, **pool_arguments(op))
    # Means of up to 2^16 integers differ from a tie by more than this.
    nudged = mean + tf.sign(mean) * 1e-9
    return clamp_to_activation(round_away(nudged) - op.quant_params.zero_point, op)


def _l2_normalize(op: IntegerOp, source: Operand) -> tf.Tensor:
    attributes, centered = op.attributes, source.centered
    padded = pad_channels(
        centered, attributes["num_constants"], float(attributes["constant_level"])
    )
    outputs = tf.numpy_function(l2_normalize, [padded], tf.int64)
    outputs = outputs[..., : centered.shape[-1]]
    outputs = tf.ensure_shape(tf.cast(outputs, tf.float64), centered.shape)
    return clamp_to_type(outputs, op.quant_params)


def _pad(op: IntegerOp, source: Operand) -> tf.Tensor:
    return movement.pad(op, source, zero=float(op.quant_params.zero_point))


def _resize_bilinear(op: IntegerOp, source: Operand) -> tf.Tensor:
    return resize_quantized(source.values, op.attributes["size"])


# Those that depend on the processor.
_WITH_KERNELS: Mapping[str, Callable[..., tf.Tensor]] = {
    "conv": conv,
    "depthwise": depthwise,
    "dense": dense,
    "dense_convolution": dense,
    "pointwise": pointwise,
}
_WITHOUT_KERNELS: Mapping[str, Simulation] = {
    "add": Simulation(_add),
    "subtract": Simulation(_subtract),
    "multiply": Simulation(_multiply),
    "elementwise_maximum": Simulation(arithmetic.maximum),
    "elementwise_minimum": Simulation(arithmetic.minimum),
    "relu": Simulation(_relu),
    "leaky_relu": Simulation(_leaky_relu),
    "prelu": Simulation(_prelu),
    "minimum": Simulation(_minimum),
    "sigmoid": _by_float_table(tf.sigmoid),
    "tanh": _by_float_table(tf.tanh),
    "gelu": _by_float_table(tf.nn.gelu),
    "elu": _by_float_table(tf.nn.elu),
    "hard_swish": Simulation(_hard_swish),
    "average_pool": Simulation(_average_pool),
    "max_pool": Simulation(max_pool),
    "global_average": Simulation(_global_average),
    "channel_mean": Simulation(_channel_mean),
    "l2_normalize": Simulation(_l2_normalize),
    "reshape": Simulation(movement.reshape),
    "transpose": Simulation(movement.transpose),
    "pad": Simulation(_pad),
    "crop": Simulation(movement.crop),
    "concatenate": Simulation(movement.concatenate),
    "depth_to_space": Simulation(movement.depth_to_space),
    "resize_nearest": Simulation(movement.resize_nearest),
    "resize_bilinear": Simulation(_resize_bilinear),
}


def _on(processor: Processor) -> Kernels:
    with_kernels = {
        kind: Simulation(functools.partial(run, processor=processor))
        for kind, run in _WITH_KERNELS.items()
    }
    return Kernels(
        {**with_kernels, **_WITHOUT_KERNELS},
        softmax=softmax_quantized,
        softmax_is_exact=False,
        rounding_bias=common_rounding_bias,
    )


LITERT, LITERT_ON_ARM64 = _on(X86_64), _on(ARM64)
SIMULATIONS = LITERT.simulations


def litert_on(processor: Processor) -> Kernels:
    """LiteRT's kernels on a kind of processor."""
    return LITERT_ON_ARM64 if processor == ARM64 else LITERT
