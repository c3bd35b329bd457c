"""How LiteRT's own kernels round on processors of other kinds."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tests.tflite_export.litert import arm64_values
from tflite_export.litert.kernels import rounds_unlike
from tflite_export.litert.processors import ARM64, X86_64
from tflite_export.litert.simulator import infer

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


def test_which_operations_processors_round_unlike():
    network, slices = arm64_values.network()
    found = {op.name for op in network.ops if rounds_unlike(op)}
    # Those of one position are known by their kind alone.
    assert found == {*UNLIKE, "one_position"} & set(slices)
