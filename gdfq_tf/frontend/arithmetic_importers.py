"""Sums, products and concatenations of tensors and constants -> steps.

A constant fits into the shape of the tensor that it is combined with.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gdfq_tf.frontend.steps import (
    Call,
    Step,
    affine,
    call_parameters,
    check_same_shapes,
    constants,
    image_shape,
    is_symbolic,
    of_each_image,
    operands,
    refuse_layer,
    tensors_joined,
)


def _add(call: Call) -> list[Step]:
    """Sums of tensors and constants."""
    terms = constants(call)
    if not terms:
        check_same_shapes(call)
        return [Step("Add")]
    return [*tensors_joined("Add", call), *_shifted(call, sum(terms))]


def average(call: Call) -> list[Step]:
    """Means of tensors and constants."""
    terms, share = constants(call), 1 / len(operands(call))
    if not terms:
        check_same_shapes(call)
        return [Step("Add", suffix="_sum"), affine(call, scale=share)]
    offset = share * sum(terms)
    return [*tensors_joined("Add", call), affine(call, scale=share, offset=offset)]


def _multiply(call: Call) -> list[Step]:
    """Products of tensors, whose dimensions of 1 stand for all, and of constants."""
    shapes = [tuple(tensor.shape)[1:] for tensor in call.inputs]
    if len({len(shape) for shape in shapes}) > 1:
        refuse_layer(
            call.layer,
            f"it multiplies {shapes}; expected as many dimensions of each: put a "
            "Reshape before it",
        )
    factors = constants(call)
    if not factors:
        return [Step("Multiply")]
    product = [Step("Multiply", suffix="_of_tensors")] if len(shapes) > 1 else []
    return [*product, *_scaled(call, functools.reduce(np.multiply, factors))]


def _subtract(call: Call) -> list[Step]:
    left, right = operands(call)
    if not constants(call):
        check_same_shapes(call)
        negative = affine(call, scale=-1.0, suffix="_negative", inputs=(1,))
        return [negative, Step("Add", inputs=(0, -1))]
    if is_symbolic(left):
        return _shifted(call, -np.asarray(right, np.float64))
    return [affine(call, scale=-1.0, offset=left)]


def _divide(call: Call) -> list[Step]:
    _, divisor = operands(call)
    if is_symbolic(divisor):
        refuse_layer(call.layer, "it divides by a tensor; expected a constant")
    (divisor,) = constants(call)
    return _scaled(call, 1.0 / divisor)


def _negative(call: Call) -> list[Step]:
    return [affine(call, scale=-1.0)]


def _shifted(call: Call, offset: ArrayLike) -> list[Step]:
    return [affine(call, offset=offset)] if np.any(offset) else []


def _scaled(call: Call, factor: np.ndarray) -> list[Step]:
    return [] if np.all(factor == 1) else [affine(call, scale=factor)]


def concatenate(call: Call) -> list[Step]:
    """Joins channels, of tensors and constants.

    Constants become channels of the tensor before them, the first ones of the tensor
    behind them.
    """
    given = (*call.arguments, *call.keywords.values())
    parts = next(list(x) for x in given if isinstance(x, (list, tuple)))
    if call.output.shape[-1] != sum(part.shape[-1] for part in parts):
        axis = call_parameters(call).get("axis", getattr(call.layer, "axis", None))
        refuse_layer(call.layer, f"it works on axis {axis}; expected the last one")
    groups = _constants_around_tensors(parts)
    if len(groups) == len(parts):
        return [Step("Concatenate", {"axis": -1})]
    steps = [_with_constants(call, index, *group) for index, group in enumerate(groups)]
    if len(steps) == 1:
        return steps
    steps = [dataclasses.replace(step, suffix="_part") for step in steps]
    joined = tuple(range(-len(steps), 0))
    return [*steps, Step("Concatenate", {"axis": -1}, inputs=joined)]


def _constants_around_tensors(
    parts: Iterable[Any],
) -> list[tuple[list[Any], list[Any]]]:
    """For each tensor the constants before it, of the first alone, and behind it."""
    first: list[Any] = []
    groups: list[tuple[list[Any], list[Any]]] = []
    for part in parts:
        if is_symbolic(part):
            groups.append(([] if groups else first, []))
        else:
            (groups[-1][1] if groups else first).append(part)
    return groups


def _with_constants(
    call: Call, index: int, before: Sequence[Any], behind: Sequence[Any]
) -> Step:
    """The step from one of the call's tensors to it between constants."""
    shape = image_shape(call.inputs[index].shape)[1:]
    weights = tuple(_as_channels(call, index, side) for side in (before, behind))
    return Step("ConstantChannels", {"shape": shape}, weights, inputs=(index,))


def _as_channels(call: Call, index: int, parts: Iterable[Any]) -> np.ndarray:
    """Constants as channels of one tensor, see `Step.kind`."""
    positions = tuple(call.inputs[index].shape)[1:-1]
    found = [np.zeros(0)]
    for part in parts:
        values = of_each_image(part, (*positions, np.shape(part)[-1]))
        if values is None:
            refuse_layer(
                call.layer,
                f"it joins a constant of shape {np.shape(part)}; expected one that "
                "broadcasts to its tensors' shape, for every image the same",
            )
        found.append(values)
    common = np.broadcast_shapes(*(values.shape[:-1] for values in found))
    spread = [np.broadcast_to(x, (*common, x.shape[-1])) for x in found]
    return np.concatenate(spread, axis=-1)


ARITHMETIC: dict[str, Callable[[Call], list[Step]]] = {
    # Keras 3 operations; some share their name with the layer of that meaning.
    "Add": _add,
    "Concatenate": concatenate,
    "Divide": _divide,
    "Multiply": _multiply,
    "Negative": _negative,
    "Subtract": _subtract,
    "TrueDivide": _divide,
    # TensorFlow functions.
    "tf.__operators__.add": _add,
    "tf.concat": concatenate,
    "tf.math.add": _add,
    "tf.math.divide": _divide,
    "tf.math.multiply": _multiply,
    "tf.math.negative": _negative,
    "tf.math.subtract": _subtract,
    "tf.math.truediv": _divide,
}
