"""A trained student in integers: what the `.tflite` file is to compute.

The one description that everything after training reads: `export_graph.py` hands it
to the converter, `integer_inference.py` computes it, `verify.py` compares the two.
BatchNormalization is folded, kernels and biases are integers, scales are final.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tflite_export.quantization_params import QuantParams

KINDS = (
    "conv",
    "depthwise",
    "dense",
    "add",
    "subtract",
    "multiply",
    "relu",
    "leaky_relu",
    "minimum",
    "sigmoid",
    "tanh",
    "gelu",
    "hard_swish",
    "l2_normalize",
    "channel_mean",
    "global_average",
    "average_pool",
    "max_pool",
    "reshape",
    "pad",
    "crop",
    "concatenate",
    "depth_to_space",
    "resize_nearest",
    "resize_bilinear",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """Weights of a conv, depthwise or dense layer.

    Attributes:
      values: int8; conv (h, w, in / groups, out), depthwise
        (h, w, channels, multiplier), dense (in, out).
      bits: 2..8; |values| <= 2^(bits - 1) - 1.
      scale: float32 (output channels,), > 0, with at most 16 significant bits.
      bias: int32 (output channels,), in units of input scale * scale.
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
      kind: one of `KINDS`.
      inputs: names of the tensors it takes.
      grid: of the output; the same as the inputs' for kinds that move integers.
      relu: whether negative results are clamped to zero.
      relu6: whether they are clamped to 6 besides, where the grid goes further.
      kernel: for conv, depthwise and dense.
      attributes: JSON values by kind: strides, padding ("same" or "valid"),
        dilation for conv and depthwise, groups (default 1) for conv; pool_size,
        strides, padding for pools; level for minimum, which no result is above;
        slope for leaky_relu, below zero; keepdims (default False) for global_average;
        constant_level, num_constants for l2_normalize: so many channels of that level
        above the zero point that count beside the input's; shape (without batch) for
        reshape; pads for pad, crops for crop and depth_to_space, ((top, bottom), (left,
        right)); block_size (height, width) for depth_to_space; size (times height,
        times width) for resizes.
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
    """Operations in executable order, from one image tensor to logits.

    Attributes:
      input_name, input_shape: of the image tensor, (H, W, C).
      input_grid: its int8 grid.
      ops: the last one's output are the logits (classes,), or what comes of them.
      softmax: whether the exported model ends in a softmax.
    """

    input_name: str
    input_shape: tuple[int, int, int]
    input_quant_params: QuantParams
    ops: tuple[IntegerOp, ...]
    softmax: bool

    def quant_params(self, name: str) -> QuantParams:
        """The grid of a tensor."""
        if name == self.input_name:
            return self.input_quant_params
        return next(op.quant_params for op in self.ops if op.name == name)
