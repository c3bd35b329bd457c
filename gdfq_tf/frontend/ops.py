"""Networks as lists of primitive layers, producers first, and how to edit them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from gdfq_tf.graph.traits import TRAITS


@dataclasses.dataclass(frozen=True)
class Op:
    """One primitive layer.

    Attributes:
      kind: class name in `tf_keras.layers` or `layers`, "Affine" or "Resizing" (see
        `Step`).
      name: layer name, unique in the graph.
      inputs: names of the producers.
      config: arguments of the class.
      weights: in the order of `layer.get_weights()`, float32.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    config: dict[str, Any]
    weights: tuple[np.ndarray, ...] = ()


Ops: TypeAlias = list[Op]

# Kinds that have a kernel.
LINEAR = tuple(kind.__name__ for kind, row in TRAITS.items() if row.has_kernel)


def reachable(ops: Iterable[Op], output: str) -> Ops:
    """The ops that `output` depends on; it comes last."""
    needed, result = {output}, []
    for op in reversed(list(ops)):
        if op.name in needed:
            needed |= set(op.inputs)
            result.append(op)
    return result[::-1]


def find(ops: Ops, name: str) -> Op:
    """The op of a name."""
    return next(op for op in ops if op.name == name)


def num_readers(ops: Ops) -> Counter[str]:
    """How many inputs each op is, by name."""
    return Counter(name for op in ops for name in op.inputs)


def new_name(ops: Ops, name: str) -> str:
    """The name, numbered if an op has it already."""
    taken = {op.name for op in ops}
    number = 0
    while (new := f"{name}_{number}" if number else name) in taken:
        number += 1
    return new


def substitute(ops: Ops, op: Op, replacement: Ops) -> Ops:
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


def rewrite_pairs(ops: Ops, rule: Callable[[Op, Op], Ops | None]) -> Ops:
    """Applies `rule(op, its only producer)` as long as it gives ops for the two.

    Only where no other op reads the producer.
    """
    index = 0
    while index < len(ops):
        op = ops[index]
        producers = [x for x in ops if x.name in op.inputs]
        index += 1
        if len(producers) != 1 or num_readers(ops)[producers[0].name] != 1:
            continue
        replacement = rule(op, producers[0])
        if replacement is not None:
            rest = [x for x in ops if x is not producers[0]]
            ops = substitute(rest, op, replacement)
            index = max(index - 2, 0)  # the replacement may be half of a new pair
    return ops


def rewrite_in_order(ops: Ops, rule: Callable[[Op, Mapping[str, Op]], Op | str]) -> Ops:
    """Each op as `rule(op, ops before it by name)` has it, producers first.

    The rule gives an op of that name, or the name of one before it that is to be read
    in its place.
    """
    before: dict[str, Op] = {}
    read_as: dict[str, str] = {}
    for op in ops:
        inputs = tuple(read_as.get(name, name) for name in op.inputs)
        found = rule(dataclasses.replace(op, inputs=inputs), before)
        if isinstance(found, str):
            read_as[op.name] = found
        else:
            before[op.name] = found
    return reachable(before.values(), read_as.get(ops[-1].name, ops[-1].name))
