"""Source layer -> chain of primitive layers: what each Keras class becomes.

One entry of `_TRANSLATORS` per supported class. Keras 3 and tf_keras share class
names, attribute names and the order of `get_weights()`, so an entry serves both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from gdfq_tf.frontend.arithmetic_importers import average, concatenate
from gdfq_tf.frontend.movement_importers import (
    center_crop,
    permute,
    random_crop,
    reshape,
)
from gdfq_tf.frontend.operation_importers import (
    OPERATIONS,
    activation_steps,
    elu,
    function_step,
)
from gdfq_tf.frontend.reduction_importers import (
    adaptive_pooling,
    global_maximum,
    global_mean,
)
from gdfq_tf.frontend.refusals import is_refused, reason_against
from gdfq_tf.frontend.steps import (
    Call,
    Step,
    affine,
    check_dimensions,
    check_same_shapes,
    class_name,
    image_shape,
    refuse,
    refuse_layer,
)
from gdfq_tf.frontend.transposed_convolution import phase_kernel, phases
from gdfq_tf.keras_compat import Layer, library_of_layer
from gdfq_tf.model_files.augmentation import (
    CHANGES_IMAGES,
    augmentation_class,
    is_augmentation,
    is_identity,
)
from gdfq_tf.model_files.layer_arguments import (
    ACTIVATION_LAYERS,
    IDENTITIES,
    WRAPPED_LAYERS,
)


def translate(call: Call) -> list[Step]:
    """The steps of a source layer; none if it is the identity at inference.

    Raises:
      UserError: names the layer, why it has no counterpart and what to do.
    """
    layer = call.layer
    check_layer(layer.name, class_name(layer))
    check_precision(call)
    if getattr(layer, "data_format", None) == "channels_first":
        refuse_layer(layer, "it is channels_first; expected channels_last")
    return _TRANSLATORS.get(class_name(layer), _augmentation)(call)


def check_precision(call: Call) -> None:
    """Raises UserError unless the layer computes in float32."""
    layer = call.layer
    # Keras 3's quantized layers differ in the policy's name alone.
    policy = getattr(getattr(layer, "dtype_policy", None), "name", "float32")
    if policy != "float32" and call.inputs:
        refuse_layer(
            layer,
            f"its dtype policy is {policy}; pass the model as it was before "
            "model.quantize(...)",
        )


def check_layer(name: str, class_name: str) -> None:
    """Raises UserError unless layers of this class can be translated."""
    if class_name in _TRANSLATORS or is_augmentation(class_name):
        return
    if class_name.startswith("tf.") and not is_refused(class_name):
        refuse(name, class_name, f"this function is none of {_FUNCTION_NAMES}")
    refuse(name, class_name, reason_against(class_name))


def _weights(layer: Layer) -> tuple[np.ndarray, ...]:
    if not getattr(layer, "weights", ()):  # Keras 3 operations have no get_weights
        return ()
    return tuple(np.asarray(w, np.float32) for w in layer.get_weights())


def _config(layer: Layer, *attributes: str) -> dict[str, Any]:
    return {attribute: getattr(layer, attribute) for attribute in attributes}


def _activation(call: Call) -> list[Step]:
    """The steps of a layer's `activation` argument."""
    function = call.layer.activation
    name = getattr(function, "__name__", type(function).__name__.lower())
    return activation_steps(call, function, f"_{name}")


# Of LayerNormalization: integers are all equal where real numbers are not.
_SMALLEST_EPSILON = 1e-12

# Of PReLU: the converter takes a smaller one for this.
_SMALLEST_SLOPE = 1e-6

_WINDOW = ("kernel_size", "strides", "dilation_rate")


def _conv(call: Call) -> list[Step]:
    layer = call.layer
    padding, window = _window(layer)
    config = _config(layer, "filters", "use_bias", "groups") | window
    step = Step("Conv2D", config, _image_weights(layer))
    if _is_depthwise(layer, window["strides"]):
        step = _as_depthwise(layer.groups, window, step.weights)
    return [*padding, step, *_activation(call)]


def _is_depthwise(layer: Layer, strides: tuple[int, int]) -> bool:
    """Whether a convolution can be tf_keras' DepthwiseConv2D.

    It has a group for each channel, and strides that are equal.
    """
    channels_per_group = layer.get_weights()[0].shape[-2]
    return layer.groups > 1 and channels_per_group == 1 and len({*strides}) == 1


def _as_depthwise(
    channels: int, window: dict[str, Any], weights: tuple[np.ndarray, ...]
) -> Step:
    """The step of a convolution with one group for each channel.

    `weights`: kernel (height, width, 1, filters), whose filters of one channel stand
    side by side, perhaps with a bias.
    """
    kernel, *bias = weights
    kernel = kernel.reshape(*kernel.shape[:2], channels, -1)
    multiplier = kernel.shape[-1]
    config = window | {"depth_multiplier": multiplier, "use_bias": bool(bias)}
    return Step("DepthwiseConv2D", config, (kernel, *bias))


def _depthwise_conv(call: Call) -> list[Step]:
    layer = call.layer
    padding, window = _window(layer)
    config = _config(layer, "depth_multiplier", "use_bias") | window
    kernel = Step("DepthwiseConv2D", config, _image_weights(layer))
    return [*padding, kernel, *_activation(call)]


def _separable_conv(call: Call) -> list[Step]:
    layer = call.layer
    padding, window = _window(layer)
    depthwise, *pointwise = _image_weights(layer)
    first = _config(layer, "depth_multiplier") | window | {"use_bias": False}
    second = _config(layer, "filters", "use_bias") | {"kernel_size": 1}
    return [
        *padding,
        Step("DepthwiseConv2D", first, (depthwise,), "_depthwise"),
        Step("Conv2D", second, tuple(pointwise)),
        *_activation(call),
    ]


def _conv_transpose(call: Call) -> list[Step]:
    layer = call.layer
    if max(np.ravel(layer.dilation_rate)) > 1:
        refuse_layer(
            layer,
            f"its dilation_rate is {layer.dilation_rate}; expected 1: a dilated "
            "convolution of the flipped kernel behind ZeroPadding2D does the same, at "
            "the strides of 1 that dilation demands",
        )
    strides, kernel_size = (_over_image(layer, x) for x in ("strides", "kernel_size"))
    if not _is_of_images(layer):
        strides = (strides[0], 1)  # signals stay of width 1
    shapes = (image_shape(x.shape)[1:3] for x in (call.inputs[0], call.output))
    sizes = zip(*shapes, kernel_size, strides, strict=True)
    down, across = (
        phases(length, size, stride, output_length)
        for length, output_length, size, stride in sizes
    )
    kernel, *bias = _image_weights(layer)
    kernel = phase_kernel(kernel, (down, across))
    steps, padding = _same_or_padded(down.padding, across.padding, kernel.shape)
    config = {
        "filters": kernel.shape[-1],
        "kernel_size": kernel.shape[:2],
        "padding": padding,
        "use_bias": layer.use_bias,
    }
    tiled = tuple(np.tile(b, down.stride * across.stride) for b in bias)
    steps.append(Step("Conv2D", config, (kernel, *tiled)))
    if strides != (1, 1):
        blocks = {"block_size": strides, "cropping": (down.cropping, across.cropping)}
        steps.append(Step("DepthToSpace", blocks, suffix="_enlarged"))
    return [*steps, *_activation(call)]


def _same_or_padded(
    down: tuple[int, int], across: tuple[int, int], kernel_shape: tuple[int, ...]
) -> tuple[list[Step], str]:
    """A padding of a convolution of stride 1: the steps in front, its own argument."""
    same = tuple(((taps - 1) // 2, taps // 2) for taps in kernel_shape[:2])
    if (down, across) == same:
        return [], "same"
    zeros = Step("ZeroPadding2D", {"padding": (down, across)}, suffix="_pad")
    return [zeros], "valid"


def _upsampling(call: Call) -> list[Step]:
    layer = call.layer
    interpolation = getattr(layer, "interpolation", "nearest")
    if interpolation not in ("nearest", "bilinear"):
        refuse_layer(
            layer,
            f"its interpolation is {interpolation}; expected nearest or bilinear: "
            "train it with one of them",
        )
    config = {"size": _over_image(layer, "size"), "interpolation": interpolation}
    return [Step("UpSampling2D", config)]


def _window(layer: Layer) -> tuple[list[Step], dict[str, Any]]:
    """The padding in front of a convolution, and its window over height and width."""
    window = {name: _over_image(layer, name) for name in _WINDOW}
    if layer.padding != "causal":
        return [], window | {"padding": layer.padding}
    size, dilation = window["kernel_size"][0], window["dilation_rate"][0]
    before = {"padding": ((dilation * (size - 1), 0), (0, 0))}
    return [Step("ZeroPadding2D", before, suffix="_pad")], window | {"padding": "valid"}


def _over_image(layer: Layer, attribute: str) -> tuple[int, int]:
    """An attribute per dimension; signals are images of width 1."""
    value = getattr(layer, attribute)
    if _is_of_images(layer):
        return value
    (length,) = np.ravel(value).tolist()
    # At width 1 strides and dilations mean nothing, and depthwise ones must be equal.
    return (length, 1 if attribute.endswith("size") else length)


def _is_of_images(layer: Layer) -> bool:
    return "1D" not in type(layer).__name__


def _image_weights(layer: Layer) -> tuple[np.ndarray, ...]:
    """A convolution's weights, kernels as (height, width, ...)."""
    return tuple(w[:, np.newaxis] if w.ndim == 3 else w for w in _weights(layer))


def _dense(call: Call) -> list[Step]:
    layer, shape = call.layer, tuple(call.inputs[0].shape)
    if len(shape) == 2:
        config = _config(layer, "units", "use_bias")
        return [Step("Dense", config, _weights(layer)), *_activation(call)]
    check_dimensions(call)
    # At every position, the same as a convolution of 1x1.
    kernel, *bias = _weights(layer)
    config = {"filters": layer.units, "use_bias": layer.use_bias, "kernel_size": 1}
    weights = (kernel[np.newaxis, np.newaxis], *bias)
    return [Step("Conv2D", config, weights), *_activation(call)]


def _batch_normalization(call: Call) -> list[Step]:
    layer = call.layer
    _check_last_axis(call)
    *gamma_beta, mean, variance = _weights(layer)
    gamma = gamma_beta.pop(0) if layer.scale else np.ones_like(mean)
    beta = gamma_beta.pop(0) if layer.center else np.zeros_like(mean)
    weights = (gamma, beta, mean, variance)
    return [Step("BatchNormalization", _config(layer, "epsilon"), weights)]


def _layer_normalization(call: Call) -> list[Step]:
    """The difference from the mean as a vector of length sqrt(channels).

    That is gamma * (x - mean) / sqrt(variance + epsilon) + beta by what the integer
    kernels can do without rounding the variance.
    """
    layer = call.layer
    _check_last_axis(call)
    if getattr(layer, "rms_scaling", False):
        refuse_layer(
            layer,
            "it has rms_scaling, which Keras computes wrongly and no longer supports; "
            "train it with rms_scaling=False",
        )
    channels = call.output.shape[-1]
    gamma_beta = list(_weights(layer))
    gamma = gamma_beta.pop(0) if layer.scale else 1.0
    beta = gamma_beta.pop(0) if layer.center else 0.0
    length = np.sqrt(np.float64(channels))
    epsilon = channels * max(layer.epsilon, _SMALLEST_EPSILON)
    return [
        Step("ChannelMean", suffix="_mean"),
        Step("Subtract", suffix="_centered", inputs=(0, -1)),
        Step("L2Normalization", {"epsilon": epsilon}, suffix="_unit"),
        affine(call, scale=length * gamma, offset=beta),
    ]


def _layer_scale(call: Call) -> list[Step]:
    """The product x * gamma, of keras.applications.ConvNeXt."""
    (gamma,) = _weights(call.layer)
    return [affine(call, scale=gamma)]


def _check_last_axis(call: Call) -> None:
    check_dimensions(call)
    axis = call.layer.axis
    axes = [axis] if isinstance(axis, int) else [*axis]  # once built, some hold lists
    if axes not in ([-1], [len(call.output.shape) - call.num_hidden - 1]):
        found = ", ".join(map(str, axes))
        refuse_layer(call.layer, f"it works on axis {found}; expected the last one")


def _prelu(call: Call) -> list[Step]:
    """PReLU with a slope for each channel or each value; simpler where it can be."""
    check_dimensions(call)
    (slopes,) = _weights(call.layer)
    if np.abs(slopes).max() < _SMALLEST_SLOPE:
        return [Step("ReLU", {"max_value": None})]
    if np.ptp(slopes) == 0:
        return [Step("LeakyReLU", {"alpha": float(slopes.flat[0])})]
    is_per_channel = slopes.size == slopes.shape[-1]
    if not is_per_channel:
        slopes = np.broadcast_to(slopes, tuple(call.output.shape)[1:])
    if slopes.ndim == 2:
        slopes = slopes[:, np.newaxis]  # signals are images of width 1
    shared_axes = list(range(1, slopes.ndim)) if is_per_channel else None
    return [Step("PReLU", {"shared_axes": shared_axes, "trainable": False}, (slopes,))]


def _softmax(call: Call) -> list[Step]:
    _check_last_axis(call)
    return [Step("Softmax")]


def _pooling(call: Call) -> list[Step]:
    layer = call.layer
    config = {name: _over_image(layer, name) for name in ("pool_size", "strides")}
    kind = type(layer).__name__.replace("1D", "2D")
    return [Step(kind, config | {"padding": layer.padding})]


def _moving(argument: str) -> Callable[[Call], list[Step]]:
    """The translator of layers that pad or crop by so much on each side."""

    def translate(call: Call) -> list[Step]:
        layer = call.layer
        sides = getattr(layer, argument)
        if not _is_of_images(layer):
            sides = (tuple(sides), (0, 0))
        return [Step(type(layer).__name__.replace("1D", "2D"), {argument: sides})]

    return translate


def _rescaling(call: Call) -> list[Step]:
    return [affine(call, scale=call.layer.scale, offset=call.layer.offset)]


def _normalization(call: Call) -> list[Step]:
    layer = call.layer
    mean, variance = (np.asarray(x, np.float64) for x in (layer.mean, layer.variance))
    is_variance = (variance >= 0) & np.isfinite(variance)
    if not np.all(is_variance):
        refuse_layer(
            layer,
            f"its variance holds {variance[~is_variance][0]}; expected finite numbers "
            "of at least 0: adapt it to the training data again",
        )
    # Both Keras bound the deviation by their epsilon.
    deviation = np.maximum(np.sqrt(variance), 1e-7)
    if layer.invert:
        return [affine(call, scale=deviation, offset=mean)]
    return [affine(call, scale=1 / deviation, offset=-mean / deviation)]


def _custom_scale(call: Call) -> list[Step]:
    """inputs[0] + scale * inputs[1], of keras.applications.InceptionResNetV2."""
    check_same_shapes(call)
    scaled = affine(call, scale=call.layer.scale, suffix="_scaled", inputs=(1,))
    return [scaled, Step("Add", inputs=(0, -1))]


def _augmentation(call: Call) -> list[Step]:
    """None, of what changes images in training only."""
    layer = call.layer
    library = library_of_layer(layer)
    if augmentation_class(library, class_name(layer)) is not type(layer):
        refuse_layer(layer, "it is no layer of Keras' own; use one of those")
    if not is_identity(layer):
        refuse_layer(layer, CHANGES_IMAGES)
    return []


def _time_distributed(call: Call) -> list[Step]:
    """What is inside, if it does the same to all at once as to one after the other."""
    inner = call.layer.layer
    if class_name(inner) not in (*WRAPPED_LAYERS, *IDENTITIES):
        refuse_layer(
            call.layer,
            f"it holds {class_name(inner)}; expected one of "
            f"{', '.join(WRAPPED_LAYERS)}, or the identity at inference",
        )
    hidden = call.num_hidden + 1
    return translate(dataclasses.replace(call, layer=inner, num_hidden=hidden))


def _input(call: Call) -> list[Step]:
    shape = image_shape(call.output.shape)[1:]
    if len(shape) > 1:
        return [Step("InputLayer", {"shape": shape})]
    # A row of values is an image of one position.
    image = Step("InputLayer", {"shape": (1, 1, *shape)}, suffix="_image")
    return [image, Step("Reshape", {"target_shape": shape})]


_LAYERS: dict[str, Callable[[Call], list[Step]]] = {
    **dict.fromkeys(IDENTITIES, lambda call: []),
    **dict.fromkeys(
        ACTIVATION_LAYERS, lambda call: [function_step(call.layer, call.layer)]
    ),
    "Activation": lambda call: activation_steps(call, call.layer.activation),
    "AveragePooling1D": _pooling,
    "AveragePooling2D": _pooling,
    "AdaptiveAveragePooling1D": adaptive_pooling("AveragePooling2D"),
    "AdaptiveAveragePooling2D": adaptive_pooling("AveragePooling2D"),
    "AdaptiveMaxPooling1D": adaptive_pooling("MaxPooling2D"),
    "AdaptiveMaxPooling2D": adaptive_pooling("MaxPooling2D"),
    "Average": average,
    "BatchNormalization": _batch_normalization,
    "CenterCrop": center_crop,
    "Concatenate": concatenate,
    "Conv1D": _conv,
    "Conv1DTranspose": _conv_transpose,
    "Conv2D": _conv,
    "Conv2DTranspose": _conv_transpose,
    "Cropping1D": _moving("cropping"),
    "Cropping2D": _moving("cropping"),
    "CustomScaleLayer": _custom_scale,
    "Dense": _dense,
    "DepthwiseConv1D": _depthwise_conv,
    "DepthwiseConv2D": _depthwise_conv,
    "ELU": lambda call: elu(call.layer.alpha),
    "Flatten": lambda call: [Step("Flatten")],
    "GlobalAveragePooling1D": global_mean,
    "GlobalAveragePooling2D": global_mean,
    "GlobalMaxPooling1D": global_maximum,
    "GlobalMaxPooling2D": global_maximum,
    "InputLayer": _input,
    "LayerNormalization": _layer_normalization,
    "LayerScale": _layer_scale,
    "MaxPooling1D": _pooling,
    "MaxPooling2D": _pooling,
    "Normalization": _normalization,
    "PReLU": _prelu,
    "Permute": permute,
    "RandomCrop": random_crop,
    "Rescaling": _rescaling,
    "Reshape": reshape,
    "Resizing": lambda call: [Step("Resizing", {"layer": call.layer})],
    "SeparableConv1D": _separable_conv,
    "SeparableConv2D": _separable_conv,
    "Softmax": _softmax,
    "SyncBatchNormalization": _batch_normalization,
    "TimeDistributed": _time_distributed,
    "UpSampling1D": _upsampling,
    "UpSampling2D": _upsampling,
    "ZeroPadding1D": _moving("padding"),
    "ZeroPadding2D": _moving("padding"),
}
_TRANSLATORS = OPERATIONS | _LAYERS

_FUNCTION_NAMES = ", ".join(sorted(n for n in OPERATIONS if n.startswith("tf.")))
