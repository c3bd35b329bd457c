"""Operations that move values -> steps: transpositions, splits, other shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gdfq_tf.frontend.steps import (
    Call,
    Step,
    call_parameters,
    image_shape,
    refuse_layer,
    reshape_step,
)

# Where the dimensions of a signal (batch, time, features) are in its image.
_IN_IMAGE = (0, 1, 3)


def _transposing(
    transposed: Callable[[np.ndarray, Mapping[str, Any]], np.ndarray],
) -> Callable[[Call], list[Step]]:
    """The translator of an operation that gives dimensions another order.

    `transposed`: what it does, of an array and by the operation's parameters.
    """

    def translate(call: Call) -> list[Step]:
        # Dimensions that are as large as their numbers tell where they go.
        numbered = np.empty(tuple(range(len(call.output.shape))))
        batch, *order = transposed(numbered, call_parameters(call)).shape
        if batch != 0:
            refuse_layer(call.layer, "it moves the images of a batch; expected it not")
        if len(order) == 2:
            first, second = (_IN_IMAGE[dimension] for dimension in order)
            order = [first, 2, second]
        if order == sorted(order):
            return []
        return [Step("Permute", {"dims": tuple(order)})]

    return translate


permute = _transposing(lambda x, given: x.transpose(0, *given["dims"]))


def reshape(call: Call) -> list[Step]:
    """Any change of shape that keeps the values and their order."""
    return [reshape_step(call.output.shape)]


def _split(call: Call) -> list[Step]:
    """The part that `call.output` is."""
    axis = call_parameters(call).get("axis", 0) % len(call.output.shape)
    if axis == 0:
        refuse_layer(call.layer, "it splits the batch; expected another axis")
    sizes = [part.shape[axis] for part in call.outputs]
    index = call.output._keras_history[2]
    return _crop(call, axis, sum(sizes[:index]), sum(sizes[index + 1 :]))


def _crop(call: Call, axis: int, before: int, after: int) -> list[Step]:
    """What is left of one dimension of a tensor of any number of them."""
    shape = tuple(call.inputs[0].shape)
    rows = (math.prod(shape[1:axis]), shape[axis], math.prod(shape[axis + 1 :]))
    return [
        Step("Reshape", {"target_shape": rows}, suffix="_rows"),
        Step("Cropping2D", {"cropping": ((0, 0), (before, after))}, suffix="_crop"),
        reshape_step(call.output.shape),
    ]


def center_crop(call: Call) -> list[Step]:
    """The middle of images; as Keras has it, one more of an odd margin is behind."""
    layer, (_, height, width, _) = call.layer, image_shape(call.inputs[0].shape)
    margins = height - layer.height, width - layer.width
    if min(margins) < 0:
        refuse_layer(
            layer,
            f"it crops {height} x {width} to {layer.height} x {layer.width}, which "
            "enlarges them; expected no more than there is: use Resizing",
        )
    if not any(margins):
        return []
    cropping = tuple((margin // 2, margin - margin // 2) for margin in margins)
    return [Step("Cropping2D", {"cropping": cropping})]


def random_crop(call: Call) -> list[Step]:
    """A crop, where at inference it is no more than that.

    Keras 2 resizes the largest window of that shape then, Keras 3 leaves all as it is.
    """
    layer, (_, height, width, _) = call.layer, image_shape(call.inputs[0].shape)
    left = height, width
    if type(layer).__module__.startswith("tf_keras"):
        left = (
            min(height, width * layer.height // layer.width),
            min(width, height * layer.width // layer.height),
        )
    if left != (layer.height, layer.width):
        refuse_layer(
            layer,
            f"at inference it leaves {left[0]} x {left[1]} of {height} x {width}, not "
            f"{layer.height} x {layer.width}; expected what needs no resizing: put "
            "CenterCrop in its place",
        )
    return center_crop(call)


MOVEMENTS: dict[str, Callable[[Call], list[Step]]] = {
    # Keras 3 operations.
    "ExpandDims": reshape,
    "Moveaxis": _transposing(
        lambda x, given: np.moveaxis(x, given["source"], given["destination"])
    ),
    "Reshape": reshape,
    "Split": _split,
    "Squeeze": reshape,
    "Swapaxes": _transposing(
        lambda x, given: x.swapaxes(given["axis1"], given["axis2"])
    ),
    "Transpose": _transposing(lambda x, given: x.transpose(given["axes"])),
    # TensorFlow functions.
    "tf.compat.v1.squeeze": reshape,
    "tf.compat.v1.transpose": _transposing(
        lambda x, given: x.transpose(given.get("perm"))
    ),
    "tf.expand_dims": reshape,
    "tf.reshape": reshape,
    "tf.split": _split,
}
