"""What may stand in a model's JSON of operations and functions, as tables."""

from __future__ import annotations

from collections.abc import Mapping

from gdfq_tf.model_files.argument_values import (
    AXES,
    AXIS,
    COUNT,
    DTYPE,
    FLAG,
    NAME,
    NUMBER,
    PARTS,
    TARGET_SHAPE,
    Json,
    Kind,
    choice,
    integer,
)

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
    "mode": Kind("constant", lambda value: choice(value.lower(), ("constant",))),
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
