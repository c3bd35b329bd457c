"""First scales, by error-minimising clipping on synthetic images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from gdfq_tf.checkpoints import Arrays, part_of, together
from gdfq_tf.classifier import Classifier, Head
from gdfq_tf.graph.queries import is_depthwise
from gdfq_tf.keras_compat import keras
from gdfq_tf.memory_needs import images_per_batch
from gdfq_tf.quantization.plan import ActivationGroup, QuantizationPlan
from gdfq_tf.quantization.quantizers import channels_last_kernel
from tflite_export.quantization_params import (
    QuantParams,
    quant_params_over,
    relu_quant_params,
    symmetric_quant_params,
    weight_levels,
)

_CACHED_VALUES = 2**15
# Ranges tried, as shares of the largest magnitude. Below a fifth, clipping costs
# more than finer steps gain, at any width from 2 bits up.
_CLIP_RATIOS = np.linspace(1.0, 0.2, 81)
# Values kept per tensor: enough that the chosen ratio no longer depends on the
# sample, few enough that calibration takes seconds.
_MAX_SAMPLES = 2**16
_FEATURES_MARGIN = 1.5
# Of tensors of 16 bits: a quarter of their range has more steps than any error needs.
_WIDE_MARGIN = 4.0
# Below this a tensor counts as constant zero; any scale represents it.
_SMALLEST_RANGE = 1e-12


@dataclasses.dataclass(frozen=True)
class Calibration:
    """First scales.

    Attributes:
      activation_quant_params: group name -> quantization parameters.
      weight_scales: kernel layer name -> float64 (output channels,).
    """

    activation_quant_params: Mapping[str, QuantParams]
    weight_scales: Mapping[str, np.ndarray]

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it by name, for `of_arrays`."""
        return together(
            activation_scales={
                name: np.array(params.scale)
                for name, params in self.activation_quant_params.items()
            },
            zero_points={
                name: np.array(params.zero_point)
                for name, params in self.activation_quant_params.items()
            },
            weight_scales=self.weight_scales,
        )

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> Calibration:
        """What `arrays` gave."""
        scales = part_of(arrays, "activation_scales")
        zero_points = part_of(arrays, "zero_points")
        return cls(
            {
                name: QuantParams(scale.item(), zero_points[name].item())
                for name, scale in scales.items()
            },
            part_of(arrays, "weight_scales"),
        )


def calibrate(
    classifier: Classifier,
    plan: QuantizationPlan,
    inputs: np.ndarray,
    logits_margin: float = 1.5,
) -> Calibration:
    """Scales and zero points with the least squared error of weights and activations.

    Args:
      classifier: its preprocessing fixes the quantization parameters of the input.
      plan: what to calibrate.
      inputs: synthetic model inputs (N, H, W, C) float32; a few hundred do.
      logits_margin: see `logits_quant_params`.
    """
    samples = _sample_activations(classifier.model, plan, inputs)
    quant_params_of = {
        name: activation_quant_params(samples[name], plan.groups[name])
        for name in samples
    }
    input_bits = plan.groups[plan.input_group].stored_bits
    if not plan.is_fixed(plan.output_group) and input_bits == 8:
        outputs = samples[plan.output_group]
        quant_params_of[plan.output_group] = (
            features_quant_params(outputs)
            if classifier.head is Head.FEATURES
            else logits_quant_params(outputs, logits_margin)
        )
    quant_params_of[plan.input_group] = classifier.preprocessing.input_quantization(
        input_bits
    )
    scales = {}
    for name, bits in plan.weight_bits.items():
        layer = classifier.model.get_layer(name)
        kernel = channels_last_kernel(layer.get_weights()[0], is_depthwise(layer))
        scales[name] = weight_scales(np.asarray(kernel), bits)
    return Calibration(quant_params_of, scales)


def activation_quant_params(samples: np.ndarray, group: ActivationGroup) -> QuantParams:
    """What quantizes a group's values with least squared error.

    Args:
      samples: of them, float, any shape.
      group: says how many bits they have and which ranges they may.
    """
    if group.fixed_quant_params is not None:
        return group.fixed_quant_params
    samples = np.asarray(samples, np.float64).ravel()
    low, high = min(0.0, samples.min()), max(0.0, samples.max())
    if group.upper_bound is not None:
        high = min(high, group.upper_bound)
    if high - low < _SMALLEST_RANGE:
        low, high = 0.0, 1.0
    if group.bits == 16:
        return _wide_quant_params(low, high, group.upper_bound)
    if group.non_negative:
        candidates = [
            relu_quant_params(ratio * high, group.bits) for ratio in _CLIP_RATIOS
        ]
    else:
        candidates = [
            quant_params_over(ratio * low, ratio * high) for ratio in _CLIP_RATIOS
        ]
    errors = [_squared_error(samples, quant_params) for quant_params in candidates]
    return candidates[int(np.argmin(errors))]


def _wide_quant_params(low: float, high: float, bound: float | None) -> QuantParams:
    """Of 16 bits: nothing is clipped, with room, though not above a ReLU's bound."""
    largest = _WIDE_MARGIN * max(high, -low)
    return symmetric_quant_params(largest if bound is None else min(largest, bound))


def logits_quant_params(samples: np.ndarray, margin: float) -> QuantParams:
    """The logits' quantization: nothing is clipped, and winners have room above.

    Real images excite their class more than synthetic ones do, and a clipped winner
    no longer leads.

    Args:
      samples: logits, float, any shape.
      margin: the range ends at so many times the largest one.
    """
    return quant_params_over(
        float(samples.min()),
        max(margin * float(samples.max()), _SMALLEST_RANGE),
    )


def features_quant_params(samples: np.ndarray) -> QuantParams:
    """The quantization of features: nothing is clipped, with room at both ends.

    Real images may be further from the mean than synthetic ones.

    Args:
      samples: features, float, any shape.
    """
    low, high = _FEATURES_MARGIN * samples.min(), _FEATURES_MARGIN * samples.max()
    return quant_params_over(min(0.0, float(low)), max(float(high), _SMALLEST_RANGE))


def weight_scales(kernel: np.ndarray, bits: int) -> np.ndarray:
    """Per channel, the scale with least squared error.

    Channels that are constant zero get the scale of the kernel's largest channel.

    Args:
      kernel: float (..., channels).
      bits: 2..8, see `weight_levels`.

    Returns:
      float64 (channels,), > 0.
    """
    lowest, highest = weight_levels(bits)
    channels = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])
    largest = np.abs(channels).max(axis=0)
    largest = np.where(largest > 0, largest, max(largest.max(), _SMALLEST_RANGE))
    best_scale = largest / highest
    # A few channels at a time, so that all steps stay in the cache.
    size = max(1, _CACHED_VALUES // len(channels))
    for start in range(0, len(largest), size):
        part = slice(start, start + size)
        values = np.ascontiguousarray(channels[:, part])
        work = np.empty_like(values)
        best_error = np.full(values.shape[1], np.inf)
        for ratio in _CLIP_RATIOS:
            scale = ratio * largest[part] / highest
            np.rint(np.divide(values, scale, out=work), out=work)
            np.minimum(np.maximum(work, lowest, out=work), highest, out=work)
            np.subtract(np.multiply(work, scale, out=work), values, out=work)
            error = np.sum(np.square(work, out=work), axis=0)
            best_scale[part] = np.where(error < best_error, scale, best_scale[part])
            best_error = np.minimum(error, best_error)
    return best_scale


def values_per_image(probe: keras.Model) -> int:
    """How many values all outputs of `probe` have together."""
    return sum(math.prod(output.shape[1:]) for output in probe.outputs)


def _squared_error(samples: np.ndarray, quant_params: QuantParams) -> float:
    q = np.round(samples / quant_params.scale) + quant_params.zero_point
    quantized = (
        np.clip(q, quant_params.lowest, quant_params.highest) - quant_params.zero_point
    ) * quant_params.scale
    return float(np.mean((quantized - samples) ** 2))


def _sample_activations(
    model: keras.Model, plan: QuantizationPlan, inputs: np.ndarray
) -> dict[str, np.ndarray]:
    """Group name -> a fixed, evenly drawn sample of its tensors' values."""
    names = list(plan.outputs)
    probe = keras.Model(model.input, [model.get_layer(name).output for name in names])
    rng = np.random.default_rng(0)
    collected: dict[str, list[np.ndarray]] = {}
    batch_size = images_per_batch(values_per_image(probe))
    batches = np.array_split(inputs, max(1, len(inputs) // batch_size))
    for batch in batches:
        outputs = probe(batch, training=False)
        # A model with one output returns it bare.
        outputs = outputs if isinstance(outputs, list) else [outputs]
        for name, output in zip(names, outputs, strict=True):
            values = output.numpy().ravel()
            count = min(values.size, _MAX_SAMPLES // len(batches))
            chosen = values[rng.integers(0, values.size, count)]
            # The largest value always counts: clipping is decided against it.
            chosen = np.concatenate([chosen, [values.min(), values.max()]])
            collected.setdefault(plan.outputs[name], []).append(chosen)
    return {name: np.concatenate(values) for name, values in collected.items()}
