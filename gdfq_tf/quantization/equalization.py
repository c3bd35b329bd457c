"""Channels of like range: the classifier rewritten, computing the same.

A tensor has one scale, so at few bits its smallest channels see but a few levels. ReLU,
pooling and sums let a positive factor per channel pass: what the layer in front
multiplies a channel by, the kernel behind takes out again. Kernels pay for it, as the
rows behind one scale become less alike: channels meet halfway.

Source: cross-layer equalization, Nagel et al. 2019, §4.1, and Meller et al. 2019. There
kernels of one scale are equalized, here activations, for kernels have a scale per
channel already.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gdfq_tf.graph.queries import (
    consumers,
    input_layers,
    is_depthwise,
    join,
    output_layer,
)
from gdfq_tf.graph.traits import has_kernel, traits
from gdfq_tf.keras_compat import keras
from gdfq_tf.memory_needs import MAX_EQUALIZED_VALUES, images_per_batch
from gdfq_tf.quantization.calibration import values_per_image
from gdfq_tf.quantization.plan import QuantizationPlan

_layers = keras.layers

# Of the way to equal ranges, in logarithms.
_SHARE = 0.6
# Channels smaller than this share of the largest one are taken to be so large: they
# may be silent in these images alone.
_SMALLEST_RANGE = 0.05
# The moment that stands for a channel's range: next to its largest values, but not one
# of them alone.
_MOMENT = 8


def equalize(model: keras.Model, ranges: Mapping[str, np.ndarray]) -> keras.Model:
    """A copy in which the channels of some tensors have more equal ranges.

    It computes the same up to float rounding.

    Args:
      model: canonical.
      ranges: layer name -> those of its output's channels, see `channel_ranges`.
    """
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    consumed_by = consumers(copy)
    for tied in _tied_layers(copy):
        measured = [ranges[layer.name] for layer in tied if layer.name in ranges]
        if not measured:
            continue
        factors = channel_factors(measured)
        for layer in tied:
            if has_kernel(layer) or isinstance(layer, _layers.BatchNormalization):
                _multiply_outputs(layer, factors)
            for consumer in consumed_by[layer.name]:
                if has_kernel(consumer):
                    _divide_inputs(consumer, factors)
    return copy


def channel_ranges(
    model: keras.Model, plan: QuantizationPlan, inputs: np.ndarray
) -> dict[str, np.ndarray]:
    """How large the channels of tensors of less than 8 bits become.

    Args:
      model: canonical, float.
      plan: which tensors have how many bits.
      inputs: synthetic model inputs (N, H, W, C) float32; a few hundred do.

    Returns:
      Name of each layer whose output has less than 8 bits -> float64 (channels,).
    """
    names = [
        name for name, group in plan.outputs.items() if plan.groups[group].bits < 8
    ]
    if not names:
        return {}
    probe = keras.Model(model.input, [model.get_layer(name).output for name in names])
    sums: dict[str, np.ndarray] = {}
    batch_size = images_per_batch(values_per_image(probe))
    for start in range(0, len(inputs), batch_size):
        outputs = probe(inputs[start : start + batch_size], training=False)
        # A model with one output returns it bare.
        outputs = outputs if isinstance(outputs, list) else [outputs]
        for name, output in zip(names, outputs, strict=True):
            values = output.numpy()
            size = max(1, MAX_EQUALIZED_VALUES // values[0].size)
            for first in range(0, len(values), size):
                part = values[first : first + size].astype(np.float64)
                axes = tuple(range(part.ndim - 1))
                powers = np.mean(part**_MOMENT, axes) * len(part) / len(inputs)
                sums[name] = sums.get(name, 0.0) + powers
    return {name: powers ** (1 / _MOMENT) for name, powers in sums.items()}


def channel_factors(ranges: list[np.ndarray]) -> np.ndarray:
    """What to multiply channels by, float64 (channels,), geometric mean 1.

    Args:
      ranges: (channels,) of each tensor that the factors are for, any of them >= 0.
    """
    shares = [r / r.max() for r in ranges if r.max() > 0]
    if not shares:
        return np.ones_like(ranges[0])
    share = np.mean(shares, axis=0)
    share = np.maximum(share / share.max(), _SMALLEST_RANGE)
    logarithms = -_SHARE * np.log(share)
    return np.exp(logarithms - logarithms.mean())


def _tied_layers(model: keras.Model) -> list[list[keras.layers.Layer]]:
    """Layers, in graph order, whose outputs must have the same factors.

    Those that must have the factor 1 are left out.
    """
    bound = {model.layers[0].name, output_layer(model).name}
    pairs = []
    for layer in model.layers[1:]:
        producers = [producer.name for producer in input_layers(layer)]
        if has_kernel(layer):
            continue
        if isinstance(layer, _layers.BatchNormalization):
            # Takes a factor in only at its output; only kernel layers stand before.
            bound.update(producers)
        elif traits(layer).passes_factors(layer):
            pairs += [(layer.name, producer) for producer in producers]
        else:
            bound.update([layer.name, *producers])
    root = join([layer.name for layer in model.layers], pairs)
    roots_bound = {root[name] for name in bound}
    tied: dict[str, list[keras.layers.Layer]] = {}
    for layer in model.layers:
        if root[layer.name] not in roots_bound:
            tied.setdefault(root[layer.name], []).append(layer)
    return list(tied.values())


def _multiply_outputs(layer: keras.layers.Layer, factors: np.ndarray) -> None:
    """Makes a kernel or BatchNormalization layer give `factors` times its output."""
    if isinstance(layer, _layers.BatchNormalization):
        layer.gamma.assign(layer.gamma * factors)
        layer.beta.assign(layer.beta * factors)
        return
    kernel, *bias = layer.get_weights()
    last = factors.reshape(kernel.shape[-2:]) if is_depthwise(layer) else factors
    layer.set_weights([kernel * last, *(b * factors for b in bias)])


def _divide_inputs(layer: keras.layers.Layer, factors: np.ndarray) -> None:
    """Makes a kernel layer compute the same from `factors` times its input."""
    kernel, *bias = layer.get_weights()
    if isinstance(layer, _layers.Conv2D) and not is_depthwise(layer):
        # Kernel rows of each output channel are those of its group's inputs.
        of_groups = factors.reshape(layer.groups, -1).T
        rows = np.repeat(of_groups, kernel.shape[-1] // layer.groups, axis=1)
    else:
        rows = factors[:, np.newaxis]
    layer.set_weights([kernel / rows, *bias])
