"""What only TFLite's integer kernels need of a network that is folded already.

Passes over a list of ops that keep what it computes: where tensors must share an
integer scale, they come to where they can.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from gdfq_tf.frontend.folding import as_depthwise
from gdfq_tf.frontend.ops import (
    Op,
    Ops,
    find,
    new_name,
    reachable,
    rewrite_in_order,
    rewrite_pairs,
)
from gdfq_tf.frontend.steps import refuse
from gdfq_tf.graph.traits import TRAITS

# Kinds whose outputs have the integer scale of their inputs.
_SCALE_KEEPING = {kind.__name__ for kind, row in TRAITS.items() if row.keeps_scale}
_JOINING = {kind.__name__ for kind, row in TRAITS.items() if row.joins}
_SCALE_KEEPING_OF_ONE = _SCALE_KEEPING - _JOINING
_COMMUTATIVE = {kind.__name__ for kind, row in TRAITS.items() if row.commutes}


def legalize(ops: Ops) -> Ops:
    """The ops as the integer kernels can compute them."""
    for step in (
        pool_to_the_shape_wanted,
        free_joined_sigmoids,
        free_joined_images,
        relus_before_moves,
        undo_reshapes,
        merge_permutations,
        merge_duplicates,
        one_prelu_of_each_tensor,
    ):
        ops = step(ops)
    return ops


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

    return rewrite_pairs(ops, pool)


def free_joined_sigmoids(ops: Ops) -> Ops:
    """A ReLU, which changes nothing, between a sigmoid and where it is joined.

    Joined tensors share one integer scale, and TFLite fixes that of a sigmoid's
    output; behind the ReLU it may be any.
    """
    result: Ops = []
    for op in ops:
        if op.kind in _JOINING:
            inputs = list(op.inputs)
            for index, name in enumerate(inputs):
                if _moves_sigmoid(name, result):
                    inputs[index] = new_name(ops + result, f"{name}_free")
                    config = {"max_value": None}
                    result.append(Op("ReLU", inputs[index], (name,), config))
            op = dataclasses.replace(op, inputs=tuple(inputs))
        result.append(op)
    return result


def _moves_sigmoid(name: str, ops: Ops) -> bool:
    """Whether a tensor is a sigmoid's output, perhaps pooled or moved."""
    op = find(ops, name)
    if op.kind in _SCALE_KEEPING_OF_ONE:
        return _moves_sigmoid(op.inputs[0], ops)
    return op.config.get("activation") == "sigmoid"


def free_joined_images(ops: Ops) -> Ops:
    """An identity convolution between the image and where it is joined with features.

    Joined tensors share one integer scale, and the image's is that of its pixels, which
    features may exceed. What moves the image in between stands twice if it is read
    elsewhere, too.
    """
    image = ops[0]
    name = new_name(ops, f"{image.name}_free")
    carrier = Op("Affine", name, (image.name,), {})
    ones = np.ones(image.config["shape"][-1])
    result = [image, *as_depthwise(ops, carrier, ones, None)]
    freed = {image.name: name}
    for op in ops[1:]:
        moves = op.kind in _SCALE_KEEPING
        if moves and all(x in freed for x in op.inputs):
            freed[op.name] = new_name(ops + result, f"{op.name}_free")
            inputs = tuple(freed[x] for x in op.inputs)
            result.append(dataclasses.replace(op, name=freed[op.name], inputs=inputs))
        elif op.kind in _JOINING:
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
        if op.kind != "ReLU" or producer.kind not in _SCALE_KEEPING_OF_ONE:
            return None
        is_blend = producer.kind == "AveragePooling2D" or (
            producer.config.get("interpolation") == "bilinear"
        )
        if is_blend and not _moves_sigmoid(producer.name, ops):
            return None
        relu = dataclasses.replace(op, inputs=producer.inputs)
        return [relu, dataclasses.replace(producer, inputs=(op.name,))]

    return rewrite_pairs(ops, move)


def undo_reshapes(ops: Ops) -> Ops:
    """A reshape of what was transposed, and the one back, go.

    The converter finds that in any case, and then transpositions in a row.
    """

    def undo(op: Op, before: Mapping[str, Op]) -> Op | str:
        if op.kind != "Reshape" or before[op.inputs[0]].kind != "Reshape":
            return op
        (name,) = before[op.inputs[0]].inputs
        moved = before[name]
        if moved.kind != "Permute" or _known_shape(moved, before) != _known_shape(
            op, {}
        ):
            return op
        return name

    return rewrite_in_order(ops, undo)


def _known_shape(op: Op, by_name: Mapping[str, Op]) -> tuple[int, ...] | None:
    """The shape of what an op gives, without the batch, where ops before it tell."""
    if op.kind == "Reshape":
        return tuple(op.config["target_shape"])
    if op.kind != "Permute":
        return None
    shape = _known_shape(by_name[op.inputs[0]], by_name)
    return shape and tuple(shape[d - 1] for d in op.config["dims"])


def merge_permutations(ops: Ops) -> Ops:
    """Two transpositions in a row -> one, or none if the second undoes the first.

    The converter does so in any case.
    """

    def merge(op: Op, before: Mapping[str, Op]) -> Op | str:
        if op.kind != "Permute" or before[op.inputs[0]].kind != "Permute":
            return op
        first = before[op.inputs[0]]
        dims = tuple(first.config["dims"][d - 1] for d in op.config["dims"])
        if dims == tuple(sorted(dims)):
            return first.inputs[0]
        return dataclasses.replace(op, inputs=first.inputs, config={"dims": dims})

    return rewrite_in_order(ops, merge)


def merge_duplicates(ops: Ops) -> Ops:
    """Ops that compute the same of the same -> the first of them.

    The converter merges them in any case, and then cannot give one tensor the
    integer scales of two. Linear layers compute what the BatchNormalization makes of
    it that they have for themselves.
    """
    normalizations = {op.inputs[0]: op for op in ops if op.kind == "BatchNormalization"}

    def merge(op: Op, before: Mapping[str, Op]) -> Op | str:
        twins = (
            x.name
            for x in before.values()
            if _taken(op) == _taken(x)
            and _alike(op, x)
            and _alike(normalizations.get(op.name), normalizations.get(x.name))
        )
        return next(twins, op)

    return rewrite_in_order(ops, merge)


def one_prelu_of_each_tensor(ops: Ops) -> Ops:
    """The same ops, if no tensor is read by several PReLUs.

    The converter would merge what these have in common, and then know them no more.

    Raises:
      UserError: one is.
    """
    read: set[str] = set()
    for op in ops:
        if op.kind == "PReLU":
            if op.inputs[0] in read:
                refuse(
                    op.name,
                    op.kind,
                    "another PReLU reads the same tensor; expected one: give each a "
                    "BatchNormalization of its own in front",
                )
            read.add(op.inputs[0])
    return ops


def _taken(op: Op) -> Sequence[str]:
    """The inputs, in one order where theirs changes nothing."""
    return sorted(op.inputs) if op.kind in _COMMUTATIVE else list(op.inputs)


def _alike(first: Op | None, second: Op | None) -> bool:
    """Whether two ops, or none, compute the same of what they take."""
    if first is None or second is None:
        return first is second
    return (
        (first.kind, first.config) == (second.kind, second.config)
        and len(first.weights) == len(second.weights)
        and all(map(np.array_equal, first.weights, second.weights))
    )
