"""NumPy's im2col."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf import memory_needs
from gdfq_tf.keras_compat import keras
from gdfq_tf.quantization import moments

layers = keras.layers


def im2col(x: np.ndarray, size, strides, dilation, padding: str) -> np.ndarray:
    """(N, OH, OW, kh * kw, C), one position and tap after the other."""
    outputs, before = [], []
    for axis in (0, 1):
        length, reach = x.shape[1 + axis], (size[axis] - 1) * dilation[axis] + 1
        if padding == "same":
            count = -(-length // strides[axis])
            total = max((count - 1) * strides[axis] + reach - length, 0)
            before.append((total // 2, total - total // 2))
        else:
            count = (length - reach) // strides[axis] + 1
            before.append((0, 0))
        outputs.append(count)
    x = np.pad(x, ((0, 0), *before, (0, 0)))
    columns = np.zeros((len(x), *outputs, size[0] * size[1], x.shape[-1]))
    for i, j in itertools.product(*map(range, outputs)):
        for tap, (a, b) in enumerate(itertools.product(*map(range, size))):
            row = i * strides[0] + a * dilation[0]
            column = j * strides[1] + b * dilation[1]
            columns[:, i, j, tap] = x[:, row, column]
    return columns


def assert_moments(found: moments.Moments, x: np.ndarray, y: np.ndarray, **tolerance):
    """Against NumPy, for rows x (R, groups, K) and y (R, groups, M)."""
    assert found.num_rows == len(x)
    np.testing.assert_allclose(found.x_mean, x.mean(axis=0), **tolerance)
    np.testing.assert_allclose(found.y_mean, y.mean(axis=0), **tolerance)
    for group in range(x.shape[1]):
        both = np.concatenate([x[:, group], y[:, group]], axis=1)
        covariance = np.cov(both, rowvar=False, bias=True)
        size = x.shape[-1]
        np.testing.assert_allclose(
            found.xx[group], covariance[:size, :size], **tolerance
        )
        np.testing.assert_allclose(
            found.xy[group], covariance[:size, size:], **tolerance
        )


GEOMETRIES = [
    pytest.param((3, 3), (1, 1), (1, 1), "same", id="same"),
    pytest.param((3, 3), (2, 2), (1, 1), "same", id="same, stride 2"),
    pytest.param((3, 3), (2, 2), (1, 1), "valid", id="valid, stride 2"),
    pytest.param((3, 3), (1, 1), (2, 2), "same", id="same, dilated"),
    pytest.param((2, 3), (1, 1), (2, 1), "valid", id="valid, oblong, dilated"),
    pytest.param((1, 1), (2, 2), (1, 1), "valid", id="pointwise, stride 2"),
    pytest.param((2, 2), (3, 3), (1, 1), "same", id="same, stride 3"),
]


@pytest.mark.parametrize(("size", "strides", "dilation", "padding"), GEOMETRIES)
@pytest.mark.parametrize("multiplier", [None, 1, 2])
def test_moments_are_numpys_on_explicit_im2col(
    size, strides, dilation, padding, multiplier
):
    rng = np.random.default_rng(0)
    # More than one batch of 64, the last one short.
    x = rng.normal(1.0, 2.0, (70, 7, 6, 3)).astype(np.float32)
    options = {"strides": strides, "padding": padding, "dilation_rate": dilation}
    if multiplier is None:
        layer = layers.Conv2D(5, size, **options)
    else:
        layer = layers.DepthwiseConv2D(size, depth_multiplier=multiplier, **options)
    y = layer(x).numpy() + rng.normal(0.3, 0.5, layer(x).shape).astype(np.float32)
    columns = im2col(x, size, strides, dilation, padding)
    if multiplier is None:
        rows = columns.reshape(-1, 1, size[0] * size[1] * 3)
        outputs = y.reshape(-1, 1, 5)
    else:
        rows = columns.reshape(-1, size[0] * size[1], 3).transpose(0, 2, 1)
        outputs = y.reshape(-1, 3, multiplier)
    found = moments.measure_moments(layer, tf.constant(x), tf.constant(y))
    assert_moments(found, rows, outputs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False),
        layers.Conv2D(4, (3, 2), dilation_rate=2, use_bias=False),
        layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
        layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False),
    ],
)
def test_moments_and_the_kernel_have_one_layout(layer):
    # y = x W: then cov(x, y) = cov(x, x) W, with TensorFlow's own convolution.
    x = np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype(np.float32)
    y = layer(x)
    found = moments.measure_moments(layer, tf.constant(x), y)
    kernel = kernel_by_group(layer)
    np.testing.assert_allclose(found.xy, found.xx @ kernel, atol=1e-5)
    predicted = np.einsum("gk,gkm->gm", found.x_mean, kernel)
    np.testing.assert_allclose(found.y_mean, predicted, atol=1e-5)


def kernel_by_group(layer) -> np.ndarray:
    """The kernel as (groups, K, M), float64."""
    kernel = layer.get_weights()[0].astype(np.float64)
    if isinstance(layer, layers.DepthwiseConv2D):
        h, w, channels, multiplier = kernel.shape
        return kernel.reshape(h * w, channels, multiplier).transpose(1, 0, 2)
    return kernel.reshape(1, -1, kernel.shape[-1])


def test_moments_of_dense_layers():
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 1.0, (100, 6)).astype(np.float32)
    y = (x @ rng.normal(size=(6, 4))).astype(np.float32)
    found = moments.measure_moments(layers.Dense(4), tf.constant(x), tf.constant(y))
    assert_moments(found, x[:, np.newaxis], y[:, np.newaxis], rtol=1e-4, atol=1e-4)


def test_small_variances_beside_large_means_survive_float32():
    # Deviation 0.01 at 1000: x^2 in float32 has steps of 0.06.
    rng = np.random.default_rng(0)
    x = (1000 + rng.normal(0, 0.01, (128, 2))).astype(np.float32)
    found = moments.measure_moments(
        layers.Dense(1), tf.constant(x), tf.constant(x[:, :1])
    )
    expected = np.cov(x.astype(np.float64), rowvar=False, bias=True)
    np.testing.assert_allclose(found.xx[0], expected, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("multiplier", [None, 2])
def test_of_large_images_some_rows_are_drawn(monkeypatch, multiplier):
    monkeypatch.setattr(memory_needs, "_MIN_ROWS", 70 * 9)
    monkeypatch.setattr(memory_needs, "_MAX_ROWS", 70 * 9)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(70, 8, 8, 2)).astype(np.float32)
    layer = (
        layers.Conv2D(3, 3, use_bias=False)
        if multiplier is None
        else layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)
    )
    y = layer(x)
    found = moments.measure_moments(layer, tf.constant(x), y)
    assert found.num_rows == 70 * 9  # of 70 * 36
    # x and y are still of the same rows.
    kernel = kernel_by_group(layer)
    np.testing.assert_allclose(found.xy, found.xx @ kernel, atol=1e-5)
    # 630 draws of variance 1 noise.
    identity = np.eye(found.xx.shape[-1])
    np.testing.assert_allclose(found.xx, np.stack([identity] * len(kernel)), atol=0.3)


def test_groups_of_a_convolution_see_their_own_channels():
    layer = keras.layers.Conv2D(6, 3, groups=2, padding="same", strides=2)
    inputs = np.random.default_rng(0).normal(size=(20, 7, 7, 4)).astype(np.float32)
    found = moments.measure_moments(layer, tf.constant(inputs), layer(inputs))
    assert found.xx.shape == (2, 18, 18) and found.xy.shape == (2, 18, 3)
    # Outputs are x W + b, so that the moments obey xy = xx W, group by group.
    kernel = layer.get_weights()[0].reshape(18, 2, 3).transpose(1, 0, 2)
    np.testing.assert_allclose(found.xy, found.xx @ kernel, atol=1e-5)
    # The other group's kernel explains nothing.
    assert np.abs(found.xy - found.xx @ kernel[::-1]).max() > 0.01
