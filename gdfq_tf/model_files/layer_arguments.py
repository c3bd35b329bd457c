"""What may stand in a model's JSON, as tables.

Layers, their arguments, the kinds of value that each takes.

A kind turns one JSON value into a plain Python value, or raises. Whatever has no kind
here is not looked at: no object of a file is ever deserialized by Keras.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from gdfq_tf.model_files.argument_values import (
    AXES,
    AXIS,
    COUNT,
    DATA_FORMAT,
    DTYPE,
    FLAG,
    NAME,
    NUMBER,
    NUMBERS,
    PADDING,
    PLAIN,
    SHAPE,
    SIDES,
    SIZES,
    TARGET_SHAPE,
    UNFIT,
    Argument,
    Json,
    Kind,
    one_of,
    per_dimension,
)


@dataclasses.dataclass(frozen=True)
class InnerLayer:
    """A layer that is another layer's argument: its activation, or what it wraps.

    Attributes:
      class_name: of Keras.
      arguments: of its constructor, checked.
    """

    class_name: str
    arguments: Mapping[str, Argument]


def _activation(value: Json) -> str | InnerLayer:
    if isinstance(value, dict):
        class_name, content = value["class_name"], value["config"]
        module = value.get("module")
        if class_name in ACTIVATION_LAYERS and module in ("keras.layers", None):
            return InnerLayer(class_name, plain_arguments(class_name, content))
        if class_name != "function" or module not in _FUNCTION_MODULES:
            raise ValueError
        value = content
    if not isinstance(value, str) or value not in ACTIVATIONS:
        raise ValueError
    return value


def _wrapped(value: Json) -> InnerLayer:
    class_name = value["class_name"]
    if value.get("module") not in ("keras.layers", None):
        raise ValueError
    if class_name in IDENTITIES:
        return InnerLayer("Activation", {"activation": "linear"})
    if class_name not in WRAPPED_LAYERS:
        raise ValueError
    return InnerLayer(class_name, plain_arguments(class_name, value["config"]))


def plain_arguments(class_name: str, config: Mapping[str, Json]) -> dict[str, Argument]:
    """The checked arguments of a layer's JSON.

    Left out is what matters to training only, and what is null: a default.

    Args:
      class_name: of one of `ARGUMENTS`, or of a layer that only changes images in
        training, whose arguments each Keras calls as it likes.
      config: as found.

    Raises:
      ArgumentError: one is unknown or no value of its kind.
    """
    kinds = ARGUMENTS.get(class_name)
    if kinds is None:
        kinds = dict.fromkeys(config, PLAIN) | _COMMON
    arguments = {}
    for argument, value in config.items():
        if value is None or TRAINING_ARGUMENTS.fullmatch(argument):
            continue
        if argument not in kinds:
            raise ArgumentError(argument, value, None)
        try:
            arguments[argument] = kinds[argument].read(value)
        except UNFIT:
            raise ArgumentError(argument, value, kinds[argument].expected) from None
    return arguments


class ArgumentError(ValueError):
    """An argument that may not stand in a file.

    Attributes:
      argument: name, as found.
      value: as found.
      expected: in words; None if there is no such argument.
    """

    def __init__(self, argument: str, value: Json, expected: str | None) -> None:
        """Takes what the attributes are."""
        super().__init__(argument)
        self.argument, self.value, self.expected = argument, value, expected


# Layers that may be other layers' activations: functions of one tensor.
ACTIVATION_LAYERS = ("LeakyReLU", "ReLU")
# Layers that may be in a TimeDistributed, beside `IDENTITIES`: they work on the last
# dimension or value by value, so that it changes nothing.
WRAPPED_LAYERS = (
    "Activation",
    "BatchNormalization",
    "Dense",
    "ELU",
    "LayerNormalization",
    "LeakyReLU",
    "ReLU",
)
# Activation functions that can be translated, by Keras' names.
ACTIVATIONS = (
    "elu",
    "gelu",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "leaky_relu",
    "linear",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "swish",
    "tanh",
)
_FUNCTION_MODULES = (None, "builtins", "keras.activations")
# Arguments that matter to training only. Each Keras adds some; they are not looked at.
TRAINING_ARGUMENTS = re.compile(
    r"\w+_(initializer|regularizer|constraint)|renorm\w*|quantization_config"
    r"|lora_\w+|virtual_batch_size|momentum|synchronized|seed"
)

ACTIVATION = Kind(
    f"one of {', '.join(ACTIVATIONS)}, {' or '.join(ACTIVATION_LAYERS)}", _activation
)
WRAPPED = Kind(
    f"one of {', '.join(WRAPPED_LAYERS)}, or the identity at inference", _wrapped
)

_COMMON = {
    "name": NAME,
    "trainable": FLAG,
    "dtype": DTYPE,
    "batch_input_shape": SHAPE,
}
_WINDOW = {"strides": SIZES, "padding": PADDING, "data_format": DATA_FORMAT}
_CONVOLUTION = {
    **_COMMON,
    **_WINDOW,
    "kernel_size": SIZES,
    "dilation_rate": SIZES,
    "groups": COUNT,
    "activation": ACTIVATION,
    "use_bias": FLAG,
}
_FILTERS = {"filters": COUNT}
_MULTIPLIER = {"depth_multiplier": COUNT}
_POOLING = {**_COMMON, **_WINDOW, "pool_size": SIZES}
_GLOBAL = {**_COMMON, "data_format": DATA_FORMAT, "keepdims": FLAG}
_ADAPTIVE = {**_COMMON, "output_size": SIZES, "data_format": DATA_FORMAT}
_CROPPED = {**_COMMON, "height": COUNT, "width": COUNT, "data_format": DATA_FORMAT}
_TRANSPOSED = {
    **_CONVOLUTION,
    **_FILTERS,
    "output_padding": Kind("integers from 0", per_dimension(0)),
}
_NORMALIZATION = {
    **_COMMON,
    "axis": AXIS,
    "epsilon": NUMBER,
    "center": FLAG,
    "scale": FLAG,
}
_RESIZED = {
    **_COMMON,
    "data_format": DATA_FORMAT,
    "interpolation": one_of("nearest", "bilinear", "bicubic", "area", "lanczos3"),
}

# Layers that are the identity at inference: of their arguments only the name matters.
# Those that change images in training are told by `augmentation`.
IDENTITIES = (
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "StochasticDepth",
)

# Class name of a layer -> its arguments -> their kinds.
ARGUMENTS: Mapping[str, Mapping[str, Kind]] = {
    "Activation": {**_COMMON, "activation": ACTIVATION},
    "AdaptiveAveragePooling1D": _ADAPTIVE,
    "AdaptiveAveragePooling2D": _ADAPTIVE,
    "AdaptiveMaxPooling1D": _ADAPTIVE,
    "AdaptiveMaxPooling2D": _ADAPTIVE,
    "Add": _COMMON,
    "Average": _COMMON,
    "AveragePooling1D": _POOLING,
    "AveragePooling2D": _POOLING,
    "BatchNormalization": _NORMALIZATION,
    "CenterCrop": _CROPPED,
    "Concatenate": {**_COMMON, "axis": AXIS},
    "Conv1D": _CONVOLUTION | _FILTERS,
    "Conv1DTranspose": _TRANSPOSED,
    "Conv2D": _CONVOLUTION | _FILTERS,
    "Conv2DTranspose": _TRANSPOSED,
    "Cropping1D": {**_COMMON, "cropping": SIDES, "data_format": DATA_FORMAT},
    "Cropping2D": {**_COMMON, "cropping": SIDES, "data_format": DATA_FORMAT},
    "CustomScaleLayer": {**_COMMON, "scale": NUMBER},
    "Dense": {**_COMMON, "units": COUNT, "activation": ACTIVATION, "use_bias": FLAG},
    "DepthwiseConv1D": _CONVOLUTION | _MULTIPLIER,
    "DepthwiseConv2D": _CONVOLUTION | _MULTIPLIER,
    "ELU": {**_COMMON, "alpha": NUMBER},
    "Flatten": {**_COMMON, "data_format": DATA_FORMAT},
    "GlobalAveragePooling1D": _GLOBAL,
    "GlobalAveragePooling2D": _GLOBAL,
    "GlobalMaxPooling1D": _GLOBAL,
    "GlobalMaxPooling2D": _GLOBAL,
    "InputLayer": {
        **_COMMON,
        "batch_shape": SHAPE,
        "shape": SHAPE,
        "sparse": one_of(False),
        "ragged": one_of(False),
        "optional": one_of(False),
    },
    "LayerNormalization": _NORMALIZATION | {"rms_scaling": FLAG},
    "LayerScale": {**_COMMON, "init_values": NUMBER, "projection_dim": COUNT},
    "LeakyReLU": {**_COMMON, "alpha": NUMBER, "negative_slope": NUMBER},
    "MaxPooling1D": _POOLING,
    "MaxPooling2D": _POOLING,
    "Maximum": _COMMON,
    "Minimum": _COMMON,
    "Multiply": _COMMON,
    "Normalization": {
        **_COMMON,
        "axis": AXIS,
        "mean": NUMBERS,
        "variance": NUMBERS,
        "invert": FLAG,
    },
    "PReLU": {**_COMMON, "shared_axes": AXES},
    "Permute": {**_COMMON, "dims": AXES},
    "RandomCrop": _CROPPED,
    "ReLU": {
        **_COMMON,
        "max_value": NUMBER,
        "negative_slope": NUMBER,
        "threshold": NUMBER,
    },
    "Rescaling": {**_COMMON, "scale": NUMBERS, "offset": NUMBERS},
    "Reshape": {**_COMMON, "target_shape": TARGET_SHAPE},
    "Resizing": _RESIZED
    | {
        "height": COUNT,
        "width": COUNT,
        "crop_to_aspect_ratio": FLAG,
        "pad_to_aspect_ratio": FLAG,
        "fill_mode": one_of("constant"),
        "fill_value": NUMBER,
        "antialias": FLAG,
    },
    "SeparableConv1D": _CONVOLUTION | _FILTERS | _MULTIPLIER,
    "SeparableConv2D": _CONVOLUTION | _FILTERS | _MULTIPLIER,
    "Softmax": {**_COMMON, "axis": AXIS},
    "Subtract": _COMMON,
    "SyncBatchNormalization": _NORMALIZATION,
    "TimeDistributed": {**_COMMON, "layer": WRAPPED},
    "UpSampling1D": {**_COMMON, "size": SIZES},
    "UpSampling2D": _RESIZED | {"size": SIZES},
    "ZeroPadding1D": {**_COMMON, "padding": SIDES, "data_format": DATA_FORMAT},
    "ZeroPadding2D": {**_COMMON, "padding": SIDES, "data_format": DATA_FORMAT},
}

# Arguments by which layers make their weights; these come from the file afterwards.
INITIALIZERS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("BatchNormalization", "SyncBatchNormalization"),
        (
            "beta_initializer",
            "gamma_initializer",
            "moving_mean_initializer",
            "moving_variance_initializer",
        ),
    ),
    "Conv1D": ("kernel_initializer", "bias_initializer"),
    "Conv1DTranspose": ("kernel_initializer", "bias_initializer"),
    "Conv2D": ("kernel_initializer", "bias_initializer"),
    "Conv2DTranspose": ("kernel_initializer", "bias_initializer"),
    "Dense": ("kernel_initializer", "bias_initializer"),
    "DepthwiseConv1D": ("depthwise_initializer", "bias_initializer"),
    "DepthwiseConv2D": ("depthwise_initializer", "bias_initializer"),
    "LayerNormalization": ("beta_initializer", "gamma_initializer"),
    "PReLU": ("alpha_initializer",),
    "SeparableConv1D": (
        "depthwise_initializer",
        "pointwise_initializer",
        "bias_initializer",
    ),
    "SeparableConv2D": (
        "depthwise_initializer",
        "pointwise_initializer",
        "bias_initializer",
    ),
}
