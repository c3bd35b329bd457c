"""Tests of gdfq_tf.quantization.quantizers against NumPy's formulas."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from gdfq_tf.keras_compat import keras
from gdfq_tf.quantization.quantizers import (
    ActivationQuantizer,
    WeightQuantizer,
    channels_last_kernel,
    fake_quantize_activations,
    fake_quantize_weights,
)
from tflite_export.quantization_params import QuantParams, relu_quant_params

# Powers of two: x / scale is exact, so that boundaries can be hit exactly.
SCALES = np.array([0.25, 0.5, 2.0], np.float32)


def gradient(function, x, upstream):
    x = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
        loss = tf.reduce_sum(y * upstream)
    return y.numpy(), tape.gradient(loss, x).numpy()


def away_from_ties(rng, low, high, size):
    """Steps in and beyond [low, high], none within 0.01 of a rounding boundary."""
    whole = rng.integers(low - 3, high + 4, size)
    return whole + rng.uniform(-0.49, 0.49, size)


def check(function, steps, scale, low, high):
    """Values are the nearest levels, gradients straight through inside the ends."""
    upstream = np.random.default_rng(0).normal(size=steps.shape).astype(np.float32)
    y, to_x = gradient(function, steps * scale, upstream)
    np.testing.assert_allclose(y, np.clip(np.rint(steps), low, high) * scale, rtol=1e-6)
    inside = (steps >= low) & (steps <= high)
    assert 0 < inside.mean() < 1
    np.testing.assert_array_equal(to_x, inside * upstream)


LEVELS = {
    2: (-2, 1),
    3: (-4, 3),
    4: (-8, 7),
    5: (-16, 15),
    6: (-32, 31),
    7: (-64, 63),
    8: (-127, 127),
}


@pytest.mark.parametrize("bits", range(2, 9))
def test_weights_are_the_nearest_levels_with_a_straight_through_gradient(bits):
    low, high = LEVELS[bits]
    steps = away_from_ties(np.random.default_rng(bits), low, high, (3, 3, 7, 3))
    check(
        lambda k: fake_quantize_weights(k, tf.constant(SCALES), bits),
        steps,
        SCALES,
        low,
        high,
    )


@pytest.mark.parametrize(
    ("zero_point", "scale"), [(-128, 0.25), (0, 0.5), (127, 2.0), (112, 0.125)]
)
def test_activations_are_the_nearest_levels_with_a_straight_through_gradient(
    zero_point, scale
):
    rng = np.random.default_rng(zero_point + 128)
    low, high = -128 - zero_point, 127 - zero_point
    steps = away_from_ties(rng, low, high, (4, 5, 5, 3))
    check(
        lambda x: fake_quantize_activations(x, tf.constant(scale), zero_point),
        steps,
        scale,
        low,
        high,
    )


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("end", [0, 1])
def test_weights_at_the_clip(bits, end):
    limit = LEVELS[bits][end]
    outwards = np.sign(limit) * 0.125
    steps = np.array([limit - outwards, limit, limit + outwards])
    y, to_kernel = gradient(
        lambda k: fake_quantize_weights(k, tf.constant([0.5]), bits),
        (steps * 0.5).reshape(3, 1),
        np.ones((3, 1)),
    )
    np.testing.assert_array_equal(y.ravel(), [limit * 0.5] * 3)
    np.testing.assert_array_equal(to_kernel.ravel(), [1, 1, 0])


@pytest.mark.parametrize("zero_point", [-128, -100, 0, 112])
def test_activations_at_the_clip(zero_point):
    low, high = -128 - zero_point, 127 - zero_point
    steps = np.array([low - 0.25, low, low + 0.25, high - 0.25, high, high + 0.25])
    y, to_x = gradient(
        lambda x: fake_quantize_activations(x, tf.constant(0.5), zero_point),
        steps * 0.5,
        np.ones(6),
    )
    np.testing.assert_array_equal(y, np.array([low] * 3 + [high] * 3) * 0.5)
    np.testing.assert_array_equal(to_x, [0, 1, 1, 1, 1, 0])


@settings(max_examples=60, deadline=None)
@given(
    x=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20),
    scale=st.floats(0.0078125, 4, width=32),
    bits=st.integers(2, 8),
    zero_point=st.integers(-128, 126),
)
def test_outputs_are_on_the_quant_params_and_stay_there(x, scale, bits, zero_point):
    x = np.array(x, np.float32)
    for function, low, high in (
        (
            lambda v: fake_quantize_weights(v[:, None], tf.constant([scale]), bits)[
                :, 0
            ],
            *LEVELS[bits],
        ),
        (
            lambda v: fake_quantize_activations(v, tf.constant(scale), zero_point),
            -128 - zero_point,
            127 - zero_point,
        ),
    ):
        y = function(tf.constant(x)).numpy()
        levels = y.astype(np.float64) / scale
        np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)
        assert levels.min() >= low - 1e-3
        assert levels.max() <= high + 1e-3
        clipped = np.clip(x.astype(np.float64), low * scale, high * scale)
        assert np.abs(y - clipped).max() <= 0.5 * scale * (1 + 1e-4)
        np.testing.assert_allclose(function(tf.constant(y)), y, rtol=1e-6)
        order = np.argsort(x, kind="stable")
        assert (np.diff(y[order]) >= 0).all()


@pytest.mark.parametrize("bits", range(3, 9))
def test_zero_is_exact(bits):
    quant_params = relu_quant_params(6.0, bits)
    zero = fake_quantize_activations(
        tf.zeros(1),
        tf.constant(quant_params.scale, tf.float32),
        quant_params.zero_point,
    )
    assert zero.numpy()[0] == 0.0
    assert fake_quantize_weights(tf.zeros((1, 1)), tf.ones(1), bits).numpy() == 0.0


def test_depthwise_kernels_take_tflites_channel_order():
    kernel = np.arange(2 * 2 * 3 * 2).reshape(2, 2, 3, 2)
    flat = np.asarray(channels_last_kernel(kernel, depthwise=True))
    assert flat.shape == (2, 2, 1, 6)
    for channel in range(3):
        for multiple in range(2):
            np.testing.assert_array_equal(
                flat[:, :, 0, 2 * channel + multiple], kernel[:, :, channel, multiple]
            )
    assert channels_last_kernel(kernel, depthwise=False) is kernel


def test_weight_quantizer_scales_each_depthwise_channel():
    scale = np.array([0.5, 1.0, 2.0, 4.0])
    quantizer = WeightQuantizer(8, True, scale)
    layer = keras.layers.Layer()
    quantizer.build((1, 1, 2, 2), "kernel", layer)
    np.testing.assert_allclose(quantizer.scale, scale, rtol=1e-6)
    kernel = tf.constant([0.7, 0.7, 0.7, 2.1], shape=(1, 1, 2, 2))
    out = quantizer(kernel, training=False, weights={})
    np.testing.assert_allclose(tf.reshape(out, -1), [0.5, 1.0, 0.0, 4.0], rtol=1e-6)
    assert [v.name for v in layer.non_trainable_variables] == ["kernel_scale:0"]
    assert layer.trainable_variables == []


@pytest.mark.parametrize(
    ("layer", "depthwise", "channels_last"),
    [
        (keras.layers.Conv2D(4, (3, 2)), False, (3, 2, 3, 4)),
        (keras.layers.Dense(4), False, (3, 4)),
        (keras.layers.DepthwiseConv2D((3, 2), depth_multiplier=2), True, (3, 2, 1, 6)),
    ],
)
def test_kernels_are_assigned_channels_last(layer, depthwise, channels_last):
    layer.build((None, 8, 8, 3) if len(channels_last) == 4 else (None, 3))
    quantizer = WeightQuantizer(4, depthwise, np.ones(channels_last[-1]))
    quantizer.build(None, "kernel", keras.layers.Layer())
    quantizer.kernel = layer.depthwise_kernel if depthwise else layer.kernel
    kernel = np.random.default_rng(0).normal(size=channels_last)
    scale = np.arange(1, channels_last[-1] + 1) / 8
    quantizer.assign(kernel, scale)
    np.testing.assert_allclose(quantizer.channels_last(), kernel, rtol=1e-6)
    np.testing.assert_allclose(quantizer.scale, scale, rtol=1e-6)
    own = layer.get_weights()[0]
    if depthwise:
        # TFLite's order: multiplier runs fastest.
        for channel in range(3):
            for copy in range(2):
                np.testing.assert_allclose(
                    own[:, :, channel, copy],
                    kernel[:, :, 0, 2 * channel + copy],
                    rtol=1e-6,
                )
    else:
        np.testing.assert_allclose(own, kernel, rtol=1e-6)


def test_activation_quantizer_builds_one_variable_for_all_its_layers():
    quantizer = ActivationQuantizer("group", QuantParams(0.125, -128))
    first, second = keras.layers.Layer(), keras.layers.Layer()
    for layer in (first, second):
        quantizer.build((None, 3), "output", layer)
    assert second.variables == []
    assert first.trainable_variables == []
    assert len(first.variables) == 1
    assert first.variables[0] is quantizer.scale
    quantizer.scale.assign(0.5)
    out = quantizer(tf.constant([0.7, -3.0]), training=False, weights={})
    np.testing.assert_allclose(out, [0.5, 0.0], rtol=1e-6)
