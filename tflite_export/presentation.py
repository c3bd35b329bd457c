"""A finished network with other ends: their types, and names of its classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tflite_export.errors import ExportError, option
from tflite_export.integer_network import IntegerNetwork
from tflite_export.interface import END_TYPES_OF_BITS
from tflite_export.json_values import is_line
from tflite_export.names import printable, shown
from tflite_export.tensor_shapes import tensor_shapes


def presented(
    network: IntegerNetwork,
    *,
    input_type: str | None,
    output_type: str | None,
    labels: Sequence[str],
) -> IntegerNetwork:
    """The network with those of its ends that are given in place of its own.

    Args:
      network: what its file is made of.
      input_type: a type that its ends can have, or None.
      output_type: likewise.
      labels: of its outputs; none: as they are.

    Raises:
      ExportError: see `require_labels` and `require_end_type`.
    """
    interface = network.interface
    for name, value in (("input_type", input_type), ("output_type", output_type)):
        if value is not None:
            require_end_type(name, value, network.activation_bits)
    if labels:
        num_outputs = tensor_shapes(network)[network.ops[-1].name][-1]
        require_labels(labels, num_outputs, interface.meaning.name or "the network")
        meaning = dataclasses.replace(interface.meaning, labels=tuple(labels))
        interface = dataclasses.replace(interface, meaning=meaning)
    interface = dataclasses.replace(
        interface,
        input_type=input_type or interface.input_type,
        output_type=output_type or interface.output_type,
    )
    return dataclasses.replace(network, interface=interface)


def require_labels(labels: Sequence[str], num_outputs: int, name: str) -> None:
    """Refuses labels that cannot be those of a network's outputs.

    Raises:
      ExportError: another number of them; one that is no line of text.
    """
    if len(labels) != num_outputs:
        raise ExportError(
            f"{option('labels')} has {len(labels)} names, and {name} has {num_outputs} "
            "outputs; expected one name for each, in their order"
        )
    for label in labels:
        if not is_line(label) or not label.strip():
            found = shown(label) if isinstance(label, str) else printable(repr(label))
            raise ExportError(
                f"{option('labels')} holds {found}; expected names that are one line "
                "of text each"
            )


def require_end_type(name: str, value: object, bits: int) -> None:
    """Refuses types that ends of files cannot have.

    Args:
      name: of the option.
      value: of the same.
      bits: of the activations.

    Raises:
      ExportError: it is none of `END_TYPES_OF_BITS`.
    """
    if value not in END_TYPES_OF_BITS[bits]:
        raise ExportError(
            f"{option(name, value)} is no type of a file's end where activations have "
            f"{bits} bits; expected {' or '.join(END_TYPES_OF_BITS[bits])}"
        )
