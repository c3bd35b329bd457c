"""Kernels rounded so that what the layers compute, not the weights, changes least.

Layer by layer in graph order, the teacher's layer output Y is predicted from the
student's own, already quantized, layer input X:

1. W* = argmin ||X W - Y||^2 + ridge ||W - W_teacher||^2, means left to the bias:
   what is already lost before the layer is made good where it can be.
2. The rows of W* are rounded one after the other; the error of each is spread over
   the rows still open, as X^T X says that they can stand in for it (OBQ, Frantar &
   Alistarh 2022, in the fixed order of GPTQ, Frantar et al. 2023).
3. The channel's scale is refitted to the rounded kernel, then every row is rounded
   again with all others given, a few times over (coordinate descent, as in QuantEase,
   Behdin et al. 2023); the bias is refitted at the end.

Deviation from GPTQ: the target is the teacher's output, not the student's own with
its unrounded kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy.linalg
import tensorflow as tf

from gdfq_tf.classifier import Classifier
from gdfq_tf.config import RoundingConfig
from gdfq_tf.graph.queries import consumers, input_layers
from gdfq_tf.graph.traits import has_kernel
from gdfq_tf.keras_compat import keras
from gdfq_tf.progress import Advance
from gdfq_tf.quantization.calibration import weight_scales
from gdfq_tf.quantization.moments import Moments, measure_moments
from gdfq_tf.quantization.quantizers import channels_last_kernel
from gdfq_tf.quantization.student import Student
from gdfq_tf.system.large_arrays import ArrayFile, stacked
from tflite_export.quantization_params import weight_levels

_AS_DESCRIBED = RoundingConfig()  # all three steps
_BATCH_SIZE = 64
# Rows whose errors are spread over all later ones together, by one product of matrices.
_BLOCK_SIZE = 64
# The ridge, relative to the mean diagonal of X^T X: keeps the solution where images
# say nothing about a direction. Layers with few rows per unknown get more.
_SMALLEST_RIDGE = 0.01
# Rounds of step 3; more gain nothing.
_NUM_DESCENTS = 3
# Refitted scales stay near the calibrated ones: further off, the fit is of noise.
_SCALE_LIMITS = (0.8, 1.25)


def round_kernels(
    student: Student,
    classifier: Classifier,
    pixels: np.ndarray,
    advance: Advance,
    rounding: RoundingConfig = _AS_DESCRIBED,
    num_rounded: int = 0,
) -> None:
    """Replaces kernels, weight scales and biases of `student`, in place.

    Args:
      student: as built and calibrated.
      classifier: the one that it was built from.
      pixels: synthetic images, uint8 (N, H, W, C).
      advance: called once for each kernel that is rounded.
      rounding: what is rounded, and how.
      num_rounded: how many kernels, in graph order, the student has rounded already.
    """
    model, preprocessing = classifier.model, classifier.preprocessing
    consumed_by = consumers(model)
    first = model.layers[0].name

    def student_input(batch: np.ndarray) -> tf.Tensor:
        return student.quantize_input(preprocessing.to_student_input(batch))

    teacher_tensors = {first: _in_batches(preprocessing.to_input, [pixels])}
    student_tensors = {first: _in_batches(student_input, [pixels])}
    waiting = {name: len(layers) for name, layers in consumed_by.items()}
    with_kernel = [layer.name for layer in model.layers if has_kernel(layer)]
    done = set(with_kernel[:num_rounded])
    for layer in model.layers[1:]:
        producers = [producer.name for producer in input_layers(layer)]
        teacher_output = _in_batches(layer, [teacher_tensors[p] for p in producers])
        if has_kernel(layer) and layer.name not in done:
            _round_layer(
                student,
                layer,
                # Only there, so that it goes when it is used up.
                measure_moments(layer, student_tensors[producers[0]], teacher_output),
                consumed_by[layer.name],
                rounding,
            )
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


def _in_batches(
    layer: Callable[..., tf.Tensor], inputs: Sequence[np.ndarray | ArrayFile]
) -> np.ndarray | ArrayFile:
    """What a layer, or the like, gives for all images, (N, ...)."""

    def outputs() -> Iterator[tf.Tensor]:
        for start in range(0, len(inputs[0]), _BATCH_SIZE):
            batch = [x[start : start + _BATCH_SIZE] for x in inputs]
            yield layer(batch if len(batch) > 1 else batch[0])

    return stacked(outputs(), len(inputs[0]))


def _round_layer(
    student: Student,
    layer: keras.layers.Layer,
    moments: Moments,
    following: Sequence[keras.layers.Layer],
    rounding: RoundingConfig,
) -> None:
    """Replaces the student's copy of a kernel layer, see `round_kernels`."""
    quantizer = student.weight_quantizers[layer.name]
    bounds = weight_levels(quantizer.bits)
    groups, size, channels = moments.xy.shape
    kernel = channels_last_kernel(layer.get_weights()[0], quantizer.depthwise)
    shape = kernel.shape
    kernel = np.asarray(kernel, np.float64)
    kernel = kernel.reshape(size, groups, channels).transpose(1, 0, 2)
    target, damped = best_kernel(kernel, moments)
    x_mean, y_mean = moments.x_mean, moments.y_mean
    del moments
    if not rounding.fits_target:
        target = kernel
    scale = weight_scales(target.transpose(1, 0, 2).reshape(size, -1), quantizer.bits)
    scale = scale.reshape(groups, channels)
    if rounding.spreads_errors:
        levels = round_rows(target, damped, scale, bounds)
    else:
        levels = _to_nearest(target, scale[:, np.newaxis], bounds)
    # 8 bits leave nothing to gain.
    again = rounding.spreads_errors and quantizer.bits < 8
    num_rounds = _NUM_DESCENTS if again else 0
    levels, scale = descend(levels, target, damped, scale, bounds, num_rounds)
    rounded = levels * scale[:, np.newaxis, :]
    shift = y_mean - np.einsum("gk,gkm->gm", x_mean, rounded)
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
    groups, size, _ = kernel.shape
    ridge = max(_SMALLEST_RIDGE, size / moments.num_rows)
    diagonal = np.einsum("gkk->g", moments.xx) / size
    # Channels that are constant in all images keep their teacher's kernel.
    diagonal = np.maximum(diagonal, 1e-6 * diagonal.max() + 1e-12)
    damped = moments.xx.copy()
    np.einsum("gkk->gk", damped)[...] += ridge * diagonal[:, np.newaxis]
    right = moments.xy + (ridge * diagonal)[:, np.newaxis, np.newaxis] * kernel
    if groups > 1:  # many small ones, at once
        return np.linalg.solve(damped, right), damped
    (matrix,), (values,) = damped, right
    solved = scipy.linalg.solve(matrix, values, assume_a="pos")
    return solved[np.newaxis], damped


def _to_nearest(
    target: np.ndarray, scale: np.ndarray, bounds: tuple[int, int]
) -> np.ndarray:
    return np.clip(np.round(target / scale), *bounds)


def round_rows(
    target: np.ndarray, damped: np.ndarray, scale: np.ndarray, bounds: tuple[int, int]
) -> np.ndarray:
    """Integers q that make (q s - W*)^T X^T X (q s - W*) small, row by row.

    Args:
      target: W*, (groups, K, M).
      damped: X^T X + ridge, (groups, K, K), positive definite.
      scale: (groups, M), > 0.
      bounds: the least and the largest integer.

    Returns:
      float64 (groups, K, M), whole numbers.
    """
    groups, size, _ = target.shape
    group = np.arange(groups)[:, np.newaxis]
    # Directions that matter most come last and are rounded first, while many rows can
    # still make good.
    order = np.argsort(-np.einsum("gkk->gk", damped), axis=1, kind="stable")[:, ::-1]
    ordered = damped[
        group[:, :, np.newaxis], order[:, :, np.newaxis], order[:, np.newaxis]
    ]
    wanted, levels = target[group, order], np.zeros_like(target)
    errors = np.zeros_like(target)
    # With X^T X = L L^T, row k of L^T tells what row k has to make good for those after
    # it. These are the same sums as with the factor of the inverse, for less work.
    shares = np.swapaxes(np.linalg.cholesky(ordered), 1, 2)
    del ordered
    shares /= np.einsum("gkk->gk", shares).copy()[..., np.newaxis]
    for stop in range(size, 0, -_BLOCK_SIZE):
        start = max(0, stop - _BLOCK_SIZE)
        wanted[:, start:stop] += shares[:, start:stop, stop:] @ errors[:, stop:]
        for k in reversed(range(start, stop)):
            made_good = shares[:, k, np.newaxis, k + 1 : stop] @ errors[:, k + 1 : stop]
            row = wanted[:, k] + made_good[:, 0]
            levels[:, k] = _to_nearest(row, scale, bounds)
            errors[:, k] = target[group[:, 0], order[:, k]] - levels[:, k] * scale
    result = np.empty_like(levels)
    result[group, order] = levels
    return result


def descend(
    levels: np.ndarray,
    target: np.ndarray,
    damped: np.ndarray,
    scale: np.ndarray,
    bounds: tuple[int, int],
    num_rounds: int = _NUM_DESCENTS,
) -> tuple[np.ndarray, np.ndarray]:
    """Each row in turn the best one beside all others, and scales: never worse.

    Args:
      levels: whole numbers to begin with, float64 (groups, K, M).
      target: W*, (groups, K, M).
      damped: X^T X + ridge, (groups, K, K), positive definite.
      scale: (groups, M), > 0.
      bounds: the least and the largest integer.
      num_rounds: how often; 0: scales alone.

    Returns:
      Levels, float64 (groups, K, M), and scales, float64 (groups, M).
    """
    levels, limits = levels.copy(), (_SCALE_LIMITS[0] * scale, _SCALE_LIMITS[1] * scale)
    # Both sides of the equation whose solution is the target.
    wanted, given = damped @ target, damped @ levels
    diagonal = np.einsum("gkk->gk", damped)
    scale = _best_scale(levels, given, target, limits)
    for _ in range(num_rounds):
        for start in range(0, target.shape[1], _BLOCK_SIZE):
            block = slice(start, start + _BLOCK_SIZE)
            before, inner = levels[:, block].copy(), damped[:, block, block]
            slope = wanted[:, block] - given[:, block] * scale[:, np.newaxis]
            for i in range(slope.shape[1]):
                k = start + i
                move = slope[:, i] / diagonal[:, k, np.newaxis]
                rounded = _to_nearest(levels[:, k] * scale + move, scale, bounds)
                change = (rounded - levels[:, k]) * scale
                slope -= inner[:, :, i, np.newaxis] * change[:, np.newaxis]
                levels[:, k] = rounded
            given += damped[:, :, block] @ (levels[:, block] - before)
        scale = _best_scale(levels, given, target, limits)
    return levels, scale


def _best_scale(
    levels: np.ndarray,
    given: np.ndarray,
    target: np.ndarray,
    limits: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Per channel the scale with which the levels predict W* best, within limits.

    Args:
      levels: (groups, K, M).
      given: X^T X levels, (groups, K, M).
      target: W*, (groups, K, M).
      limits: the least and the largest scale, (groups, M) each.
    """
    along = np.sum(given * target, axis=1)
    norm = np.sum(given * levels, axis=1)
    return np.clip(along / np.maximum(norm, 1e-30), *limits)
