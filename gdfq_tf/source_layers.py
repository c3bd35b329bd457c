"""Source layer -> chain of primitive layers: what each Keras class becomes.

One entry of `_TRANSLATORS` per supported class. Keras 3 and tf_keras share class
names, attribute names and the order of `get_weights()`, so an entry serves both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from gdfq_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class Step:
    """One primitive layer of the chain that replaces a source layer.

    Attributes:
      kind: class name in `tf_keras.layers`.
      config: arguments of the class.
      weights: in the order of `layer.get_weights()`, float32.
      suffix: added to the source layer's name; the step that keeps it has none.
    """

    kind: str
    config: dict[str, Any]
    weights: tuple[np.ndarray, ...] = ()
    suffix: str = ""


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a source layer: symbolic tensors in, one symbolic tensor out."""

    layer: Any
    inputs: tuple[Any, ...]
    output: Any


def translate(call: Call) -> list[Step]:
    """The steps of a source layer; none if it is the identity at inference.

    Raises:
      UserError: names the layer, why it has no counterpart and what to do.
    """
    layer = call.layer
    check_layer(layer.name, type(layer).__name__)
    if getattr(layer, "data_format", None) == "channels_first":
        _refuse(layer, "it is channels_first; expected channels_last")
    # Keras 3's quantized layers differ in the policy's name alone.
    policy = getattr(getattr(layer, "dtype_policy", None), "name", "float32")
    if policy != "float32" and call.inputs:
        _refuse(
            layer,
            f"its dtype policy is {policy}; build the model under the float32 policy, "
            "load the weights into it and save that",
        )
    if not all(np.isfinite(w).all() for w in _weights(layer)):
        _refuse(layer, "its weights hold NaN or infinity; train it again")
    return _TRANSLATORS[type(layer).__name__](call)


def check_layer(name: str, class_name: str) -> None:
    """Raises UserError unless layers of this class can be translated."""
    if class_name not in _TRANSLATORS:
        supported = ", ".join(sorted(_TRANSLATORS.keys() - _IDENTITIES))
        default = f"supported are {supported} and what is the identity at inference"
        refuse(name, class_name, _REASONS.get(class_name, default))


def refuse(name: str, class_name: str, reason: str) -> NoReturn:
    """Raises the UserError of a layer that cannot be translated."""
    raise UserError(f"layer {name!r} ({class_name}) is not supported: {reason}")


def _refuse(layer: Any, reason: str) -> NoReturn:
    refuse(layer.name, type(layer).__name__, reason)


def _weights(layer: Any) -> tuple[np.ndarray, ...]:
    if not getattr(layer, "weights", ()):  # Keras 3 operations have no get_weights
        return ()
    return tuple(np.asarray(w, np.float32) for w in layer.get_weights())


def _config(layer: Any, *attributes: str) -> dict[str, Any]:
    return {attribute: getattr(layer, attribute) for attribute in attributes}


def _activation(layer: Any) -> list[Step]:
    """The steps of a layer's `activation` argument."""
    # A fused activation is named after its layer, an Activation layer keeps its name.
    separate = type(layer).__name__ == "Activation"
    function = layer.activation
    if type(function).__name__ == "ReLU":
        return [_relu(layer, function, "" if separate else "_relu")]
    name = getattr(function, "__name__", type(function).__name__)
    suffix = "" if separate else f"_{name}"
    if function is None or name == "linear":
        return []
    if name in ("relu", "relu6"):
        max_value = 6.0 if name == "relu6" else None
        return [Step("ReLU", {"max_value": max_value}, suffix=suffix)]
    if name == "softmax":
        return [Step("Softmax", {}, suffix=suffix)]
    reason = f"its activation is {name}; expected relu, relu6, linear or a last softmax"
    if name == "sigmoid":
        reason += " over 2 or more classes: train it with that head instead"
    _refuse(layer, reason)


def _relu(layer: Any, relu: Any, suffix: str = "") -> Step:
    """The step of a ReLU object: `layer` itself or its activation."""
    if float(relu.negative_slope or 0) or float(relu.threshold or 0):
        _refuse(layer, "expected a ReLU with negative_slope 0 and threshold 0")
    if relu.max_value is None:
        return Step("ReLU", {"max_value": None}, suffix=suffix)
    if not relu.max_value > 0:
        _refuse(layer, f"its max_value is {relu.max_value}; expected a positive one")
    return Step("ReLU", {"max_value": float(relu.max_value)}, suffix=suffix)


_WINDOW = ("kernel_size", "strides", "padding", "dilation_rate")


def _conv2d(call: Call) -> list[Step]:
    layer = call.layer
    if layer.groups != 1:
        _refuse(layer, f"it has {layer.groups} groups; use 1, or DepthwiseConv2D")
    config = _config(layer, "filters", "use_bias", *_WINDOW)
    return [Step("Conv2D", config, _weights(layer)), *_activation(layer)]


def _depthwise_conv2d(call: Call) -> list[Step]:
    layer = call.layer
    config = _config(layer, "depth_multiplier", "use_bias", *_WINDOW)
    return [Step("DepthwiseConv2D", config, _weights(layer)), *_activation(layer)]


def _separable_conv2d(call: Call) -> list[Step]:
    layer = call.layer
    depthwise, *pointwise = _weights(layer)
    first = _config(layer, "depth_multiplier", *_WINDOW) | {"use_bias": False}
    second = _config(layer, "filters", "use_bias") | {"kernel_size": 1}
    return [
        Step("DepthwiseConv2D", first, (depthwise,), "_depthwise"),
        Step("Conv2D", second, tuple(pointwise)),
        *_activation(layer),
    ]


def _dense(call: Call) -> list[Step]:
    layer, shape = call.layer, tuple(call.inputs[0].shape)
    if len(shape) != 2:
        _refuse(
            layer,
            f"its input is {shape}, expected (None, units); put a Flatten or pooling "
            "layer before it or make it a 1x1 Conv2D",
        )
    config = _config(layer, "units", "use_bias")
    return [Step("Dense", config, _weights(layer)), *_activation(layer)]


def _batch_normalization(call: Call) -> list[Step]:
    layer = call.layer
    _check_last_axis(call)
    *gamma_beta, mean, variance = _weights(layer)
    gamma = gamma_beta.pop(0) if layer.scale else np.ones_like(mean)
    beta = gamma_beta.pop(0) if layer.center else np.zeros_like(mean)
    weights = (gamma, beta, mean, variance)
    return [Step("BatchNormalization", _config(layer, "epsilon"), weights)]


def _check_last_axis(call: Call) -> None:
    axis = call.layer.axis
    if not isinstance(axis, int):  # tf_keras' BatchNormalization holds a list
        (axis,) = axis
    if axis not in (-1, len(call.output.shape) - 1):
        _refuse(call.layer, f"it works on axis {axis}; expected the last one")


def _softmax(call: Call) -> list[Step]:
    _check_last_axis(call)
    return [Step("Softmax", {})]


def _concatenate(call: Call) -> list[Step]:
    _check_last_axis(call)
    return [Step("Concatenate", {"axis": -1})]


def _add(call: Call) -> list[Step]:
    shapes = [tuple(tensor.shape) for tensor in call.inputs]
    if len(shapes) < 2 or len(set(shapes)) != 1:
        _refuse(call.layer, f"it adds {shapes}; expected 2 or more of one shape")
    return [Step("Add", {})]


def _pooling(call: Call) -> list[Step]:
    config = _config(call.layer, "pool_size", "strides", "padding")
    return [Step(type(call.layer).__name__, config)]


def _global_average_pooling(call: Call) -> list[Step]:
    if tuple(call.inputs[0].shape)[1:3] == (1, 1):
        # The mean of one position: nothing is computed, so nothing is rounded.
        return [_reshape(call)]
    reshape = [_reshape(call, "_reshape")] if call.layer.keepdims else []
    return [Step("GlobalAveragePooling2D", {}), *reshape]


def _reshape(call: Call, suffix: str = "") -> Step:
    shape = tuple(call.output.shape)[1:]
    return Step("Reshape", {"target_shape": shape}, suffix=suffix)


def _input(call: Call) -> list[Step]:
    return [Step("InputLayer", {"shape": tuple(call.output.shape)[1:]})]


# fmt: off
_IDENTITIES = {
    "ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout",
    "GaussianNoise", "Identity", "RandomBrightness", "RandomContrast", "RandomFlip",
    "RandomRotation", "RandomTranslation", "RandomZoom", "SpatialDropout2D",
}
# fmt: on

_TRANSLATORS: dict[str, Callable[[Call], list[Step]]] = {
    **dict.fromkeys(_IDENTITIES, lambda call: []),
    "Activation": lambda call: _activation(call.layer),
    "Add": _add,
    "AveragePooling2D": _pooling,
    "BatchNormalization": _batch_normalization,
    "Concatenate": _concatenate,
    "Conv2D": _conv2d,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise_conv2d,
    "Flatten": lambda call: [Step("Flatten", {})],
    "GlobalAveragePooling2D": _global_average_pooling,
    "InputLayer": _input,
    "MaxPooling2D": _pooling,
    "ReLU": lambda call: [_relu(call.layer, call.layer)],
    "Reshape": lambda call: [_reshape(call)],
    "SeparableConv2D": _separable_conv2d,
    "Softmax": _softmax,
    "ZeroPadding2D": lambda call: [
        Step("ZeroPadding2D", _config(call.layer, "padding"))
    ],
}

_NESTED = "it is a model inside a model; call its layers on the outer input instead"
_OPERATOR = (
    "it is a Python operator or a tf function; use the layer of that meaning, such as "
    "keras.layers.Add"
)
_SCALING = "remove it, save again and pass what it did with --preprocessing"

_REASONS = {
    "Functional": _NESTED,
    "Lambda": "it holds Python code, which is never run; use standard layers instead",
    "LayerNormalization": "GDFQ needs BatchNormalization, with stored statistics",
    "Model": _NESTED,
    "Multiply": "products of activations (squeeze-and-excitation) have no integer "
    "counterpart here; use a variant of the network without them",
    "Normalization": _SCALING,
    "Rescaling": _SCALING,
    "Sequential": _NESTED,
    "SlicingOpLambda": _OPERATOR,
    "TFOpLambda": _OPERATOR,
}
