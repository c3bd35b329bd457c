"""Slopes below zero, as int8 levels of one scale for a whole layer."""

from __future__ import annotations

import dataclasses

import numpy as np

from tflite_export.quantization_params import coarse, weight_levels

_LIMIT = weight_levels(8)[1]


@dataclasses.dataclass(frozen=True, eq=False)
class QuantizedSlopes:
    """What a PReLU multiplies negative values by.

    Attributes:
      levels: int8, of the slopes' shape; -127..127.
      scale: of all; the largest slope is 127 of it, which the converter relies on.
    """

    levels: np.ndarray
    scale: float

    @property
    def values(self) -> np.ndarray:
        """The real numbers that they stand for, float32; exact."""
        return (self.levels * self.scale).astype(np.float32)


def quantize_slopes(slopes: np.ndarray) -> QuantizedSlopes:
    """The nearest levels to slopes (..., channels), not all of them 0."""
    slopes = np.asarray(slopes, np.float64)
    scale = float(coarse(np.abs(slopes).max() / _LIMIT))
    return QuantizedSlopes(np.rint(slopes / scale).astype(np.int8), scale)
