"""Bit by bit what LiteRT computes of int16 activations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.tflite_export.litert.test_simulator import NETWORKS
from tests.tiny_network import INPUT_GRID, NetworkBuilder, random_images
from tflite_export.convert import convert_network
from tflite_export.flatbuffer import read_model
from tflite_export.integer_network import IntegerNetwork, IntegerOp, Kernel
from tflite_export.interface import Interface
from tflite_export.interpreter import TFLiteClassifier
from tflite_export.litert.int16 import LITERT_INT16, SIMULATIONS
from tflite_export.litert.int16_functions import hyperbolic_tangent, logistic, softmax
from tflite_export.operator_forms import in_int16_kinds
from tflite_export.operators.record import Operand
from tflite_export.operators.table import FIXED_QUANT_PARAMS, KINDS
from tflite_export.quantization_params import BOUNDED_INT16, QuantParams
from tflite_export.simulation import compute
from tflite_export.targets import TARGETS
from tflite_export.verification.verify import verify_file

# Any zero point of int8 leaves its range within int16's.
STEPS = 128
NUM_IMAGES = 20
WIDE_INTERFACE = Interface("int16", "int16")


def wide(quant_params: QuantParams) -> QuantParams:
    return QuantParams(quant_params.scale / STEPS, 0, bits=16)


def widened(network: IntegerNetwork) -> IntegerNetwork:
    """An int8 network with the same kernels and int16 activations."""
    found = {network.input_name: wide(network.input_quant_params)}
    ops = []
    for op in network.ops:
        first = op.inputs[0]
        same = op.quant_params == network.quant_params(first)
        found[op.name] = found[first] if same else wide(op.quant_params)
        if op.kind in FIXED_QUANT_PARAMS:
            found[op.name] = BOUNDED_INT16
        kernel, attributes = op.kernel, op.attributes
        if kernel is not None:
            bits = 8 if op.kind == "depthwise" else kernel.bits
            bias = kernel.bias.astype(np.int64) * STEPS + np.arange(len(kernel.bias))
            kernel = dataclasses.replace(kernel, bias=bias, bits=bits)
        if "level" in attributes:
            steps = attributes["level"] - op.quant_params.zero_point
            attributes = {"level": steps * STEPS + 3}
        changes = {"attributes": attributes, "kernel": kernel}
        ops.append(dataclasses.replace(op, quant_params=found[op.name], **changes))
    return in_int16_kinds(
        dataclasses.replace(
            network,
            input_quant_params=found[network.input_name],
            ops=tuple(ops),
            interface=WIDE_INTERFACE,
        )
    )


def wide_images(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    images = random_images(count).astype(np.int16) - np.int16(INPUT_GRID.zero_point)
    return images * np.int16(STEPS) + rng.integers(-64, 64, images.shape, np.int16)


def network_of_all_kinds():
    """Every kind but those of `resizes`."""
    b = NetworkBuilder(seed=4)
    signed = b.kernel("signed", "conv", "image", bits=4, outputs=4)
    six = QuantParams(11 / 256, 0)
    positive = b.kernel(
        "positive", "depthwise", "image", bits=8, relu6=True, quant_params=six
    )
    shape, sums = (8, 8, 4), QuantParams(23 / 512, -11)
    b.branch(b.op("sum", "add", [signed, positive], shape, sums))
    b.branch(b.op("sum_relu", "add", [signed, "image"], shape, sums, relu=True))
    b.branch(b.op("difference", "subtract", [signed, "image"], shape, sums))
    b.branch(b.op("product", "multiply", [signed, positive], shape, sums))
    gates = b.op("gates", "sigmoid", [signed], shape, FIXED_QUANT_PARAMS["sigmoid"])
    b.branch(b.op("gated", "multiply", ["image", gates], shape, sums))
    b.branch(b.op("tanh", "tanh", [signed], shape, FIXED_QUANT_PARAMS["tanh"]))
    for kind in ("hard_swish", "gelu"):
        b.branch(b.op(kind, kind, [signed], shape, sums))
    slope, level = {"slope": 0.3}, {"level": 31}
    b.branch(b.op("leaky", "leaky_relu", [signed], shape, sums, attributes=slope))
    b.branch(b.op("relu", "relu", [signed], shape, sums, relu=True))
    b.branch(b.op("bound", "minimum", [positive], shape, attributes=level))
    for kind in ("maximum", "minimum"):
        b.branch(b.op(kind, f"elementwise_{kind}", ["gated", "sum"], shape))
    for kind in ("average_pool", "max_pool"):
        b.branch(b.pool(kind, kind, signed, size=3, stride=2, padding="same"))
    means = QuantParams(5 / 512, 3)
    b.branch(b.op("means", "global_average", [signed], (4,), means))
    b.branch(b.op("channel", "channel_mean", [signed], (8, 8, 1), means))
    pads = {"pads": [[1, 0], [0, 2]]}
    padded = b.op("padded", "pad", [signed], (9, 10, 4), attributes=pads)
    b.branch(padded)
    crops = {"crops": [[1, 0], [0, 2]]}
    b.branch(b.op("cut", "crop", [signed], (7, 6, 4), attributes=crops))
    turn = {"permutation": [2, 1, 3]}
    b.branch(b.op("turned", "transpose", [padded], (10, 9, 4), attributes=turn))
    flat = b.flatten(signed)
    hidden = b.kernel("hidden", "dense", flat, bits=4, outputs=12)
    b.branch(b.kernel("dense", "dense", hidden, bits=8, outputs=5))
    # Its input is no image, and no FULLY_CONNECTED follows.
    b.branch(b.op("swish_of_values", "hard_swish", [hidden], (12,), sums))
    return b.build()


TRIED = {
    "all_kinds": network_of_all_kinds(),
    "resizes": NETWORKS["resizes"],
    "kernels": NETWORKS["kernels"],
}


@pytest.mark.parametrize("name", TRIED)
def test_equals_litert_bit_by_bit(name):
    network, slices = TRIED[name]
    network, images = widened(network), wide_images(NUM_IMAGES)
    tflite = convert_network(network)
    types = {tensor.dtype for tensor in read_model(tflite).tensors}
    assert types <= {"INT16", "INT8", "INT4", "INT32", "INT64"}
    expected = TFLiteClassifier(tflite).run(images)
    assert expected.dtype == np.int16
    computed = compute(LITERT_INT16, network, images)
    for branch, place in slices.items():
        assert len(np.unique(expected[:, place])) >= 4, branch
        np.testing.assert_array_equal(computed[:, place], expected[:, place], branch)


def test_every_kind_is_tried_or_refused():
    tried = {op.kind for network, _ in TRIED.values() for op in widened(network).ops}
    assert tried == set(SIMULATIONS)
    become_others = {"hard_swish", "depth_to_space"}
    refused = set(TARGETS["litert"].refused_with_int16)
    assert set(SIMULATIONS) | refused | become_others == set(KINDS)
    assert not set(SIMULATIONS) & (refused | become_others)


def int16(scale: float) -> QuantParams:
    return QuantParams(scale, 0, bits=16)


def network_of(*ops: IntegerOp, shape=(6, 7, 5), softmax=False) -> IntegerNetwork:
    """Operations behind an image, which is flattened where it comes out."""
    last = ops[-1]
    if last.kind != "dense":
        size = {"shape": [int(np.prod(shape))]}
        flat = IntegerOp(
            "flat", "reshape", (last.name,), last.quant_params, attributes=size
        )
        ops = (*ops, flat)
    image = int16(5 * 2.0**-14)
    return IntegerNetwork("image", shape, image, ops, softmax, WIDE_INTERFACE)


def check(network: IntegerNetwork, images: np.ndarray) -> None:
    expected = TFLiteClassifier(convert_network(network)).run(images)
    np.testing.assert_array_equal(compute(LITERT_INT16, network, images), expected)


@pytest.mark.parametrize("kind", ["add", "subtract"])
def test_sums_of_any_number_of_values(kind):
    """210 of them: the last two are no whole vector; one input is broadcast."""
    network = network_of(
        IntegerOp("mean", "channel_mean", ("image",), int16(3 * 2.0**-14)),
        IntegerOp("y", kind, ("image", "mean"), int16(7 * 2.0**-14)),
        IntegerOp("z", kind, ("y", "image"), int16(11 * 2.0**-14)),
    )
    images = np.random.default_rng(1).integers(-(2**15), 2**15, (500, 6, 7, 5))
    check(network, images.astype(np.int16))


EVERY_VALUE = np.arange(-(2**15), 2**15).astype(np.int16).reshape(1, 256, 256, 1)


@pytest.mark.parametrize("scale", [5 * 2.0**-14, 2.0**-15, 23 * 2.0**-14])
@pytest.mark.parametrize("kind", ["sigmoid", "tanh"])
def test_functions_of_every_value(kind, scale):
    network = network_of(
        IntegerOp("y", kind, ("image",), BOUNDED_INT16), shape=(256, 256, 1)
    )
    check(dataclasses.replace(network, input_quant_params=int16(scale)), EVERY_VALUE)


def test_softmax():
    rng = np.random.default_rng(0)
    kernel = Kernel(
        rng.integers(-127, 128, (210, 7)).astype(np.int8),
        8,
        np.full(7, 2.0**-8, np.float32),
        rng.integers(-(10**6), 10**6, 7),
    )
    dense = IntegerOp("y", "dense", ("image",), int16(2.0**-10), kernel=kernel)
    network = network_of(dense, softmax=True)
    images = rng.integers(-(2**15), 2**15, (300, 6, 7, 5)) >> rng.integers(
        0, 12, (300, 1, 1, 1)
    )
    check(network, images.astype(np.int16))


def test_values_by_hand():
    taken = int16(2.0**-14)
    values = np.array([0, 2**14, -(2**14)])
    # sigmoid(1) = 0.731059, tanh(1) = 0.761594, of scale 2^-15.
    np.testing.assert_allclose(logistic(values, taken), [16384, 23955, 8813], atol=2)
    np.testing.assert_allclose(
        hyperbolic_tangent(values, taken), [0, 24956, -24956], atol=3
    )
    # Two equal logits, and one e^-1 below: 1 / (2 + e^-1) and its e-th part.
    logits = np.array([[2**12, 2**12, 0]], np.int16)
    found = softmax(logits, 2.0**-12)
    np.testing.assert_allclose(found[0] / 2**15, [0.42232, 0.42232, 0.15536], atol=1e-4)


def computed(kind: str, scale: float, bias: int, inputs: list[int]) -> list[int]:
    """Of a kernel with one weight of 1; the input's and output's scales are 1."""
    kernel = Kernel(
        np.ones((1, 1, 1, 1) if kind == "conv" else (1, 1), np.int8),
        8,
        np.array([scale], np.float32),
        np.array([bias], np.int64),
    )
    window = {"strides": [1, 1], "padding": "valid", "dilation": [1, 1]}
    op = IntegerOp("y", kind, ("x",), int16(1.0), kernel=kernel, attributes=window)
    values = tf.constant(np.reshape(inputs, (-1, 1, 1, 1)), tf.float64)
    outputs = SIMULATIONS[kind].run(op, Operand(values, int16(1.0)))
    return [int(x) for x in np.ravel(outputs)]


def test_rounding_by_hand():
    """Convolutions round ties up, by 15 bits; FULLY_CONNECTED away from zero."""
    assert computed("conv", 0.5, 0, [3, -3, 5]) == [2, -1, 3]
    assert computed("dense", 0.5, 0, [3, -3, 5]) == [2, -2, 3]
    # 0.50001 has no more than 15 bits there: still a tie.
    assert computed("conv", 0.50001, 0, [-3]) == [-1]
    assert computed("dense", 0.50001, 0, [-3]) == [-2]
    # Sums that no int32 holds.
    assert computed("conv", 2.0**-30, 3 * 2**40, [0]) == [3 * 2**10]
    assert computed("dense", 2.0**-30, 3 * 2**40, [0]) == [3 * 2**10]


def test_files_are_verified():
    network = widened(NETWORKS["resizes"][0])
    found = verify_file(convert_network(network), network, num_random_images=4)
    assert [f for f in found.findings if not f.passed] == []
    assert found.required().max_lsb == 0
    assert "its own kernels on" in found.required().runtime
