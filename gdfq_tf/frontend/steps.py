"""The terms in which a source layer is translated: calls in, steps out."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np

from gdfq_tf.errors import UserError
from gdfq_tf.keras_compat import Layer, SymbolicTensor
from gdfq_tf.model_files.model_spec import qualified_class_name
from tflite_export.names import listed, shown


@dataclasses.dataclass(frozen=True)
class Step:
    """One primitive layer among those that replace a source layer.

    Attributes:
      kind: class name in `tf_keras.layers` or `layers`, or "Affine": y = scale * x +
        offset, weights scale and offset float64 (channels,), or "Resizing" with the
        source's own layer in its config; `folding` replaces those.
      config: arguments of the class.
      weights: in the order of `layer.get_weights()`, float32.
      suffix: added to the source layer's name; the step that keeps it has none.
      inputs: what it takes, as indices into the call's inputs followed by the
        outputs of the steps so far; None: the output of the step before, or all
        inputs of the call.
    """

    kind: str
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    weights: tuple[np.ndarray, ...] = ()
    suffix: str = ""
    inputs: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a source layer, operation or nested model.

    Attributes:
      layer: what was called.
      inputs: the symbolic tensors it was called on, in order.
      output: the symbolic tensor it gave, or one of them.
      arguments: what it was called with by position, constants as they are.
      keywords: what it was called with by name.
      outputs: all symbolic tensors it gave.
      num_hidden: leading dimensions, the batch left out, that the layer itself does
        not see: a TimeDistributed around it does.
    """

    layer: Layer
    inputs: tuple[SymbolicTensor, ...]
    output: SymbolicTensor
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = dataclasses.field(default_factory=dict)
    outputs: tuple[SymbolicTensor, ...] = ()
    num_hidden: int = 0


def class_name(layer: Layer) -> str:
    """What a layer or operation is known as, see `qualified_class_name`."""
    return qualified_class_name(type(layer).__name__, getattr(layer, "symbol", None))


def is_symbolic(value: object) -> bool:
    """Whether a value is a tensor of the model's graph, not a constant."""
    return hasattr(value, "_keras_history")


def operands(call: Call) -> list[Any]:
    """Tensors and constants that an arithmetic layer or operation combines."""
    given = (*call.arguments, *call.keywords.values())
    values = [v for v in given if v is not None and not isinstance(v, str)]
    if len(values) == 1 and isinstance(values[0], (list, tuple)):
        return list(values[0])  # merging layers take one list
    return values


def check_dimensions(call: Call) -> None:
    """Refuses what has more dimensions than images."""
    shape = tuple(call.inputs[0].shape)
    if len(shape) > 4:
        refuse_layer(
            call.layer,
            f"its input is {shape}; expected units, images or signals: put a Reshape "
            "before it",
        )


def per_channel(call: Call, value: object, what: str) -> np.ndarray:
    """A constant as float64 (channels,).

    Raises:
      UserError: it is not one number, or one for each channel.
    """
    channels = call.inputs[-1].shape[-1]
    values = np.asarray(value, np.float64)
    if values.size != 1 and not values.size == values.shape[-1] == channels:
        refuse_layer(
            call.layer,
            f"its {what} has shape {values.shape}; expected one number or one for "
            f"each of the {channels} channels",
        )
    return np.broadcast_to(values.ravel(), (channels,)).copy()


def affine(
    call: Call,
    *,
    scale: object = 1.0,
    offset: object = 0.0,
    suffix: str = "",
    inputs: tuple[int, ...] | None = None,
) -> Step:
    """The step y = scale * x + offset; `suffix` and `inputs` are those of `Step`."""
    check_dimensions(call)
    weights = per_channel(call, scale, "factor"), per_channel(call, offset, "offset")
    return Step("Affine", weights=weights, suffix=suffix, inputs=inputs)


def call_parameters(call: Call) -> dict[str, Any]:
    """The parameters of an operation by name, wherever Keras keeps them."""
    if class_name(call.layer).startswith("tf."):
        signature = inspect.signature(call.layer.function)
        bound = signature.bind(*call.arguments, **call.keywords)
        bound.apply_defaults()
        return bound.arguments
    return vars(call.layer) | call.keywords


def check_same_shapes(call: Call) -> None:
    """Refuses what broadcasts."""
    shapes = [tuple(tensor.shape) for tensor in call.inputs]
    if len(shapes) < 2 or len(set(shapes)) != 1:
        refuse_layer(
            call.layer, f"it combines {shapes}; expected 2 or more of one shape"
        )


def image_shape(shape: Iterable[int | None]) -> tuple[int | None, ...]:
    """The shape, batch dimension included, that a source tensor has after translation.

    Signals (N, time, features) become images of width 1, (N, time, 1, features).
    """
    shape = tuple(shape)
    return shape if len(shape) != 3 else (*shape[:2], 1, shape[2])


def reshape_step(shape: Iterable[int | None], suffix: str = "") -> Step:
    """The step to a shape that is given with its batch dimension."""
    return Step("Reshape", {"target_shape": image_shape(shape)[1:]}, suffix=suffix)


def refuse(name: str, class_name: str, reason: str) -> NoReturn:
    """Raises the UserError of a layer that cannot be translated."""
    raise UserError(
        f"layer {shown(name)} ({listed([class_name])}) is not supported: {reason}"
    )


def refuse_layer(layer: Layer, reason: str) -> NoReturn:
    """`refuse` for a layer object."""
    refuse(layer.name, class_name(layer), reason)
