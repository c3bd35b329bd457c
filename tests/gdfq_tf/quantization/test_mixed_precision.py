"""KL divergences in NumPy, choices by table."""

from __future__ import annotations

import numpy as np
import pytest

from gdfq_tf.config import parse_bit_widths
from gdfq_tf.keras_compat import keras
from gdfq_tf.preprocessing import make_preprocessing
from gdfq_tf.quantization.calibration import calibrate
from gdfq_tf.quantization.mixed_precision import choose_kept_layers, measure_sensitivity
from gdfq_tf.quantization.plan import make_plan
from gdfq_tf.quantization.student import Student, build_student
from tests.tiny import INPUT_SHAPE, build_tiny_classifier, classifier_of

PREPROCESSING = make_preprocessing("tf", 3)
_RNG = np.random.default_rng(0)
# Each image of a colour of its own, so that logits differ.
PIXELS = _RNG.uniform(0, 255, (80, 1, 1, 3)) + _RNG.normal(0, 40, (80, *INPUT_SHAPE))
PIXELS = np.clip(PIXELS, 0, 255).astype(np.uint8)
KERNELS = ["conv1", "dw2", "conv3", "logits"]


def decisive_classifier() -> keras.Model:
    """Larger logits that favour no class: divergences well above rounding."""
    classifier = build_tiny_classifier()
    layer = classifier.get_layer("logits")
    kernel, bias = layer.get_weights()
    layer.set_weights([4 * kernel, 0 * bias])
    logits = classifier(PREPROCESSING.to_input(PIXELS), training=False).numpy()
    layer.set_weights([4 * kernel, -logits.mean(axis=0)])
    return classifier


@pytest.fixture
def classifier() -> keras.Model:
    return decisive_classifier()


def make_student(classifier, bits: str = "w3a8/paper", keep=()) -> Student:
    plan = make_plan(classifier, parse_bit_widths(bits), keep)
    inputs = PREPROCESSING.to_input(PIXELS).numpy()
    calibration = calibrate(classifier_of(classifier), plan, inputs)
    return build_student(classifier_of(classifier), plan, calibration)


def quantized_by_hand(quantizer) -> np.ndarray:
    """The kernel on its grid, in its own shape; tiny's depthwise multiplier is 1."""
    kernel, scale = quantizer.kernel.numpy(), quantizer.scale.numpy()
    if quantizer.depthwise:
        scale = scale[:, np.newaxis]
    highest = 2 ** (quantizer.bits - 1) - 1
    lowest = -highest - (quantizer.bits < 8)
    return np.clip(np.rint(kernel / scale), lowest, highest) * scale


def log_shares(model) -> np.ndarray:
    logits = model(PREPROCESSING.to_input(PIXELS), training=False).numpy()
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def test_sensitivity_is_the_divergence_with_one_kernel_replaced(classifier):
    student = make_student(classifier)
    sensitivity = measure_sensitivity(student, classifier_of(classifier), PIXELS)
    assert list(sensitivity) == KERNELS
    p = log_shares(classifier)
    for name in KERNELS:
        replaced = decisive_classifier()
        layer = replaced.get_layer(name)
        weights = layer.get_weights()
        weights[0] = quantized_by_hand(student.weight_quantizers[name])
        layer.set_weights(weights)
        expected = np.mean(np.sum(np.exp(p) * (p - log_shares(replaced)), axis=1))
        assert expected > 1e-4
        assert sensitivity[name] == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("name", ["conv1", "dw2", "logits"])
def test_a_kernel_on_its_quant_params_costs_nothing(classifier, name):
    quantizer = make_student(classifier).weight_quantizers[name]
    layer = classifier.get_layer(name)
    on_quant_params = quantized_by_hand(quantizer)
    layer.set_weights([on_quant_params, *layer.get_weights()[1:]])
    student = make_student(classifier)
    scale = quantizer.scale.numpy()
    student.weight_quantizers[name].assign(on_quant_params, scale)
    sensitivity = measure_sensitivity(student, classifier_of(classifier), PIXELS)
    assert abs(sensitivity.pop(name)) < 1e-6
    assert min(sensitivity.values()) > 1e-4


def test_the_student_and_the_classifier_are_left_as_they_were(classifier):
    student = make_student(classifier)
    before = classifier.get_weights(), student.model.get_weights()
    measure_sensitivity(student, classifier_of(classifier), PIXELS)
    for model, weights in zip((classifier, student.model), before, strict=True):
        for now, then in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(now, then)


def test_kernels_with_more_bits_cost_less(classifier):
    two, four, eight = (
        measure_sensitivity(
            make_student(classifier, bits), classifier_of(classifier), PIXELS
        )
        for bits in ("w2a8/paper", "w4a8/paper", "w8a8")
    )
    for name in KERNELS:
        assert two[name] > 2 * four[name] > 16 * eight[name] >= 0


def test_depthwise_multipliers_keep_their_order():
    image = keras.Input(INPUT_SHAPE)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="dw")(image)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    model = keras.Model(image, keras.layers.Dense(3, name="logits")(x))
    # 127 levels per channel, and channels a thousandfold apart.
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(3, 3, 3, 2)) * np.geomspace(0.001, 1, 6).reshape(3, 2)
    layer = model.get_layer("dw")
    layer.set_weights([kernel, *layer.get_weights()[1:]])
    sensitivity = measure_sensitivity(
        make_student(model, "w8a8"), classifier_of(model), PIXELS
    )
    assert sensitivity["dw"] < 1e-4


RANKED = ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("ranked", [RANKED, RANKED[:1], RANKED[:4], []])
@pytest.mark.parametrize("needed", range(7))
def test_the_fewest_layers_that_suffice_are_kept(ranked, needed):
    """A loss that falls under the limit once the first `needed` layers are kept."""
    asked = []

    def accuracy_loss(kept):
        assert kept == frozenset(ranked[: len(kept)])
        asked.append(kept)
        return 0.5 if len(kept) >= needed else 0.500001

    chosen = choose_kept_layers(ranked, accuracy_loss, 0.5)
    assert chosen == frozenset(ranked[: min(needed, len(ranked))])
    assert len(asked) <= 3  # 6 possibilities: halved thrice
    assert len(set(asked)) == len(asked)


@pytest.mark.parametrize(
    ("losses", "limit", "count"),
    [
        ([5.0, 3.0, 2.0, 1.0, 0.5, 0.1], 2.0, 2),
        ([5.0, 3.0, 2.0, 1.0, 0.5, 0.1], 1.9, 3),
        ([5.0, 3.0, 2.0, 1.0, 0.5, 0.1], 6.0, 0),
        ([5.0, 3.0, 2.0, 1.0, 0.5, 0.1], 0.1, 5),
        ([5.0, 3.0, 2.0, 1.0, 0.5, 0.1], 0.0, 5),  # none suffices: all
    ],
)
def test_choices_by_table(losses, limit, count):
    chosen = choose_kept_layers(RANKED, lambda kept: losses[len(kept)], limit)
    assert chosen == frozenset(RANKED[:count])
