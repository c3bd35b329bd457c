"""The inputs of a model by the names that its author knows, and constants for them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from gdfq_tf.errors import UserError, option
from gdfq_tf.keras_compat import KerasModel, SymbolicTensor, library_of_model
from tflite_export.names import listed, shown

# One image of them, by the names of the input layers.
Constants: TypeAlias = Mapping[str, npt.NDArray[np.float32]]


def read_constants(model: KerasModel, given: Mapping[str, npt.ArrayLike]) -> Constants:
    """Constants for some of a model's inputs, each of its input's shape.

    Args:
      model: of either Keras.
      given: by the key of the dict that an input stands in or its name: one number,
        or what broadcasts to the input's shape without the batch.

    Raises:
      UserError: there is no such input, or a value is not finite or does not fit.
    """
    tensors = getattr(model, "inputs", None) or []
    inputs = {_name(tensor): tensor for tensor in tensors}
    keys = getattr(model, "input", None) if tensors else None
    known = inputs | (keys if isinstance(keys, dict) else {})
    for name in given:
        if name not in known:
            raise UserError(
                f"{option('constant_inputs')} names {shown(name)}, which is no input "
                f"of model {shown(model.name)}; expected one of {listed(inputs)}"
            )
    return {
        _name(known[name]): _constant(name, known[name], value)
        for name, value in given.items()
    }


def image_input(model: KerasModel, constants: Constants) -> SymbolicTensor:
    """The input that is not bound.

    Args:
      model: whose inputs all matter.
      constants: for the others, see `read_constants`.

    Raises:
      UserError: there is none, or more than one.
    """
    free = {_name(x): x for x in model.inputs if _name(x) not in constants}
    if not free:
        raise UserError(
            f"{option('constant_inputs')} binds {listed(constants)}, all that the "
            f"outputs of model {shown(model.name)} depend on; expected one input to be "
            "left, for images"
        )
    if len(free) > 1:
        likely = max(free, key=lambda name: _num_values(free[name]))
        others = {_name(x): 1 for x in model.inputs if _name(x) != likely}
        raise UserError(
            f"model {shown(model.name)} has {len(free)} inputs that its outputs depend "
            f"on, {listed(free)}; expected one, for images: if the others are always "
            f"the same, bind them to what they are, as in "
            f"{option('constant_inputs', others)}, or train it on the images alone"
        )
    (image,) = free.values()
    return image


def bound_inputs(
    model: KerasModel, constants: Constants, count: int
) -> list[tuple[SymbolicTensor, tf.Tensor]]:
    """The inputs that are constant, and what they are for so many images."""
    return [
        (x, _of_batch(constants[_name(x)], x, count))
        for x in model.inputs
        if _name(x) in constants
    ]


def outputs_on(
    model: KerasModel, images: npt.NDArray[np.float32], constants: Constants
) -> npt.NDArray[np.float32]:
    """What a model of one output gives on images beside constants."""
    if not constants:
        return np.asarray(model(images, training=False), np.float32)
    values = {id(x): value for x, value in bound_inputs(model, constants, len(images))}
    # Whatever structure the model's own inputs stand in.
    on_list = library_of_model(model).Model(model.inputs, model.outputs[0])
    # Keras 3 takes no arrays beside tensors.
    given = [values.get(id(x), tf.constant(images)) for x in model.inputs]
    return np.asarray(on_list(given, training=False), np.float32)


def in_words_of_constants(constants: Constants) -> dict[str, float | str]:
    """Constants as summaries state them: a number, or the shape and range of many."""
    return {
        name: float(values.flat[0])
        if np.ptp(values) == 0
        else f"{values.shape} of {values.min():.6g} to {values.max():.6g}"
        for name, values in constants.items()
    }


def _constant(
    name: str, tensor: SymbolicTensor, value: npt.ArrayLike
) -> npt.NDArray[np.float32]:
    shape = tuple(tensor.shape)[1:]
    what = f"{option('constant_inputs')} gives input {shown(name)}"
    try:
        values = np.asarray(value, np.float32)
    except (TypeError, ValueError):
        raise UserError(
            f"{what} {shown(str(value)[:80])}; expected a number or an array of them"
        ) from None
    if not np.isfinite(values).all():
        raise UserError(f"{what} values that are not finite; expected finite numbers")
    try:
        return np.broadcast_to(values, shape)
    except (TypeError, ValueError):  # the input has open dimensions, or others
        raise UserError(
            f"{what} values of shape {values.shape}; expected one number or what "
            f"broadcasts to its shape without the batch, {shape}"
        ) from None


def _of_batch(
    values: npt.NDArray[np.float32], tensor: SymbolicTensor, count: int
) -> tf.Tensor:
    return tf.cast(np.broadcast_to(values, (count, *values.shape)), tensor.dtype)


def _name(tensor: SymbolicTensor) -> str:
    return tensor._keras_history[0].name


def _num_values(tensor: SymbolicTensor) -> float:
    sizes: Iterable[int | None] = tuple(tensor.shape)[1:]
    return math.prod(math.inf if size is None else size for size in sizes)
