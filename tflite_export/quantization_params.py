"""The integer grids: real = scale * (q - zero_point), q an int8. Pure arithmetic."""

from __future__ import annotations

import dataclasses

INT8_MIN, INT8_MAX = -128, 127


@dataclasses.dataclass(frozen=True)
class QuantParams:
    """One tensor's int8 grid, TFLite's convention.

    Attributes:
      scale: > 0, real units per integer step.
      zero_point: -128..127, the integer that stands for zero exactly.
    """

    scale: float
    zero_point: int

    @property
    def low(self) -> float:
        """The smallest representable value."""
        return self.scale * (INT8_MIN - self.zero_point)

    @property
    def high(self) -> float:
        """The largest representable value."""
        return self.scale * (INT8_MAX - self.zero_point)


def quant_params_over(low: float, high: float) -> QuantParams:
    """The 8-bit grid over [low, high] widened to hold zero.

    Raises:
      ValueError: the range is empty or not finite.
    """
    # Zero second: Python's min and max then hand NaN on.
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (INT8_MAX - INT8_MIN)
    if not 0.0 < scale < float("inf"):
        raise ValueError(f"no grid over [{low}, {high}]: expected a finite range")
    return QuantParams(scale, round(INT8_MIN - low / scale))


def relu_quant_params(upper: float, bits: int) -> QuantParams:
    """The b-bit grid over [0, upper] inside an int8.

    Zero maps to 127 - (2^b - 1): a kernel's own clamps, at zero by ReLU and at 127
    by the type, then leave exactly 2^b levels.
    """
    levels = 2**bits - 1
    return QuantParams(upper / levels, INT8_MAX - levels)


def storage_bits(bits: int) -> int:
    """Bits in which TFLite stores weights of that many: 4 up to 4, else 8."""
    return 4 if bits <= 4 else 8


def weight_limit(bits: int) -> int:
    """Largest |q| of symmetric narrow-range weights: 7 for 4 bits, 127 for 8."""
    return 2 ** (bits - 1) - 1
