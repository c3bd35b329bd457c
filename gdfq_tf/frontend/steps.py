"""The terms in which a source layer is translated: calls in, steps out."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from gdfq_tf.errors import UserError
from gdfq_tf.keras_compat import Layer, SymbolicTensor
from gdfq_tf.model_files.model_spec import qualified_class_name
from tflite_export.names import listed, shown


@dataclasses.dataclass(frozen=True)
class Step:
    """One primitive layer among those that replace a source layer.

    Attributes:
      kind: class name in `tf_keras.layers` or `layers`, or one that is replaced before
        anything is built. "Affine": y = scale * x + offset, weights scale and offset
        float64 (channels,), or of the tensor's shape. "ConstantChannels": its weights,
        likewise, are channels before and behind those of the tensor, whose shape is in
        its config. "Resizing": the source's own layer is in its config.
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


def constants(call: Call) -> list[np.ndarray]:
    """The operands that are no tensors, float64.

    Raises:
      UserError: they spread the tensors over a larger shape.
    """
    found = [np.asarray(x, np.float64) for x in operands(call) if not is_symbolic(x)]
    shapes = [tuple(tensor.shape)[1:] for tensor in call.inputs]
    spread = tuple(call.output.shape)[1:]
    if found and spread not in shapes:
        refuse_layer(
            call.layer,
            f"its constant spreads {listed(map(str, shapes))} over {spread}; expected "
            "one that fits into the tensor's shape",
        )
    return found


def tensors_joined(kind: str, call: Call) -> list[Step]:
    """The step that makes one tensor of those beside constants; none if it is one."""
    if len(call.inputs) == 1:
        return []
    check_same_shapes(call)
    return [Step(kind, suffix="_of_tensors")]


def of_each_image(value: ArrayLike, shape: tuple[Any, ...]) -> np.ndarray | None:
    """A constant that broadcasts to a tensor's shape, which has no batch, float64.

    Returns:
      (channels,), or, if it differs from position to position, the shape that the
      tensor has after translation; None if it does not fit, or differs from image to
      image.
    """
    values = np.asarray(value, np.float64)
    if values.size == 1 or values.size == values.shape[-1] == shape[-1]:
        return np.broadcast_to(values.ravel(), shape[-1:]).copy()
    if values.ndim == len(shape) + 1 and np.all(values == values[:1]):
        values = values[0]
    try:
        values = np.broadcast_to(values, shape)
    except (TypeError, ValueError):  # the shape has open dimensions, or others
        return None
    channels = values.reshape(-1, shape[-1])
    if np.all(channels == channels[0]):
        return channels[0]
    return values.reshape(image_shape((None, *shape))[1:])


def _fitted(call: Call, value: ArrayLike, what: str) -> np.ndarray:
    """`of_each_image` for the call's output, or a refusal."""
    shape = tuple(call.output.shape)[1:]
    values = of_each_image(value, shape)
    if values is None:
        refuse_layer(
            call.layer,
            f"its {what} has shape {np.shape(value)}; expected one number, one for "
            f"each of the {shape[-1]} channels, or what broadcasts to {shape}, for "
            "every image the same",
        )
    return values


def affine(
    call: Call,
    *,
    scale: ArrayLike = 1.0,
    offset: ArrayLike = 0.0,
    suffix: str = "",
    inputs: tuple[int, ...] | None = None,
) -> Step:
    """The step y = scale * x + offset; `suffix` and `inputs` are those of `Step`."""
    check_dimensions(call)
    weights = _fitted(call, scale, "factor"), _fitted(call, offset, "offset")
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
