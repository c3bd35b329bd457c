"""Quantization parameters, in pure arithmetic: real = scale * (q - zero_point)."""

from __future__ import annotations

import dataclasses

import numpy as np

INT8_MIN, INT8_MAX = -128, 127
INT16_MAX = 32767
# Significant bits of scales: times a level of up to 8 bits they stay exact in float32,
# so the converter reads back the same scale; the change is 1e-5 at most.
SCALE_BITS = 16
# The same of levels of up to 4 bits.
INT4_SCALE_BITS = 20


@dataclasses.dataclass(frozen=True)
class QuantParams:
    """How one tensor's integers q stand for real numbers, as TFLite has it.

    Attributes:
      scale: > 0, real units per integer step.
      zero_point: -128..127, the integer that stands for zero exactly; of uint8 values
        128 more; 0 with 16 bits.
      bits: of the integers, 8 or 16.
    """

    scale: float
    zero_point: int
    bits: int = 8

    @property
    def dtype(self) -> str:
        """NumPy's name of the integers' type; the schema's in capitals."""
        return f"int{self.bits}"

    def as_json(self) -> dict[str, float | int]:
        """Scale and zero point; the type is told beside them."""
        return {"scale": self.scale, "zero_point": self.zero_point}

    @property
    def lowest(self) -> int:
        """The least integer."""
        return -(2 ** (self.bits - 1))

    @property
    def highest(self) -> int:
        """The largest integer."""
        return 2 ** (self.bits - 1) - 1

    @property
    def low(self) -> float:
        """The smallest representable value."""
        return self.scale * (self.lowest - self.zero_point)

    @property
    def high(self) -> float:
        """The largest representable value."""
        return self.scale * (self.highest - self.zero_point)


# TFLite fixes the parameters of results that are bounded: softmax, tanh and others.
BETWEEN_0_AND_1 = QuantParams(1 / 256, INT8_MIN)
BETWEEN_MINUS_1_AND_1 = QuantParams(1 / 128, 0)
# With 16 bits those of all of them.
BOUNDED_INT16 = QuantParams(2.0**-15, 0, bits=16)


def softmax_quant_params(bits: int) -> QuantParams:
    """Those of a softmax's results of 8 or 16 bits."""
    return BETWEEN_0_AND_1 if bits == 8 else BOUNDED_INT16


def quant_params_over(low: float, high: float) -> QuantParams:
    """The 8-bit parameters over [low, high] widened to hold zero.

    Raises:
      ValueError: the range is empty or not finite.
    """
    # Zero second: Python's min and max then hand NaN on.
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (INT8_MAX - INT8_MIN)
    if not 0.0 < scale < float("inf"):
        raise ValueError(
            f"no quantization parameters over [{low}, {high}]: expected a finite range"
        )
    return QuantParams(scale, round(INT8_MIN - low / scale))


def relu_quant_params(upper: float, bits: int) -> QuantParams:
    """The parameters that give [0, upper] 2^bits values of an int8.

    Zero maps to 127 - (2^bits - 1): a kernel's own clamps, at zero by ReLU and at 127
    by the type, then leave exactly 2^bits quantized values.
    """
    steps = 2**bits - 1
    return QuantParams(upper / steps, INT8_MAX - steps)


def symmetric_quant_params(largest: float) -> QuantParams:
    """The 16-bit parameters over [-largest, largest], largest > 0 and finite."""
    return QuantParams(largest / INT16_MAX, 0, bits=16)


def coarse(scale: float | np.ndarray) -> np.ndarray:
    """Scales rounded to `SCALE_BITS` significant bits, float64."""
    mantissa, exponent = np.frexp(np.asarray(scale, np.float64))
    return np.ldexp(np.round(mantissa * 2**SCALE_BITS) / 2**SCALE_BITS, exponent)


def storage_bits(bits: int) -> int:
    """Bits in which TFLite stores weights of that many: 4 up to 4, else 8."""
    return 4 if bits <= 4 else 8


def weight_levels(bits: int) -> tuple[int, int]:
    """The least and the largest q of weights: -8 and 7 for 4 bits, -127 and 127 for 8.

    TFLite wants 8-bit weights symmetric, for the sake of kernels that multiply two
    int8; narrower ones are unpacked to int8 first and may use every level they have.
    """
    highest = 2 ** (bits - 1) - 1
    return (-highest if bits == 8 else -highest - 1), highest
