"""A transposed convolution as an ordinary one of all phases of its output.

With stride s, output positions q * s + p of one phase p see the same few kernel rows
p, p + s, p + 2 s, ..., each on the input position that many strides before q. So one
convolution of stride 1 with ceil(k / s) rows gives all phases, as channels, and
`DepthToSpace` lays them out (Shi et al., *Is the deconvolution layer the same as a
convolutional layer?*, 2016).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Phases(NamedTuple):
    """One dimension of a transposed convolution, rewritten.

    Attributes:
      stride: number of phases.
      taps: length of the convolution's kernel.
      lead: zeros in front of the transposed convolution's kernel.
      padding: zeros before and after the input.
      cropping: output positions too many before and after.
    """

    stride: int
    taps: int
    lead: int
    padding: tuple[int, int]
    cropping: tuple[int, int]


def phases(length: int, kernel_size: int, stride: int, output_length: int) -> Phases:
    """The rewriting of one dimension.

    Args:
      length: of the input.
      kernel_size: of the transposed convolution.
      stride: likewise.
      output_length: of the output. Of what the full output has too much half is cut
        off before, rounded down; what it lacks is zero, at the end.
    """
    full = (length - 1) * stride + kernel_size
    cut = max(full - output_length, 0) // 2
    taps = math.ceil(kernel_size / stride)
    # Zeros in front move the cut to a whole stride, so that nothing is computed to be
    # cropped, where they cost no further tap.
    lead = -cut % stride
    if lead + kernel_size > taps * stride:
        lead = 0
    first, before = divmod(cut + lead, stride)
    last = (cut + lead + output_length - 1) // stride
    after = (last - first + 1) * stride - before - output_length
    around = (taps - 1 - first, last - (length - 1))
    return Phases(stride, taps, lead, around, (before, after))


def phase_kernel(kernel: np.ndarray, dimensions: Sequence[Phases]) -> np.ndarray:
    """The convolution's kernel, (taps, taps, inputs, phases * phases * outputs).

    Args:
      kernel: of the transposed convolution, (height, width, outputs, inputs).
      dimensions: of height and width. Channels come in the order that
        `DepthToSpace` wants, phase of the row, phase of the column, output.
    """
    down, across = dimensions
    ends = [
        (x.lead, x.taps * x.stride - x.lead - size)
        for x, size in zip(dimensions, kernel.shape, strict=False)
    ]
    kernel = np.pad(kernel, [*ends, (0, 0), (0, 0)])
    outputs, inputs = kernel.shape[2:]
    kernel = kernel.reshape(
        down.taps, down.stride, across.taps, across.stride, outputs, inputs
    )
    # Later kernel rows meet earlier input rows.
    kernel = kernel[::-1, :, ::-1].transpose(0, 2, 5, 1, 3, 4)
    return kernel.reshape(down.taps, across.taps, inputs, -1)
