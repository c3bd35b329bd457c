"""An integer network as a TensorFlow function that the converter understands.

Every quantized tensor passes a fake_quant operation whose range tells its quantization
parameters. Scales hold so few significant bits (`SCALE_BITS`) that scale times
quantized value is exact in float32 and the converter recovers the very same scale.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tflite_export.integer_network import IntegerNetwork
from tflite_export.operators.fake_quantization import fake_quant
from tflite_export.operators.record import Operand
from tflite_export.operators.table import KINDS
from tflite_export.quantization_params import BETWEEN_0_AND_1


def export_graph(network: IntegerNetwork) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function float32 (1, H, W, C) -> float32 (1, classes) to be converted.

    Dense and pointwise layers appear as 1x1 convolutions under their own name: the
    converter quantizes those per output channel (see `fully_connected.py`).
    """

    def run(images: tf.Tensor) -> tf.Tensor:
        tensors = {network.input_name: fake_quant(images, network.input_quant_params)}
        for op in network.ops:
            operands = [
                Operand(tensors[name], network.quant_params(name)) for name in op.inputs
            ]
            with tf.name_scope(op.name):
                tensors[op.name] = KINDS[op.kind].export(op, *operands)
        outputs = tensors[network.ops[-1].name]
        if network.softmax:
            outputs = fake_quant(tf.nn.softmax(outputs), BETWEEN_0_AND_1)
        return outputs

    return run


def names_of_kind(network: IntegerNetwork, kind: str) -> tuple[str, ...]:
    """Names of the operations of a kind, as they are in the graph."""
    return tuple(op.name for op in network.ops if op.kind == kind)
