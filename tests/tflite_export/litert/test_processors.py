"""How LiteRT's own kernels round on processors of other kinds."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf

from tests.tflite_export.litert import arm64_values
from tflite_export.integer_network import IntegerOp, Kernel
from tflite_export.litert.kernels import depthwise, rounds_unlike
from tflite_export.litert.processors import ARM64, X86_64
from tflite_export.litert.simulator import infer
from tflite_export.operators.record import Operand
from tflite_export.quantization_params import QuantParams

UNLIKE = (
    "conv", "conv_strided", "conv_relu", "conv_1x1", "conv_few_outputs",
    "pointwise_odd", "one_position_few_inputs", "one_position_few_outputs", "dense_odd",
)  # fmt: skip


@functools.cache
def values():
    network, slices = arm64_values.network()
    simulated = {
        processor.name: infer(network, arm64_values.IMAGES, processor)
        for processor in (ARM64, X86_64)
    }
    return np.load(arm64_values.FILE), simulated, slices


@pytest.mark.parametrize("branch", arm64_values.network()[1])
def test_equals_litert_for_arm64_bit_by_bit(branch):
    expected, simulated, slices = values()
    of_branch = expected[:, slices[branch]]
    assert len(np.unique(of_branch)) > 4
    np.testing.assert_array_equal(
        simulated[ARM64.name][:, slices[branch]], of_branch, strict=True
    )
    on_x86_64 = simulated[X86_64.name][:, slices[branch]]
    assert (on_x86_64 != of_branch).any() == (branch in UNLIKE)


def test_depthwise_multipliers_of_one_and_more():
    """What LiteRT 2.3.0 for arm64 gave, in QEMU, of sums from 0 to 12 times 1.1947."""
    kernel = Kernel(
        np.ones((1, 1, 8, 1), np.int8),
        4,
        np.full(8, 1.194732666015625, np.float32),
        np.zeros(8, np.int32),
    )
    one = QuantParams(1.0, 0)
    window = {"strides": [1, 1], "padding": "valid", "dilation": [1, 1]}
    op = IntegerOp("y", "depthwise", ("x",), one, kernel=kernel, attributes=window)
    sums = np.repeat(np.arange(13.0), 8).reshape(1, 1, 13, 8)
    source = Operand(tf.constant(sums), one)
    for processor, expected in (
        (ARM64, [0, 2, 2, 4, 4, 6, 8, 8, 10, 10, 12, 14, 14]),
        (X86_64, [0, 1, 2, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14]),
    ):
        found = depthwise(op, source, processor).numpy()[0, 0]
        np.testing.assert_array_equal(found, np.repeat(expected, 8).reshape(13, 8))


def test_which_operations_processors_round_unlike():
    network, slices = arm64_values.network()
    found = {op.name for op in network.ops if rounds_unlike(op)}
    # Those of one position are known by their kind alone.
    assert found == {*UNLIKE, "one_position"} & set(slices)
