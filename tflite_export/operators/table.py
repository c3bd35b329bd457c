"""All kinds of operations."""

from __future__ import annotations

from collections.abc import Mapping

from tflite_export.operators.activations import ACTIVATIONS
from tflite_export.operators.arithmetic import ARITHMETIC
from tflite_export.operators.kernels import KERNELS
from tflite_export.operators.movement import MOVEMENT
from tflite_export.operators.pooling import POOLING
from tflite_export.operators.record import Kinds
from tflite_export.quantization_params import BOUNDED_INT16, QuantParams

KINDS: Kinds = {**KERNELS, **ARITHMETIC, **ACTIVATIONS, **POOLING, **MOVEMENT}

# Of kinds whose output has the quantization parameters that TFLite demands, of 8 bits.
FIXED_QUANT_PARAMS: Mapping[str, QuantParams] = {
    name: kind.fixed_quant_params
    for name, kind in KINDS.items()
    if kind.fixed_quant_params is not None
}


def bounded_quant_params(kind: str, bits: int) -> QuantParams:
    """Those of one of these kinds, of 8 or 16 bits."""
    return FIXED_QUANT_PARAMS[kind] if bits == 8 else BOUNDED_INT16
