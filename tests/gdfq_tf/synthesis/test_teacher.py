from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf.classifier import predict_logits
from gdfq_tf.graph.layers import DepthToSpace
from gdfq_tf.keras_compat import keras
from gdfq_tf.preprocessing import make_preprocessing
from gdfq_tf.synthesis.teacher import Teacher
from tests.tiny import INPUT_SHAPE, classifier_of


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(0, 1, (6, *INPUT_SHAPE)).astype(np.float32)


def test_logits_are_the_classifiers(tiny_classifier, images):
    expected = tiny_classifier(images, training=False)
    outputs = Teacher(classifier_of(tiny_classifier))(images)
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-6, atol=1e-6)


def test_statistics_are_those_of_the_batch_normalizations_inputs(
    tiny_classifier, images
):
    teacher = Teacher(classifier_of(tiny_classifier))
    outputs = teacher(images)
    layers = [tiny_classifier.get_layer(name) for name in ("bn1", "bn2", "bn3")]
    assert len(outputs.statistics) == len(teacher.stored_statistics) == len(layers)
    triples = zip(layers, outputs.statistics, teacher.stored_statistics, strict=True)
    for layer, batch, stored in triples:
        probe = keras.Model(tiny_classifier.input, layer.input)
        values = probe(images, training=False).numpy()
        np.testing.assert_allclose(batch.mean, values.mean((0, 1, 2)), atol=1e-5)
        np.testing.assert_allclose(batch.variance, values.var((0, 1, 2)), rtol=1e-4)
        np.testing.assert_array_equal(stored.mean, layer.moving_mean)
        np.testing.assert_array_equal(stored.variance, layer.moving_variance)


@pytest.mark.parametrize("num_parts", [2, 4])
def test_in_parts_it_gives_the_same_and_so_do_gradients(
    tiny_classifier, images, num_parts
):
    whole, cut = (Teacher(classifier_of(tiny_classifier), n) for n in (1, num_parts))
    assert len(cut._parts) >= 2

    @tf.function
    def loss_and_gradient(teacher, inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = teacher(inputs)
            loss = tf.reduce_sum(outputs.logits**2)
            for mean, variance in outputs.statistics:
                loss += tf.reduce_sum(mean**2 + variance)
        return loss, tape.gradient(loss, inputs)

    inputs = tf.constant(images)
    expected, found = (loss_and_gradient(x, inputs) for x in (whole, cut))
    assert np.abs(expected[1]).max() > 0.01
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_it_is_a_frozen_copy(tiny_classifier, images):
    before = tiny_classifier.get_weights()
    teacher = Teacher(classifier_of(tiny_classifier))
    assert teacher.classifier.model.trainable_variables == []
    assert tiny_classifier.trainable_variables  # the given model is as it was
    logits = teacher(images).logits
    for variable in tiny_classifier.variables:
        variable.assign(tf.zeros_like(variable))
    np.testing.assert_array_equal(teacher(images).logits, logits)
    for ours, theirs in zip(
        teacher.classifier.model.get_weights(), before, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_looking_at_images_does_not_move_its_statistics(tiny_classifier, images):
    teacher = Teacher(classifier_of(tiny_classifier))
    before = teacher.classifier.model.get_weights()
    teacher(100 * images)
    for now, then in zip(teacher.classifier.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_without_batch_normalization_there_are_logits_alone(images):
    inputs = keras.Input(INPUT_SHAPE)
    features = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(features))
    teacher = Teacher(classifier_of(model))
    outputs = teacher(images)
    assert teacher.stored_statistics == outputs.statistics == []
    kernel, bias = model.layers[-1].get_weights()
    expected = images.mean(axis=(1, 2)) @ kernel + bias
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-4, atol=1e-5)


def test_layers_may_have_any_name_that_keras_gives(images):
    inputs = keras.Input(INPUT_SHAPE)
    x = keras.layers.Conv2D(8, 3, name="activation")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = DepthToSpace((2, 2), name="depth_to_space")(x)
    features = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(features))
    keras.backend.reset_uids()  # as after reading a file, whose layers have names
    outputs = Teacher(classifier_of(model))(images)
    (statistics,) = outputs.statistics
    values = keras.Model(inputs, model.get_layer("activation").output)(images)
    # Four phases of two channels.
    expected = values.numpy().reshape(-1, 4, 2).mean((0, 1))
    np.testing.assert_allclose(statistics.mean, expected, atol=1e-5)
    expected = model(images, training=False)
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [1, 64, 65, 150])
def test_logits_of_pixels_batch_by_batch(tiny_classifier, count):
    preprocessing = make_preprocessing("torch", 3)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, *INPUT_SHAPE)).astype(np.uint8)
    logits = predict_logits(tiny_classifier, pixels, preprocessing.to_input)
    assert isinstance(logits, np.ndarray)
    assert logits.dtype == np.float32
    # As keras.applications has it for torch.
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    inputs = ((pixels / 255 - mean) / std).astype(np.float32)
    expected = tiny_classifier(inputs, training=False)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
