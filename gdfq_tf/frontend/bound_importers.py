"""Maxima, minima and clips, value by value -> steps."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from gdfq_tf.frontend.steps import (
    Call,
    Step,
    affine,
    call_parameters,
    check_same_shapes,
    constants,
    refuse_layer,
    tensors_joined,
)


def _of_tensors(
    kind: str,
    of_constants: np.ufunc,
    with_constant: Callable[[Call, ArrayLike], list[Step]],
) -> Callable[[Call], list[Step]]:
    """The translator of a maximum or minimum of tensors and constants."""

    def translate(call: Call) -> list[Step]:
        found = constants(call)
        if not found:
            check_same_shapes(call)
            return [Step(kind)]
        bound = functools.reduce(of_constants, found)
        return [*tensors_joined(kind, call), *with_constant(call, bound)]

    return translate


def _at_least(call: Call, low: ArrayLike) -> list[Step]:
    return _relu_from(call, low, None)


def _at_most(call: Call, high: ArrayLike) -> list[Step]:
    """The ReLU of what is missing to the bound, taken off the bound."""
    return [
        affine(call, scale=-1.0, offset=high, suffix="_below_bound"),
        Step("ReLU", {"max_value": None}, suffix="_bounded"),
        affine(call, scale=-1.0, offset=high),
    ]


def _clip(call: Call) -> list[Step]:
    parameters = call_parameters(call)
    low, high = (
        parameters[keras_name] if keras_name in parameters else parameters[tf_name]
        for keras_name, tf_name in (
            ("x_min", "clip_value_min"),
            ("x_max", "clip_value_max"),
        )
    )
    if any(np.ndim(bound) for bound in (low, high)) or not low < high:
        refuse_layer(
            call.layer,
            f"it clips to {low} to {high}; expected two numbers, the smaller one first",
        )
    return _relu_from(call, low, float(high) - float(low))


def _relu_from(call: Call, low: ArrayLike, max_value: float | None) -> list[Step]:
    """A ReLU that has its bend at `low`."""
    relu = {"max_value": max_value}
    if not np.any(low):
        return [Step("ReLU", relu)]
    return [
        affine(call, offset=-np.asarray(low, np.float64), suffix="_above_bound"),
        Step("ReLU", relu, suffix="_bounded"),
        affine(call, offset=low),
    ]


BOUNDS: dict[str, Callable[[Call], list[Step]]] = {
    # Keras 3 operations; two share their name with the layer of that meaning.
    "Clip": _clip,
    "Maximum": _of_tensors("Maximum", np.maximum, _at_least),
    "Minimum": _of_tensors("Minimum", np.minimum, _at_most),
    # TensorFlow functions.
    "tf.clip_by_value": _clip,
    "tf.math.maximum": _of_tensors("Maximum", np.maximum, _at_least),
    "tf.math.minimum": _of_tensors("Minimum", np.minimum, _at_most),
}
