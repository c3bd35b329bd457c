"""A student in integers computes what it simulates."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gdfq_tf.config import BitWidths
from gdfq_tf.errors import UserError
from gdfq_tf.graph.layers import ChannelMean, L2Normalization, hard_swish
from gdfq_tf.keras_compat import keras
from gdfq_tf.preprocessing import make_preprocessing
from gdfq_tf.quantization.calibration import calibrate
from gdfq_tf.quantization.lowering import lower
from gdfq_tf.quantization.plan import make_plan
from gdfq_tf.quantization.student import build_student
from tests.tiny import INPUT_SHAPE, build_tiny_classifier, classifier_of
from tflite_export.convert import convert_network, post_training_quantize
from tflite_export.flatbuffer import read_model
from tflite_export.interpreter import TFLiteClassifier
from tflite_export.litert.processors import ARM64
from tflite_export.litert.simulator import infer
from tflite_export.quantization_params import QuantParams
from tflite_export.targets import TARGETS
from tflite_export.verification.rules import Expectation, structural_findings
from tflite_export.verification.verify import verify_file

layers = keras.layers
PREPROCESSING = make_preprocessing("tf", 3)


def varied_pixels() -> np.ndarray:
    """Images of different colours, so that averages over them differ as well."""
    rng = np.random.default_rng(0)
    colours = rng.uniform(0, 255, (100, 1, 1, 3))
    return np.clip(np.rint(rng.normal(colours, 60, (100, *INPUT_SHAPE))), 0, 255)


PIXELS = varied_pixels()
WIDTHS = {
    w.name: w
    for w in (
        BitWidths(8, 8), BitWidths(4, 8), BitWidths(4, 4, "paper"), BitWidths(6, 5)
    )
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Frozen:
    classifier: keras.Model
    student: object
    network: object

    def op(self, name):
        return next(op for op in self.network.ops if op.name == name)

    def float_outputs(self) -> np.ndarray:
        """The student's outputs in steps of the network's output grid."""
        quant_params = self.network.ops[-1].quant_params
        inputs = PREPROCESSING.to_student_input(PIXELS)
        logits = self.student.model(inputs, training=False).numpy()
        steps = np.rint(logits / quant_params.scale) + quant_params.zero_point
        return np.clip(steps, -128, 127).astype(int)


def make_frozen(
    classifier: keras.Model, bit_widths: BitWidths, edit=None, target="litert"
) -> Frozen:
    plan = make_plan(classifier, bit_widths)
    inputs = PREPROCESSING.to_input(PIXELS).numpy()
    calibration = calibrate(classifier_of(classifier), plan, inputs)
    student = build_student(classifier_of(classifier), plan, calibration)
    if edit is not None:
        edit(student)
    network = lower(student, classifier_of(classifier), TARGETS[target])
    return Frozen(classifier, student, network)


def odd_normalizations() -> keras.Model:
    """The tiny classifier with zero and next to zero gammas; none is negative."""
    model = build_tiny_classifier()
    for name in ("bn1", "bn2", "bn3"):
        gamma, beta, mean, variance = model.get_layer(name).get_weights()
        gamma[1] = 0.0
        gamma[2] = 1e-12
        gamma[3], variance[3], mean[3] = 1e-12, 1e-12, 0.5
        variance[4], mean[4] = 1e-12, 0.0
        beta[1:4] = [0.7, -0.4, 1.1]
        gamma[4] *= 0.01
        model.get_layer(name).set_weights([gamma, beta, mean, variance])
    return model


@pytest.fixture(scope="module", params=[*WIDTHS])
def frozen(request) -> Frozen:
    return make_frozen(build_tiny_classifier(), WIDTHS[request.param])


@pytest.fixture(scope="module", params=["w8a8", "w4a4_paper"])
def odd(request) -> Frozen:
    return make_frozen(odd_normalizations(), WIDTHS[request.param])


def pointwise_kind(frozen: Frozen, name: str) -> str:
    """That of a convolution of single positions, of 8 channels each."""
    return "pointwise" if frozen.student.plan.weight_bits[name] <= 4 else "conv"


def test_operations_are_the_fused_chains(frozen):
    image = frozen.classifier.layers[0].name
    assert [(op.name, op.kind, op.inputs, op.relu) for op in frozen.network.ops] == [
        ("conv1", "conv", (image,), True),
        ("dw2", "depthwise", ("conv1",), True),
        ("conv3", pointwise_kind(frozen, "conv3"), ("dw2",), False),
        ("add3", "add", ("conv3", "conv1"), True),
        ("pool", "global_average", ("add3",), False),
        ("logits", "dense", ("pool",), False),
    ]
    assert frozen.network.input_shape == INPUT_SHAPE
    assert frozen.network.input_quant_params.zero_point == 0
    assert frozen.network.softmax is False
    assert frozen.op("conv1").attributes == {
        "strides": [1, 1], "padding": "same", "dilation": [1, 1], "groups": 1
    }  # fmt: skip


def significant_bits(value: float) -> int:
    mantissa, _ = np.frexp(np.float64(value))
    return next(n for n in range(54) if (mantissa * 2**n) % 1 == 0)


def test_scales_have_few_enough_significant_bits(frozen):
    grids = [op.quant_params.scale for op in frozen.network.ops]
    scales = {8: [frozen.network.input_quant_params.scale, *grids], 4: []}
    for op in frozen.network.ops:
        if op.kernel is not None:
            assert op.kernel.scale.dtype == np.float32
            scales[4 if op.kernel.bits <= 4 else 8] += list(op.kernel.scale)
    for levels, num_bits, stored in ((255, 16, 8), (8, 20, 4)):
        for scale in scales[stored]:
            assert significant_bits(scale) <= num_bits
            # Times a level it is exact in float32, which is what that is for.
            products = np.float64(scale) * np.arange(-levels, levels + 1)
            np.testing.assert_array_equal(products.astype(np.float32), products)


def levels_of(bits: int) -> tuple[int, int]:
    """8-bit kernels are symmetric, those of fewer bits use every level."""
    return (-127, 127) if bits == 8 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def expected_kernel(frozen: Frozen, name: str, normalization: str | None):
    """Folded real kernel and bias, from the student's variables and BN's formula."""
    layer = frozen.student.layer(name)
    quantizer = frozen.student.weight_quantizers[name]
    kernel = quantizer.kernel.numpy().astype(np.float64)
    if quantizer.depthwise:
        kernel = kernel.reshape(*kernel.shape[:2], -1)
    scale = quantizer.scale.numpy().astype(np.float64)
    quantized = np.clip(np.rint(kernel / scale), *levels_of(quantizer.bits)) * scale
    bias = layer.bias.numpy() if layer.use_bias else np.zeros(len(scale))
    if normalization is None:
        return quantized, bias
    bn = frozen.student.layer(normalization)
    gamma, beta, mean, variance = (
        np.float64(v) for v in (bn.gamma, bn.beta, bn.moving_mean, bn.moving_variance)
    )
    factor = gamma / np.sqrt(variance + bn.epsilon)
    return quantized * factor, factor * (bias - mean) + beta


KERNELS = [("conv1", "bn1"), ("dw2", "bn2"), ("conv3", "bn3"), ("logits", None)]


def check_folding(frozen: Frozen, name: str, normalization: str | None):
    op = frozen.op(name)
    kernel, bias = expected_kernel(frozen, name, normalization)
    values = op.kernel.values.astype(np.float64).reshape(kernel.shape)
    scale = op.kernel.scale.astype(np.float64)
    lowest, highest = levels_of(op.kernel.bits)
    assert lowest <= values.min() <= values.max() <= highest
    # Levels are exact; scales lose 2^-17 at most, or 1/24 so that all processors round
    # alike. A channel next to zero may be rounded to nothing in units of its smallest
    # scale.
    # Dense layers of so few outputs are no different.
    kinds = ("conv", "dense_convolution")
    unlike = op.kernel.bits <= 4 and op.kind in kinds
    change, bias_error = (1 / 24, 1.03) if unlike else (2.0**-16, 0.501)
    error = np.abs(values * scale - kernel).max(axis=tuple(range(kernel.ndim - 1)))
    largest = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)))
    negligible = (
        2.0**-20
        * op.quant_params.scale
        / frozen.network.quant_params(op.inputs[0]).scale
    )
    assert (error <= change * largest + negligible).all()
    step = frozen.network.quant_params(op.inputs[0]).scale * scale
    correction = np.zeros_like(step)
    rounds_twice = op.kernel.bits <= 4 and op.kind not in ("dense", "pointwise")
    if frozen.network.target == "tflm":  # away from zero: ReLUs leave what is above
        rounds_twice = op.relu
    if rounds_twice:
        # The first rounding adds 1 / (2 m), m in [1/2, 1) the multiplier's
        # mantissa, unless it shifts by nothing.
        multiplier = step / op.quant_params.scale
        shift = np.floor(np.log2(multiplier)) + 1
        correction = np.where(shift < 0, 2.0**shift / (2 * multiplier), 0.0)
        # On x86-64; on arm64 it adds nothing.
        correction /= 2 if unlike else 1
    np.testing.assert_allclose(
        op.kernel.bias, bias / step - correction, rtol=1e-6, atol=bias_error
    )
    assert op.kernel.bias.dtype == np.int32


@pytest.mark.parametrize(("name", "normalization"), KERNELS)
def test_batch_normalization_is_folded(frozen, name, normalization):
    check_folding(frozen, name, normalization)


@pytest.mark.parametrize(("name", "normalization"), KERNELS)
def test_odd_normalizations_are_folded(odd, name, normalization):
    check_folding(odd, name, normalization)
    kernel = odd.op(name).kernel
    assert (kernel.scale > 0).all()
    assert np.isfinite(kernel.scale).all()
    # Scales that round alike everywhere change by up to 1 / 24, biases as much: float32
    # has all integers up to 2^24.
    assert np.abs(kernel.bias.astype(np.int64)).max() <= 2**23 * (1 + 1 / 24)


@pytest.mark.parametrize("name", ["conv1", "dw2", "conv3"])
def test_dead_channels_give_their_beta(odd, name):
    kernel = odd.op(name).kernel
    levels = kernel.values.reshape(-1, 8)
    step = odd.network.quant_params(odd.op(name).inputs[0]).scale * np.float64(
        kernel.scale
    )
    beta = np.float64(odd.student.layer(f"bn{name[-1]}").beta)
    quant_params = odd.op(name).quant_params
    for channel in (1, 2, 3):
        assert np.abs(levels[..., channel]).max() * step[channel] < 1e-4
        real = kernel.bias[channel] * step[channel]
        assert real == pytest.approx(
            beta[channel], abs=0.01 * quant_params.scale + 1e-6
        )


@pytest.mark.parametrize("make", [build_tiny_classifier, odd_normalizations])
def test_student_and_integers_agree_within_two_steps_at_8_bits(make):
    frozen = make_frozen(make(), BitWidths(8, 8))
    computed = infer(frozen.network, PREPROCESSING.to_integers(PIXELS)).astype(int)
    difference = computed - frozen.float_outputs()
    assert computed.std() > 15
    assert np.abs(difference).max() <= 2
    assert (difference == 0).mean() > 0.6


def test_student_and_integers_agree_on_average_at_any_width(frozen):
    computed = infer(frozen.network, PREPROCESSING.to_integers(PIXELS)).astype(int)
    difference = computed - frozen.float_outputs()
    # Coarse activations amplify a single rounding; there must be no drift.
    assert np.abs(difference).max() <= 6
    assert abs(difference.mean()) < 0.5


def check_equals_litert(network):
    inputs = PREPROCESSING.to_integers(PIXELS)
    expected = TFLiteClassifier(convert_network(network)).run(inputs)
    assert len(np.unique(expected)) > 30
    np.testing.assert_array_equal(infer(network, inputs), expected)


def test_integers_equal_litert(frozen):
    check_equals_litert(frozen.network)


def test_integers_are_the_same_on_all_processors(frozen):
    inputs = PREPROCESSING.to_integers(PIXELS)
    expected = infer(frozen.network, inputs)
    np.testing.assert_array_equal(infer(frozen.network, inputs, ARM64), expected)


def test_layers_of_few_bits_have_the_forms_of_their_target():
    model, bit_widths = build_tiny_classifier(), WIDTHS["w4a4_paper"]
    frozen = make_frozen(model, bit_widths, target="tflm")
    kinds = [op.kind for op in frozen.network.ops if op.kernel is not None]
    assert kinds == ["conv", "depthwise", "conv", "dense_convolution"]
    check_equals_litert(frozen.network)
    # Their biases make up for TFLM's rounding, with 8 bits as well.
    assert frozen.network.target == "tflm"
    check_folding(frozen, "conv3", "bn3")
    check_folding(frozen, "logits", None)
    eight = make_frozen(build_tiny_classifier(), WIDTHS["w8a8"], target="tflm")
    assert eight.op("conv1").relu and not eight.op("logits").relu
    check_folding(eight, "conv1", "bn1")
    check_folding(eight, "logits", None)


def test_integers_of_odd_normalizations_equal_litert(odd):
    check_equals_litert(odd.network)


@pytest.mark.parametrize("width", ["w8a8", "w4a4_paper"])
def test_channels_switched_off_are_stored_as_they_are(width):
    """The converter widens ranges below 1e-6, whose integers would be others."""
    model = build_tiny_classifier()
    for name in ("bn1", "bn2", "bn3"):
        gamma, beta, mean, variance = model.get_layer(name).get_weights()
        gamma[:3], beta[:3], mean[:3] = [1e-7, 1e-8, 1e-9], 0.0, 0.0
        model.get_layer(name).set_weights([gamma, beta, mean, variance])
    network = make_frozen(model, WIDTHS[width]).network
    verification = verify_file(convert_network(network), network)
    assert [f for f in verification.findings if not f.passed] == []


def test_trained_scales_never_pass_the_relus_bound():
    def grow(student):
        student.activation_quantizers["relu2"].scale.assign(1.0)

    frozen = make_frozen(build_tiny_classifier(), BitWidths(8, 8), grow)
    assert frozen.op("dw2").quant_params.high == pytest.approx(6.0, rel=1e-4)
    narrow = make_frozen(build_tiny_classifier(), BitWidths(4, 4, "paper"), grow)
    assert narrow.op("dw2").quant_params.high == pytest.approx(6.0, rel=1e-4)
    assert narrow.op("dw2").quant_params.scale == pytest.approx(6.0 / 15, rel=1e-4)


def test_no_scale_is_finer_than_the_converter_writes():
    """Of a tensor that is zero but for rounding: ranges are 1e-6 wide at least."""

    def shrink(student):
        student.activation_quantizers["pool"].scale.assign(1e-12)

    frozen = make_frozen(build_tiny_classifier(), BitWidths(8, 8), shrink)
    found = 255 * frozen.op("pool").quant_params.scale
    assert found == pytest.approx(1.01e-6, rel=2.0**-15)


def test_trained_scales_are_taken_over():
    def change(student):
        quantizer = student.activation_quantizers["logits"]
        quantizer.scale.assign(0.3)
        student.weight_quantizers["conv3"].scale.assign(np.full(8, 0.2))

    frozen = make_frozen(build_tiny_classifier(), BitWidths(4, 8), change)
    assert frozen.op("logits").quant_params.scale == pytest.approx(0.3, rel=2.0**-15)
    check_folding(frozen, "conv3", "bn3")


def test_every_layer_kind_becomes_its_operation():
    image = keras.Input(INPUT_SHAPE, name="image")
    x = layers.Conv2D(4, 3, padding="same", name="c")(image)
    total = layers.Add(name="add")([x, layers.ReLU(name="r")(x)])
    padded = layers.ZeroPadding2D(((1, 0), (2, 1)), name="p")(total)
    pooled = layers.MaxPooling2D(2, strides=1, padding="same", name="m")(padded)
    averaged = layers.AveragePooling2D(2, name="a")(pooled)
    joined = layers.Concatenate(name="j")([averaged, averaged])
    shaped = layers.Reshape((4, -1, 2), name="s")(joined)
    flat = layers.Flatten(name="f")(shaped)
    model = keras.Model(image, layers.Dense(3, name="d")(flat))
    ops = {op.name: op for op in make_frozen(model, BitWidths(8, 8)).network.ops}
    assert {name: op.kind for name, op in ops.items()} == {
        "c": "conv", "r": "relu", "add": "add", "p": "pad", "m": "max_pool",
        "a": "average_pool", "j": "concatenate", "s": "reshape", "f": "reshape",
        "d": "dense",
    }  # fmt: skip
    assert ops["r"].relu
    assert ops["p"].attributes == {"pads": [[1, 0], [2, 1]]}
    assert ops["m"].attributes == {
        "pool_size": [2, 2], "strides": [1, 1], "padding": "same"
    }  # fmt: skip
    assert ops["s"].attributes == {"shape": [4, 20, 2]}
    assert ops["f"].attributes == {"shape": [160]}
    # Those that move integers share their input's grid.
    assert (
        ops["p"].quant_params
        == ops["m"].quant_params
        == ops["a"].quant_params
        == ops["j"].quant_params
    )
    assert ops["add"].quant_params == ops["p"].quant_params


def joined_relus(first, second) -> keras.Model:
    image = keras.Input(INPUT_SHAPE, name="image")
    ends = []
    for seed, (name, bound) in enumerate((("first", first), ("second", second))):
        kernel = keras.initializers.RandomUniform(-3, 3, seed)  # beyond all bounds
        conv = layers.Conv2D(4, 3, kernel_initializer=kernel, name=f"{name}_conv")
        ends.append(layers.ReLU(bound, name=name)(conv(image)))
    joined = layers.Concatenate(name="joined")(ends)
    pooled = layers.GlobalAveragePooling2D(name="pooled")(joined)
    return keras.Model(image, layers.Dense(3, name="logits")(pooled))


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((6.0, None), [True, False]),
        ((6.0, 8.0), [True, False]),
        ((6.0, 6.0), [False, False]),
        ((4.0, 4.0), [False, False]),
    ],
)
def test_a_bound_inside_the_joined_range_is_kept(bounds, expected):
    frozen = make_frozen(joined_relus(*bounds), BitWidths(8, 8))
    convolutions = [frozen.op("first_conv"), frozen.op("second_conv")]
    assert [op.relu6 for op in convolutions] == expected
    assert all(op.relu for op in convolutions)
    assert frozen.op("joined").quant_params.high > min(b for b in bounds if b) - 0.1
    assert "minimum" not in [op.kind for op in frozen.network.ops]


@pytest.mark.parametrize("width", [*WIDTHS])
@pytest.mark.parametrize("second", [None, 12.0])
def test_another_bound_inside_the_joined_range_is_a_minimum(width, second):
    frozen = make_frozen(joined_relus(4.0, second), WIDTHS[width])
    names = [op.name for op in frozen.network.ops]
    assert names == [
        "first_conv", "first_conv/bound", "second_conv", "joined", "pooled", "logits"
    ]  # fmt: skip
    first, bound = frozen.op("first_conv"), frozen.op("first_conv/bound")
    assert (first.relu, first.relu6) == (True, False)
    assert (bound.kind, bound.inputs) == ("minimum", ("first_conv",))
    assert bound.quant_params == first.quant_params == frozen.op("joined").quant_params
    assert frozen.op("joined").inputs == ("first_conv/bound", "second_conv")
    level = bound.attributes["level"]
    kept = (level - bound.quant_params.zero_point) * bound.quant_params.scale
    assert abs(kept - 4.0) <= bound.quant_params.scale / 2  # the next level
    assert bound.quant_params.zero_point < level < 127
    check_equals_litert(frozen.network)
    difference = infer(frozen.network, PREPROCESSING.to_integers(PIXELS)).astype(int)
    difference -= frozen.float_outputs()
    assert np.abs(difference).max() <= 3
    assert abs(difference.mean()) < 0.5


def test_a_bound_above_the_joined_range_needs_nothing():
    high = (
        make_frozen(joined_relus(None, None), BitWidths(8, 8))
        .op("joined")
        .quant_params.high
    )
    frozen = make_frozen(joined_relus(1.2 * high, None), BitWidths(8, 8))
    assert frozen.op("first_conv").quant_params.high < 1.2 * high
    assert "minimum" not in [op.kind for op in frozen.network.ops]


@pytest.mark.parametrize("bounds", [(4.0, None), (4.0, 12.0), (6.0, None), (4.0, 6.0)])
def test_bounds_cost_no_more_operators_than_the_converters_own(bounds):
    frozen = make_frozen(joined_relus(*bounds), BitWidths(8, 8))
    inputs = PREPROCESSING.to_input(PIXELS[:4]).numpy()
    own = post_training_quantize(frozen.classifier, INPUT_SHAPE, inputs)
    expectation = Expectation(8, len(read_model(own).operators))
    tflite = convert_network(frozen.network)
    findings = structural_findings(read_model(tflite), expectation)
    assert [finding.detail for finding in findings if not finding.passed] == []


def gated_classifier() -> keras.Model:
    """Swish, hard-swish, GELU, a leaky ReLU, squeeze-and-excitation, groups, a lone BN,
    a crop."""
    image = keras.Input(INPUT_SHAPE, name="image")
    x = layers.Conv2D(8, 3, name="stem")(image)
    x = layers.LeakyReLU(0.125, name="leaky")(x)
    gate = layers.Activation("sigmoid", name="gate")(x)
    x = layers.Multiply(name="swish")([x, gate])
    x = layers.Conv2D(8, 3, padding="same", groups=4, name="grouped")(x)
    x = layers.Activation(hard_swish, name="hard_swish")(x)
    squeezed = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    squeezed = layers.Conv2D(8, 1, name="excite")(squeezed)
    squeezed = layers.ReLU(1.0, name="hard_sigmoid")(squeezed)
    x = layers.Multiply(name="scaled")([x, squeezed])
    x = layers.Cropping2D(((1, 0), (0, 2)), name="crop")(x)
    x = layers.DepthwiseConv2D(1, use_bias=False, name="carrier")(x)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.Activation("gelu", name="gelu")(x)
    x = layers.Flatten(name="flat")(x)
    model = keras.Model(image, layers.Dense(3, name="logits")(x))
    rng = np.random.default_rng(3)
    for layer in model.layers:
        shapes = [w.shape for w in layer.get_weights()]
        if len(shapes) == 4:
            layer.set_weights([rng.uniform(0.5, 1.5, shape) for shape in shapes])
        else:
            layer.set_weights([rng.normal(0.1, 0.4, shape) for shape in shapes])
    return model


@pytest.fixture(scope="module", params=["w8a8", "w4a8", "w4a4_paper"])
def gated(request) -> Frozen:
    return make_frozen(gated_classifier(), WIDTHS[request.param])


def test_gates_become_their_operations(gated):
    kinds = {op.name: op.kind for op in gated.network.ops}
    assert kinds == {
        "stem": "conv", "leaky": "leaky_relu", "gate": "sigmoid", "swish": "multiply",
        "grouped": "conv", "hard_swish": "hard_swish", "squeeze": "global_average",
        "excite": pointwise_kind(gated, "excite"), "scaled": "multiply",
        "crop": "crop", "carrier": "depthwise", "gelu": "gelu", "flat": "reshape",
        "logits": "dense",
    }  # fmt: skip
    assert gated.op("gate").quant_params == QuantParams(1 / 256, -128)
    assert gated.op("grouped").attributes["groups"] == 4
    assert gated.op("leaky").attributes == {"slope": 0.125}
    assert gated.op("squeeze").attributes == {"keepdims": True}
    assert gated.op("crop").attributes == {"crops": [[1, 0], [0, 2]]}
    assert gated.op("excite").relu


def test_gated_student_and_integers_agree(gated):
    computed = infer(gated.network, PREPROCESSING.to_integers(PIXELS)).astype(int)
    difference = computed - gated.float_outputs()
    assert computed.std() > 15
    assert np.abs(difference).max() <= 6
    assert abs(difference.mean()) < 0.5


def test_integers_of_gates_equal_litert(gated):
    check_equals_litert(gated.network)


def normalized_classifier(epsilon: float) -> keras.Model:
    """Directions of what a convolution gives around its mean over channels."""
    image = keras.Input(INPUT_SHAPE, name="image")
    conv = layers.Conv2D(8, 3, strides=2, name="stem")(image)
    mean = ChannelMean(name="mean")(conv)
    centered = layers.Subtract(name="centered")([conv, mean])
    unit = L2Normalization(epsilon, name="unit")(centered)
    x = layers.Conv2D(6, 1, name="mixed")(unit)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, layers.Dense(3, name="logits")(x))
    rng = np.random.default_rng(4)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module", params=[1e-5, 1.0, 300.0])
def normalized(request) -> Frozen:
    return make_frozen(normalized_classifier(request.param), WIDTHS["w8a8"])


def test_normalizations_become_their_operations(normalized):
    found = [(op.name, op.kind, op.inputs) for op in normalized.network.ops[1:4]]
    assert found == [
        ("mean", "channel_mean", ("stem",)),
        ("centered", "subtract", ("stem", "mean")),
        ("unit", "l2_normalize", ("centered",)),
    ]
    assert normalized.op("unit").quant_params == QuantParams(1 / 128, 0)


def test_constants_stand_for_epsilon(normalized):
    epsilon = normalized.classifier.get_layer("unit").epsilon
    quant_params = normalized.op("centered").quant_params
    constants = normalized.op("unit").attributes
    level, count = constants["constant_level"], constants["num_constants"]
    if epsilon == 1e-5:  # less than half a step
        assert epsilon**0.5 < quant_params.scale / 2
        assert (level, count) == (0, 0)
        return
    assert -128 <= quant_params.zero_point + level <= 127
    assert count * (level * quant_params.scale) ** 2 == pytest.approx(epsilon, rel=0.05)
    assert (count > 1) == (epsilon == 300.0)


def test_an_epsilon_that_outweighs_all_there_is_is_refused():
    with pytest.raises(UserError, match=r"'unit' \(LayerNormalization\): its input"):
        make_frozen(normalized_classifier(1e7), WIDTHS["w8a8"])


def test_normalized_student_and_integers_agree(normalized):
    computed = infer(normalized.network, PREPROCESSING.to_integers(PIXELS)).astype(int)
    difference = computed - normalized.float_outputs()
    assert computed.std() > 15
    assert np.abs(difference).max() <= 6
    assert abs(difference.mean()) < 0.5


def test_integers_of_normalizations_equal_litert(normalized):
    check_equals_litert(normalized.network)


@pytest.mark.parametrize("width", ["w8a8", "w4a8"])
def test_accumulators_coarser_than_the_output_are_refused(width):
    def with_large_inputs_to_dw2(student):
        scale = student.activation_quantizers["relu1"].scale
        scale.assign(1e6 * scale)

    with pytest.raises(UserError, match=r"layer 'dw2' turns inputs .* less than 256"):
        make_frozen(build_tiny_classifier(), WIDTHS[width], with_large_inputs_to_dw2)
