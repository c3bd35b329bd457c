"""What may stand in a model's JSON, as tables.

Layers, their arguments, the kinds of value that each takes.

A kind turns one JSON value into a plain Python value, or raises. Whatever has no kind
here is not looked at: no object of a file is ever deserialized by Keras.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

# A value of a file's JSON, which may be anything, and one that was checked.
Json: TypeAlias = Any
Argument: TypeAlias = Any

# What damaged or hostile values raise inside a kind.
UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)

_LARGEST_COUNT = 2**24  # filters, units, pixels of one side
_MOST_CONSTANTS = 2**20  # numbers of one constant
_LONGEST_NAME = 256
_MOST_PLAIN_VALUES = 16
_WORD = re.compile(r"[a-z_]{1,32}")


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of value.

    Attributes:
      expected: it in words, for messages.
      read: the checked value of a JSON value; raises one of `UNFIT` for any other.
    """

    expected: str
    read: Callable[[Json], Argument]


@dataclasses.dataclass(frozen=True)
class InnerLayer:
    """A layer that is another layer's argument: its activation, or what it wraps.

    Attributes:
      class_name: of Keras.
      arguments: of its constructor, checked.
    """

    class_name: str
    arguments: Mapping[str, Argument]


def _name(value: Json) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME:
        raise ValueError
    return value


def _flag(value: Json) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def integer(value: Json, low: int = -_LARGEST_COUNT, high: int = _LARGEST_COUNT) -> int:
    """An integer from `low` to `high`; no bool."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError
    return value


def number(value: Json) -> float:
    """A finite number; no bool."""
    if isinstance(value, dict):
        return float(numbers(value))  # of an array of one number only
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def numbers(value: Json) -> Argument:
    """Finite numbers: one, a list of them, or an array as Keras writes it."""
    if type(value) in (int, float):
        return number(value)
    if not isinstance(value, dict):
        _constant(value, "float64")
        return value
    if value["class_name"] not in ("__numpy__", "__tensor__"):
        raise ValueError
    return _constant(value["config"]["value"], value["config"]["dtype"])


def _constant(value: Json, dtype: str) -> np.ndarray:
    if dtype not in _CONSTANT_DTYPES or _count(value) > _MOST_CONSTANTS:
        raise ValueError
    array = np.array(value, dtype)
    if not np.isfinite(array).all():
        raise ValueError
    return array


def _count(value: Json) -> int:
    """How many numbers nested lists hold. Raises if they hold anything else."""
    if isinstance(value, list):
        return sum(map(_count, value))
    if type(value) not in (int, float):
        raise TypeError
    return 1


def _per_dimension(low: int) -> Callable[[Json], Argument]:
    """One integer, or one for each dimension."""

    def read(value: Json) -> Argument:
        if isinstance(value, list):
            if not 1 <= len(value) <= 3:
                raise ValueError
            return tuple(integer(x, low) for x in value)
        return integer(value, low)

    return read


def _sides(value: Json) -> Argument:
    """What is added or cut at each side: 1, [1, 1] or [[1, 1], [1, 1]]."""
    if isinstance(value, list):
        if not 1 <= len(value) <= 3:
            raise ValueError
        return tuple(
            tuple(integer(y, 0) for y in x) if isinstance(x, list) else integer(x, 0)
            for x in value
        )
    return integer(value, 0)


def _shape(low: int) -> Callable[[Json], Argument]:
    """Sizes, None where one is open."""

    def read(value: Json) -> tuple[int | None, ...]:
        if not isinstance(value, list) or len(value) > 6:
            raise ValueError
        return tuple(None if x is None else integer(x, low) for x in value)

    return read


def _axis(value: Json) -> Argument:
    if isinstance(value, list):
        if not 1 <= len(value) <= 6:
            raise ValueError
        return [integer(x, -6, 6) for x in value]
    return integer(value, -6, 6)


def _per_part(value: Json) -> Argument:
    """How many parts, or a list with a size or an end for each."""
    if isinstance(value, list):
        return [integer(x) for x in value]
    return integer(value, 1)


def _dtype(value: Json) -> str:
    """A dtype: that of integers, or float32 for every precision and policy.

    Policies say in what precision to train; the weights of all are real numbers.
    """
    if isinstance(value, dict):
        if not _POLICIES.fullmatch(value["class_name"]):
            raise ValueError
        value = value["config"]["name"]
    if value not in (*FLOAT_POLICIES, *_INTEGERS):
        raise ValueError
    return value if value in _INTEGERS else "float32"


def _plain(value: Json) -> Argument:
    """Numbers, flags and words, or lists of them: nothing that names a file or code."""
    if isinstance(value, list) and len(value) <= _MOST_PLAIN_VALUES:
        return tuple(_plain(item) for item in value)
    if isinstance(value, str):
        if not _WORD.fullmatch(value):
            raise ValueError
        return value
    if isinstance(value, bool):
        return value
    return integer(value) if type(value) is int else number(value)


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


def _one_of(*choices: Argument) -> Kind:
    return Kind(
        f"one of {', '.join(map(str, choices))}", lambda value: _in(value, choices)
    )


def _in(value: Json, choices: tuple[Argument, ...]) -> Argument:
    # Equality alone would take 1 for True.
    if not any(type(value) is type(x) and value == x for x in choices):
        raise ValueError
    return value


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
_POLICIES = re.compile(r"DTypePolicy|FloatDTypePolicy|Policy|PolicyV1")
# Precisions of real numbers, and of two of them: computed in one, stored in another.
FLOAT_POLICIES = (
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "mixed_float16",
    "mixed_bfloat16",
)
_INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "bool")
_CONSTANT_DTYPES = ("float16", "float32", "float64", "int32", "int64", "uint8")
# Arguments that matter to training only. Each Keras adds some; they are not looked at.
TRAINING_ARGUMENTS = re.compile(
    r"\w+_(initializer|regularizer|constraint)|renorm\w*|quantization_config"
    r"|lora_\w+|virtual_batch_size|momentum|synchronized|seed"
)

NAME = Kind(f"a text of 1 to {_LONGEST_NAME} characters", _name)
FLAG = Kind("true or false", _flag)
COUNT = Kind("a positive integer", lambda value: integer(value, 1))
NUMBER = Kind("a finite number", number)
NUMBERS = Kind("finite numbers", numbers)
SIZES = Kind("a positive integer, or one for each dimension", _per_dimension(1))
SIDES = Kind("integers from 0 for each side", _sides)
SHAPE = Kind("positive sizes, null where one is open", _shape(1))
TARGET_SHAPE = Kind("sizes, -1 for the rest", _shape(-1))
AXIS = Kind("an axis, or a list of them", _axis)
AXES = Kind("a list of axes", lambda value: tuple(_axis(list(value))))
PARTS = Kind("how many parts, or where they end", _per_part)
DTYPE = Kind(
    f"one of {', '.join((*FLOAT_POLICIES, *_INTEGERS))}, as before model.quantize(...)",
    _dtype,
)
ACTIVATION = Kind(
    f"one of {', '.join(ACTIVATIONS)}, {' or '.join(ACTIVATION_LAYERS)}", _activation
)
PLAIN = Kind("numbers, flags and words", _plain)
WRAPPED = Kind(
    f"one of {', '.join(WRAPPED_LAYERS)}, or the identity at inference", _wrapped
)
DATA_FORMAT = _one_of("channels_last", "channels_first")
PADDING = _one_of("valid", "same", "causal")

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
    "output_padding": Kind("integers from 0", _per_dimension(0)),
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
    "interpolation": _one_of("nearest", "bilinear", "bicubic", "area", "lanczos3"),
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
        "sparse": _one_of(False),
        "ragged": _one_of(False),
        "optional": _one_of(False),
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
        "fill_mode": _one_of("constant"),
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

# Keras 3 operations, which files write beside layers: class -> module of Keras 3.
OPERATION_MODULES: Mapping[str, str] = {
    "Cast": "core",
    "TopK": "math",
    **dict.fromkeys(
        (
            "Add",
            "Argmax",
            "Clip",
            "Concatenate",
            "Divide",
            "ExpandDims",
            "GetItem",
            "Greater",
            "GreaterEqual",
            "Max",
            "Maximum",
            "Mean",
            "Minimum",
            "Moveaxis",
            "Multiply",
            "Negative",
            "Pad",
            "Reshape",
            "Split",
            "Squeeze",
            "Subtract",
            "Swapaxes",
            "Tanh",
            "Transpose",
            "TrueDivide",
        ),
        "numpy",
    ),
    **dict.fromkeys(
        (
            "Elu",
            "Gelu",
            "HardSigmoid",
            "HardSilu",
            "LeakyRelu",
            "Relu",
            "Relu6",
            "Selu",
            "Sigmoid",
            "Silu",
            "Softmax",
        ),
        "nn",
    ),
}


def _sides_of_each_axis(value: Json) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(integer(x, 0) for x in pair) for pair in value)


# Arguments of Keras 3 operations and of TensorFlow functions, wherever they stand.
OPERATION_ARGUMENTS: Mapping[str, Kind] = {
    "alpha": NUMBER,
    "approximate": FLAG,
    "axes": AXES,
    "axis": AXIS,
    "axis1": AXIS,
    "axis2": AXIS,
    "beta": NUMBER,
    "clip_value_max": NUMBER,
    "clip_value_min": NUMBER,
    "conjugate": FLAG,
    "constant_values": NUMBER,
    "destination": AXIS,
    "dtype": DTYPE,
    "indices_or_sections": PARTS,
    "k": COUNT,
    "keepdims": FLAG,
    "mode": Kind("constant", lambda value: _in(value.lower(), ("constant",))),
    "name": NAME,
    "negative_slope": NUMBER,
    "newshape": TARGET_SHAPE,
    "num_or_size_splits": PARTS,
    "output_type": DTYPE,
    "pad_width": Kind("integers from 0 for each side", _sides_of_each_axis),
    "paddings": Kind("integers from 0 for each side", _sides_of_each_axis),
    "perm": AXES,
    "shape": TARGET_SHAPE,
    "sorted": FLAG,
    "source": AXIS,
    "x_max": NUMBER,
    "x_min": NUMBER,
}
# Those that may be tensors, or constants beside tensors.
OPERANDS = (
    "a",
    "features",
    "inputs",
    "input",
    "input_tensor",
    "key",
    "logits",
    "slice_spec",
    "t",
    "tensor",
    "value",
    "values",
    "x",
    "x1",
    "x2",
    "xs",
    "y",
)
