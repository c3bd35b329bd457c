"""What models make of the shape of their input before anything else.

Networks for microcontrollers take a row of values and reshape it, others add the
channel to their pictures. The canonical network begins with the image or signal that
they come to; so its images can be made. The order of the values is the same.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from gdfq_tf.frontend.ops import Op, Ops, rewrite_pairs, substitute

_IMAGE_RANK = 3  # height, width, channels


def absorb_input_reshapes(ops: Ops, rank: int) -> Ops:
    """The ops on the image that the input is reshaped to first.

    Args:
      ops: of a model.
      rank: dimensions of its input, without the batch. Images of 3 stay as they are.
    """
    if rank >= _IMAGE_RANK:
        return ops
    chain = _reshapes_and_scalings(ops)
    while chain and not _gives_image(chain[-1]):
        chain.pop()
    if not chain:
        return _scalings_before_rows(ops)
    image = chain[-1].config["target_shape"]
    scalings = [_for_channels(op, image[-1]) for op in chain if op.kind == "Affine"]
    start = dataclasses.replace(ops[0], config={"shape": image})
    replacement = [start]
    for op in scalings:
        replacement.append(dataclasses.replace(op, inputs=(replacement[-1].name,)))
    taken = {id(op) for op in (ops[0], *chain[:-1])}
    rest = [op for op in ops if id(op) not in taken]
    return substitute(rest, chain[-1], replacement)


def _scalings_before_rows(ops: Ops) -> Ops:
    """A map of each value of a row changes places with the reshape to that row."""
    (*positions, channels) = ops[0].config["shape"]

    def move(op: Op, producer: Op) -> Ops | None:
        if op.kind != "Affine" or producer.kind != "Reshape":
            return None
        is_row = producer.config["target_shape"] == (channels,)
        if producer.inputs != (ops[0].name,) or not is_row or {*positions} != {1}:
            return None
        affine = dataclasses.replace(op, inputs=producer.inputs)
        return [affine, dataclasses.replace(producer, inputs=(op.name,))]

    return rewrite_pairs(ops, move)


def _reshapes_and_scalings(ops: Ops) -> Ops:
    """The reshapes behind the input, and between them maps that are of no channel."""
    chain: Ops = []
    name = ops[0].name
    while True:
        readers = [op for op in ops if name in op.inputs]
        if len(readers) != 1 or readers[0] is ops[-1]:
            return chain
        is_scaling = readers[0].kind == "Affine" and _is_uniform(readers[0])
        if readers[0].kind != "Reshape" and not is_scaling:
            return chain
        chain.append(readers[0])
        name = readers[0].name


def _gives_image(op: Op) -> bool:
    return op.kind == "Reshape" and len(op.config["target_shape"]) == _IMAGE_RANK


def _is_uniform(affine: Op) -> bool:
    return all(np.ptp(values) == 0 for values in affine.weights)


def _for_channels(affine: Op, channels: int) -> Op:
    """A map that is the same for all channels, for so many."""
    weights = tuple(np.full(channels, values[0]) for values in affine.weights)
    return dataclasses.replace(affine, weights=weights)
