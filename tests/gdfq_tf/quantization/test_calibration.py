"""Clips and scales one can compute by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdfq_tf.classifier import Head
from gdfq_tf.config import BitWidths
from gdfq_tf.keras_compat import keras
from gdfq_tf.memory_needs import images_per_batch
from gdfq_tf.quantization.calibration import (
    activation_quant_params,
    calibrate,
    features_quant_params,
    logits_quant_params,
    values_per_image,
    weight_scales,
)
from gdfq_tf.quantization.plan import ActivationGroup, make_plan
from tests.tiny import INPUT_SHAPE, build_tiny_classifier, classifier_of
from tflite_export.quantization_params import QuantParams


def relu_group(bits: int, upper_bound: float | None = None) -> ActivationGroup:
    return ActivationGroup("relu", bits, non_negative=True, upper_bound=upper_bound)


SIGNED = ActivationGroup("signed", 8, non_negative=False, upper_bound=None)


def test_values_on_a_quant_params_are_not_clipped():
    # 16 levels of 0.5: the full range has no error at all.
    quant_params = activation_quant_params(np.arange(16) * 0.5, relu_group(4))
    assert quant_params == QuantParams(0.5, 112)


def test_an_outlier_is_clipped():
    # 10^4 values 1.0 and one 2.0, in 2^3 - 1 = 7 steps. Over the full range 1.0 is
    # half a step, 1/7, off. Of the ranges 1.0 is a level of, 7/5 clips the outlier
    # least: 7/4 is no whole percentage of 2.
    samples = np.append(np.ones(10_000), 2.0)
    quant_params = activation_quant_params(samples, relu_group(3))
    assert 7 * quant_params.scale == pytest.approx(7 / 5)
    assert quant_params.zero_point == 120


def test_a_frequent_large_value_is_not_clipped():
    samples = np.concatenate([np.ones(10), np.full(1000, 7.0)])
    assert activation_quant_params(samples, relu_group(3)).scale == pytest.approx(1.0)


@pytest.mark.parametrize(("bound", "scale"), [(6.0, 6 / 255), (20.0, 10 / 255)])
def test_range_ends_at_the_relus_bound(bound, scale):
    # Even for samples that no such ReLU gives.
    samples = np.linspace(0, 10, 1001)
    assert activation_quant_params(
        samples, relu_group(8, bound)
    ).scale == pytest.approx(scale)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_quant_params_are_in_any_unit(unit):
    samples = unit * np.arange(16) * 0.5
    assert activation_quant_params(samples, relu_group(4)).scale == pytest.approx(
        0.5 * unit
    )
    ends = features_quant_params(unit * np.array([-1.0, 1.0]))
    assert ends.scale == pytest.approx(3 * unit / 255, rel=0.01)


@pytest.mark.parametrize(
    ("num_values", "expected"),
    [(1, 64), (2**22, 64), (2**22 + 1, 63), (2**27, 2), (2**28, 1), (2**40, 1)],
)
def test_a_batch_holds_a_gigabyte_at_most(num_values, expected):
    assert images_per_batch(num_values) == expected


def test_all_outputs_of_a_batch_are_kept_together(monkeypatch):
    image = keras.Input((4, 4, 1))
    first = keras.layers.Conv2D(5, 1)(image)  # 80 values
    probe = keras.Model(image, [first, keras.layers.Conv2D(2, 3)(first)])  # and 8
    assert values_per_image(probe) == 88
    sizes = []
    call = keras.Model.__call__

    def spied(model, inputs, **options):
        sizes.append(len(inputs))
        return call(model, inputs, **options)

    classifier, inputs = build_tiny_classifier(), np.zeros((12, *INPUT_SHAPE), "f4")
    plan = make_plan(classifier, BitWidths(4, 4))
    probe = keras.Model(
        classifier.input, [classifier.get_layer(name).output for name in plan.outputs]
    )
    most = 3 * values_per_image(probe)
    monkeypatch.setattr("gdfq_tf.memory_needs._MAX_VALUES_AT_ONCE", most)
    monkeypatch.setattr(keras.Model, "__call__", spied)
    calibrate(classifier_of(classifier), plan, inputs)
    assert sizes == [3, 3, 3, 3]


def test_signed_range_by_hand():
    # -1.28 .. 1.27 in steps of 0.01: every int8.
    quant_params = activation_quant_params(np.arange(-128, 128) * 0.01, SIGNED)
    assert quant_params.scale == pytest.approx(0.01)
    assert quant_params.zero_point == 0


def test_signed_ranges_hold_zero():
    quant_params = activation_quant_params(np.linspace(2.0, 5.1, 32), SIGNED)
    assert quant_params.zero_point == -128
    assert quant_params.high <= 5.1 + 1e-9


@pytest.mark.parametrize("group", [SIGNED, relu_group(4), relu_group(8, 6.0)])
def test_constant_zero_gets_some_quant_params(group):
    quant_params = activation_quant_params(np.zeros(9), group)
    assert quant_params.scale > 0
    assert quant_params.high == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), bits=st.integers(2, 8))
def test_weight_scales_are_the_best_of_a_fine_search(seed, bits):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(3, 3, 4, 2)) * [0.1, 30.0]
    limit = 2 ** (bits - 1) - 1
    lowest = -127 if bits == 8 else -limit - 1

    def error(weights, scale):
        quantized = np.clip(np.rint(weights / scale), lowest, limit) * scale
        return ((quantized - weights) ** 2).sum()

    scales = weight_scales(kernel, bits)
    for channel, scale in enumerate(scales):
        weights = kernel[..., channel].ravel()
        largest = np.abs(weights).max() / limit
        # The candidates are spaced by a hundredth of the largest: none is better.
        candidates = [error(weights, largest * r / 100) for r in range(20, 101)]
        assert error(weights, scale) <= min(candidates) * (1 + 1e-9)
        assert 0.2 * largest * (1 - 1e-9) <= scale <= largest * (1 + 1e-9)


def test_weight_scales_by_hand():
    # Multiples of 0.1 up to 0.7, and of 2 up to 14: exact at 4 bits, unclipped.
    kernel = np.stack([np.arange(-7, 8) * 0.1, np.arange(-7, 8) * 2.0], axis=-1)
    np.testing.assert_allclose(weight_scales(kernel, 4), [0.1, 2.0])


def test_zero_channels_get_the_largest_channels_scale():
    kernel = np.stack([np.zeros(15), np.arange(-7, 8) * 2.0], axis=-1)
    np.testing.assert_allclose(weight_scales(kernel, 4), [2.0, 2.0])
    assert (weight_scales(np.zeros((3, 2)), 4) > 0).all()


@pytest.fixture(scope="module")
def calibrated():
    model = build_tiny_classifier()
    plan = make_plan(model, BitWidths(4, 4, "paper"))
    classifier = classifier_of(model)
    pixels = np.random.default_rng(0).integers(0, 256, (150, *INPUT_SHAPE))
    inputs = classifier.preprocessing.to_input(pixels).numpy()
    return model, plan, inputs, calibrate(classifier, plan, inputs)


def test_calibrate_covers_the_plan(calibrated):
    _, plan, _, calibration = calibrated
    assert set(calibration.activation_quant_params) == set(plan.groups)
    assert set(calibration.weight_scales) == set(plan.weight_bits)
    # The image's grid comes from the preprocessing: pixel - 128.
    assert calibration.activation_quant_params[plan.input_group] == QuantParams(
        1 / 127.5, 0
    )
    assert calibration.activation_quant_params["relu2"].zero_point == 112
    assert calibration.activation_quant_params["pool"].zero_point == -128
    assert 15 * calibration.activation_quant_params["relu2"].scale <= 6.0 * (1 + 1e-9)
    assert calibration.weight_scales["dw2"].shape == (8,)
    assert calibration.weight_scales["logits"].shape == (3,)


def test_calibrate_sees_the_right_tensors(calibrated):
    model, _, inputs, calibration = calibrated
    for name in ("bn3", "logits"):
        probe = keras.Model(model.input, model.get_layer(name).output)
        values = probe(inputs).numpy()
        quant_params = calibration.activation_quant_params[name]
        # At 8 bits little is clipped: the range is the tensor's, or a bit less.
        # Winning logits have half as much room again.
        highest = values.max() * (1.5 if name == "logits" else 1.0)
        spread = highest - values.min()
        assert 0.6 * spread < quant_params.high - quant_params.low <= spread * 1.001
    # Nothing of the logits, the last seen here, is clipped but by grid rounding.
    assert quant_params.high >= 1.5 * values.max() - quant_params.scale
    assert quant_params.low <= values.min() + quant_params.scale


@pytest.mark.parametrize(
    ("samples", "low", "high"),
    [
        ([-1.0, 0.5, 2.0], -1.0, 3.0),
        ([[4.0, -6.0], [0.0, 1.0]], -6.0, 6.0),
        ([1.0, 2.0], 0.0, 3.0),  # zero is always on the grid
        ([-5.0, -1.0], -5.0, 0.0),
    ],
)
def test_logits_are_never_clipped_and_winners_have_room(samples, low, high):
    quant_params = logits_quant_params(np.array(samples), 1.5)
    # The zero point is whole: ends move by a step at most, the spread not at all.
    assert quant_params.scale == pytest.approx((high - low) / 255, rel=1e-5)
    assert quant_params.low == pytest.approx(low, abs=quant_params.scale)
    assert quant_params.high == pytest.approx(high, abs=quant_params.scale)
    assert quant_params.low <= np.min(samples) + 0.51 * quant_params.scale
    assert quant_params.high >= np.max(samples)


def test_constant_zero_logits_get_some_quant_params():
    assert logits_quant_params(np.zeros(5), 1.5).scale > 0


def test_depthwise_scales_are_per_channel(calibrated):
    model, _, _, calibration = calibrated
    kernel = model.get_layer("dw2").get_weights()[0]
    per_channel = np.abs(kernel).max(axis=(0, 1)).ravel() / 7
    ratio = calibration.weight_scales["dw2"] / per_channel
    assert ((ratio >= 0.2 * (1 - 1e-6)) & (ratio <= 1 + 1e-6)).all()


def test_calibration_is_reproducible(calibrated):
    model, plan, inputs, calibration = calibrated
    again = calibrate(classifier_of(model), plan, inputs)
    assert again.activation_quant_params == calibration.activation_quant_params


@pytest.mark.parametrize(
    ("samples", "low", "high"),
    [([-2.0, 1.0], -3.0, 1.5), ([1.0, 4.0], 0.0, 6.0), ([-2.0, -1.0], -3.0, 0.0)],
)
def test_features_have_room_at_both_ends(samples, low, high):
    quant_params = features_quant_params(np.array(samples))
    assert quant_params.low == pytest.approx(low, abs=2 * quant_params.scale)
    assert quant_params.high == pytest.approx(high, abs=2 * quant_params.scale)
    assert 255 * quant_params.scale == pytest.approx(high - low, rel=1e-2)


def test_the_head_decides_about_the_outputs_quant_params():
    classifier = build_tiny_classifier()
    plan = make_plan(classifier, BitWidths(8, 8))
    rng = np.random.default_rng(0)
    inputs = rng.uniform(-1, 1, (8, *INPUT_SHAPE)).astype(np.float32)
    outputs = classifier(inputs).numpy()
    for head, expected in (
        (Head.LOGITS, logits_quant_params(outputs, 3.0)),
        (Head.MULTI_LABEL, logits_quant_params(outputs, 3.0)),
        (Head.FEATURES, features_quant_params(outputs)),
    ):
        found = calibrate(classifier_of(classifier, head=head), plan, inputs, 3.0)
        quant_params = found.activation_quant_params[plan.output_group]
        assert quant_params.scale == pytest.approx(expected.scale, rel=1e-4)
        assert quant_params.zero_point == expected.zero_point
