from __future__ import annotations

import collections

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf.graph.queries import multiply_adds
from gdfq_tf.keras_compat import keras
from gdfq_tf.preprocessing import make_preprocessing
from gdfq_tf.synthesis.generator import (
    MAX_EMBEDDED_CLASSES,
    BatchNormalization,
    ConditionalBatchNormalization,
    GeneratorShape,
    build_generator,
    choose_shape,
    sample_inputs,
)

_layers = keras.layers


def build(image, num_classes=4, preprocessing="tf", seed=0, budget=0.0):
    return build_generator(
        choose_shape(image, num_classes, budget),
        make_preprocessing(preprocessing, image[-1]),
        seed,
    )


def draw(generator, batch_size=16, num_classes=4, step=0):
    latents, labels = sample_inputs(
        seed=0, step=step, batch_size=batch_size, num_classes=num_classes
    )
    return generator([latents, labels], training=True).numpy()


def kinds(model) -> collections.Counter:
    return collections.Counter(type(layer) for layer in model.layers)


@pytest.mark.parametrize(
    ("image", "preprocessing"),
    [
        ((8, 8, 3), "tf"),
        ((13, 21, 3), "torch"),
        ((32, 32, 3), "caffe"),
        ((28, 30, 1), "tf"),
        ((5, 40, 1), "uint8"),
    ],
)
def test_images_fill_the_classifiers_input_and_its_range(image, preprocessing):
    generator = build(image, preprocessing=preprocessing)
    images = draw(generator)
    assert images.shape == (16, *image)
    assert images.dtype == np.float32
    contract = make_preprocessing(preprocessing, image[-1])
    margin = 1e-5 * (contract.high - contract.low)
    assert (images >= contract.low - margin).all()
    assert (images <= contract.high + margin).all()
    # Every channel uses most of its own range, and few pixels saturate.
    share = (images - contract.low) / (contract.high - contract.low)
    assert (np.ptp(share, axis=(0, 1, 2)) > 0.7).all()
    assert np.mean((share < 0.001) | (share > 0.999)) < 0.02


def test_even_huge_features_stay_in_range():
    generator = build((8, 8, 3), preprocessing="torch")
    generator.layers[-2].gamma.assign(1e6 * tf.ones(3))
    contract = make_preprocessing("torch", 3)
    images = draw(generator)
    np.testing.assert_allclose(images.min((0, 1, 2)), contract.low, atol=1e-5)
    np.testing.assert_allclose(images.max((0, 1, 2)), contract.high, atol=1e-5)


@pytest.mark.parametrize("num_classes", [4, MAX_EMBEDDED_CLASSES + 1])
def test_images_depend_on_labels_and_on_latents(num_classes):
    generator = build((8, 8, 3), num_classes)
    latents, _ = sample_inputs(seed=0, step=0, batch_size=8, num_classes=num_classes)
    if num_classes > MAX_EMBEDDED_CLASSES:
        # Gammas and betas start the same for all classes.
        for layer in generator.layers:
            if isinstance(layer, ConditionalBatchNormalization):
                noise = tf.random.stateless_normal(layer.beta.shape, (0, 0))
                layer.beta.assign(noise)

    def images(latents, label):
        return generator([latents, tf.fill((8,), label)], training=True).numpy()

    zeros = images(latents, 0)
    np.testing.assert_array_equal(images(latents, 0), zeros)
    assert np.abs(images(latents, num_classes - 1) - zeros).mean() > 0.05
    assert np.abs(images(latents[::-1], 0) - zeros).mean() > 0.05


def test_many_classes_choose_conditional_normalization():
    few = kinds(build((16, 16, 3), MAX_EMBEDDED_CLASSES))
    assert few[_layers.Embedding] == 1
    assert few[ConditionalBatchNormalization] == 0
    many = kinds(build((16, 16, 3), MAX_EMBEDDED_CLASSES + 1))
    assert many[_layers.Embedding] == 0
    # At the base and after the one upsampling; the image's own is unconditional.
    assert many[ConditionalBatchNormalization] == 2
    assert many[BatchNormalization] == 1


def test_conditional_normalization_by_hand():
    layer = ConditionalBatchNormalization(3)
    features = np.random.default_rng(0).normal(5.0, 3.0, (4, 2, 2, 2))
    labels = np.array([0, 2, 2, 1])
    layer([tf.zeros((1, 1, 1, 2)), tf.zeros((1,), tf.int32)])
    gamma, beta = np.arange(6).reshape(3, 2), 10.0 * np.arange(6).reshape(3, 2)
    layer.set_weights([gamma, beta])
    axes = (0, 1, 2)
    normalized = (features - features.mean(axes)) / features.std(axes)
    expected = normalized * gamma[labels][:, None, None] + beta[labels][:, None, None]
    outputs = layer([tf.constant(features, tf.float32), tf.constant(labels)])
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_classes", [4, 300])
def test_gradient_reaches_every_variable(num_classes):
    generator = build((16, 16, 3), num_classes)
    target = tf.random.stateless_normal((16, 16, 16, 3), (1, 2))
    latents, labels = sample_inputs(
        seed=0, step=0, batch_size=16, num_classes=num_classes
    )
    with tf.GradientTape() as tape:
        images = generator([latents, labels], training=True)
        loss = tf.reduce_mean((images - target) ** 2)
    gradients = tape.gradient(loss, generator.trainable_variables)
    for variable, gradient in zip(
        generator.trainable_variables, gradients, strict=True
    ):
        assert gradient is not None, variable.name
        # Biases in front of a normalization have a gradient of rounding errors.
        assert np.abs(tf.convert_to_tensor(gradient)).max() > 0, variable.name
    assert not generator.non_trainable_variables


def test_the_seed_decides_the_weights():
    first, again, other = (build((16, 16, 3), seed=seed) for seed in (1, 1, 2))
    for one, two in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    kernels = [
        [w for w in model.get_weights() if w.ndim > 1] for model in (first, other)
    ]
    for one, two in zip(*kernels, strict=True):
        assert not np.array_equal(one, two)


@pytest.mark.parametrize(
    ("image", "num_upsamplings", "base"),
    [
        # One hidden convolution at least, so smaller images start from less.
        ((8, 8, 3), 1, (4, 4)),
        ((15, 15, 3), 1, (8, 8)),
        ((16, 16, 3), 1, (8, 8)),
        ((28, 30, 1), 1, (14, 15)),
        ((32, 32, 3), 2, (8, 8)),
        ((33, 64, 3), 2, (9, 16)),
        ((224, 224, 3), 4, (14, 14)),
    ],
)
def test_upsamplings_start_from_8_pixels_if_possible(image, num_upsamplings, base):
    shape = choose_shape(image, 10, 1e9)
    assert shape.enlargement == 1
    assert shape.num_upsamplings == num_upsamplings
    assert shape.size(0) == base


@pytest.mark.parametrize(
    ("image", "enlargement", "num_upsamplings"),
    [((16, 16, 3), 1, 1), ((32, 32, 3), 2, 1), ((224, 224, 3), 4, 2)],
)
def test_within_small_budgets_images_are_enlarged(image, enlargement, num_upsamplings):
    shape = choose_shape(image, 10, 0.0)
    assert (shape.enlargement, shape.num_upsamplings) == (enlargement, num_upsamplings)
    # From the same small first map, and with no fewer pixels than the image has.
    assert shape.size(0) == choose_shape(image, 10, 1e9).size(0)
    assert shape.size(num_upsamplings)[0] * enlargement == image[0]


def test_all_pixels_are_made_before_any_is_enlarged_while_channels_suffice():
    image = (32, 32, 3)
    whole = GeneratorShape(image, 10, num_upsamplings=2, width=16)
    assert choose_shape(image, 10, whole.multiply_adds) == whole
    half = choose_shape(image, 10, whole.multiply_adds - 1)
    assert half.enlargement == 2
    assert half.width >= 16


def test_enlarged_images_are_smooth():
    small, large = (
        draw(
            build_generator(
                GeneratorShape((32, 32, 3), 4, num_upsamplings, 4, enlargement),
                make_preprocessing("tf", 3),
                0,
            )
        )
        for num_upsamplings, enlargement in ((2, 1), (1, 2))
    )
    assert small.shape == large.shape

    def roughness(images):
        return np.mean(np.diff(images, axis=1) ** 2) / images.var()

    assert roughness(large) < 0.5 * roughness(small)


def test_channels_double_towards_the_base_up_to_128():
    shape = GeneratorShape((64, 64, 3), 10, num_upsamplings=3, width=24)
    assert [shape.channels(level) for level in range(4)] == [128, 96, 48, 24]


def test_the_widest_shape_within_the_budget_is_chosen():
    image = (32, 32, 3)
    shapes = [choose_shape(image, 10, budget) for budget in np.geomspace(1, 1e9, 60)]
    costs = [shape.multiply_adds for shape in shapes]
    assert costs == sorted(costs)
    # A multiply-add less than a shape costs buys the next smaller one.
    narrowest, widest = shapes[0], shapes[-1]
    assert widest.width == 64 > narrowest.width == 4
    for shape in set(shapes) - {narrowest}:
        assert choose_shape(image, 10, shape.multiply_adds) == shape
        cheaper = choose_shape(image, 10, shape.multiply_adds - 1)
        assert cheaper.multiply_adds < shape.multiply_adds


@pytest.mark.parametrize(
    ("image", "budget"), [((8, 8, 3), 1e6), ((28, 30, 1), 1e7), ((33, 40, 3), 0.0)]
)
def test_multiply_adds_are_those_of_the_built_layers(image, budget):
    shape = choose_shape(image, 10, budget)
    generator = build_generator(shape, make_preprocessing("unit", image[-1]), 0)
    total = 0
    for layer in generator.layers:
        if isinstance(layer, _layers.Conv2D):
            total += np.prod(layer.output.shape[1:3]) * np.prod(layer.kernel.shape)
        elif isinstance(layer, _layers.Dense):
            total += np.prod(layer.kernel.shape)
    assert shape.multiply_adds == total


def test_classifier_multiply_adds_by_hand(tiny_classifier):
    conv, depthwise, pointwise, dense = 8 * 8 * 27 * 8, 8 * 8 * 9 * 8, 8 * 8 * 64, 24
    expected = conv + depthwise + pointwise + dense
    assert multiply_adds(tiny_classifier) == expected


def test_inputs_are_a_function_of_seed_and_step():
    def inputs(seed, step):
        pair = sample_inputs(seed=seed, step=step, batch_size=64, num_classes=10)
        return np.concatenate([np.ravel(x) for x in pair]).astype(np.float32)

    first = inputs(3, 5)
    np.testing.assert_array_equal(inputs(3, 5), first)
    np.testing.assert_array_equal(inputs(3, tf.constant(5)), first)
    for other in (inputs(3, 6), inputs(4, 5), inputs(5, 3)):
        assert not np.array_equal(other[:6400], first[:6400])
        assert not np.array_equal(other[6400:], first[6400:])


def test_latents_are_normal_and_labels_uniform():
    latents, labels = sample_inputs(seed=1, step=2, batch_size=20_000, num_classes=7)
    assert latents.shape == (20_000, 100)
    assert labels.dtype == tf.int32
    assert abs(np.mean(latents)) < 0.005
    assert np.std(latents) == pytest.approx(1.0, abs=0.005)
    counts = np.bincount(labels, minlength=7)
    assert len(counts) == 7
    # Six standard deviations of a count of 20000 with probability 1/7.
    assert np.abs(counts - 20_000 / 7).max() < 6 * np.sqrt(20_000 / 7 * 6 / 7)
