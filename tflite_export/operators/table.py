"""All kinds of operations."""

from __future__ import annotations

from collections.abc import Mapping

from tflite_export.operators.activations import ACTIVATIONS
from tflite_export.operators.arithmetic import ARITHMETIC
from tflite_export.operators.kernels import KERNELS
from tflite_export.operators.movement import MOVEMENT
from tflite_export.operators.pooling import POOLING
from tflite_export.operators.record import Kinds
from tflite_export.quantization_params import QuantParams

KINDS: Kinds = {**KERNELS, **ARITHMETIC, **ACTIVATIONS, **POOLING, **MOVEMENT}

# Of kinds whose output has the quantization parameters that TFLite demands.
FIXED_QUANT_PARAMS: Mapping[str, QuantParams] = {
    name: kind.fixed_quant_params
    for name, kind in KINDS.items()
    if kind.fixed_quant_params is not None
}
