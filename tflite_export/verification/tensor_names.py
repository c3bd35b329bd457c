"""What the tensors of a file are called: after the layers that they belong to.

The ends have the names of the student's interface. The output of a layer has the name
of the layer, its constants that name and what they are: `conv1`, `conv1/kernel`,
`conv1/bias`. A constant of several layers has the name of the first.
"""

from __future__ import annotations

from tflite_export.flatbuffer import TFLiteModel
from tflite_export.interface import Interface
from tflite_export.verification.expected_operators import ExpectedOperator
from tflite_export.verification.matching import Matching


def tensor_names(
    model: TFLiteModel, matching: Matching, interface: Interface
) -> dict[int, str]:
    """Names of a file's tensors by index, each once.

    Tensors of operators that are not the student's have none.

    Args:
      model: the file.
      matching: its operators as the student's.
      interface: the student's.
    """
    names = _Names()
    for index, name in (
        *((index, interface.input_name) for index in model.inputs),
        *((index, interface.output_name) for index in model.outputs),
    ):
        names.add(index, name)
    layers: dict[int, ExpectedOperator] = {}
    for step, operator in matching.found:
        layers.setdefault(operator.index, step)
        names.add(operator.outputs[0], step.output)
    for operator in model.operators:
        layer = layers.get(operator.index)
        if layer is not None:
            stored = operator.inputs[len(layer.inputs) :]
            for index, constant in zip(stored, layer.constants, strict=False):
                names.add(index, f"{layer.output}/{constant.what}")
        elif operator.name == "RESHAPE":
            source, shape = operator.inputs
            names.add(operator.outputs[0], f"{names.of(source)}/reshaped")
            names.add(shape, f"{names.of(operator.outputs[0])}/shape")
    return names.by_index


class _Names:
    """Names that are given once, to a tensor that has none yet."""

    def __init__(self) -> None:
        """None yet."""
        self.by_index: dict[int, str] = {}
        self._taken: set[str] = set()

    def of(self, index: int) -> str:
        """The name of a tensor, or its number."""
        return self.by_index.get(index, str(index))

    def add(self, index: int, name: str) -> None:
        """Calls a tensor so, with a number behind if another one is called so."""
        if index < 0 or index in self.by_index:
            return
        unique, count = name, 1
        while unique in self._taken:
            unique, count = f"{name}_{count}", count + 1
        self.by_index[index] = unique
        self._taken.add(unique)
