"""An integer network computed in integers, with the rounding of LiteRT's kernels.

Accumulators are exact: integers in float64, which holds them up to 2^53. What
remains is how a kernel scales an accumulator to its output, and there runtimes
differ. LiteRT on a CPU runs

- int8 kernels, adds and subtractions through XNNPACK: a float32 multiply rounded to
  even for kernels, a 20-bit fixed-point multiply for the others, 11-bit weights for
  bilinear enlarging (see `enlarging.py`);
- functions of one tensor by table, filled in float32, but for hard-swish (see
  `hard_swish.py`) and leaky ReLU (see `leaky_relu.py`); means and products by a float32
  multiply rounded to even; L2 normalization in fixed point (see `l2_normalization.py`),
  softmax in float32 (see `softmax.py`);
- INT4 kernels, but for dense ones with an even number of inputs, through its
  built-in ones: a 31-bit fixed-point multiply rounded, then a right shift rounded
  up again. The double rounding favours larger results by half a unit of the first
  one; see `first_rounding_bias`, which freezing takes out of the bias.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from tflite_export.activations import ACTIVATIONS
from tflite_export.export_graph import (
    convolve,
    move_values,
    pad_channels,
    pool_arguments,
)
from tflite_export.integer_network import IntegerNetwork, IntegerOp, Kernel
from tflite_export.litert.hard_swish import hard_swish_table
from tflite_export.litert.l2_normalization import l2_normalize
from tflite_export.litert.leaky_relu import leaky_relu_table
from tflite_export.litert.resize import resize_quantized
from tflite_export.litert.softmax import softmax_levels
from tflite_export.quantization_params import (
    INT8_MAX,
    INT8_MIN,
    QuantParams,
)
from tflite_export.tensor_shapes import tensor_shapes

_BATCH_SIZE = 64
_LARGEST_BATCH_BYTES = 2**30  # of one tensor, float64


def infer(network: IntegerNetwork, images: np.ndarray) -> np.ndarray:
    """int8 outputs (N, classes) of int8 inputs (N, H, W, C)."""
    run = tf.function(lambda batch: _run(network, batch), reduce_retracing=True)
    largest = 8 * max(math.prod(shape) for shape in tensor_shapes(network).values())
    size = max(1, min(_BATCH_SIZE, _LARGEST_BATCH_BYTES // largest))
    batches = []
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        batches.append(run(tf.constant(batch, tf.float64)).numpy().astype(np.int8))
    outputs = np.concatenate(batches)
    if network.softmax:
        outputs = softmax_levels(outputs, network.ops[-1].quant_params.scale)
    return outputs


def first_rounding_bias(multiplier: np.ndarray) -> np.ndarray:
    """What double rounding adds to every accumulator, in accumulator units.

    A multiplier m * 2^-n with m in [1/2, 1) is applied as round(acc * m), then
    round(· / 2^n). Nested rounding is one rounding of acc * m + 1/2, so the
    accumulator is in effect 1 / (2 m) larger; nothing if n < 1.
    """
    mantissa, exponent = np.frexp(np.asarray(multiplier, np.float64))
    return np.where(exponent < 0, 0.5 / mantissa, 0.0)


def uses_double_rounding(kind: str, kernel: Kernel) -> bool:
    """Whether LiteRT runs an op of this kind and kernel through its INT4 kernels."""
    if kernel.bits > 4:
        return False
    return kind != "dense" or kernel.values.shape[0] % 2 == 1


def _run(network: IntegerNetwork, images: tf.Tensor) -> tf.Tensor:
    tensors = {network.input_name: images}
    for op in network.ops:
        inputs = [tensors[name] for name in op.inputs]
        quant_params_of = [network.quant_params(name) for name in op.inputs]
        tensors[op.name] = _apply(op, inputs, quant_params_of)
    return tensors[network.ops[-1].name]


def _apply(op: IntegerOp, inputs, quant_params_of) -> tf.Tensor:
    if op.kernel is not None:
        return _apply_kernel(op, op.kernel, inputs[0], quant_params_of[0])
    if op.kind in ("add", "subtract"):
        return _finish(_add(inputs, quant_params_of, op), op)
    if op.kind == "multiply":
        return _finish(_multiply(inputs, quant_params_of, op.quant_params), op)
    if op.kind == "hard_swish":
        return _look_up(
            hard_swish_table(quant_params_of[0], op.quant_params), inputs[0]
        )
    if op.kind == "leaky_relu":
        slope = op.attributes["slope"]
        return _look_up(
            leaky_relu_table(quant_params_of[0], op.quant_params, slope), inputs[0]
        )
    if op.kind in ACTIVATIONS:
        real = (inputs[0] - quant_params_of[0].zero_point) * quant_params_of[0].scale
        levels = ACTIVATIONS[op.kind](real) / op.quant_params.scale
        return _clamp(tf.round(levels), op.quant_params)
    if op.kind == "l2_normalize":
        return _l2_normalize(op, inputs[0] - quant_params_of[0].zero_point)
    if op.kind == "channel_mean":
        return _mean(op, inputs[0], quant_params_of[0], axes=[-1], keepdims=True)
    if op.kind == "global_average":
        keepdims = op.attributes.get("keepdims", False)
        return _mean(op, inputs[0], quant_params_of[0], axes=[1, 2], keepdims=keepdims)
    if op.kind == "average_pool":
        return _average_pool(op, inputs[0])
    if op.kind == "resize_bilinear":
        return resize_quantized(inputs[0], op.attributes["size"])
    if op.kind == "relu":
        ratio = float(
            np.float32(quant_params_of[0].scale) / np.float32(op.quant_params.scale)
        )
        return _finish(
            _rescale_to_relu(inputs[0] - quant_params_of[0].zero_point, ratio), op
        )
    if op.kind == "minimum":
        return tf.minimum(inputs[0], float(op.attributes["level"]))
    return move_values(op, inputs, pad_value=float(op.quant_params.zero_point))


def _look_up(table: np.ndarray, levels: tf.Tensor) -> tf.Tensor:
    indices = tf.cast(levels, tf.int32) - INT8_MIN
    return tf.gather(tf.constant(table, tf.float64), indices)


def _apply_kernel(
    op: IntegerOp, kernel: Kernel, inputs, input_quant_params: QuantParams
) -> tf.Tensor:
    values = kernel.values.astype(np.float64)
    centered = inputs - input_quant_params.zero_point
    if op.kind == "dense":
        centered = tf.reshape(centered, (-1, 1, 1, values.shape[0]))
        values = values[np.newaxis, np.newaxis]
    accumulators = convolve(op, centered, tf.constant(values)) + kernel.bias.astype(
        np.float64
    )
    if uses_double_rounding(op.kind, kernel):
        exact = (
            kernel.scale.astype(np.float64)
            * input_quant_params.scale
            / op.quant_params.scale
        )
        outputs = _multiply_double_rounding(accumulators, exact, op)
    else:
        single = np.float32(input_quant_params.scale) * kernel.scale
        single = single / np.float32(op.quant_params.scale)
        product = tf.cast(accumulators, tf.float32) * single
        outputs = tf.cast(tf.round(product), tf.float64)
    if op.kind == "dense":
        outputs = tf.reshape(outputs, (-1, values.shape[-1]))
    return _finish(outputs, op)


def _multiply_double_rounding(
    accumulators, multiplier: np.ndarray, op: IntegerOp
) -> tf.Tensor:
    mantissa, exponent = np.frexp(multiplier)
    mantissa = np.floor(mantissa * 2**31 + 0.5) / 2**31
    left_shift = 2.0 ** np.maximum(exponent, 0)
    right_shift = 2.0 ** np.maximum(-exponent, 0)
    first = tf.floor(accumulators * left_shift * mantissa + 0.5)
    outputs = tf.floor(first / right_shift + 0.5)
    if op.attributes.get("groups", 1) > 1:  # scalar code
        return _round_away(first / right_shift)
    if op.kind != "depthwise":
        return outputs
    # Depthwise kernels take channels by eight; the scalar code for those left over
    # rounds ties away from zero.
    channels = np.arange(len(multiplier))
    left_over = channels >= len(channels) // 8 * 8
    return tf.where(left_over, _round_away(first / right_shift), outputs)


def _add(inputs, quant_params_of, op: IntegerOp) -> tf.Tensor:
    scales = [
        np.float32(g.scale) / np.float32(op.quant_params.scale) for g in quant_params_of
    ]
    # XNNPACK: 20 fractional bits for the larger of the two multipliers.
    shift = 20 - (math.frexp(max(scales))[1] - 1)
    multipliers = [float(np.round(np.ldexp(np.float64(s), shift))) for s in scales]
    if op.kind == "subtract":
        multipliers[1] *= -1
    total = sum(
        (q - quant_params.zero_point) * m
        for q, quant_params, m in zip(inputs, quant_params_of, multipliers, strict=True)
    )
    return tf.floor(total / 2.0**shift + 0.5)


def _multiply(inputs, quant_params_of, output_quant_params: QuantParams) -> tf.Tensor:
    first, second = (
        q - quant_params.zero_point
        for q, quant_params in zip(inputs, quant_params_of, strict=True)
    )
    scale = np.float32(quant_params_of[0].scale) * np.float32(quant_params_of[1].scale)
    multiplier = scale / np.float32(output_quant_params.scale)
    product = tf.cast(first * second, tf.float32) * multiplier
    return tf.cast(tf.round(product), tf.float64)


def _mean(
    op: IntegerOp,
    inputs,
    input_quant_params: QuantParams,
    *,
    axes: list[int],
    keepdims: bool,
) -> tf.Tensor:
    count = np.float32(math.prod(inputs.shape[axis] for axis in axes))
    scale = np.float32(input_quant_params.scale) / np.float32(op.quant_params.scale)
    multiplier = scale * (np.float32(1) / count)
    # XNNPACK sums the stored integers and takes off what their zero points add with
    # the output's zero point, before it rounds to even: all three decide ties.
    bias = np.float32(op.quant_params.zero_point) - (
        np.float32(input_quant_params.zero_point) * count * multiplier
    )
    total = tf.cast(tf.reduce_sum(inputs, axes, keepdims=keepdims), tf.float32)
    levels = tf.round(total * multiplier + bias)
    return tf.clip_by_value(tf.cast(levels, tf.float64), INT8_MIN, INT8_MAX)


def _l2_normalize(op: IntegerOp, centered: tf.Tensor) -> tf.Tensor:
    attributes = op.attributes
    padded = pad_channels(
        centered, attributes["num_constants"], float(attributes["constant_level"])
    )
    levels = tf.numpy_function(l2_normalize, [padded], tf.int64)
    levels = levels[..., : centered.shape[-1]]
    levels = tf.ensure_shape(tf.cast(levels, tf.float64), centered.shape)
    return _clamp(levels, op.quant_params)


def _average_pool(op: IntegerOp, inputs: tf.Tensor) -> tf.Tensor:
    """Mean of the stored integers, padding left out, rounded away from zero."""
    mean = tf.nn.avg_pool2d(inputs, **pool_arguments(op))
    # Means of up to 2^16 integers differ from a tie by more than this.
    nudged = mean + tf.sign(mean) * 1e-9
    return _finish(_round_away(nudged) - op.quant_params.zero_point, op)


def _rescale_to_relu(values: tf.Tensor, ratio: float) -> tf.Tensor:
    """The built-in kernel's, XNNPACK takes none: it rounds twice where the step
    becomes more than twice as wide."""
    mantissa, exponent = math.frexp(ratio)
    # Below zero, where ties would go elsewhere, all is clamped.
    first = tf.floor(values * 2.0 ** max(exponent, 0) * mantissa + 0.5)
    return tf.floor(first / 2.0 ** max(-exponent, 0) + 0.5)


def _round_away(values: tf.Tensor) -> tf.Tensor:
    return tf.sign(values) * tf.floor(tf.abs(values) + 0.5)


def _finish(values: tf.Tensor, op: IntegerOp) -> tf.Tensor:
    """Zero point added, clamped to the grid and the op's activation."""
    low, high = INT8_MIN, INT8_MAX
    if op.relu or op.relu6:
        low = max(low, op.quant_params.zero_point)
    if op.relu6:
        six = math.floor(np.float32(6.0) / np.float32(op.quant_params.scale) + 0.5)
        high = min(high, op.quant_params.zero_point + six)
    return tf.clip_by_value(values + op.quant_params.zero_point, low, high)


def _clamp(values: tf.Tensor, quant_params: QuantParams) -> tf.Tensor:
    return tf.clip_by_value(values + quant_params.zero_point, INT8_MIN, INT8_MAX)
