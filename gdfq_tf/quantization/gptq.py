"""Kernels rounded so that what the layers compute, not the weights, changes least.

Layer by layer in graph order, the teacher's layer output Y is predicted from the
student's own, already quantized, layer input X:

1. W* = argmin ||X W - Y||^2 + ridge ||W - W_teacher||^2, means left to the bias:
   what is already lost before the layer is made good where it can be.
2. The rows of W* are rounded one after the other; the error of each is spread over
   the rows still open, as X^T X says that they can stand in for it (OBQ, Frantar &
   Alistarh 2022, in the fixed order of GPTQ, Frantar et al. 2023).
3. The channel's scale and the bias are refitted to the rounded kernel.

Deviation from GPTQ: the target is the teacher's output, not the student's own with
its unrounded kernel.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from gdfq_tf.classifier import Classifier
from gdfq_tf.config import RoundingConfig
from gdfq_tf.graph.queries import consumers, input_layers, is_depthwise
from gdfq_tf.graph.traits import has_kernel
from gdfq_tf.keras_compat import keras
from gdfq_tf.memory_needs import images_per_batch
from gdfq_tf.progress import Advance
from gdfq_tf.quantization.calibration import weight_scales
from gdfq_tf.quantization.quantizers import channels_last_kernel
from gdfq_tf.quantization.student import Student
from tflite_export.quantization_params import weight_limit

_layers = keras.layers

_AS_DESCRIBED = RoundingConfig()  # all three steps
# Rows of X used for each layer: many times the unknowns of ordinary kernels.
_MAX_ROWS = 2**17
_BATCH_SIZE = 64
# Rows whose errors are spread over all later rows together: one product of matrices
# instead of a pass through memory for each.
_BLOCK_SIZE = 64
# The ridge, relative to the mean diagonal of X^T X: keeps the solution where images
# say nothing about a direction. Layers with few rows per unknown get more.
_SMALLEST_RIDGE = 0.01
# Refitted scales stay near the calibrated ones: further off, the fit is of noise.
_SCALE_LIMITS = (0.8, 1.25)


@dataclasses.dataclass(frozen=True)
class Moments:
    """Second moments of a layer's input rows X and outputs Y, means taken out.

    A layer is `groups` independent linear maps: one for dense layers and ordinary
    convolutions, one per channel for depthwise ones.

    Attributes:
      xx: float64 (groups, K, K), mean of x x^T.
      xy: float64 (groups, K, M), mean of x y^T.
      x_mean: (groups, K); y_mean: (groups, M).
      num_rows: how many rows were averaged.
    """

    xx: np.ndarray
    xy: np.ndarray
    x_mean: np.ndarray
    y_mean: np.ndarray
    num_rows: int


def round_kernels(
    student: Student,
    classifier: Classifier,
    pixels: np.ndarray,
    advance: Advance,
    rounding: RoundingConfig = _AS_DESCRIBED,
) -> None:
    """Replaces kernels, weight scales and biases of `student`, in place.

    Args:
      student: as built and calibrated.
      classifier: the one that it was built from.
      pixels: synthetic images, uint8 (N, H, W, C).
      advance: called once for each kernel.
      rounding: what is rounded, and how.
    """
    model, preprocessing = classifier.model, classifier.preprocessing
    consumed_by = consumers(model)
    first = model.layers[0].name
    teacher_tensors = {first: preprocessing.to_input(pixels)}
    student_tensors = {
        first: student.quantize_input(preprocessing.to_student_input(pixels))
    }
    waiting = {name: len(layers) for name, layers in consumed_by.items()}
    for layer in model.layers[1:]:
        producers = [producer.name for producer in input_layers(layer)]
        teacher_output = _in_batches(layer, [teacher_tensors[p] for p in producers])
        if has_kernel(layer):
            moments = measure_moments(
                layer, student_tensors[producers[0]], teacher_output
            )
            _round_layer(student, layer, moments, consumed_by[layer.name], rounding)
            advance()
        student_output = _in_batches(
            student.wrapper(layer.name), [student_tensors[p] for p in producers]
        )
        teacher_tensors[layer.name] = teacher_output
        student_tensors[layer.name] = student_output
        for producer in producers:
            waiting[producer] -= 1
            if not waiting[producer]:
                del teacher_tensors[producer], student_tensors[producer]


def _in_batches(layer: keras.layers.Layer, inputs: list[tf.Tensor]) -> tf.Tensor:
    outputs = []
    for start in range(0, len(inputs[0]), _BATCH_SIZE):
        batch = [x[start : start + _BATCH_SIZE] for x in inputs]
        outputs.append(layer(batch if len(batch) > 1 else batch[0]))
    return tf.concat(outputs, axis=0)


def measure_moments(
    layer: keras.layers.Layer, inputs: tf.Tensor, outputs: tf.Tensor
) -> Moments:
    """Moments of the rows that the layer's kernel multiplies.

    Args:
      layer: Conv2D, DepthwiseConv2D or Dense of tf_keras.
      inputs: what it is fed in the student, (N, ...).
      outputs: what it gives in the teacher, (N, ..., channels).
    """
    if isinstance(layer, _layers.Dense):
        groups, rows_per_image, kernel_area = 1, 1, 1
    else:
        groups = inputs.shape[-1] if is_depthwise(layer) else layer.groups
        rows_per_image = outputs.shape[1] * outputs.shape[2]
        kernel_area = math.prod(layer.kernel_size)
    batch_size = images_per_batch(rows_per_image * kernel_area * inputs.shape[-1])
    kept = min(rows_per_image, max(1, _MAX_ROWS // len(inputs)))
    rng = np.random.default_rng(0)
    sums: list = [0.0, 0.0, 0.0, 0.0]
    num_rows = 0
    for start in range(0, len(inputs), batch_size):
        x = _rows(layer, inputs[start : start + batch_size], groups)
        y = tf.reshape(outputs[start : start + batch_size], (len(x), groups, -1))
        if kept < rows_per_image:
            count = len(x) // rows_per_image * kept
            chosen = rng.choice(len(x), count, replace=False)
            x, y = tf.gather(x, chosen), tf.gather(y, chosen)
        if not num_rows:
            # Centred before float32 squares them: neighbouring pixels are alike, so
            # that variances are small beside means.
            x_center, y_center = tf.reduce_mean(x, 0), tf.reduce_mean(y, 0)
        x, y = x - x_center, y - y_center
        num_rows += len(x)
        sums[0] += tf.einsum("rgk,rgl->gkl", x, x).numpy().astype(np.float64)
        sums[1] += tf.einsum("rgk,rgm->gkm", x, y).numpy().astype(np.float64)
        sums[2] += tf.reduce_sum(x, 0).numpy().astype(np.float64)
        sums[3] += tf.reduce_sum(y, 0).numpy().astype(np.float64)
    xx, xy, x_mean, y_mean = (s / num_rows for s in sums)
    xx = xx - x_mean[:, :, np.newaxis] * x_mean[:, np.newaxis, :]
    xy = xy - x_mean[:, :, np.newaxis] * y_mean[:, np.newaxis, :]
    return Moments(
        xx, xy, x_mean + x_center.numpy(), y_mean + y_center.numpy(), num_rows
    )


def _rows(layer: keras.layers.Layer, inputs: tf.Tensor, groups: int) -> tf.Tensor:
    """(rows, groups, K): the values each output position multiplies with the kernel."""
    if isinstance(layer, _layers.Dense):
        return inputs[:, tf.newaxis]
    height, width = layer.kernel_size
    patches = tf.image.extract_patches(
        inputs,
        sizes=(1, height, width, 1),
        strides=(1, *layer.strides, 1),
        rates=(1, *layer.dilation_rate, 1),
        padding=layer.padding.upper(),
    )
    channels = inputs.shape[-1] // groups
    patches = tf.reshape(patches, (-1, height * width, groups, channels))
    patches = tf.transpose(patches, (0, 2, 1, 3))
    return tf.reshape(patches, (-1, groups, height * width * channels))


def _round_layer(
    student: Student,
    layer: keras.layers.Layer,
    moments: Moments,
    following: Sequence[keras.layers.Layer],
    rounding: RoundingConfig,
) -> None:
    """Replaces the student's copy of a kernel layer, see `round_kernels`."""
    quantizer = student.weight_quantizers[layer.name]
    limit = weight_limit(quantizer.bits)
    groups, size, channels = moments.xy.shape
    kernel = channels_last_kernel(layer.get_weights()[0], quantizer.depthwise)
    shape = kernel.shape
    kernel = np.asarray(kernel, np.float64)
    kernel = kernel.reshape(size, groups, channels).transpose(1, 0, 2)
    target, damped = best_kernel(kernel, moments)
    if not rounding.fits_target:
        target = kernel
    scale = np.stack([weight_scales(target[g], quantizer.bits) for g in range(groups)])
    if rounding.spreads_errors:
        levels = round_rows(target, damped, scale, limit)
    else:
        levels = _to_nearest(target, scale[:, np.newaxis], limit)
    scale = _refit_scale(levels, scale, damped, target)
    rounded = levels * scale[:, np.newaxis, :]
    shift = moments.y_mean - np.einsum("gk,gkm->gm", moments.x_mean, rounded)
    quantizer.assign(rounded.transpose(1, 0, 2).reshape(shape), scale.reshape(-1))
    student.set_output_shift(layer, following, shift.reshape(-1))


def best_kernel(kernel: np.ndarray, moments: Moments) -> tuple[np.ndarray, np.ndarray]:
    """The kernel W* that predicts Y best, not yet rounded.

    Args:
      kernel: the teacher's, float64 (groups, K, M).
      moments: of X and Y.

    Returns:
      W*, float64 (groups, K, M), and X^T X + ridge, float64 (groups, K, K).
    """
    _, size, _ = kernel.shape
    ridge = max(_SMALLEST_RIDGE, size / moments.num_rows)
    diagonal = np.einsum("gkk->g", moments.xx) / size
    # Channels that are constant in all images keep their teacher's kernel.
    diagonal = np.maximum(diagonal, 1e-6 * diagonal.max() + 1e-12)
    damped = moments.xx + (ridge * diagonal)[:, np.newaxis, np.newaxis] * np.eye(size)
    right = moments.xy + (ridge * diagonal)[:, np.newaxis, np.newaxis] * kernel
    return np.linalg.solve(damped, right), damped


def _to_nearest(target: np.ndarray, scale: np.ndarray, limit: int) -> np.ndarray:
    return np.clip(np.round(target / scale), -limit, limit)


def round_rows(
    target: np.ndarray, damped: np.ndarray, scale: np.ndarray, limit: int
) -> np.ndarray:
    """Integers q that make (q s - W*)^T X^T X (q s - W*) small, row by row.

    Args:
      target: W*, (groups, K, M).
      damped: X^T X + ridge, (groups, K, K), positive definite.
      scale: (groups, M), > 0.
      limit: largest integer.

    Returns:
      float64 (groups, K, M), whole numbers.
    """
    groups, size, _ = target.shape
    # Directions that matter most first, while many rows can still make good.
    order = np.argsort(-np.einsum("gkk->gk", damped), axis=1, kind="stable")
    group = np.arange(groups)[:, np.newaxis]
    remaining = target[group, order]
    ordered = damped[
        group[:, :, np.newaxis], order[:, :, np.newaxis], order[:, np.newaxis]
    ]
    # Upper triangular U with inverse(damped) = U^T U: row k of U tells how the rows
    # after k make good for row k.
    inverse = np.linalg.inv(ordered)
    upper = np.swapaxes(np.linalg.cholesky(inverse), 1, 2)
    levels = np.empty_like(remaining)
    errors = np.empty_like(remaining)
    for start in range(0, size, _BLOCK_SIZE):
        stop = min(start + _BLOCK_SIZE, size)
        for k in range(start, stop):
            row = remaining[:, k]
            levels[:, k] = _to_nearest(row, scale, limit)
            errors[:, k] = (row - levels[:, k] * scale) / upper[:, k, k, np.newaxis]
            spread = upper[:, k, k + 1 : stop, np.newaxis] * errors[:, np.newaxis, k]
            remaining[:, k + 1 : stop] -= spread
        rest = np.swapaxes(upper[:, start:stop, stop:], 1, 2)
        remaining[:, stop:] -= rest @ errors[:, start:stop]
    result = np.empty_like(levels)
    result[group, order] = levels
    return result


def _refit_scale(
    levels: np.ndarray, scale: np.ndarray, damped: np.ndarray, target: np.ndarray
) -> np.ndarray:
    """Per channel the scale with which the levels predict W* best."""
    weighted = damped @ levels
    along = np.sum(weighted * target, axis=1)
    norm = np.sum(weighted * levels, axis=1)
    fitted = along / np.maximum(norm, 1e-30)
    low, high = _SCALE_LIMITS
    return np.clip(fitted, low * scale, high * scale)
