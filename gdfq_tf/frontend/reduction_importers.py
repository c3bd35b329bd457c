"""Means and maxima over dimensions -> steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from gdfq_tf.frontend.steps import (
    Call,
    Step,
    call_parameters,
    image_shape,
    refuse_layer,
    reshape_step,
)

Shape: TypeAlias = tuple[int | None, ...]  # only the batch is open

_POSITIONS = {3: {1}, 4: {1, 2}}  # the dimensions of tensors of so many


def global_mean(call: Call) -> list[Step]:
    """A layer's mean over height and width, or over time."""
    return _mean_of_positions(call, {1, 2})


def global_maximum(call: Call) -> list[Step]:
    """A layer's maximum over height and width, or over time."""
    return _maximum_of_positions(call, {1, 2})


def adaptive_pooling(kind: str) -> Callable[[Call], list[Step]]:
    """The translator of a layer that pools to a given size."""

    def translate(call: Call) -> list[Step]:
        sizes, wanted = (
            np.array(image_shape(tensor.shape)[1:3])
            for tensor in (call.inputs[0], call.output)
        )
        if np.any(sizes % wanted):
            refuse_layer(
                call.layer,
                f"it pools {sizes.tolist()} to {wanted.tolist()}, by windows of "
                "unequal sizes; expected sizes that divide those of its input",
            )
        window = tuple((sizes // wanted).tolist())
        if window == (1, 1):
            return []
        config = {"pool_size": window, "strides": window, "padding": "valid"}
        return [Step(kind, config)]

    return translate


def _reduction(
    of_positions: Callable[[Call, set[int]], list[Step]],
    of_channels: Callable[[Call], list[Step]],
) -> Callable[[Call], list[Step]]:
    """The translator of an operation over some dimensions."""

    def translate(call: Call) -> list[Step]:
        parameters, shape = call_parameters(call), tuple(call.inputs[0].shape)
        dimensions, axis = range(len(shape)), parameters.get("axis")
        given = dimensions if axis is None else np.ravel(axis).tolist()
        axes = {dimensions[number] for number in given}
        if len(call.output.shape) < 2 or parameters.get("initial") is not None:
            axes = set(dimensions)
        if axes == {dimensions[-1]}:
            return of_channels(call)
        if not axes <= _POSITIONS.get(len(shape), set()):
            refuse_layer(
                call.layer,
                f"it makes {tuple(call.output.shape)} of {shape}; expected a mean or "
                "maximum over height, width or both, or over channels",
            )
        return of_positions(call, axes)

    return translate


def _mean_of_channels(call: Call) -> list[Step]:
    if len(call.output.shape) == len(call.inputs[0].shape):
        return [Step("ChannelMean")]
    return [Step("ChannelMean", suffix="_mean"), reshape_step(call.output.shape)]


def _maximum_of_channels(call: Call) -> list[Step]:
    """Of rows of channels as images: pools work over height and width."""
    shape = tuple(call.inputs[0].shape)
    rows = {"target_shape": (math.prod(shape[1:-1]), shape[-1], 1)}
    return [
        Step("Reshape", rows, suffix="_rows"),
        _whole_window("MaxPooling2D", (1, shape[-1]), "_channels"),
        reshape_step(call.output.shape),
    ]


def _mean_of_positions(call: Call, axes: set[int]) -> list[Step]:
    shape = image_shape(call.inputs[0].shape)
    if _window(shape, axes) == shape[1:3] != (1, 1):
        keepdims = len(call.output.shape) == len(call.inputs[0].shape)
        return [Step("GlobalAveragePooling2D", {"keepdims": keepdims})]
    return _pooled(call, "AveragePooling2D", axes)


def _maximum_of_positions(call: Call, axes: set[int]) -> list[Step]:
    return _pooled(call, "MaxPooling2D", axes)


def _pooled(call: Call, kind: str, axes: set[int]) -> list[Step]:
    shape, out = image_shape(call.inputs[0].shape), image_shape(call.output.shape)
    window = _window(shape, axes)
    if window == (1, 1):
        # Nothing is computed, so nothing is rounded.
        return [reshape_step(out)]
    kept = (1 if axis in axes else shape[axis] for axis in (1, 2))
    if out[1:] == (*kept, shape[3]):
        return [_whole_window(kind, window)]
    return [_whole_window(kind, window, "_pool"), reshape_step(out)]


def _window(shape: Shape, axes: set[int]) -> Shape:
    """All of the axes, one position of the others."""
    return tuple(shape[axis] if axis in axes else 1 for axis in (1, 2))


def _whole_window(kind: str, window: Shape, suffix: str = "") -> Step:
    config = {"pool_size": window, "strides": 1, "padding": "valid"}
    return Step(kind, config, suffix=suffix)


_mean = _reduction(_mean_of_positions, _mean_of_channels)
_maximum = _reduction(_maximum_of_positions, _maximum_of_channels)

REDUCTIONS: dict[str, Callable[[Call], list[Step]]] = {
    # Keras 3 operations.
    "Max": _maximum,
    "Mean": _mean,
    # TensorFlow functions.
    "tf.math.reduce_max": _maximum,
    "tf.math.reduce_mean": _mean,
}
