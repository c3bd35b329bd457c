"""What a target does not take of a network, and what it may compute wrongly.

`targets.py` has the facts, one field each; here is one function for each field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tflite_export.errors import ExportError, option
from tflite_export.integer_network import IntegerNetwork, kernel_of
from tflite_export.names import shown
from tflite_export.quantization_params import storage_bits
from tflite_export.targets import TARGETS, Target

_DENSE = frozenset({"dense", "dense_convolution"})

Rule = Callable[[Target, IntegerNetwork], Iterator[str]]


def require_taken(network: IntegerNetwork) -> None:
    """Refuses what the network's target does not take.

    Raises:
      ExportError: the first of it, the reason, and what to do.
    """
    target = TARGETS[network.target]
    require_activations_taken(target, network)
    for rule in RULES:
        for offence in rule(target, network):
            raise ExportError(f"{option('target', target.name)}: {offence}")


def warnings_of(network: IntegerNetwork) -> list[str]:
    """What the network's target may compute wrongly, one line each."""
    target = TARGETS[network.target]
    return [line for rule in WARNINGS for line in rule(target, network)]


def without_int4(target: Target) -> str | None:
    """The reason for which a target takes 8-bit kernels alone, and what to do."""
    if not target.no_int4:
        return None
    return f"{target.no_int4}; take {option('bits', 'w8a8')}"


def without_int16(target: Target) -> str | None:
    """The reason for which a target takes int8 activations alone, and what to do."""
    if not target.no_int16:
        return None
    return (
        f"{target.no_int16}; take {option('bits', 'w8a8')}, or "
        f"{option('target', 'litert')}"
    )


def require_activations_taken(target: Target, network: IntegerNetwork) -> None:
    """Refuses a network whose activations a target does not take.

    Raises:
      ExportError: the reason, and what to do.
    """
    reason = without_int16(target)
    if network.activation_bits == 16 and reason:
        raise ExportError(
            f"{option('target', target.name)} does not take the student's activations "
            f"of 16 bits: {reason}"
        )


def _int4_beside_int16(target: Target, network: IntegerNetwork) -> Iterator[str]:
    if network.activation_bits != 16:
        return
    for op in network.ops:
        # LiteRT reads their bytes as if they were int8, and says nothing.
        if op.kind == "depthwise" and storage_bits(kernel_of(op).bits) == 4:
            yield (
                f"layer {shown(op.name)} is depthwise with a kernel of "
                f"{kernel_of(op).bits} bits, and beside int16 activations those have "
                f"8; take {option('bits', 'w4a16')}, or keep it by "
                f"{option('keep_layers')}"
            )


def _int4(target: Target, network: IntegerNetwork) -> Iterator[str]:
    reason = without_int4(target)
    for op in network.ops:
        if reason and op.kernel is not None and storage_bits(op.kernel.bits) == 4:
            yield (
                f"layer {shown(op.name)} has a kernel of {op.kernel.bits} bits, and "
                f"{reason}"
            )


def refusal_of(target: Target, name: str, kind: str, bits: int) -> str | None:
    """Why a target does not take a layer of that kind, and what to do.

    `bits`: of activations, 8 or 16.
    """
    refused = target.refused
    if bits == 16:
        refused = {**refused, **target.refused_with_int16}
    if kind not in refused:
        return None
    return f"layer {shown(name)} is a {kind}: {refused[kind]}"


def _kinds(target: Target, network: IntegerNetwork) -> Iterator[str]:
    bits = network.activation_bits
    refusals = (refusal_of(target, op.name, op.kind, bits) for op in network.ops)
    yield from (refusal for refusal in refusals if refusal is not None)


def _inputs(target: Target, network: IntegerNetwork) -> Iterator[str]:
    for op in network.ops:
        count, most = len(op.inputs), target.most_inputs.get(op.kind)
        if most is not None and count > most:
            yield (
                f"layer {shown(op.name)} is a {op.kind} of {count} tensors, and it "
                f"takes {most}; join some of them first"
            )


def _relu6(target: Target, network: IntegerNetwork) -> Iterator[str]:
    for op in network.ops:
        if not (target.relu6_keeps_scale and op.kind == "relu" and op.relu6):
            continue
        if network.quant_params(op.inputs[0]) != op.quant_params:
            yield (
                f"layer {shown(op.name)} is a ReLU6 behind no layer that it could be "
                "part of, and its RELU6 ignores the change of scale; take a ReLU there"
            )


def _dense_widths(target: Target, network: IntegerNetwork) -> Iterator[str]:
    if target.dense_multiple is None:
        return
    multiple, reason = target.dense_multiple
    for op in network.ops:
        if op.kind not in _DENSE:
            continue
        inputs, outputs = kernel_of(op).values.shape
        if inputs % multiple or outputs % multiple:
            yield (
                f"layer {shown(op.name)} is dense, {inputs} to {outputs}, which are "
                f"not multiples of {multiple}: {reason}"
            )


RULES: tuple[Rule, ...] = (_int4, _int4_beside_int16, _kinds, _inputs, _relu6)
WARNINGS: tuple[Rule, ...] = (_dense_widths,)
