"""The shapes of an integer network's tensors, from its operations alone."""

from __future__ import annotations

from tflite_export.errors import ExportError
from tflite_export.integer_network import IntegerNetwork, Shape
from tflite_export.names import shown
from tflite_export.operators.table import KINDS


def tensor_shapes(network: IntegerNetwork) -> dict[str, Shape]:
    """The shape of each tensor by name, with the batch of 1 first.

    Raises:
      ExportError: an operation cannot take inputs of their shapes.
    """
    shapes: dict[str, Shape] = {network.input_name: (1, *network.input_shape)}
    for op in network.ops:
        inputs = [shapes[name] for name in op.inputs]
        try:
            shape = KINDS[op.kind].output_shape(op, *inputs)
        except (ValueError, TypeError, LookupError):
            shape = ()
        if not shape or min(shape) < 1:
            raise ExportError(
                f"operation {shown(op.name)} ({op.kind}) cannot take inputs of shape "
                f"{' and '.join(map(str, inputs))}; expected shapes that fit its "
                "kernel and attributes"
            )
        shapes[op.name] = shape
    return shapes
