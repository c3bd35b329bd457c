from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf.frontend.canonical import canonicalize
from gdfq_tf.graph.bn_statistics import (
    batch_normalization_layers,
    batch_statistics,
    stored_statistics,
    with_statistics_of,
)
from gdfq_tf.keras_compat import keras
from gdfq_tf.synthesis.teacher import Teacher
from tests.tiny import INPUT_SHAPE, classifier_of


def test_layers_are_found_in_graph_order(tiny_classifier):
    names = [layer.name for layer in batch_normalization_layers(tiny_classifier)]
    assert names == ["bn1", "bn2", "bn3"]


def test_a_model_without_any_has_none():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    assert batch_normalization_layers(model) == []


def test_stored_statistics_are_the_moving_ones(tiny_classifier):
    layer = tiny_classifier.get_layer("bn2")
    _, _, mean, variance = layer.get_weights()
    stored = stored_statistics(layer)
    np.testing.assert_array_equal(stored.mean, mean)
    np.testing.assert_array_equal(stored.variance, variance)


def decoder(kernel_size=4) -> keras.Model:
    """A transposed convolution whose phases differ, normalized, with statistics."""
    layers = keras.layers
    image = keras.Input((3, 4, 2))
    x = layers.Conv2DTranspose(3, kernel_size, (2, 3), "same", name="up")(image)
    x = layers.ReLU()(layers.BatchNormalization(name="bn")(x))
    model = keras.Model(image, layers.Conv2D(2, 1)(x))
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    return model


@pytest.mark.parametrize("kernel_size", [4, (2, 3), 1])
def test_statistics_of_a_transposed_convolution_are_of_all_its_phases(kernel_size):
    source = decoder(kernel_size)
    images = np.random.default_rng(1).normal(1, 1, (20, 3, 4, 2)).astype(np.float32)
    model = canonicalize(source, "features").model
    bn = source.get_layer("bn")
    (layer,) = batch_normalization_layers(model)
    assert layer.moving_mean.shape == (2 * 3 * 3,)
    stored = stored_statistics(layer)
    np.testing.assert_array_equal(stored.mean, bn.moving_mean)
    np.testing.assert_array_equal(stored.variance, bn.moving_variance)
    outputs = Teacher(classifier_of(model))(images)
    expected = batch_statistics(keras.Model(source.input, bn.input)(images))
    (found,) = outputs.statistics
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-5)
    np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-4)
    # Noise in the training data's place means the same before and after translation.
    settled = canonicalize(with_statistics_of(source, images), "features").model
    copy = with_statistics_of(model, images)
    for one, two in zip(copy.get_weights(), settled.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4)


def test_variance_is_the_biased_one_by_hand():
    # Channel 0 holds 1, 2, 3, 6: mean 3, squared errors 4 + 1 + 0 + 9 = 14.
    values = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [6.0, 5.0]], np.float32)
    statistics = batch_statistics(tf.constant(values.reshape(2, 1, 2, 2)))
    np.testing.assert_allclose(statistics.mean, [3.0, 5.0])
    np.testing.assert_allclose(statistics.variance, [14 / 4, 0.0])


@pytest.mark.parametrize("shape", [(50, 3), (10, 4, 5, 3), (1, 2, 7, 1)])
def test_everything_but_the_channels_is_averaged_over(shape):
    values = np.random.default_rng(0).normal(2.0, 3.0, shape)
    statistics = batch_statistics(tf.constant(values, tf.float32))
    axes = tuple(range(len(shape) - 1))
    np.testing.assert_allclose(statistics.mean, values.mean(axes), rtol=1e-4)
    np.testing.assert_allclose(statistics.variance, values.var(axes), rtol=1e-4)
    assert statistics.mean.dtype == statistics.variance.dtype == tf.float32


@pytest.mark.parametrize("shape", [(50, 3), (10, 4, 5, 3), (1, 2, 7, 1)])
@pytest.mark.parametrize("graph", [False, True])
def test_gradients_are_those_of_tensorflows_moments(shape, graph):
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(2.0, 3.0, shape), tf.float32)
    to_mean, to_variance = rng.normal(size=(2, shape[-1])).astype(np.float32)

    def gradients(moments):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            mean, variance = moments(x)
            of_mean = tf.reduce_sum(to_mean * mean)
            of_variance = tf.reduce_sum(to_variance * variance)
            of_both = of_mean + tf.reduce_sum(to_variance * tf.sqrt(variance + 1.0))
        return [tape.gradient(y, x) for y in (of_mean, of_variance, of_both)]

    axes = list(range(len(shape) - 1))
    expected = gradients(lambda x: tf.nn.moments(x, axes))
    run = tf.function(gradients, autograph=False) if graph else gradients
    found = run(batch_statistics)
    for one, two in zip(found, expected, strict=True):
        scale = float(tf.reduce_max(tf.abs(two)))
        np.testing.assert_allclose(one, two, atol=1e-5 * scale)
        assert scale > 0


def test_small_variances_beside_large_means_are_exact():
    values = 1000 + np.random.default_rng(0).normal(0, 0.05, (4096, 2))
    values = values.astype(np.float32)
    statistics = batch_statistics(tf.constant(values))
    expected = values.astype(np.float64).var(axis=0)
    np.testing.assert_allclose(statistics.variance, expected, rtol=1e-2)


def test_behind_each_batch_normalization_noise_has_the_training_datas_statistics(
    tiny_classifier,
):
    rng = np.random.default_rng(0)
    noise = rng.uniform(-3, 5, (256, *INPUT_SHAPE)).astype(np.float32)
    copy = with_statistics_of(tiny_classifier, noise)

    def ends(model, layer):
        layer = model.get_layer(layer.name)
        probe = keras.Model(model.input, [layer.input, layer.output])
        return (x.numpy() for x in probe(noise, training=False))

    for layer in batch_normalization_layers(tiny_classifier):
        x, y = ends(copy, layer)
        np.testing.assert_allclose(y.mean((0, 1, 2)), layer.beta, atol=1e-3)
        # |gamma|, but for the epsilon that normalization adds to the variance.
        variance = x.var((0, 1, 2))
        expected = np.abs(layer.gamma) * np.sqrt(variance / (variance + layer.epsilon))
        np.testing.assert_allclose(y.std((0, 1, 2)), expected, rtol=1e-3)
        _, before = ends(tiny_classifier, layer)
        assert np.abs(before.mean((0, 1, 2)) - layer.beta).max() > 0.1


def test_nothing_else_differs_and_the_classifier_stays(tiny_classifier):
    before = tiny_classifier.get_weights()
    noise = np.random.default_rng(0).normal(0, 1, (16, *INPUT_SHAPE))
    copy = with_statistics_of(tiny_classifier, noise.astype(np.float32))
    for now, then in zip(tiny_classifier.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    for original, variable in zip(tiny_classifier.weights, copy.weights, strict=True):
        assert variable is not original
        same = np.array_equal(variable, original)
        assert same == ("moving" not in original.name), original.name
