"""Functions and operations -> steps.

Written as layers, as operations of Keras 3 or as TensorFlow functions that tf_keras
wraps into layers, they mean the same and end in the same steps.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Any, SupportsFloat, TypeAlias, TypeGuard

import numpy as np
import tensorflow as tf

from gdfq_tf.frontend.arithmetic_importers import ARITHMETIC
from gdfq_tf.frontend.bound_importers import BOUNDS
from gdfq_tf.frontend.movement_importers import MOVEMENTS
from gdfq_tf.frontend.reduction_importers import REDUCTIONS
from gdfq_tf.frontend.steps import (
    Call,
    Step,
    call_parameters,
    class_name,
    refuse_layer,
    reshape_step,
)
from gdfq_tf.graph.layers import hard_swish
from gdfq_tf.keras_compat import Layer
from gdfq_tf.model_files.layer_arguments import ACTIVATION_LAYERS

# An activation function, or its name.
Function: TypeAlias = Callable[..., Any] | str | None

# ---- functions of one tensor


def activation_steps(call: Call, function: Function, suffix: str = "") -> list[Step]:
    """The steps of an activation function behind the steps of a call's layer.

    Args:
      call: of the layer that has the activation.
      function: a callable of Keras, or its name.
      suffix: of the last step.
    """
    layer = call.layer
    if type(function).__name__ in ACTIVATION_LAYERS:
        return [function_step(layer, function, suffix)]
    name = function
    if not isinstance(name, str):
        name = getattr(function, "__name__", type(function).__name__)
    if function is None or name == "linear":
        return []
    if name == "hard_sigmoid":
        # Keras 2 and 3 mean different functions by this name.
        slope = 0.2 if type(layer).__module__.startswith("tf_keras") else 1 / 6
        return _hard_sigmoid(slope, call.output.shape[-1], suffix)
    if name == "selu":
        return _selu(call.output.shape[-1], suffix)
    if name not in _FUNCTIONS:
        known = ", ".join(sorted(_FUNCTIONS))
        refuse_layer(layer, f"its activation is {name}; expected one of {known}")
    return _FUNCTIONS[name](suffix)


def _hard_sigmoid(slope: float, channels: int, suffix: str) -> list[Step]:
    weights = np.full(channels, slope), np.full(channels, 0.5)
    line = Step("Affine", weights=weights, suffix=f"{suffix}_line")
    return [line, *_clipped(1.0)(suffix)]


# Of SELU, by its authors.
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def elu(alpha: SupportsFloat, suffix: str = "") -> list[Step]:
    """Alpha * (exp(x) - 1) below zero, x above it.

    TFLite has it of alpha 1 alone: what is below zero stays there, and is multiplied.
    """
    function = Step("Activation", {"activation": "elu"}, suffix=suffix)
    if float(alpha) == 1:
        return [function]
    return [dataclasses.replace(function, suffix="_elu"), _leaky_relu(alpha, suffix)]


def _selu(channels: int, suffix: str) -> list[Step]:
    weights = np.full(channels, _SELU_SCALE), np.zeros(channels)
    scaled = Step("Affine", weights=weights, suffix=suffix)
    return [*elu(_SELU_ALPHA, f"{suffix}_unscaled"), scaled]


def _clipped(max_value: float | None) -> Callable[[str], list[Step]]:
    return lambda suffix: [Step("ReLU", {"max_value": max_value}, suffix=suffix)]


def _named(function: Function) -> Callable[[str], list[Step]]:
    return lambda suffix: [Step("Activation", {"activation": function}, suffix=suffix)]


# Of the functions of either Keras and of TensorFlow; of the layers it is 0.3.
_DEFAULT_SLOPE = 0.2


def _leaky_relu(slope: SupportsFloat, suffix: str = "") -> Step:
    return Step("LeakyReLU", {"alpha": float(slope)}, suffix=suffix)


def _swish(suffix: str) -> list[Step]:
    gate = Step("Activation", {"activation": "sigmoid"}, suffix=f"{suffix}_sigmoid")
    return [gate, Step("Multiply", suffix=suffix, inputs=(-2, -1))]


_FUNCTIONS: dict[str, Callable[[str], list[Step]]] = {
    "elu": _named("elu"),
    "gelu": _named("gelu"),
    "hard_silu": _named(hard_swish),
    "hard_swish": _named(hard_swish),
    "leaky_relu": lambda suffix: [_leaky_relu(_DEFAULT_SLOPE, suffix)],
    "relu": _clipped(None),
    "relu6": _clipped(6.0),
    "sigmoid": _named("sigmoid"),
    "silu": _swish,
    "softmax": lambda suffix: [Step("Softmax", suffix=suffix)],
    "swish": _swish,
    "tanh": _named("tanh"),
}


def function_step(layer: Layer, function: Layer, suffix: str = "") -> Step:
    """The step of an object of one of `ACTIVATION_LAYERS`.

    Args:
      layer: the object itself, or what has it as its activation.
      function: the object.
      suffix: of the step.
    """
    if type(function).__name__ == "LeakyReLU":
        # Keras 3's name and Keras 2's.
        slope = getattr(function, "negative_slope", None)
        return _leaky_relu(function.alpha if slope is None else slope, suffix)
    _check_value(layer, "threshold", function.threshold or 0.0, 0.0)
    if float(function.negative_slope or 0):
        _check_value(layer, "max_value, beside a slope,", function.max_value, None)
        return _leaky_relu(function.negative_slope, suffix)
    if function.max_value is None:
        return Step("ReLU", {"max_value": None}, suffix=suffix)
    if not function.max_value > 0:
        refuse_layer(
            layer, f"its max_value is {function.max_value}; expected a positive one"
        )
    return Step("ReLU", {"max_value": float(function.max_value)}, suffix=suffix)


def _function(name: str) -> Callable[[Call], list[Step]]:
    def translate(call: Call) -> list[Step]:
        _check_parameters(call)
        return activation_steps(call, name)

    return translate


def _check_parameters(call: Call) -> None:
    """Refuses what makes a function of one tensor another one."""
    expected = {"approximate": False, "axis": -1, "beta": 1.0}
    parameters = call_parameters(call)
    for name, value in expected.items():
        if parameters.get(name) is not None:
            _check_value(call.layer, name, parameters[name], value)


def _check_value(layer: Layer, name: str, found: object, expected: object) -> None:
    if found != expected:
        refuse_layer(layer, f"its {name} is {found}; expected {expected}")


def _leaky_relu_operation(slope_name: str) -> Callable[[Call], list[Step]]:
    return lambda call: [
        _leaky_relu(call_parameters(call).get(slope_name, _DEFAULT_SLOPE))
    ]


# ---- shapes


def _pad(call: Call) -> list[Step]:
    parameters = call_parameters(call)
    pads = parameters.get("paddings", parameters.get("pad_width"))
    shape = tuple(call.inputs[0].shape)
    constant = str(parameters.get("mode")).lower() == "constant"
    if not constant or parameters.get("constant_values") or len(shape) != 4:
        refuse_layer(call.layer, "expected zero padding of (height, width, channels)")
    _, *spatial, channels = (tuple(map(int, pair)) for pair in np.asarray(pads))
    steps = []
    if any(map(any, spatial)):
        steps.append(Step("ZeroPadding2D", {"padding": tuple(spatial)}))
    if any(channels):
        positions = int(np.prod(tuple(call.output.shape)[1:3]))
        padding = Step("ZeroPadding2D", {"padding": ((0, 0), channels)})
        steps += _on_channels(padding, positions, shape[3], call.output.shape)
    return steps


def _get_item(call: Call) -> list[Step]:
    """x[:, a:b:s, c:d:t, e:f] and other plain indices, x[..., :8] or x[:, None, None].

    Crops, then every s-th row and t-th column, then the shape that integers and None
    ask for.
    """
    shape, out = tuple(call.inputs[0].shape), tuple(call.output.shape)
    spec = call_parameters(call).get("slice_spec", call.arguments[-1])
    items = list(spec) if isinstance(spec, (list, tuple)) else [spec]
    taken = f"it takes {items} of {shape}"
    slices = _slices(items, len(shape))
    if slices is None or not 2 <= len(shape) <= 4 or slices[0] != slice(None):
        refuse_layer(
            call.layer,
            f"{taken}; expected slices, integers, … and None, of every image the same",
        )
    sizes = _as_image(shape[1:], 1)
    slices = _as_image(slices[1:], slice(None))
    bounds = [s.indices(n) for s, n in zip(slices, sizes, strict=True)]
    counts = [len(range(*bound)) for bound in bounds]
    every = tuple(step for _, _, step in bounds)
    if min(every) < 1 or every[2] > 1 or not all(counts):
        refuse_layer(
            call.layer,
            f"{taken}; expected positive steps over height and width, none over "
            "channels, and something left",
        )
    crops = tuple(
        (start, size - max(start, stop))
        for (start, stop, _), size in zip(bounds, sizes, strict=True)
    )
    steps = []
    if any(map(any, crops[:2])):
        steps.append(Step("Cropping2D", {"cropping": crops[:2]}, suffix="_crop"))
    if max(every) > 1:
        pool = {"pool_size": 1, "strides": every[:2], "padding": "valid"}
        steps.append(Step("AveragePooling2D", pool, suffix="_every"))
    if any(crops[2]):
        crop = Step("Cropping2D", {"cropping": ((0, 0), crops[2])})
        steps += _on_channels(crop, counts[0] * counts[1], sizes[2], out)
    elif len(out) != len(shape) or None in items:
        steps.append(reshape_step(out))
    return steps


def _slices(items: Iterable[object], rank: int) -> list[slice] | None:
    """The slices of an index, one per dimension; None if it is not made of such.

    Integers are slices of one, and dimensions that None adds are left out.
    """
    slices: list[Any] = [_as_slice(item) for item in items if item is not None]
    rest = [slice(None)] * (rank - len(slices) + (Ellipsis in slices))
    if Ellipsis in slices:
        where = slices.index(Ellipsis)
        slices[where : where + 1] = rest
    else:
        slices += rest
    return slices if all(isinstance(s, slice) for s in slices) else None


def _as_slice(item: object) -> object:
    """A slice of Keras 3, or of tf_keras, which stores it as a dict; `...` as it is."""
    if isinstance(item, dict):
        item = slice(item["start"], item["stop"], item["step"])
    if _is_integer(item):
        return slice(item, item + 1 or None)
    if isinstance(item, slice):
        parts = (item.start, item.stop, item.step)
        return item if all(x is None or _is_integer(x) for x in parts) else None
    return item if item is Ellipsis else None


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _as_image(values: Sequence[Any], filler: object) -> list[Any]:
    """What there is for each dimension -> for height, width and channels.

    Units are images of one position, signals images of width 1.
    """
    *spatial, channels = values
    return [*spatial, *[filler] * (2 - len(spatial)), channels]


def _on_channels(
    step: Step, positions: int, channels: int, output_shape: Iterable[int | None]
) -> list[Step]:
    """A step over height and width applied to (positions, channels) instead."""
    return [
        Step("Reshape", {"target_shape": (positions, channels, 1)}, suffix="_rows"),
        dataclasses.replace(step, suffix="_channels"),
        reshape_step(output_shape),
    ]


# ---- behind the scores of classes


def is_cast_to_real(call: Call) -> bool:
    """Whether a call changes the precision of real numbers and nothing else."""
    is_cast = class_name(call.layer) in ("Cast", "tf.cast")
    dtype = call_parameters(call).get("dtype") if is_cast else None
    return is_cast and tf.as_dtype(dtype).is_floating


def _post_processing(call: Call) -> list[Step]:
    """None, of a cast between precisions; classes out of scores are no layer's work."""
    if not is_cast_to_real(call) or call.inputs[0].dtype == "bool":
        refuse_layer(
            call.layer,
            "it makes other things of numbers; expected it at the end of a classifier "
            "only, which is taken up to the scores of its classes",
        )
    return []


# Those may stand behind a classifier's scores.
POST_PROCESSING = (
    *("Argmax", "Cast", "Greater", "GreaterEqual", "TopK"),
    *("tf.cast", "tf.math.argmax", "tf.math.greater", "tf.math.greater_equal"),
    "tf.math.top_k",
)

OPERATIONS: dict[str, Callable[[Call], list[Step]]] = {
    **ARITHMETIC,
    **BOUNDS,
    **MOVEMENTS,
    **REDUCTIONS,
    # Keras 3 operations; some share their name with the layer of that meaning.
    "GetItem": _get_item,
    "Pad": _pad,
    **{
        name: _function(function)
        for name, function in {
            "Gelu": "gelu",
            "HardSigmoid": "hard_sigmoid",
            "HardSilu": "hard_silu",
            "Relu": "relu",
            "Relu6": "relu6",
            "Selu": "selu",
            "Sigmoid": "sigmoid",
            "Silu": "silu",
            "Softmax": "softmax",
            "Tanh": "tanh",
        }.items()
    },
    "Elu": lambda call: elu(call_parameters(call).get("alpha", 1.0)),
    "LeakyRelu": _leaky_relu_operation("negative_slope"),
    **dict.fromkeys(POST_PROCESSING, _post_processing),
    # TensorFlow functions.
    "tf.__operators__.getitem": _get_item,
    "tf.compat.v1.pad": _pad,
    "tf.nn.leaky_relu": _leaky_relu_operation("alpha"),
    "tf.pad": _pad,
    **{
        f"tf.{name}": _function(function)
        for name, function in {
            "keras.activations.gelu": "gelu",
            "keras.activations.swish": "swish",
            "math.sigmoid": "sigmoid",
            "math.tanh": "tanh",
            "nn.elu": "elu",
            "nn.gelu": "gelu",
            "nn.relu": "relu",
            "nn.relu6": "relu6",
            "nn.selu": "selu",
            "nn.silu": "swish",
            "nn.softmax": "softmax",
        }.items()
    },
}
