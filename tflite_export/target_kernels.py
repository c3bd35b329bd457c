"""What the kernels of every target compute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from tflite_export import simulation
from tflite_export.integer_network import IntegerNetwork, IntegerOp
from tflite_export.litert.int16 import LITERT_INT16
from tflite_export.litert.simulator import LITERT
from tflite_export.quantization_params import QuantParams
from tflite_export.simulation import Kernels
from tflite_export.targets import TARGETS, Target
from tflite_export.tflm.simulator import TFLM

# By what targets name, and bits of activations.
KERNELS: Mapping[tuple[str, int], Kernels] = {
    ("litert", 8): LITERT,
    ("litert", 16): LITERT_INT16,
    ("tflm", 8): TFLM,
}


def kernels_of(network: IntegerNetwork) -> Kernels:
    """Those of the target that a network is for."""
    return KERNELS[TARGETS[network.target].kernels, network.activation_bits]


def infer(network: IntegerNetwork, images: np.ndarray) -> np.ndarray:
    """Outputs (N, classes) of inputs (N, H, W, C) on the network's target."""
    return simulation.compute(kernels_of(network), network, images)


def infer_tensors(
    network: IntegerNetwork, images: np.ndarray, names: Iterable[str]
) -> dict[str, np.ndarray]:
    """The tensors of those names (N, ...), likewise."""
    return simulation.compute_tensors(kernels_of(network), network, images, names)


def rounding_bias(target: Target, op: IntegerOp, taken: QuantParams) -> np.ndarray:
    """What a target's rounding adds to an operation's accumulators; see `Kernels`."""
    return KERNELS[target.kernels, taken.bits].rounding_bias(op, taken)
