"""Bit by bit what TensorFlow Lite for Microcontrollers computes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from tests.tflite_export.litert.test_simulator import (
    INPUT_QUANT_PARAMS,
    NETWORKS,
    dense_network,
    one_activation,
    softmax_network,
)
from tests.tiny_network import INPUT_GRID, OUTPUT_GRID, NetworkBuilder, random_images
from tflite_export.convert import convert_network
from tflite_export.flatbuffer import read_model
from tflite_export.integer_network import IntegerNetwork, IntegerOp
from tflite_export.operator_forms import in_forms_of
from tflite_export.quantization_params import QuantParams
from tflite_export.targets import TARGETS
from tflite_export.tflm.kernels import rounding_bias
from tflite_export.tflm.runtime import TFLMClassifier, is_installed
from tflite_export.tflm.simulator import infer
from tflite_export.tflm.softmax import softmax_quantized

needs_tflm = pytest.mark.skipif(
    not is_installed(), reason="tflite-micro is not installed"
)
TFLM = TARGETS["tflm"]
NUM_IMAGES = 20
MEANS = 3


def made_for_tflm(network: IntegerNetwork) -> IntegerNetwork:
    """With the operators that TFLM takes, but not held against its rules."""
    return dataclasses.replace(in_forms_of(TFLM, network), target="litert")


def on_tflm(network: IntegerNetwork, images: np.ndarray) -> np.ndarray:
    tflite = convert_network(network)
    dtypes = {tensor.dtype for tensor in read_model(tflite).tensors}
    assert dtypes <= {"INT8", "INT4", "INT32"}
    return TFLMClassifier(tflite).run(images)


def twins(ops: Sequence[IntegerOp]) -> dict[str, list[str]]:
    """Operations that differ in the format of their results alone, by the first one.

    The converter computes one float operator for them.
    """
    groups: dict[tuple, list[str]] = {}
    for op in ops:
        activation = (op.relu, op.relu6) if op.kind == "relu" else ()
        same = sorted(op.inputs), sorted(op.attributes.items()), activation
        if op.kernel is None:
            groups.setdefault((op.kind, repr(same)), []).append(op.name)
    return {names[0]: names for names in groups.values()}


@functools.cache
def accepted(name: str, twin: int) -> tuple[IntegerNetwork, dict[str, slice]]:
    """One of `NETWORKS` without the branches that TFLM has no operator for.

    Of twins, the one of that number stays, of means, which others read, the first but
    for `MEANS`; few tensors are joined at a time.
    """
    network, places = NETWORKS[name]
    network = made_for_tflm(network)
    *ops, outputs = network.ops
    number = {op.name: twin for op in ops}
    number |= {op.name: twin == MEANS for op in ops if op.kind == "channel_mean"}
    chosen = {
        names[min(number[first], len(names) - 1)] for first, names in twins(ops).items()
    }
    refused, kept = set(), []
    for op in ops:
        dropped = op.kind in TFLM.refused or (
            op.kernel is None and op.name not in chosen
        )
        if dropped or refused.intersection(op.inputs):
            refused.add(op.name)
        else:
            kept.append(op)
    ends, start, found = [], 0, {}
    for end, (branch, place) in zip(outputs.inputs, places.items(), strict=True):
        if end not in refused:
            ends.append(end)
            found[branch] = slice(start, start + place.stop - place.start)
            start = found[branch].stop
    most = TFLM.most_inputs["concatenate"]
    while len(ends) > most:
        joined = [tuple(ends[i : i + most]) for i in range(0, len(ends), most)]
        ends = [f"join_{len(kept)}_{place}" for place in range(len(joined))]
        for name_, inputs in zip(ends, joined, strict=True):
            kept.append(dataclasses.replace(outputs, name=name_, inputs=inputs))
    outputs = dataclasses.replace(outputs, inputs=tuple(ends))
    return dataclasses.replace(network, ops=(*kept, outputs)), found


def cases() -> Iterator[tuple[str, int]]:
    """Networks and numbers of twins that have a branch of their own."""
    for name in NETWORKS:
        tried: set[str] = set()
        for twin in range(MEANS + 1):
            branches = set(accepted(name, twin)[1])
            if branches - tried:
                yield name, twin
            tried |= branches


@needs_tflm
@pytest.mark.slow
@pytest.mark.parametrize(("name", "twin"), cases())
def test_equals_tflm_bit_by_bit(name, twin):
    network, places = accepted(name, twin)
    images = random_images(NUM_IMAGES)
    computed, expected = infer(network, images), on_tflm(network, images)
    differ = [x for x, at in places.items() if (computed != expected)[:, at].any()]
    assert not differ
    assert all(len(np.unique(expected[:, at])) >= 4 for at in places.values())


def test_nearly_every_branch_is_tried():
    for name, (_, places) in NETWORKS.items():
        tried = [set(accepted(name, twin)[1]) for twin in range(MEANS + 1)]
        missing = set(places).difference(*tried)
        assert all(x.startswith("gelu_") for x in missing)


def every_value(network: IntegerNetwork) -> tuple[np.ndarray, np.ndarray]:
    """What a function makes of -128..127, simulated, and by TFLM."""
    stored = np.arange(-128, 128).astype(np.int8).reshape(1, 16, 16, 1)
    return infer(network, stored), on_tflm(network, stored)


@needs_tflm
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sigmoid", "tanh", "elu", "hard_swish"])
@pytest.mark.parametrize(("scale", "zero_point"), INPUT_QUANT_PARAMS)
def test_every_value_of_a_function(kind, scale, zero_point):
    np.testing.assert_array_equal(*every_value(one_activation(kind, scale, zero_point)))


@needs_tflm
@pytest.mark.slow
@pytest.mark.parametrize("slope", [0.0005, 0.1, 0.3, 1.5, 300.0])
@pytest.mark.parametrize(("scale", "zero_point"), INPUT_QUANT_PARAMS)
def test_every_value_of_a_leaky_relu(slope, scale, zero_point):
    lowest = min(-0.01, slope * scale * (-128 - zero_point))
    network = one_activation(
        "leaky_relu", scale, zero_point, lowest=lowest, slope=slope
    )
    np.testing.assert_array_equal(*every_value(network))


@needs_tflm
@pytest.mark.parametrize(
    ("scale", "num_classes"), [(0.0625, 300), (0.31, 10), (1.0, 3)]
)
def test_softmax(scale, num_classes):
    network = softmax_network(scale, num_classes)
    normal = np.random.default_rng(0).normal(-60, 25, (300, 1, 1, num_classes))
    logits = np.clip(np.round(normal), -128, 127).astype(np.int8)
    expected = on_tflm(network, logits)
    np.testing.assert_array_equal(infer(network, logits), expected)


@needs_tflm
def test_a_dense_layer_of_one_scale():
    """Its factor is a product in float32."""
    images = random_images(200)
    for seed in range(2):
        b = NetworkBuilder(seed)
        b.kernel("logits", "dense", b.flatten("image"), bits=8, outputs=1)
        network = b.build_ops()
        np.testing.assert_array_equal(infer(network, images), on_tflm(network, images))


# Multiplier 1/8 is 1/2 * 2^-2. An accumulator 4 is 2, then a tie; 3 is rounded up to 2
# first, -3 to -1, which is no tie.
@pytest.mark.parametrize(
    ("bias", "expected"), [(4, 1), (12, 2), (-4, -1), (-12, -2), (3, 1), (-3, 0)]
)
@pytest.mark.parametrize("bits", [4, 8])
def test_ties_of_kernels_by_hand(bits, bias, expected):
    image = np.full((1, 1, 1, 1), INPUT_GRID.zero_point, np.int8)
    network = dense_network([[1]], [11 / 48], [bias], bits=bits)
    assert infer(network, image)[0, 0] - OUTPUT_GRID.zero_point == expected


def test_biases_make_up_for_ties_above_zero_where_a_relu_ends_the_rest():
    """By hand: a multiplier of 3/4 * 2^-3 rounds up by 1 / (2 * 3/4) = 2/3 units."""
    scale = 3 / 32 * OUTPUT_GRID.scale / INPUT_GRID.scale
    for bits in (4, 8):
        (_, linear) = dense_network([[1]], [scale], [0], bits=bits).ops
        assert rounding_bias(linear, INPUT_GRID) == 0
        relu = dataclasses.replace(linear, relu=True)
        assert rounding_bias(relu, INPUT_GRID) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("kind", "scale", "expected"),
    [
        # x + x in steps four times as large: x / 2.
        ("add", 1.0, [-2, -1, 0, 1, 2]),
        ("subtract", 1.0, [0, 0, 0, 0, 0]),
        # 0.0625 x^2 / 0.125: x^2 / 2.
        ("multiply", 0.125, [5, 1, 0, 1, 5]),
    ],
)
def test_ties_of_pairs_by_hand(kind, scale, expected):
    result = QuantParams(scale, 0)
    ops = (
        IntegerOp("y", kind, ("x", "x"), result),
        IntegerOp("z", "reshape", ("y",), result, attributes={"shape": [5]}),
    )
    network = IntegerNetwork("x", (1, 5, 1), QuantParams(0.25, 0), ops, False)
    image = np.array([-3, -1, 0, 1, 3], np.int8).reshape(1, 1, 5, 1)
    np.testing.assert_array_equal(infer(network, image), [expected])


@pytest.mark.parametrize(
    ("result", "expected"),
    [(QuantParams(0.5, 3), [4, 2, -3]), (QuantParams(0.5, 0), [1, -1, -6])],
)
def test_means_by_hand(result, expected):
    """Of stored integers 4, 3, 4, 3 and 2, 3, 2, 3 and -2, -3, -2, -3.

    Less the zero point, 3, that is 0.5, -0.5 and -5.5.
    """
    mean = IntegerOp("y", "global_average", ("x",), result)
    network = IntegerNetwork("x", (2, 2, 3), QuantParams(0.5, 3), (mean,), False)
    image = np.array([[4, 2, -2], [3, 3, -3]] * 2, np.int8).reshape(1, 2, 2, 3)
    np.testing.assert_array_equal(infer(network, image), [expected])


@pytest.mark.parametrize(("scale", "zero_point"), INPUT_QUANT_PARAMS)
def test_functions_are_near_the_real_ones(scale, zero_point):
    stored = np.arange(-128, 128)
    for kind, function in (
        ("sigmoid", lambda x: 256 / (1 + np.exp(-x)) - 128),
        ("tanh", lambda x: 128 * np.tanh(x)),
    ):
        network = one_activation(kind, scale, zero_point)
        images = stored.astype(np.int8).reshape(1, 16, 16, 1)
        real = function(network.input_quant_params.scale * (stored - zero_point))
        difference = infer(network, images)[0] - np.clip(real, -128, 127)
        assert np.abs(difference).max() < 1


def test_softmax_is_near_the_real_one():
    logits = np.random.default_rng(0).integers(-128, 128, (500, 10)).astype(np.int8)
    exponentials = np.exp(0.11 * logits.astype(np.float64))
    real = 256 * exponentials / exponentials.sum(axis=1, keepdims=True) - 128
    found = softmax_quantized(logits, 0.11)
    assert np.abs(found - np.clip(real, -128, 127)).max() < 1
