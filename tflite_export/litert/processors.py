"""How LiteRT's own kernels, which run INT4 convolutions, round on each processor.

They multiply accumulators by a 31-bit fixed-point number and shift the product to the
right. Both are rounded on x86-64. On arm64 only the shift of matrix products is, which
convolutions and dense layers are; not that of a matrix with a vector, though, nor
anything in depthwise and grouped convolutions. Multipliers of 1 and more shift to the
left, which vector code of depthwise convolutions on arm64 does last, others first.
XNNPACK, which runs everything else, rounds alike on both.

Found by comparing every value of single operators with LiteRT 1.4.0 and 2.3.0 for arm64
(`benchmarks/arm64.py`).
"""

from __future__ import annotations

import dataclasses

# A product with a vector has code of its own from here on.
_FEWEST_OUTPUTS, _FEWEST_INPUTS = 4, 8


@dataclasses.dataclass(frozen=True)
class Processor:
    """A kind of processor.

    Attributes:
      name: as tables name it.
      rounds_products_once: whether matrix products are rounded once, ties up.
      shifts_left_last: whether vector code of depthwise convolutions shifts what it has
        rounded, where multipliers are 1 or more.
    """

    name: str
    rounds_products_once: bool
    shifts_left_last: bool

    def rounds_once(self, positions: int, inputs: int, outputs: int) -> bool:
        """Whether a convolution that is no depthwise or grouped one is rounded once.

        Args:
          positions: of its output, 1 for a dense layer.
          inputs: that each output is a sum of.
          outputs: at each position.
        """
        vector = positions == 1
        if vector and outputs >= _FEWEST_OUTPUTS and inputs >= _FEWEST_INPUTS:
            return False
        return self.rounds_products_once


X86_64 = Processor("x86-64", rounds_products_once=False, shifts_left_last=False)
ARM64 = Processor("arm64", rounds_products_once=True, shifts_left_last=True)
_ARM64_MACHINES = frozenset({"aarch64", "arm64"})


def processor_of(machine: str) -> Processor:
    """The kind of processor of a machine, as `platform.machine()` calls it."""
    return ARM64 if machine in _ARM64_MACHINES else X86_64
