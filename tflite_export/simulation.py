"""Integer networks computed in integers, by the kernels of one runtime or another.

Values are integers in float64, which holds them exactly up to 2^53: so accumulators are
exact. What remains is how a kernel scales an accumulator to its output, and there
runtimes differ: each has a table with one function for each kind of operation.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from tflite_export.integer_network import IntegerNetwork, IntegerOp
from tflite_export.operators.record import Operand
from tflite_export.quantization_params import QuantParams
from tflite_export.tensor_shapes import tensor_shapes

_BATCH_SIZE = 64
_LARGEST_BATCH_BYTES = 2**28  # of one tensor, float64


@dataclasses.dataclass(frozen=True)
class Simulation:
    """How a runtime computes the operations of one kind.

    Attributes:
      run: (op, each input as `Operand`) -> stored integers of the output, float64.
      exact: whether on every machine; else by functions of the C library in float32,
        whose last bit differs between machines.
    """

    run: Callable[..., tf.Tensor]
    exact: bool = True


@dataclasses.dataclass(frozen=True)
class Kernels:
    """What the kernels of a runtime compute, bit by bit.

    Attributes:
      simulations: one for each kind of operation.
      softmax: (logits (N, classes), their scale) -> probabilities, of the same type.
      softmax_is_exact: as `Simulation.exact`.
      rounding_bias: (op, quantization parameters of its input) -> what rounding adds
        to each accumulator on average, in its units, float64 (output channels,).
    """

    simulations: Mapping[str, Simulation]
    softmax: Callable[[np.ndarray, float], np.ndarray]
    softmax_is_exact: bool
    rounding_bias: Callable[[IntegerOp, QuantParams], np.ndarray]


def compute(
    kernels: Kernels, network: IntegerNetwork, images: np.ndarray
) -> np.ndarray:
    """Outputs (N, classes) of inputs (N, H, W, C), int8 or int16 as the network's."""
    run = tf.function(
        lambda batch: _run(kernels, network, batch),
        reduce_retracing=True,
        autograph=False,
    )
    largest = 8 * max(math.prod(shape) for shape in tensor_shapes(network).values())
    size = max(1, min(_BATCH_SIZE, _LARGEST_BATCH_BYTES // largest))
    batches = []
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        batches.append(run(tf.constant(batch, tf.float64)).numpy())
    outputs = np.concatenate(batches).astype(network.input_quant_params.dtype)
    if network.softmax:
        outputs = kernels.softmax(outputs, network.ops[-1].quant_params.scale)
    return outputs


def is_exact(kernels: Kernels, network: IntegerNetwork) -> bool:
    """Whether `compute` gives what the runtime does on every machine."""
    if network.softmax and not kernels.softmax_is_exact:
        return False
    return all(kernels.simulations[op.kind].exact for op in network.ops)


def compute_tensors(
    kernels: Kernels, network: IntegerNetwork, images: np.ndarray, names: Iterable[str]
) -> dict[str, np.ndarray]:
    """The tensors of those names (N, ...) for inputs (N, H, W, C), as `compute`."""
    wanted, dtype = frozenset(names), network.input_quant_params.dtype
    return {
        name: tensor.numpy().astype(dtype)
        for name, tensor in _tensors(kernels, network, tf.constant(images, tf.float64))
        if name in wanted
    }


def _run(kernels: Kernels, network: IntegerNetwork, images: tf.Tensor) -> tf.Tensor:
    outputs = dict(_tensors(kernels, network, images))
    return outputs[network.ops[-1].name]


def _tensors(
    kernels: Kernels, network: IntegerNetwork, images: tf.Tensor
) -> Iterator[tuple[str, tf.Tensor]]:
    """Name of each tensor and its stored integers, float64, as they are computed.

    They are kept no longer than operations take them.
    """
    takers = collections.Counter(name for op in network.ops for name in op.inputs)
    tensors = {network.input_name: images}
    yield network.input_name, images
    for op in network.ops:
        operands = [
            Operand(tensors[name], network.quant_params(name)) for name in op.inputs
        ]
        tensors[op.name] = kernels.simulations[op.kind].run(op, *operands)
        for name in op.inputs:
            takers[name] -= 1
            if not takers[name]:
                del tensors[name]
        yield op.name, tensors[op.name]
