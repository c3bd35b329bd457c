"""Arithmetic folded away: passes over a list of ops that keep what it computes.

Each takes the ops and returns them. Together, in the order of `fold`, they leave no
"Affine" and no BatchNormalization that the layer before it cannot absorb.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from gdfq_tf.frontend.ops import (
    LINEAR,
    Op,
    Ops,
    find,
    new_name,
    num_readers,
    reachable,
    rewrite_pairs,
    substitute,
)
from gdfq_tf.frontend.steps import refuse
from gdfq_tf.graph.layers import hard_swish
from gdfq_tf.keras_compat import Layer


def fold(ops: Ops) -> tuple[Ops, np.ndarray, np.ndarray]:
    """The ops without affine maps, on an input that has passed the first of them.

    Returns:
      The ops, and scale and offset, float64 (channels,): where the given ops take
      x, the returned ones take scale * x + offset.
    """
    for step in (
        before_depth_to_space,
        affines_before_relus,
        merge_affines,
        recognize_hard_swish,
    ):
        ops = step(ops)
    ops, scale, offset = absorb_input_affines(ops)
    for step in (
        fold_affines,
        fold_affines_forward,
        center_kernels,
        carry,
        make_gammas_positive,
    ):
        ops = step(ops)
    return ops, scale, offset


def absorb_resizing(ops: Ops) -> tuple[Ops, Layer | None]:
    """The ops on images that are resized already, and the layer that did it or None.

    Raises:
      UserError: images or features are resized anywhere but at the input.
    """
    resizings = [op for op in ops if op.kind == "Resizing"]
    if not resizings:
        return ops, None
    first = resizings[0]
    readers, producer = num_readers(ops), first
    while producer.kind in ("Resizing", "Affine") and readers[producer.inputs[0]] == 1:
        producer = find(ops, producer.inputs[0])
    if producer.kind != "InputLayer" or len(resizings) > 1:
        refuse(first.name, first.kind, "expected it once, at the input")
    layer = first.config["layer"]
    shape = (layer.height, layer.width, ops[0].config["shape"][-1])
    ops = [dataclasses.replace(ops[0], config={"shape": shape}), *ops[1:]]
    before = find(ops, first.inputs[0])
    rest = [op for op in ops if op is not before]
    return substitute(rest, first, [before]), layer


def two_class_logits(ops: Ops) -> Ops:
    """Of one sigmoid, z -> (-z / 2, z / 2), of which it is the softmax's second."""
    halves = np.array([-0.5, 0.5])
    end = ops[-1]
    if end.kind == "Dense":
        weights = tuple(w * halves for w in end.weights)
        config = end.config | {"units": 2}
        return [*ops[:-1], dataclasses.replace(end, config=config, weights=weights)]
    config = {"units": 2, "use_bias": False}
    name = new_name(ops, f"{end.name}_two_classes")
    return [*ops, Op("Dense", name, (end.name,), config, (halves[np.newaxis],))]


def before_depth_to_space(ops: Ops) -> Ops:
    """What works on each channel alone changes places with a DepthToSpace before it.

    So the convolution of a transposed convolution can absorb it. Each phase becomes
    channels of its own and every channel's parameters stand once for each phase: to
    the values it is the same map, wherever they lie. So are a BatchNormalization's
    statistics, as parameters. What they tell of the training data they tell of all
    phases together, which `bn_statistics.normalized_tensor` heeds.
    """

    def move(op: Op, producer: Op) -> Ops | None:
        if producer.kind != "DepthToSpace":
            return None
        if op.kind not in ("Affine", "BatchNormalization", "ReLU"):
            return None
        count = math.prod(producer.config["block_size"])
        weights = tuple(np.tile(w, count) for w in op.weights)
        moved = dataclasses.replace(op, inputs=producer.inputs, weights=weights)
        return [moved, dataclasses.replace(producer, inputs=(op.name,))]

    return rewrite_pairs(ops, move)


def affines_before_relus(ops: Ops) -> Ops:
    """Positive factors first: c * relu(x, max) -> relu(c * x, c * max).

    So the factor stands behind the linear layer that can absorb it.
    """

    def move(op: Op, producer: Op) -> Ops | None:
        if op.kind != "Affine" or producer.kind != "ReLU":
            return None
        scale, offset = op.weights
        bound = producer.config["max_value"]
        if np.any(offset) or np.any(scale <= 0):
            return None
        if bound is not None:
            if np.ptp(scale) > 0:
                return None
            bound = float(bound * scale[0])
        affine = dataclasses.replace(op, inputs=producer.inputs)
        return [affine, Op("ReLU", producer.name, (op.name,), {"max_value": bound})]

    return rewrite_pairs(ops, move)


def merge_affines(ops: Ops) -> Ops:
    """Two affine maps in a row -> one."""
    return rewrite_pairs(ops, merged_affine)


def merged_affine(op: Op, producer: Op) -> Ops | None:
    """The affine map that two in a row are; None if they are others."""
    if op.kind != "Affine" or producer.kind != "Affine":
        return None
    (scale, offset), (first_scale, first_offset) = op.weights, producer.weights
    weights = scale * first_scale, scale * first_offset + offset
    return [dataclasses.replace(op, inputs=producer.inputs, weights=weights)]


def recognize_hard_swish(ops: Ops) -> Ops:
    """Names hard_swish: x * relu(x / 6 + 1 / 2, 1) -> hard_swish(x)."""
    by_name = {op.name: op for op in ops}
    result = []
    for op in ops:
        if op.kind == "Multiply":
            for x, gate in (op.inputs, op.inputs[::-1]):
                if _is_hard_sigmoid_of(x, by_name[gate], by_name):
                    config = {"activation": hard_swish}
                    op = Op("Activation", op.name, (x,), config)
                    break
        result.append(op)
    return reachable(result, ops[-1].name)


def _is_hard_sigmoid_of(x: str, relu: Op, by_name: dict[str, Op]) -> bool:
    if relu.kind != "ReLU" or relu.config["max_value"] is None:
        return False
    line = by_name[relu.inputs[0]]
    if line.kind != "Affine" or line.inputs != (x,):
        return False
    # Written in float32, by several hands.
    found = [*line.weights[0], *(line.weights[1] / 3), relu.config["max_value"] / 6]
    return np.allclose(found, 1 / 6, rtol=1e-6)


def absorb_input_affines(ops: Ops) -> tuple[Ops, np.ndarray, np.ndarray]:
    """Takes off the affine maps of positive scale that the image passes first."""
    channels = ops[0].config["shape"][-1]
    scale, offset = np.ones(channels), np.zeros(channels)
    while True:
        first = [op for op in ops if ops[0].name in op.inputs]
        if len(first) != 1 or first[0].kind != "Affine" or first[0] is ops[-1]:
            return ops, scale, offset
        next_scale, next_offset = first[0].weights
        if np.any(next_scale <= 0):
            return ops, scale, offset
        scale, offset = next_scale * scale, next_scale * offset + next_offset
        ops = substitute(ops, first[0], [ops[0]])[1:]


def fold_affines(ops: Ops) -> Ops:
    """A linear layer or BatchNormalization takes in the affine map behind it."""

    def fold(op: Op, producer: Op) -> Ops | None:
        if op.kind != "Affine":
            return None
        scale, offset = op.weights
        config, weights = producer.config, producer.weights
        if producer.kind == "BatchNormalization":
            gamma, beta, mean, variance = weights
            weights = scale * gamma, scale * beta + offset, mean, variance
        elif producer.kind in LINEAR:
            kernel, *bias = weights
            factor = _per_output(producer, scale)
            weights = kernel * factor, scale * (bias[0] if bias else 0.0) + offset
            config = config | {"use_bias": True}
        else:
            return None
        return [dataclasses.replace(producer, config=config, weights=weights)]

    return rewrite_pairs(ops, fold)


def fold_affines_forward(ops: Ops) -> Ops:
    """A linear layer takes in the affine map before it.

    Not an offset where the layer pads: its zeros stand for zeros behind the map.
    """

    def fold(op: Op, producer: Op) -> Ops | None:
        if producer.kind != "Affine" or op.kind not in LINEAR:
            return None
        scale, offset = producer.weights
        kernel, *bias = op.weights
        is_padded = op.config.get("padding") == "same" and kernel.shape[:2] != (1, 1)
        if is_padded and np.any(offset):
            return None
        # A depthwise kernel has its output channels on its last two dimensions.
        num_summed = kernel.ndim - (2 if op.kind == "DepthwiseConv2D" else 1)
        shift = np.sum(kernel * _per_input(op, offset), axis=tuple(range(num_summed)))
        new_bias = shift.ravel() + (bias[0] if bias else 0.0)
        weights = kernel * _per_input(op, scale), new_bias
        config = op.config | {"use_bias": True}
        return [Op(op.kind, op.name, producer.inputs, config, weights)]

    return rewrite_pairs(ops, fold)


def _per_output(op: Op, values: np.ndarray) -> np.ndarray:
    """One value for each output channel of a linear layer, as its kernel has them."""
    if op.kind != "DepthwiseConv2D":
        return values
    # A depthwise kernel has its output channels on its last two dimensions.
    return values.reshape(op.weights[0].shape[2:])


def _per_input(op: Op, values: np.ndarray) -> np.ndarray:
    """One value for each input channel of a linear layer, as its kernel has them.

    That is (channels, 1), or (channels of a group, output channels).
    """
    groups = op.config.get("groups", 1)
    if groups == 1:
        return values[:, np.newaxis]
    outputs_per_group = op.weights[0].shape[-1] // groups
    return np.repeat(values.reshape(groups, -1), outputs_per_group, axis=0).T


def center_kernels(ops: Ops) -> Ops:
    """A linear layer takes in that the mean over its channels is subtracted.

    Only where nothing else reads it.
    """
    for mean in [op for op in ops if op.kind == "ChannelMean"]:
        linear = find(ops, mean.inputs[0])
        readers = [op for op in ops if linear.name in op.inputs]
        if not _mixes_all_channels(linear) or len(readers) != 2:
            continue
        (centered,) = (op for op in readers if op is not mean)
        weights = tuple(w - w.mean(axis=-1, keepdims=True) for w in linear.weights)
        replacement = dataclasses.replace(linear, weights=weights)
        rest = [op for op in ops if op is not linear and op is not mean]
        ops = substitute(rest, centered, [replacement])
    return ops


def _mixes_all_channels(op: Op) -> bool:
    return op.kind in ("Conv2D", "Dense") and op.config.get("groups", 1) == 1


def carry(ops: Ops) -> Ops:
    """Affine maps and lone BatchNormalizations become 1x1 depthwise convolutions.

    A BatchNormalization that does not follow a linear layer alone keeps its
    statistics, for synthesis and folding alike, behind an identity convolution.
    """
    for name in [op.name for op in ops]:
        op = find(ops, name)
        if op.kind == "Affine":
            scale, offset = op.weights
            ops = substitute(ops, op, as_depthwise(ops, op, scale, offset))
        if op.kind == "BatchNormalization" and not _is_folded(op, ops):
            carrier = Op("Affine", new_name(ops, f"{op.name}_carrier"), op.inputs, {})
            ones = np.ones_like(op.weights[0])
            ops = substitute(ops, op, as_depthwise(ops, carrier, ones, None, op))
    return ops


def _is_folded(normalization: Op, ops: Ops) -> bool:
    (name,) = normalization.inputs
    return find(ops, name).kind in LINEAR and num_readers(ops)[name] == 1


def make_gammas_positive(ops: Ops) -> Ops:
    """Channels whose gamma is negative change sign before it instead.

    Kernels of few bits have one negative level more than positive ones, so the sign of
    what they are multiplied with must not change when they are stored.
    """

    def flip(op: Op, producer: Op) -> Ops | None:
        if op.kind != "BatchNormalization" or not np.any(op.weights[0] < 0):
            return None
        gamma, beta, mean, variance = op.weights
        sign = np.where(gamma < 0, -1.0, 1.0)
        kernel, *bias = producer.weights
        flipped = kernel * _per_output(producer, sign), *(b * sign for b in bias)
        weights = np.abs(gamma), beta, sign * mean, variance
        return [
            dataclasses.replace(producer, weights=flipped),
            dataclasses.replace(op, weights=weights),
        ]

    return rewrite_pairs(ops, flip)


def as_depthwise(
    ops: Ops,
    op: Op,
    scale: np.ndarray,
    offset: np.ndarray | None,
    *normalization: Op,
) -> Ops:
    """`op` as a depthwise 1x1 convolution, also of tensors without positions."""
    kernel = scale.reshape(1, 1, -1, 1)
    weights = (kernel,) if offset is None else (kernel, offset)
    config = {"kernel_size": 1, "use_bias": offset is not None}
    chain = [Op("DepthwiseConv2D", op.name, op.inputs, config, weights)]
    chain += [dataclasses.replace(x, inputs=(op.name,)) for x in normalization]
    if not _is_flat(op.inputs[0], ops):
        return chain
    image = new_name(ops, f"{op.name}_as_image")
    shape = {"target_shape": (1, 1, scale.size)}
    chain[0] = dataclasses.replace(chain[0], inputs=(image,))
    flat = {"target_shape": (scale.size,)}
    return [
        Op("Reshape", image, op.inputs, shape),
        *chain,
        Op("Reshape", new_name(ops, f"{op.name}_flat"), (chain[-1].name,), flat),
    ]


def _is_flat(name: str, ops: Ops) -> bool:
    """Whether a tensor is (batch, channels)."""
    op = find(ops, name)
    if op.kind in ("Dense", "Flatten"):
        return True
    if op.kind == "GlobalAveragePooling2D":
        return not op.config["keepdims"]
    shape = op.config.get("target_shape", op.config.get("shape"))  # Reshape, InputLayer
    return len(shape) == 1 if shape else _is_flat(op.inputs[0], ops)
