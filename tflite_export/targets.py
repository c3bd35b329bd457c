"""What files are made for: one record for each runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Target:
    """A runtime, and the operators that layers with INT4 kernels are for it.

    Attributes:
      name: as it is asked for.
      int4_dense: kind of operation that a dense layer becomes: "dense" where
        FULLY_CONNECTED may have INT4 kernels with one scale per output channel, else
        "dense_convolution".
      int4_pointwise: that of a pointwise layer: "pointwise", which is FULLY_CONNECTED
        as well, where that is the faster one; else "conv".
    """

    name: str
    int4_dense: str
    int4_pointwise: str


TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        # XNNPACK has INT4 kernels for FULLY_CONNECTED alone.
        Target("litert", int4_dense="dense", int4_pointwise="pointwise"),
        # TensorFlow Lite for Microcontrollers refuses such a FULLY_CONNECTED.
        Target("tflm", int4_dense="dense_convolution", int4_pointwise="conv"),
    )
}
DEFAULT_TARGET = "litert"
