"""Scales with which all processors round alike."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest

from tests.tiny_network import NetworkBuilder, random_images
from tflite_export.convert import convert_network
from tflite_export.integer_network import IntegerNetwork, IntegerOp, Kernel
from tflite_export.interpreter import TFLiteClassifier
from tflite_export.litert.common_scales import with_common_scales
from tflite_export.litert.processors import ARM64
from tflite_export.litert.simulator import infer
from tflite_export.quantization_params import QuantParams, relu_quant_params

UP = Fraction(1, 2)
POSITIVE = relu_quant_params(6.0, 8)


def one_channel(period: float, size: int = 200, **fields) -> IntegerNetwork:
    """A convolution, `period` accumulators of which are a step of its output."""
    kernel = Kernel(
        np.full((size, size, 1, 1), 7, np.int8),
        4,
        np.float32([1 / period]),
        np.array([100], np.int32),
    )
    attributes = {
        "strides": [1, 1], "padding": "valid", "dilation": [1, 1], "groups": 1
    }  # fmt: skip
    op = IntegerOp(
        "conv", "conv", ("x",), QuantParams(0.5, -128), attributes=attributes,
        kernel=kernel, **{"relu": True} | fields,
    )  # fmt: skip
    return IntegerNetwork(
        "x", (size + 2, size + 2, 1), QuantParams(0.5, 0), (op,), softmax=False
    )


def multiplier_of(network: IntegerNetwork) -> tuple[Fraction, int]:
    """Mantissa in 31 bits and right shift, as both tensors have the same scale."""
    mantissa, exponent = np.frexp(float(network.ops[0].kernel.scale[0]))
    return Fraction(round(mantissa * 2**31), 2**31), -int(exponent)


@pytest.mark.parametrize("period", [40.3, 60.9, 99, 127.9, 131, 700.5, 5000, 70000.7])
def test_all_accumulators_round_alike(period):
    found = with_common_scales(one_channel(period))
    change = float(found.ops[0].kernel.scale[0]) * period
    assert change != 1 and change == pytest.approx(1, abs=1 / 24)
    # The bias stands for the same real number.
    assert found.ops[0].kernel.bias[0] == pytest.approx(100 / change, abs=0.5)
    mantissa, shift = multiplier_of(found)
    ties = [round((k + UP) * 2**shift / mantissa) for k in range(255)]
    for accumulator in (tie + near for tie in ties for near in range(-3, 4)):
        once = (accumulator * mantissa / 2**shift + UP) // 1
        twice = ((accumulator * mantissa + UP) // 1 * Fraction(1, 2**shift) + UP) // 1
        assert once == twice


@pytest.mark.parametrize(
    "network",
    [
        one_channel(100.5, relu=False),
        # No even number is near.
        one_channel(3.1),
    ],
)
def test_without_common_scales_all_stays(network):
    assert with_common_scales(network) is network


def test_a_channel_next_to_zero_needs_no_exact_scale():
    # Its accumulators reach no tie.
    period = 2.0**24 + 1
    found = with_common_scales(one_channel(period, size=3))
    assert found.ops[0].kernel.scale[0] * period == pytest.approx(1, abs=1e-5)


def two_convolutions(**options) -> IntegerNetwork:
    b = NetworkBuilder(seed=5)
    options = {"relu": True, "quant_params": POSITIVE, "bits": 4} | options
    first = b.kernel("first", "conv", "image", outputs=8, **options)
    second = b.kernel("second", "conv", first, outputs=8, **options)
    b.kernel("logits", "dense", b.flatten(second), bits=8, outputs=10)
    return b.build_ops()


def test_a_network_is_the_same_on_all_processors_and_in_litert():
    before = two_convolutions()
    images = random_images(20)
    assert (infer(before, images) != infer(before, images, ARM64)).any()
    network = with_common_scales(before)
    outputs = infer(network, images)
    np.testing.assert_array_equal(infer(network, images, ARM64), outputs)
    # Its scales have more bits than others.
    expected = TFLiteClassifier(convert_network(network)).run(images)
    np.testing.assert_array_equal(outputs, expected)
    assert len(np.unique(outputs)) > 20


def test_one_operation_without_keeps_all_as_they_are():
    network = two_convolutions()
    *ops, conv, flat, logits = network.ops
    linear = dataclasses.replace(conv, relu=False)
    mixed = dataclasses.replace(network, ops=(*ops, linear, flat, logits))
    assert with_common_scales(mixed) is mixed


def test_what_rounds_alike_keeps_its_scales():
    network = two_convolutions(bits=8)
    assert with_common_scales(network).ops == network.ops
