"""Rewrites of a list of ops that keep what it computes.

Each takes the ops, producers first, and returns them so. Together, in the order of
`rewrite`, they leave no "Affine" and no BatchNormalization that the layer before
it cannot absorb.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from gdfq_tf.frontend.importer import Op, reachable
from gdfq_tf.frontend.steps import refuse
from gdfq_tf.graph.layers import hard_swish

LINEAR = ("Conv2D", "DepthwiseConv2D", "Dense")
# One input, whose integer scale the output has.
_SCALE_KEEPING = (
    "AveragePooling2D",
    "Cropping2D",
    "DepthToSpace",
    "Flatten",
    "MaxPooling2D",
    "Reshape",
    "UpSampling2D",
    "ZeroPadding2D",
)

Ops = list[Op]


def rewrite(ops: Ops) -> tuple[Ops, np.ndarray, np.ndarray]:
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
        pool_to_the_shape_wanted,
        free_joined_sigmoids,
        free_joined_images,
        relus_before_moves,
        merge_duplicates,
    ):
        ops = step(ops)
    return ops, scale, offset


def absorb_resizing(ops: Ops) -> tuple[Ops, Any]:
    """The ops on images that are resized already, and the layer that did it or None.

    Raises:
      UserError: images or features are resized anywhere but at the input.
    """
    resizings = [op for op in ops if op.kind == "Resizing"]
    if not resizings:
        return ops, None
    first = resizings[0]
    readers, producer = _num_readers(ops), first
    while producer.kind in ("Resizing", "Affine") and readers[producer.inputs[0]] == 1:
        producer = _find(ops, producer.inputs[0])
    if producer.kind != "InputLayer" or len(resizings) > 1:
        refuse(first.name, first.kind, "expected it once, at the input")
    layer = first.config["layer"]
    shape = (layer.height, layer.width, ops[0].config["shape"][-1])
    ops = [dataclasses.replace(ops[0], config={"shape": shape}), *ops[1:]]
    before = _find(ops, first.inputs[0])
    rest = [op for op in ops if op is not before]
    return _substitute(rest, first, [before]), layer


def two_class_logits(ops: Ops) -> Ops:
    """z of one sigmoid -> (-z / 2, z / 2), of which it is the softmax's second."""
    halves = np.array([-0.5, 0.5])
    end = ops[-1]
    if end.kind == "Dense":
        weights = tuple(w * halves for w in end.weights)
        config = end.config | {"units": 2}
        return [*ops[:-1], dataclasses.replace(end, config=config, weights=weights)]
    config = {"units": 2, "use_bias": False}
    name = _new_name(ops, f"{end.name}_two_classes")
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

    return _rewrite_pairs(ops, move)


def affines_before_relus(ops: Ops) -> Ops:
    """c * relu(x, max) -> relu(c * x, c * max), for positive c.

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

    return _rewrite_pairs(ops, move)


def merge_affines(ops: Ops) -> Ops:
    """Two affine maps in a row -> one."""

    def merge(op: Op, producer: Op) -> Ops | None:
        if op.kind != "Affine" or producer.kind != "Affine":
            return None
        (scale, offset), (first_scale, first_offset) = op.weights, producer.weights
        weights = scale * first_scale, scale * first_offset + offset
        return [dataclasses.replace(op, inputs=producer.inputs, weights=weights)]

    return _rewrite_pairs(ops, merge)


def recognize_hard_swish(ops: Ops) -> Ops:
    """x * relu(x / 6 + 1 / 2, 1) -> hard_swish(x)."""
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
        ops = _substitute(ops, first[0], [ops[0]])[1:]


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
            # A depthwise kernel has its output channels on its last two dimensions.
            depthwise = producer.kind == "DepthwiseConv2D"
            factor = scale.reshape(kernel.shape[2:]) if depthwise else scale
            weights = kernel * factor, scale * (bias[0] if bias else 0.0) + offset
            config = config | {"use_bias": True}
        else:
            return None
        return [dataclasses.replace(producer, config=config, weights=weights)]

    return _rewrite_pairs(ops, fold)


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

    return _rewrite_pairs(ops, fold)


def _per_input(op: Op, values: np.ndarray) -> np.ndarray:
    """One value for each input channel of a linear layer, as its kernel has them:
    (channels, 1), or (channels of a group, output channels)."""
    groups = op.config.get("groups", 1)
    if groups == 1:
        return values[:, np.newaxis]
    outputs_per_group = op.weights[0].shape[-1] // groups
    return np.repeat(values.reshape(groups, -1), outputs_per_group, axis=0).T


def center_kernels(ops: Ops) -> Ops:
    """A linear layer takes in that the mean over its channels is subtracted, where
    nothing else reads it."""
    for mean in [op for op in ops if op.kind == "ChannelMean"]:
        linear = _find(ops, mean.inputs[0])
        readers = [op for op in ops if linear.name in op.inputs]
        if not _mixes_all_channels(linear) or len(readers) != 2:
            continue
        (centered,) = (op for op in readers if op is not mean)
        weights = tuple(w - w.mean(axis=-1, keepdims=True) for w in linear.weights)
        replacement = dataclasses.replace(linear, weights=weights)
        rest = [op for op in ops if op is not linear and op is not mean]
        ops = _substitute(rest, centered, [replacement])
    return ops


def _mixes_all_channels(op: Op) -> bool:
    return op.kind in ("Conv2D", "Dense") and op.config.get("groups", 1) == 1


def carry(ops: Ops) -> Ops:
    """Affine maps and lone BatchNormalizations become 1x1 depthwise convolutions.

    A BatchNormalization that does not follow a linear layer alone keeps its
    statistics, for synthesis and folding alike, behind an identity convolution.
    """
    for name in [op.name for op in ops]:
        op = _find(ops, name)
        if op.kind == "Affine":
            scale, offset = op.weights
            ops = _substitute(ops, op, _as_depthwise(ops, op, scale, offset))
        if op.kind == "BatchNormalization" and not _is_folded(op, ops):
            carrier = Op("Affine", _new_name(ops, f"{op.name}_carrier"), op.inputs, {})
            ones = np.ones_like(op.weights[0])
            ops = _substitute(ops, op, _as_depthwise(ops, carrier, ones, None, op))
    return ops


def _is_folded(normalization: Op, ops: Ops) -> bool:
    (name,) = normalization.inputs
    return _find(ops, name).kind in LINEAR and _num_readers(ops)[name] == 1


def _as_depthwise(
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
    image = _new_name(ops, f"{op.name}_as_image")
    shape = {"target_shape": (1, 1, scale.size)}
    chain[0] = dataclasses.replace(chain[0], inputs=(image,))
    flat = {"target_shape": (scale.size,)}
    return [
        Op("Reshape", image, op.inputs, shape),
        *chain,
        Op("Reshape", _new_name(ops, f"{op.name}_flat"), (chain[-1].name,), flat),
    ]


def _is_flat(name: str, ops: Ops) -> bool:
    """Whether a tensor is (batch, channels)."""
    op = _find(ops, name)
    if op.kind in ("Dense", "Flatten"):
        return True
    if op.kind == "GlobalAveragePooling2D":
        return not op.config["keepdims"]
    shape = op.config.get("target_shape", op.config.get("shape"))  # Reshape, InputLayer
    return len(shape) == 1 if shape else _is_flat(op.inputs[0], ops)


def pool_to_the_shape_wanted(ops: Ops) -> Ops:
    """A global average, then a reshape to (1, 1, channels) or (channels) -> one."""

    def pool(op: Op, producer: Op) -> Ops | None:
        if producer.kind != "GlobalAveragePooling2D":
            return None
        shape = op.config.get("target_shape", (-1,))
        if op.kind not in ("Flatten", "Reshape") or shape[:-1] not in ((), (1, 1)):
            return None
        keepdims = len(shape) > 1
        if keepdims == producer.config["keepdims"]:
            return None
        return [dataclasses.replace(producer, config={"keepdims": keepdims})]

    return _rewrite_pairs(ops, pool)


def free_joined_sigmoids(ops: Ops) -> Ops:
    """A ReLU, which changes nothing, between a sigmoid and a concatenation.

    Joined tensors share one integer scale, and TFLite fixes that of a sigmoid's
    output; behind the ReLU it may be any.
    """
    result: Ops = []
    for op in ops:
        if op.kind == "Concatenate":
            inputs = list(op.inputs)
            for index, name in enumerate(inputs):
                if _moves_sigmoid(name, result):
                    inputs[index] = _new_name(ops + result, f"{name}_free")
                    config = {"max_value": None}
                    result.append(Op("ReLU", inputs[index], (name,), config))
            op = dataclasses.replace(op, inputs=tuple(inputs))
        result.append(op)
    return result


def _moves_sigmoid(name: str, ops: Ops) -> bool:
    """Whether a tensor is a sigmoid's output, perhaps pooled or moved."""
    op = _find(ops, name)
    if op.kind in _SCALE_KEEPING:
        return _moves_sigmoid(op.inputs[0], ops)
    return op.config.get("activation") == "sigmoid"


def free_joined_images(ops: Ops) -> Ops:
    """An identity convolution between the image and a concatenation with features.

    Joined tensors share one integer scale, and the image's is that of its pixels, which
    features may exceed. What moves the image in between stands twice if it is read
    elsewhere, too.
    """
    image = ops[0]
    name = _new_name(ops, f"{image.name}_free")
    carrier = Op("Affine", name, (image.name,), {})
    ones = np.ones(image.config["shape"][-1])
    result = [image, *_as_depthwise(ops, carrier, ones, None)]
    freed = {image.name: name}
    for op in ops[1:]:
        moves = op.kind in (*_SCALE_KEEPING, "Concatenate")
        if moves and all(x in freed for x in op.inputs):
            freed[op.name] = _new_name(ops + result, f"{op.name}_free")
            inputs = tuple(freed[x] for x in op.inputs)
            result.append(dataclasses.replace(op, name=freed[op.name], inputs=inputs))
        elif op.kind == "Concatenate":
            inputs = tuple(freed.get(x, x) for x in op.inputs)
            op = dataclasses.replace(op, inputs=inputs)
        result.append(op)
    return reachable(result, ops[-1].name)


def relus_before_moves(ops: Ops) -> Ops:
    """A ReLU changes places with what only chooses or moves values before it.

    So the kernel before both absorbs it, and has the range of its output only; into a
    pool the converter would fuse it, whose one integer scale cannot be that of two.
    """

    def move(op: Op, producer: Op) -> Ops | None:
        if op.kind != "ReLU" or producer.kind not in _SCALE_KEEPING:
            return None
        is_blend = producer.kind == "AveragePooling2D" or (
            producer.config.get("interpolation") == "bilinear"
        )
        if is_blend and not _moves_sigmoid(producer.name, ops):
            return None
        relu = dataclasses.replace(op, inputs=producer.inputs)
        return [relu, dataclasses.replace(producer, inputs=(op.name,))]

    return _rewrite_pairs(ops, move)


def merge_duplicates(ops: Ops) -> Ops:
    """Ops that compute the same of the same -> the first of them.

    The converter merges them in any case, and then cannot give one tensor the
    integer scales of two. Linear layers compute what the BatchNormalization makes of
    it that they have for themselves.
    """
    normalizations = {op.inputs[0]: op for op in ops if op.kind == "BatchNormalization"}
    result: Ops = []
    kept_as: dict[str, str] = {}
    for op in ops:
        inputs = tuple(kept_as.get(name, name) for name in op.inputs)
        op = dataclasses.replace(op, inputs=inputs)
        twin = next(
            (
                x
                for x in result
                if op.inputs == x.inputs
                and _alike(op, x)
                and _alike(normalizations.get(op.name), normalizations.get(x.name))
            ),
            None,
        )
        if twin is None:
            result.append(op)
        else:
            kept_as[op.name] = twin.name
    return result


def _alike(first: Op | None, second: Op | None) -> bool:
    """Whether two ops, or none, compute the same of what they take."""
    if first is None or second is None:
        return first is second
    return (
        (first.kind, first.config) == (second.kind, second.config)
        and len(first.weights) == len(second.weights)
        and all(map(np.array_equal, first.weights, second.weights))
    )


# ---- lists of ops


def _rewrite_pairs(ops: Ops, rule: Callable[[Op, Op], Ops | None]) -> Ops:
    """Applies `rule(op, its only producer)` as long as it gives ops for the two.

    Only where no other op reads the producer.
    """
    index = 0
    while index < len(ops):
        op = ops[index]
        producers = [x for x in ops if x.name in op.inputs]
        index += 1
        if len(producers) != 1 or _num_readers(ops)[producers[0].name] != 1:
            continue
        replacement = rule(op, producers[0])
        if replacement is not None:
            rest = [x for x in ops if x is not producers[0]]
            ops = _substitute(rest, op, replacement)
            index = max(index - 2, 0)  # the replacement may be half of a new pair
    return ops


def _substitute(ops: Ops, op: Op, replacement: Ops) -> Ops:
    """Puts other ops in the place of one; what read it reads the last of them."""
    new_name = replacement[-1].name
    result: Ops = []
    for other in ops:
        if other is op:
            result += replacement
            continue
        inputs = tuple(new_name if x == op.name else x for x in other.inputs)
        result.append(dataclasses.replace(other, inputs=inputs))
    return result


def _find(ops: Ops, name: str) -> Op:
    return next(op for op in ops if op.name == name)


def _num_readers(ops: Ops) -> Counter[str]:
    return Counter(name for op in ops for name in op.inputs)


def _new_name(ops: Ops, name: str) -> str:
    taken = {op.name for op in ops}
    number = 0
    while (new := f"{name}_{number}" if number else name) in taken:
        number += 1
    return new
