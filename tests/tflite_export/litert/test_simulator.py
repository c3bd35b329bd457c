"""Bit by bit what LiteRT computes."""

from __future__ import annotations

import functools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny_network import (
    CHANNEL_KINDS,
    INPUT_GRID,
    INPUT_SHAPE,
    OUTPUT_GRID,
    NetworkBuilder,
    coarse,
    random_images,
)
from tflite_export.convert import convert_network
from tflite_export.flatbuffer import read_model
from tflite_export.integer_network import IntegerNetwork, IntegerOp, Kernel
from tflite_export.interpreter import TFLiteClassifier
from tflite_export.litert.kernels import first_rounding_bias, uses_double_rounding
from tflite_export.litert.simulator import infer
from tflite_export.operators.table import FIXED_QUANT_PARAMS
from tflite_export.quantization_params import (
    QuantParams,
    quant_params_over,
    relu_quant_params,
)

# More than one batch of `infer`, and a last one that is not full.
NUM_IMAGES = 100
WIDTHS = range(2, 9)


def coarse_relu_quant_params(upper: float, bits: int) -> QuantParams:
    quant_params = relu_quant_params(upper, bits)
    return QuantParams(float(coarse(quant_params.scale)), quant_params.zero_point)


def kernel_network():
    """Every kind of kernel at every width, strided, padded, dilated, with ReLU."""
    b = NetworkBuilder(seed=1)
    odd = b.pool("thirds", "max_pool", "image", size=2, stride=3)
    odd_image = b.kernel("odd", "conv", odd, bits=8, size=2, padding="valid")
    odd = b.flatten(odd_image)
    even = b.flatten("image")
    for bits in WIDTHS:
        for name, kind, options in (
            ("conv", "conv", {}),
            ("conv_relu", "conv", {"relu": True, "padding": "valid"}),
            ("conv_strided", "conv", {"stride": 2, "outputs": 9}),
            ("conv_dilated", "conv", {"dilation": 2}),
            ("conv_1x1", "conv", {"size": 1, "outputs": 8, "stride": 2}),
            ("conv_pairs", "conv", {"groups": 2, "outputs": 6}),
            ("conv_grouped", "conv", {"groups": 4, "outputs": 8, "stride": 2}),
            ("conv_grouped_1x1", "conv", {"groups": 2, "outputs": 8, "size": 1}),
            ("pointwise", "pointwise", {"outputs": 16}),
            ("pointwise_relu", "pointwise", {"outputs": 16, "relu": True}),
            (
                "pointwise_relu6",
                "pointwise",
                {"relu6": True, "quant_params": QuantParams(11 / 256, 0)},
            ),
            ("depthwise", "depthwise", {}),
            ("depthwise_valid", "depthwise", {"padding": "valid", "relu": True}),
            ("depthwise_strided", "depthwise", {"stride": 2, "size": 5}),
            ("depthwise_dilated", "depthwise", {"dilation": 2}),
            ("depthwise_twice", "depthwise", {"multiplier": 2}),
            ("depthwise_thrice", "depthwise", {"multiplier": 3, "stride": 2}),
        ):
            b.branch(b.kernel(f"{name}_w{bits}", kind, "image", bits=bits, **options))
        for name, source, kind in (
            ("dense_even", even, "dense"),
            ("dense_odd", odd, "dense"),
            ("dense_convolution", even, "dense_convolution"),
            ("pointwise_odd", odd_image, "pointwise"),
        ):
            b.branch(b.kernel(f"{name}_w{bits}", kind, source, bits=bits, outputs=40))
        b.branch(
            b.kernel(
                f"dense_relu_w{bits}", "dense", even, bits=bits, outputs=40, relu=True
            )
        )
    return b.build()


def activation_network():
    """Narrow activations into every kind of kernel, as W<bits>A<bits> has them."""
    b = NetworkBuilder(seed=2)
    for bits in range(3, 9):
        quant_params = coarse_relu_quant_params(6.0, bits)
        for weight_bits in (4, 8):
            end = f"a{bits}_w{weight_bits}"
            options = {"bits": weight_bits, "relu": True, "quant_params": quant_params}
            first = b.kernel(f"conv_{end}", "conv", "image", **options)
            second = b.kernel(
                f"depthwise_{end}", "depthwise", first, multiplier=2, **options
            )
            third = b.kernel(f"conv_again_{end}", "conv", second, stride=2, **options)
            fourth = b.kernel(
                f"dense_{end}", "dense", b.flatten(third), bits=weight_bits, outputs=30
            )
            for name in (first, second, third, fourth):
                b.branch(name)
    return b.build()


def global_average(b, name, source, quant_params, *, keepdims=False):
    shape = (1, 1, 4) if keepdims else (4,)
    attributes = {"keepdims": keepdims}
    return b.op(
        name, "global_average", [source], shape, quant_params, attributes=attributes
    )


def fifth_dimension(b, source):
    """Pairs of channels."""
    attributes = {"shape": [8, 8, 2, 2]}
    name = f"{source}_in_pairs"
    return b.op(name, "reshape", [source], (8, 8, 2, 2), attributes=attributes)


def transposed(b, name, source, shape, permutation):
    """A transposition, as an image if it has more dimensions."""
    attributes = {"permutation": permutation}
    shape = tuple(shape[dimension - 1] for dimension in permutation)
    name = b.op(name, "transpose", [source], shape, attributes=attributes)
    if len(shape) == 3:
        return name
    shape = (shape[0], shape[1], shape[2] * shape[3])
    attributes = {"shape": list(shape)}
    return b.op(f"{name}_image", "reshape", [name], shape, attributes=attributes)


def movement_network():
    """Everything without a kernel."""
    b = NetworkBuilder(seed=3)
    quant_params = coarse_relu_quant_params(2.5, 8)
    narrow = coarse_relu_quant_params(6.0, 4)
    signed = b.kernel("signed", "conv", "image", bits=8, outputs=4)
    positive = b.kernel(
        "positive",
        "conv",
        "image",
        bits=4,
        outputs=4,
        relu=True,
        quant_params=quant_params,
    )
    small = b.kernel(
        "small", "conv", "image", bits=8, outputs=4, relu=True, quant_params=narrow
    )
    small_too = b.kernel(
        "small_too", "conv", "image", bits=4, outputs=4, relu=True, quant_params=narrow
    )
    on_grid = b.kernel(
        "on_the_grid_of_the_image", "conv", "image", bits=8, outputs=4,
        quant_params=INPUT_GRID,
    )  # fmt: skip
    wider = QuantParams(float(coarse(0.031)), -20)
    far = QuantParams(float(coarse(0.0613)), -100)
    half = QuantParams(float(coarse(6.0 / 200.5)), -128)
    shape = INPUT_SHAPE
    crops = {"attributes": {"crops": [[0, 0], [1, 0]]}}
    part = b.op("part", "crop", ["image"], (8, 7, 4), **crops)
    ends = [
        b.op("add_signed", "add", [signed, "image"], shape, wider),
        b.op("add_positive", "add", [positive, signed], shape, wider),
        b.op("add_relu", "add", [signed, positive], shape, quant_params, relu=True),
        b.op("add_narrow_relu", "add", [small, "image"], shape, narrow, relu=True),
        b.op("add_narrow", "add", [small, small], shape, wider),
        # Of a tensor each: the converter makes one RELU of several of the same.
        b.op("relu", "relu", [signed], shape, quant_params, relu=True),
        b.op("relu_narrow", "relu", [part], (8, 7, 4), narrow, relu=True),
        # 6 lies inside these ranges, about half way between two values of the second.
        b.op("relu_far", "relu", ["image"], shape, far, relu=True),
        b.op("relu6", "relu", ["image"], shape, far, relu=True, relu6=True),
        b.op("add_relu6", "add", [signed, "image"], shape, far, relu=True, relu6=True),
        b.kernel(
            "conv_relu6",
            "conv",
            "image",
            bits=8,
            relu=True,
            relu6=True,
            quant_params=far,
        ),
        b.kernel(
            "w4_relu6",
            "conv",
            "image",
            bits=4,
            relu=True,
            relu6=True,
            quant_params=half,
        ),
        global_average(b, "global", "image", wider),
        global_average(b, "global_positive", positive, quant_params),
        global_average(b, "global_narrow", small, quant_params),
        b.pool("average_2", "average_pool", "image", size=2, stride=2),
        b.pool("average_3", "average_pool", signed, size=3, stride=1, padding="same"),
        b.pool("average_thirds", "average_pool", positive, size=3, stride=2),
        b.pool("average_narrow", "average_pool", small, size=2, stride=1),
        b.pool("average_one", "average_pool", signed, size=1, stride=2),
        b.pool("max_2", "max_pool", "image", size=2, stride=2),
        b.pool("max_3", "max_pool", signed, size=3, stride=2, padding="same"),
        b.op(
            "padded",
            "pad",
            ["image"],
            (11, 11, 4),
            attributes={"pads": [[1, 2], [3, 0]]},
        ),
        b.op(
            "reshaped",
            "reshape",
            [signed],
            (4, 16, 4),
            attributes={"shape": [4, 16, 4]},
        ),
        b.op(
            "cropped",
            "crop",
            [signed],
            (5, 7, 4),
            attributes={"crops": [[1, 2], [0, 1]]},
        ),
        transposed(b, "transposed", signed, (8, 8, 4), [3, 1, 2]),
        transposed(b, "channels_first", "image", (8, 8, 4), [2, 3, 1]),
        transposed(
            b, "shuffled", fifth_dimension(b, signed), (8, 8, 2, 2), [1, 2, 4, 3]
        ),
        transposed(
            b,
            "transposed_blocks",
            fifth_dimension(b, "image"),
            (8, 8, 2, 2),
            [3, 2, 1, 4],
        ),
        b.op("larger", "elementwise_maximum", [on_grid, "image"], shape),
        b.op("smaller", "elementwise_minimum", ["image", on_grid], shape),
        b.op("larger_narrow", "elementwise_maximum", [small, small_too], shape),
    ]
    for name in ("relu_far", "add_relu", "image"):
        b.branch(
            b.op(f"{name}/bound", "minimum", [name], shape, attributes={"level": -4})
        )
    for bits in (4, 8):
        for kind in ("conv", "depthwise"):
            options = {"bits": bits, "relu": True, "quant_params": far, "outputs": 4}
            source = b.kernel(f"{kind}{bits}_bounded", kind, "image", **options)
            attributes = {"level": -70}
            name = b.op(
                f"{source}/bound", "minimum", [source], shape, attributes=attributes
            )
            b.branch(name)
    options = {"bits": 8, "relu": True, "quant_params": far, "outputs": 40}
    source = b.kernel("dense_bounded", "dense", b.flatten(signed), **options)
    b.branch(b.op("dense/bound", "minimum", [source], (40,), attributes={"level": -70}))
    other = b.kernel("other", "depthwise", "image", bits=4)
    third = b.kernel("third", "conv", "image", bits=8, relu=True)
    ends.append(b.op("concatenated", "concatenate", [signed, other, third], (8, 8, 13)))
    # A mean over a number of positions that is no power of two.
    positions = b.pool("positions", "max_pool", "image", size=2, stride=1)
    ends.append(global_average(b, "global_49", positions, wider))
    padded = b.op(
        "padded_signed", "pad", [signed], (9, 9, 4), attributes={"pads": [[0, 1]] * 2}
    )
    ends.append(
        b.kernel("after_pad", "conv", padded, bits=8, stride=2, padding="valid")
    )
    for name in ends:
        b.branch(name)
    return b.build()


def resize_network():
    """Resized tensors, and channels that become positions."""
    b = NetworkBuilder(seed=5)
    narrow = coarse_relu_quant_params(6.0, 4)
    signed = b.kernel("signed", "conv", "image", bits=8, outputs=4)
    small = b.kernel(
        "small", "conv", "image", bits=8, outputs=4, relu=True, quant_params=narrow
    )
    # Of an odd height and width.
    odd = b.pool("odd", "max_pool", signed, size=2, stride=1)
    for kind, source, length, size in (
        ("nearest", "image", 8, (2, 2)),
        ("nearest", odd, 7, (3, 1)),
        ("nearest", signed, 8, (1, 5)),
        ("bilinear", "image", 8, (2, 2)),
        ("bilinear", signed, 8, (3, 1)),
        ("bilinear", odd, 7, (5, 6)),
        ("bilinear", small, 8, (1, 4)),
    ):
        name = f"{kind}_{source}_by_{size[0]}_{size[1]}"
        shape = (length * size[0], length * size[1], 4)
        options = {"attributes": {"size": list(size)}}
        b.branch(b.op(name, f"resize_{kind}", [source], shape, **options))
    for block, crops, shape in (
        ([2, 2], [[0, 0], [0, 0]], (16, 16, 1)),
        ([2, 2], [[1, 2], [0, 3]], (13, 13, 1)),
        ([2, 1], [[0, 0], [0, 0]], (16, 8, 2)),
        ([1, 4], [[0, 1], [1, 1]], (7, 30, 1)),
    ):
        name = "depth_to_space_{}_{}_{}".format(*block, shape[0])
        options = {"attributes": {"block_size": block, "crops": crops}}
        b.branch(b.op(name, "depth_to_space", [signed], shape, **options))
    return b.build()


def product_network():
    """Functions of one tensor by table, and products with them."""
    b = NetworkBuilder(seed=4)
    shape = INPUT_SHAPE
    wide = QuantParams(float(coarse(0.09)), -3)
    other = QuantParams(float(coarse(0.077)), -3)
    signed = b.kernel("signed", "conv", "image", bits=8, outputs=4, quant_params=wide)
    positive = b.kernel(
        "positive", "conv", "image", bits=4, outputs=4, relu=True,
        quant_params=coarse_relu_quant_params(2.5, 8),
    )  # fmt: skip
    narrow = coarse_relu_quant_params(6.0, 4)
    small = b.kernel(
        "small", "conv", "image", bits=8, outputs=4, relu=True, quant_params=narrow
    )
    swish_quant_params = QuantParams(float(coarse(0.03)), -119)
    slopes = [127 - i * 53 % 255 for i in range(8 * 8 * 4 - 1)] + [127]
    sources = {"signed": signed, "positive": positive, "small": small, "image": "image"}
    for name, source in sources.items():
        for kind in ("sigmoid", "tanh", "gelu", "elu", "hard_swish"):
            quant_params = FIXED_QUANT_PARAMS.get(kind, swish_quant_params)
            b.branch(b.op(f"{kind}_{name}", kind, [source], shape, quant_params))
        options = {"attributes": {"slope": 0.1}}
        b.branch(b.op(f"leaky_{name}", "leaky_relu", [source], shape, wide, **options))
        # The converter knows but one of each tensor.
        count = 8 * 8 * 4 if name in ("signed", "positive") else 4
        attributes = {"slopes": slopes[-count:], "slope_scale": float(coarse(0.013))}
        options = {"attributes": attributes}
        b.branch(b.op(f"prelu_{name}", "prelu", [source], shape, wide, **options))
        # A ReLU beside it, of which the converter makes use in any case.
        options = {"quant_params": narrow, "relu": True}
        b.branch(b.op(f"relu_{name}", "relu", [source], shape, **options))
        product = [source, f"sigmoid_{name}"]
        b.branch(b.op(f"swish_{name}", "multiply", product, shape, swish_quant_params))
        b.branch(b.op(f"product_{name}", "multiply", [source, signed], shape, other))
    product = [signed, "image"]
    b.branch(b.op("narrow_relu", "multiply", product, shape, narrow, relu=True))
    squeezed = global_average(b, "squeezed", signed, wide, keepdims=True)
    b.branch(squeezed)
    excited = b.op(
        "excited", "sigmoid", [squeezed], (1, 1, 4), FIXED_QUANT_PARAMS["sigmoid"]
    )
    for name, source in sources.items():
        quant_params = swish_quant_params if name == "positive" else wide
        b.branch(b.op(f"se_{name}", "multiply", [source, excited], shape, quant_params))
    b.branch(b.op("se_first", "multiply", [excited, signed], shape, wide))
    return b.build()


def normalization_network():
    """Means over channels, differences, and directions, of images and of rows."""
    b = NetworkBuilder(seed=5)
    narrow = coarse_relu_quant_params(6.0, 4)
    fine = QuantParams(float(coarse(0.0071)), 20)
    far = QuantParams(float(coarse(0.0613)), -100)
    wide = b.kernel("wide", "conv", "image", bits=8, outputs=19, padding="valid")
    b.kernel(
        "small", "conv", "image", bits=4, outputs=6, relu=True, quant_params=narrow
    )
    few = b.kernel("few", "conv", "image", bits=8, outputs=2, stride=2)
    pooled = global_average(b, "pooled", wide, fine)
    shapes = {
        "image": INPUT_SHAPE, wide: (6, 6, 19), "small": (8, 8, 6), few: (4, 4, 2),
        pooled: (19,),
    }  # fmt: skip
    unit = FIXED_QUANT_PARAMS["l2_normalize"]
    for name, shape in shapes.items():
        one = (*shape[:-1], 1)
        mean = b.op(f"mean_{name}", "channel_mean", [name], one, fine)
        b.branch(b.op(f"mean_far_{name}", "channel_mean", [name], one, far))
        for end, quant_params in (("", fine), ("_far", far), ("_as_is", None)):
            centered = f"centered{end}_{name}"
            b.branch(b.op(centered, "subtract", [name, mean], shape, quant_params))
            # Within the parameters' range.
            sign = 1 if end == "_far" or name != "small" else -1
            for level, count in ((0, 0), (17, 1), (100, 3)):
                constants = {"constant_level": sign * level, "num_constants": count}
                b.branch(
                    b.op(
                        f"unit{end}_{name}_{count}", "l2_normalize", [centered], shape,
                        unit, attributes=constants,
                    )
                )  # fmt: skip
    return b.build()


NETWORKS = {
    "normalizations": normalization_network(),
    "products": product_network(),
    "kernels": kernel_network(),
    "activations": activation_network(),
    "movements": movement_network(),
    "resizes": resize_network(),
}


@functools.cache
def outputs(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A network's outputs, computed in integers and computed by LiteRT."""
    network, _ = NETWORKS[name]
    images = random_images(NUM_IMAGES)
    return (
        infer(network, images),
        TFLiteClassifier(convert_network(network)).run(images),
    )


@pytest.mark.parametrize(
    ("network", "branch"),
    [(name, branch) for name, (_, slices) in NETWORKS.items() for branch in slices],
)
def test_equals_litert_bit_by_bit(network, branch):
    place = NETWORKS[network][1][branch]
    computed, expected = (x[:, place] for x in outputs(network))
    # An output that hardly varies would prove little.
    assert len(np.unique(expected)) >= 4
    assert (np.abs(expected + 0.5) > 127).mean() < 0.85
    np.testing.assert_array_equal(computed, expected)


def one_activation(kind, scale, zero_point, *, lowest=-0.4, **attributes):
    """One function of a tensor of 256 values, output parameters just hold it."""
    quant_params = QuantParams(float(coarse(scale)), zero_point)
    high = max(quant_params.high, 0.1)
    output = (
        quant_params_over(lowest, high)
        if kind not in FIXED_QUANT_PARAMS
        else FIXED_QUANT_PARAMS[kind]
    )
    output = QuantParams(float(coarse(output.scale)), output.zero_point)
    flat = {"shape": [256]}
    ops = (
        IntegerOp("y", kind, ("x",), output, attributes=attributes),
        IntegerOp("flat", "reshape", ("y",), output, attributes=flat),
    )
    return IntegerNetwork("x", (16, 16, 1), quant_params, ops, False)


INPUT_QUANT_PARAMS = [
    (0.0031, -47), (0.0115, 60), (0.021, 7), (0.0367, 45), (0.094, -128), (0.22, -45),
]  # fmt: skip


def check_every_value(network):
    quantized = np.arange(-128, 128).astype(np.int8).reshape(1, 16, 16, 1)
    tflite = convert_network(network)
    # Functions that it knows no integer kernel for the converter leaves in float.
    assert {t.dtype for t in read_model(tflite).tensors} <= {"INT8", "INT32"}
    expected = TFLiteClassifier(tflite).run(quantized)
    assert len(np.unique(expected)) > 20
    np.testing.assert_array_equal(infer(network, quantized), expected)


@pytest.mark.parametrize("kind", ["sigmoid", "tanh", "gelu", "elu", "hard_swish"])
@pytest.mark.parametrize(("scale", "zero_point"), INPUT_QUANT_PARAMS)
def test_every_value_of_an_activation(kind, scale, zero_point):
    check_every_value(one_activation(kind, scale, zero_point))


# The smallest and the largest are not XNNPACK's to compute.
@pytest.mark.parametrize("slope", [0.0005, 0.01, 0.1, 0.2, 0.3, 1.5, -0.25, 300.0])
@pytest.mark.parametrize(("scale", "zero_point"), INPUT_QUANT_PARAMS)
def test_every_value_of_a_leaky_relu(slope, scale, zero_point):
    below = slope * scale * (-128 - zero_point)
    lowest = min(-0.01, below)
    check_every_value(
        one_activation("leaky_relu", scale, zero_point, lowest=lowest, slope=slope)
    )


@pytest.mark.parametrize("slope_scale", [0.00031, 0.0023, 0.0137, 2.7])
@pytest.mark.parametrize(("scale", "zero_point"), INPUT_QUANT_PARAMS)
def test_every_value_of_a_prelu(slope_scale, scale, zero_point):
    """With a slope of its own for each, up to 0.04, 0.3, 1.7 and 343."""
    slope_scale = float(coarse(slope_scale))
    below = 0.5 * slope_scale * 127 * scale * (-128 - zero_point)
    slopes = [127, *np.random.default_rng(0).integers(-127, 128, 255).tolist()]
    attributes = {"slopes": slopes, "slope_scale": slope_scale}
    check_every_value(
        one_activation("prelu", scale, zero_point, lowest=min(below, 0), **attributes)
    )


def test_factors_of_a_prelu_are_products_in_float32():
    """-28 steps of the input by a slope of -123 steps: 52.4922 of the output.

    Rounded to a half first, that is 53 by the factor in float32, 52 in float64.
    """
    given, taken = QuantParams(0.04754638671875, 48), QuantParams(0.057952880859375, 0)
    slopes = {"slopes": [127, -123], "slope_scale": 0.01857757568359375}
    ops = (
        IntegerOp("y", "prelu", ("x",), taken, attributes=slopes),
        IntegerOp("flat", "reshape", ("y",), taken, attributes={"shape": [2]}),
    )
    network = IntegerNetwork("x", (1, 1, 2), given, ops, False)
    stored = np.full((1, 1, 1, 2), 48 - 28).astype(np.int8)
    (found,) = TFLiteClassifier(convert_network(network)).run(stored)
    assert found[1] == 53
    np.testing.assert_array_equal(infer(network, stored), [found])


@pytest.mark.parametrize("level", [-128, -127, -3, 0, 126, 127])
@pytest.mark.parametrize("zero_point", [-128, -3, 127])
def test_every_value_of_a_minimum(level, zero_point):
    """Also where the bound is negative, or the end of the int8."""
    quant_params = QuantParams(float(coarse(0.0367)), zero_point)
    bounded = IntegerOp(
        "y", "minimum", ("x",), quant_params, attributes={"level": level}
    )
    flat = IntegerOp(
        "flat", "reshape", ("y",), quant_params, attributes={"shape": [256]}
    )
    network = IntegerNetwork("x", (16, 16, 1), quant_params, (bounded, flat), False)
    quantized = np.arange(-128, 128).astype(np.int8)
    expected = [np.minimum(quantized, level)]
    images = quantized.reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(infer(network, images), expected)
    tflite = convert_network(network)
    np.testing.assert_array_equal(TFLiteClassifier(tflite).run(images), expected)


def softmax_network(scale, num_classes):
    quant_params = QuantParams(scale, 3)
    flat = {"shape": [num_classes]}
    flatten = IntegerOp("y", "reshape", ("x",), quant_params, attributes=flat)
    return IntegerNetwork("x", (1, 1, num_classes), quant_params, (flatten,), True)


def test_softmax_by_hand():
    # exp(0.5 (-4 - 2)) = 0.0498 beside 1: 0.9526 and 0.0474 are 243.86 and 12.14 of
    # 256. Four alike have 64 each, two alike 128. Alone, 256 is one more than fits.
    two = softmax_network(0.5, 2)
    logits = np.array([[2, -4], [7, 7], [127, -128]], np.int8).reshape(3, 1, 1, 2)
    expected = [[244 - 128, 12 - 128], [0, 0], [127, -128]]
    np.testing.assert_array_equal(infer(two, logits), expected)
    four = infer(softmax_network(0.5, 4), np.full((1, 1, 1, 4), -5, np.int8))
    np.testing.assert_array_equal(four, [[-64] * 4])


@pytest.mark.parametrize(
    ("scale", "num_classes"), [(0.0625, 1000), (0.09375, 1000), (0.125, 300), (1.0, 3)]
)
def test_softmax(scale, num_classes):
    """Also where an exact probability, rounded, is another value than LiteRT's: 8 of
    the 2,000,000 at 0.09375."""
    network = softmax_network(scale, num_classes)
    normal = np.random.default_rng(0).normal(-60, 25, (2000, 1, 1, num_classes))
    logits = np.clip(np.round(normal), -128, 127).astype(np.int8)
    expected = TFLiteClassifier(convert_network(network)).run(logits)
    assert len(np.unique(expected)) > 10
    np.testing.assert_array_equal(infer(network, logits), expected)


def dense_network(values, scale, bias, *, bits=8, relu=False, quant_params=OUTPUT_GRID):
    kernel = Kernel(
        np.array(values, np.int8),
        bits,
        np.array(scale, np.float32),
        np.array(bias, np.int32),
    )
    flat = {"shape": [len(values)]}
    flatten = IntegerOp("flat", "reshape", ("x",), INPUT_GRID, attributes=flat)
    dense = IntegerOp("y", "dense", ("flat",), quant_params, relu=relu, kernel=kernel)
    return IntegerNetwork("x", (1, 1, len(values)), INPUT_GRID, (flatten, dense), False)


def test_dense_by_hand():
    # Accumulators: 3 (15 - 5) - 2 (-15 - 5) + 7 = 77 and -10 + 0 - 100 = -110;
    # the multiplier (3/256) (11/48) / (11/512) is 1/8: 9.625 and -13.75 round to
    # 10 and -14, on zero point -7.
    network = dense_network([[3, -1], [-2, 0]], [11 / 48, 11 / 48], [7, -100])
    image = np.array([15, -15], np.int8).reshape(1, 1, 1, 2)
    np.testing.assert_array_equal(infer(network, image), [[3, -21]])
    # ReLU clamps at the zero point; large sums at 127 and -128.
    relu = dense_network([[3, -1], [-2, 0]], [11 / 48, 11 / 48], [7, -100], relu=True)
    np.testing.assert_array_equal(infer(relu, image), [[3, -7]])
    large = dense_network([[0, 0], [0, 0]], [11 / 48, 11 / 48], [9999, -9999])
    np.testing.assert_array_equal(infer(large, image), [[127, -128]])


@pytest.mark.parametrize(
    ("bias", "even", "nested"), [(4, 0, 1), (12, 2, 2), (-4, 0, 0)]
)
def test_ties_by_hand(bias, even, nested):
    # Multiplier 1/8 is 1/2 * 2^-2: an accumulator 4 is a tie, and 3 becomes one by
    # its first rounding, 1.5 to 2.
    image = np.full((1, 1, 1, 1), INPUT_GRID.zero_point, np.int8)
    for bits, expected in ((8, even), (4, nested)):
        network = dense_network([[1]], [11 / 48], [bias], bits=bits)
        assert infer(network, image)[0, 0] - OUTPUT_GRID.zero_point == expected
    network = dense_network([[1]], [11 / 48], [3], bits=4)
    assert infer(network, image)[0, 0] - OUTPUT_GRID.zero_point == 1


def test_every_image_of_several_batches_has_an_output():
    network = dense_network([[1], [1]], [0.5], [0])
    images = np.zeros((130, 1, 1, 2), np.int8)
    images[-1] = 100
    outputs = infer(network, images)
    assert outputs.shape == (130, 1)
    assert (outputs[:-1] == outputs[0]).all()
    assert outputs[-1] > outputs[0]


def nested_rounding(accumulator: int, mantissa: Fraction, shift: int) -> int:
    """A multiply by mantissa * 2^-shift as fixed-point code does it, half up."""
    first = (accumulator * mantissa + Fraction(1, 2)) // 1
    return (2 * first + 2**shift) // 2 ** (shift + 1)


@given(
    numerator=st.integers(2**10, 2**11 - 1),
    shift=st.integers(1, 12),
    accumulator=st.integers(-(2**20), 2**20),
)
def test_first_rounding_bias_by_brute_force(numerator, shift, accumulator):
    mantissa = Fraction(numerator, 2**11)
    multiplier = float(mantissa / 2**shift)
    # mantissa / 2^shift rounded once, of an accumulator that is larger by the bias
    # (as a fraction: 1 / (2 mantissa)), gives the very same integers.
    bias = first_rounding_bias(np.array([multiplier]))[0]
    assert bias == pytest.approx(float(1 / (2 * mantissa)), rel=1e-12)
    exact_bias = Fraction(2**10, numerator)
    once = ((accumulator + exact_bias) * mantissa / 2**shift + Fraction(1, 2)) // 1
    assert once == nested_rounding(accumulator, mantissa, shift)


@pytest.mark.parametrize("multiplier", [0.5, 0.75, 1.0, 1.5, 20.0])
def test_no_first_rounding_bias_without_a_right_shift(multiplier):
    assert first_rounding_bias(np.array([multiplier]))[0] == 0.0


@pytest.mark.parametrize(
    ("kind", "bits", "inputs", "expected"),
    [
        ("conv", 4, 2, True),
        ("conv", 5, 2, False),
        ("depthwise", 2, 2, True),
        ("dense", 4, 2, False),
        ("dense", 4, 3, True),
        ("dense", 8, 3, False),
        ("pointwise", 4, 2, False),
        ("pointwise", 4, 3, True),
        ("dense_convolution", 4, 2, True),
    ],
)
def test_who_rounds_twice(kind, bits, inputs, expected):
    is_2d = kind in CHANNEL_KINDS
    values = np.zeros((inputs, 1) if is_2d else (1, 1, inputs, 1), np.int8)
    kernel = Kernel(values, bits, np.ones(1, np.float32), np.zeros(1, np.int32))
    assert uses_double_rounding(kind, kernel) is expected


# Scale and zero point of the input, positions, scale and zero point of the mean: where
# float32's rounding of each factor decides what next to a tie becomes of it.
NEAR_TIES = [
    (0.10936737060546875, -128, 48, 0.025018692016601562, -128),
    (0.1, -128, 48, 0.0625, -128),
    (0.0625, -5, 48, 0.03125, -19),
    (0.04998779296875, 20, 63, 0.01666259765625, -87),
    (0.15625, -67, 81, 0.0499420166015625, -57),
]


@pytest.mark.parametrize(("scale", "zero_point", "count", "to", "to_zero"), NEAR_TIES)
def test_means_next_to_ties(scale, zero_point, count, to, to_zero):
    lowest, highest = count * (-128 - zero_point), count * (127 - zero_point)
    totals = np.arange(lowest, highest + 1)
    means = totals * (scale / to / count)
    distance = np.abs(means - np.floor(means) - 0.5)
    chosen = totals[np.argsort(distance, kind="stable")[:256]]
    low, ones = np.divmod(chosen, count)
    positions = np.arange(count)[:, np.newaxis]
    image = low + (positions < ones) + zero_point  # (count, totals)
    assert image.min() >= -128 and image.max() <= 127
    quant_params = QuantParams(to, to_zero)
    mean = IntegerOp("mean", "global_average", ("image",), quant_params)
    shape, source = (1, count, 256), QuantParams(scale, zero_point)
    network = IntegerNetwork("image", shape, source, (mean,), softmax=False)
    images = image.reshape(1, *shape).astype(np.int8)
    expected = TFLiteClassifier(convert_network(network)).run(images)
    np.testing.assert_array_equal(infer(network, images), expected)
