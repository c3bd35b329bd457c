"""A trained student in integers: what the `.tflite` file is to compute.

The one description that everything after training reads: `export_graph.py` hands it
to the converter, `simulation.py` computes it, `verification/` compares the two.
BatchNormalization is folded, kernels and biases are integers, scales are final.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tflite_export.interface import DEFAULT_INTERFACE, Interface
from tflite_export.quantization_params import QuantParams
from tflite_export.targets import DEFAULT_TARGET

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """Weights of a convolution or dense layer.

    Attributes:
      values: int8; conv (h, w, in / groups, out), depthwise
        (h, w, channels, multiplier), others (in, out).
      bits: 2..8; values lie within `weight_levels(bits)`.
      scale: float32 (output channels,), > 0, with at most `SCALE_BITS` significant
        bits, or `INT4_SCALE_BITS` of kernels stored as INT4.
      bias: int32, or int64 beside activations of 16 bits, (output channels,), in units
        of input scale * scale.
    """

    values: np.ndarray
    bits: int
    scale: np.ndarray
    bias: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class IntegerOp:
    """One integer operation and its output tensor.

    Attributes:
      name: of the output tensor, unique.
      kind: a key of `operators.table.KINDS`.
      inputs: names of the tensors it takes.
      quant_params: of the output; the inputs' own for kinds that move integers.
      relu: whether negative results are clamped to zero.
      relu6: whether they are clamped to 6 besides, where `quant_params` go further.
      kernel: for those of `operators/kernels.py`.
      attributes: JSON values; which ones, the kinds in `operators/` tell.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    quant_params: QuantParams
    relu: bool = False
    relu6: bool = False
    kernel: Kernel | None = None
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """Operations in executable order, from one tensor to logits.

    Attributes:
      input_name, input_shape: of the tensor it takes, without batch: (H, W, C), (H, W)
        or (values,).
      input_quant_params: of the same.
      ops: the last one's output are the logits (classes,), or what comes of them.
      softmax: whether the exported model ends in a softmax.
      interface: how the file's ends are typed, named and described; the integers of
        the network itself have the type of `input_quant_params` in any case.
      target: what runs it, a key of `targets.TARGETS`: operations have the kinds that
        it takes, and biases make up for its rounding.
    """

    input_name: str
    input_shape: Shape
    input_quant_params: QuantParams
    ops: tuple[IntegerOp, ...]
    softmax: bool
    interface: Interface = DEFAULT_INTERFACE
    target: str = DEFAULT_TARGET

    @property
    def activation_bits(self) -> int:
        """Bits in which all its tensors are stored, 8 or 16."""
        return self.input_quant_params.bits

    def examples(self, values: np.ndarray) -> np.ndarray:
        """Values (N, ...) of its inputs, in their order, as (N, *input_shape)."""
        return values.reshape(-1, *self.input_shape)

    def quant_params(self, name: str) -> QuantParams:
        """Those of a tensor, by its name."""
        if name == self.input_name:
            return self.input_quant_params
        return next(op.quant_params for op in self.ops if op.name == name)


def kernel_of(op: IntegerOp) -> Kernel:
    """The kernel of an operation that has one.

    Raises:
      ValueError: it has none.
    """
    if op.kernel is None:
        raise ValueError(f"operation {op.name!r} has no kernel")
    return op.kernel
