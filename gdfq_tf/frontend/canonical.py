"""Any supported Keras graph -> one flat tf_keras graph of primitive layers.

The source model (Keras 3 or tf_keras) is read as a list of `Op`s, rewritten, and
built. The rest of the program relies on this vocabulary and on nothing else of the
source:

InputLayer; Conv2D (also grouped), DepthwiseConv2D, Dense (linear), with a bias unless
BatchNormalization follows;
BatchNormalization (last axis, directly behind one of those three and its only
consumer); ReLU (with or without max_value); LeakyReLU; PReLU (a slope for each channel
or each value, not trained); Activation of sigmoid, tanh, gelu, elu and hard_swish; Add,
Maximum and Minimum (two inputs of one shape); Multiply (two inputs, whose dimensions of
1 stand for all); ChannelMean; Subtract (the second input (..., 1)) and L2Normalization,
of LayerNormalization; Concatenate (last axis); MaxPooling2D, AveragePooling2D,
GlobalAveragePooling2D; UpSampling2D ("nearest" or "bilinear"); DepthToSpace
(BatchNormalization before it, but for ReLU directly, is of the tensor behind it, see
`bn_statistics.normalized_tensor`); Flatten, Reshape, Permute, ZeroPadding2D,
Cropping2D.

Signals (time, features) are images (time, 1, features), and layers over time the
same over height. What is reshaped to an image or a signal first is taken reshaped.
"""

from __future__ import annotations

import dataclasses
import math
import warnings

import numpy as np

from gdfq_tf.classifier import Head
from gdfq_tf.config import TASKS
from gdfq_tf.errors import UserError, option
from gdfq_tf.frontend.constant_operands import place_constant_channels, spread_affines
from gdfq_tf.frontend.ends import likely_output
from gdfq_tf.frontend.folding import absorb_resizing, fold, two_class_logits
from gdfq_tf.frontend.importer import all_layers, read_graph, valid_name
from gdfq_tf.frontend.input_shapes import absorb_input_reshapes
from gdfq_tf.frontend.legalization import legalize
from gdfq_tf.frontend.ops import LINEAR, Op, Ops
from gdfq_tf.frontend.steps import class_name, is_symbolic, refuse
from gdfq_tf.frontend.stored_values import check_folded_values, check_stored_values
from gdfq_tf.graph import layers
from gdfq_tf.keras_compat import KerasModel, Layer, SymbolicTensor, keras
from gdfq_tf.model_files.model_inputs import Constants, image_input
from gdfq_tf.model_files.model_outputs import named_outputs
from tflite_export.names import listed, shown

_SOME_SIZE = 224  # where advice needs one
# Kinds that no logit comes out of.
_FUNCTIONS = ("Activation", "LeakyReLU", "ReLU", "Softmax")


@dataclasses.dataclass(frozen=True)
class Canonical:
    """A classifier in the vocabulary of this module.

    Attributes:
      model: tf_keras, float32 (N, H, W, C) -> logits (N, classes), or features in a
        row, whatever their shape in the source.
      head: what the source gives of those logits.
      input_scale, input_offset: float64 (C,); where the source takes x, the model
        takes input_scale * x + input_offset.
      example_shape: of one example as the source takes it, resized if it resizes; the
        model takes the same values in the same order.
      resizing: the Keras layer by which the source resizes its images first, or None;
        the model takes them resized.
    """

    model: keras.Model
    head: Head
    input_scale: np.ndarray
    input_offset: np.ndarray
    example_shape: tuple[int, ...]
    resizing: Layer | None = None


def canonicalize(
    source: KerasModel,
    task: str = "classification",
    constants: Constants | None = None,
) -> Canonical:
    """The canonical copy of a classifier.

    Args:
      source: Functional or Sequential model of Keras 3 or tf_keras; input
        (N, H, W, C), (N, time, features) or (N, values), output (N, classes), or
        (N, ...) features.
      task: one of `TASKS`: whether the outputs tell classes or labels, or are
        features.
      constants: for all inputs but one, see `read_constants`.

    Raises:
      UserError: names the layer that has no counterpart, or whose values no
        arithmetic survives, and what to do.
    """
    if task not in TASKS:
        raise UserError(f"task {task!r} is unknown; expected {' or '.join(TASKS)}")
    constants = constants or {}
    image = _checked_ends(source, task, constants)
    ops = place_constant_channels(read_graph(source, constants))
    shape = tuple(source.outputs[0].shape[1:])
    check_stored_values(ops)
    if task == "features":
        ops, head = _in_a_row(ops, shape), Head.FEATURES
    else:
        ops, head = _split_head(ops, shape[-1])
    for op in ops:
        if op.kind == "Softmax":
            refuse(
                op.name,
                op.kind,
                "softmax is supported as the last layer only, of classifiers",
            )
    ops, resizing = absorb_resizing(ops)
    example_shape = tuple(image.shape)[1:]
    if resizing is not None:
        example_shape = ops[0].config["shape"]
    ops = absorb_input_reshapes(ops, len(example_shape))
    ops, scale, offset = fold(spread_affines(ops))
    ops = legalize(ops)
    check_folded_values(ops)
    model = _build(_with_biases(ops), valid_name(source.name))
    return Canonical(model, head, scale, offset, example_shape, resizing)


def _checked_ends(
    source: KerasModel, task: str, constants: Constants
) -> SymbolicTensor:
    """The input for images; refuses what has none of one size, or no such task."""
    model = f"model {shown(source.name)}"
    outputs = getattr(source, "outputs", None) or []
    if not outputs or not all(is_symbolic(t) for t in outputs):
        raise UserError(
            f"{model} has no fixed graph; expected a Functional model "
            "or a Sequential model with an Input layer: rebuild it that way"
        )
    if len(outputs) != 1:
        names, likely = list(named_outputs(source)), likely_output(source)
        raise UserError(
            f"{model} has the outputs {listed(names)}; expected one, "
            f"for classes: choose it with {option('output_name', likely)}"
        )
    image = image_input(source, constants)
    shape, out = tuple(image.shape), tuple(outputs[0].shape)
    if len(shape) not in (2, 3, 4):
        raise UserError(
            f"{model} takes {shape}; expected images (None, height, width, channels), "
            "signals (None, time, features) or rows (None, values)"
        )
    is_resized = any(class_name(layer) == "Resizing" for layer in all_layers(source))
    if None in shape[1:] and not is_resized:
        fixed = tuple(size or _SOME_SIZE for size in shape[1:])
        raise UserError(
            f"{model} takes {shape}, inputs of no fixed size; fix it and "
            "save that: fixed = keras.models.clone_model(model, "
            f"keras.Input({fixed})); fixed.set_weights(model.get_weights())"
        )
    if task == "features":
        if None in out[1:] or len(out) < 2:
            raise UserError(
                f"{model} gives {out}; expected features of one fixed shape"
            )
    elif len(out) != 2 or out[1] is None:
        raise UserError(
            f"{model} gives {out}, so it is not a classifier; expected "
            f"(None, classes), or {option('task', 'features')}"
        )
    return image


def _split_head(ops: Ops, num_outputs: int) -> tuple[Ops, Head]:
    """The ops up to two or more logits, and `Canonical.head`."""
    end = ops[-1]
    is_sigmoid = end.config.get("activation") == "sigmoid"
    if num_outputs == 1 and end.kind in _FUNCTIONS and not is_sigmoid:
        refuse(
            end.name,
            end.kind,
            "as the last layer it gives one value, so it is not a classifier; expected "
            "2 or more classes or labels, one logit or sigmoid for two classes, or "
            f"{option('task', 'features')}",
        )
    head = Head.LOGITS
    if is_sigmoid and num_outputs > 1:
        ops, head = ops[:-1], Head.MULTI_LABEL
    elif is_sigmoid:
        ops, head = two_class_logits(ops[:-1]), Head.SIGMOID
    elif num_outputs == 1:
        warnings.warn(
            f"layer {shown(end.name)} gives one value, taken for the logit of two "
            "classes, 1 where it is above 0; if it stands for something else, the task "
            "is features",
            stacklevel=2,
        )
        ops, head = two_class_logits(ops), Head.LOGIT
    elif end.kind == "Softmax":
        ops, head = ops[:-1], Head.SOFTMAX
    return ops, head


def _in_a_row(ops: Ops, shape: tuple[int, ...]) -> Ops:
    """The ops, whose output is (N, *shape), up to features (N, count)."""
    if len(shape) == 1:
        return ops
    taken = {op.name for op in ops}
    name = "features"
    while name in taken:
        name += "_"
    config = {"target_shape": (math.prod(shape),)}
    return [*ops, Op("Reshape", name, (ops[-1].name,), config)]


def _with_biases(ops: Ops) -> Ops:
    """The ops, with biases of zero where quantization has to add something.

    That is in linear ones which have none and no BatchNormalization behind them.
    """
    normalized = {op.inputs[0] for op in ops if op.kind == "BatchNormalization"}
    result = []
    for op in ops:
        if op.kind in LINEAR and len(op.weights) == 1 and op.name not in normalized:
            (kernel,) = op.weights
            # A depthwise kernel has its output channels on its last two dimensions.
            first = 2 if op.kind == "DepthwiseConv2D" else -1
            bias = np.zeros(math.prod(kernel.shape[first:]))
            config = op.config | {"use_bias": True}
            op = dataclasses.replace(op, config=config, weights=(kernel, bias))
        result.append(op)
    return result


def _build(ops: Ops, name: str) -> keras.Model:
    tensors: dict[str, SymbolicTensor] = {}
    for op in ops:
        if op.kind == "InputLayer":
            tensors[op.name] = keras.Input(name=op.name, **op.config)
            continue
        layer_class = getattr(layers, op.kind, None) or getattr(keras.layers, op.kind)
        layer = layer_class(name=op.name, **op.config)
        inputs = [tensors[producer] for producer in op.inputs]
        tensors[op.name] = layer(inputs[0] if len(inputs) == 1 else inputs)
        layer.set_weights(op.weights)
    return keras.Model(tensors[ops[0].name], tensors[ops[-1].name], name=name)
