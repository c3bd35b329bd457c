"""The record of one kind of operation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import tensorflow as tf

from tflite_export.integer_network import Shape
from tflite_export.json_values import Fields
from tflite_export.quantization_params import QuantParams


@dataclasses.dataclass(frozen=True, eq=False)
class Operand:
    """A tensor that an operation takes.

    Attributes:
      values: real ones where the operation is exported, the stored integers where it
        is simulated.
      quant_params: how the two relate.
    """

    values: tf.Tensor
    quant_params: QuantParams

    @property
    def centered(self) -> tf.Tensor:
        """Stored integers without their zero point."""
        return self.values - self.quant_params.zero_point


@dataclasses.dataclass(frozen=True)
class KernelLayout:
    """The dimensions of a kernel's values.

    Attributes:
      num_dimensions: how many there are.
      channel_dimensions: those that the output channels run along.
    """

    num_dimensions: int
    channel_dimensions: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class OperatorKind:
    """What holds for all operations of one kind, whatever runs them.

    Attributes:
      output_shape: (op, shape of each input) -> shape of the output, batch 1 first.
        Raises ValueError, TypeError or LookupError if the op cannot take such inputs.
      export: (op, each input as `Operand`) -> its output in float32, by TensorFlow
        operations that the converter turns into the integer operators.
      num_inputs: None: one or more.
      attributes: how the values of those that it has are checked, by name.
      optional_attributes: the same of those that it may have.
      kernel: None for kinds without one.
      fixed_quant_params: those that TFLite demands of the output, if it does.
    """

    output_shape: Callable[..., Shape]
    export: Callable[..., tf.Tensor]
    num_inputs: int | None = 1
    attributes: Fields = dataclasses.field(default_factory=dict)
    optional_attributes: Fields = dataclasses.field(default_factory=dict)
    kernel: KernelLayout | None = None
    fixed_quant_params: QuantParams | None = None

    def takes(self, num_inputs: int) -> bool:
        """Whether operations of this kind have so many inputs."""
        if self.num_inputs is None:
            return num_inputs > 0
        return num_inputs == self.num_inputs


Kinds = Mapping[str, OperatorKind]  # by name
