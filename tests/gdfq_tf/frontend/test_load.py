from __future__ import annotations

import dataclasses
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf.classifier import Head
from gdfq_tf.errors import UserError
from gdfq_tf.frontend import load
from gdfq_tf.frontend.load import load_classifier
from gdfq_tf.keras_compat import keras as tf_keras
from gdfq_tf.preprocessing import make_preprocessing
from tests.tiny import build_tiny_classifier


@pytest.fixture
def tiny_path(tmp_path):
    path = tmp_path / "tiny.keras"
    build_tiny_classifier().save(path)
    return path


def refusal(*args, **kwargs):
    with pytest.raises(UserError) as error:
        load_classifier(*map(str, args), **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def trained(model):
    """The model with BatchNormalization statistics that are not the initial ones."""
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            *weights, mean, variance = layer.get_weights()
            layer.set_weights([*weights, mean + 0.01, variance])
    return model


def with_statistics_of_noise(model):
    """The tf_keras model, its BatchNormalization statistics measured on noise."""
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.momentum = 0.0
    noise = tf.random.stateless_uniform((8, *model.input_shape[1:]), (1, 2), -1, 1)
    model(noise, training=True)
    return model


def test_classifier_says_what_it_takes_and_gives(tiny_path):
    classifier = load_classifier(str(tiny_path), preprocessing="unit")
    assert classifier.name == "tiny"
    assert classifier.head == Head.LOGITS
    assert classifier.input_shape == (8, 8, 3)
    assert classifier.num_classes == 3
    assert classifier.preprocessing == make_preprocessing("unit", 3)


def test_preprocessing_is_required_without_statistics(tmp_path):
    model = build_tiny_classifier()
    for name in ("bn1", "bn2", "bn3"):
        fold(model.get_layer(name))
    model.save(tmp_path / "folded.keras")
    text = refusal(tmp_path / "folded.keras")
    assert text.endswith("preprocessing: one of tf, torch, caffe, unit, uint8, custom")


def test_mean_and_std_are_of_a_preprocessing_that_is_named(tiny_path):
    text = refusal(tiny_path, mean=(0.5,), std=(0.2,))
    assert text.endswith("pass preprocessing='custom' with them")


def test_preprocessing_may_be_custom_or_ready_made(tiny_path):
    custom = load_classifier(
        str(tiny_path), preprocessing="custom", mean=(0.5,), std=(0.1, 0.2, 0.3)
    )
    expected = make_preprocessing("custom", 3, mean=(0.5,), std=(0.1, 0.2, 0.3))
    assert custom.preprocessing == expected
    again = load_classifier(str(tiny_path), preprocessing=expected)
    assert again.preprocessing == expected
    assert "mean holds 0 values" in refusal(tiny_path, preprocessing="custom")


def test_ready_made_preprocessing_must_fit(tiny_path):
    grey = make_preprocessing("unit", 1)
    assert "1 channel" in refusal(tiny_path, preprocessing=grey)
    unit = make_preprocessing("unit", 3)
    assert "mean and std" in refusal(tiny_path, preprocessing=unit, mean=(0.5,))


def test_application_brings_its_preprocessing(tmp_path, monkeypatch):
    build = tf_keras.applications.MobileNetV2

    def small(weights, classes=10):
        shape = {"input_shape": (32, 32, 3), "alpha": 0.35}
        return build(weights=weights, classes=classes, **shape)

    monkeypatch.setattr(tf_keras.applications, "MobileNetV2", small)
    weights = str(tmp_path / "net.weights.h5")
    with_statistics_of_noise(small(None)).save_weights(weights)
    name = "keras.applications.MobileNetV2"
    classifier = load_classifier(name, weights=weights)
    assert classifier.name == "mobilenetv2"
    assert classifier.preprocessing.name == "tf"
    assert classifier.head == Head.SOFTMAX
    other = load_classifier(name, weights=weights, preprocessing="torch")
    assert other.preprocessing.name == "torch"


@pytest.mark.parametrize("k", [keras, tf_keras], ids=["keras3", "tf_keras"])
@pytest.mark.parametrize("size", [(20, 12), (None, None)])
def test_resizing_is_proven_on_images_of_the_models_own_size(tmp_path, k, size):
    image = k.Input((*size, 3))
    x = k.layers.Resizing(8, 6)(k.layers.Rescaling(1 / 255)(image))
    x = k.layers.BatchNormalization()(k.layers.Conv2D(4, 3)(x))
    model = k.Model(image, k.layers.Dense(2)(k.layers.Flatten()(x)))
    trained(model).save(tmp_path / "m.keras")
    classifier = load_classifier(str(tmp_path / "m.keras"), preprocessing="uint8")
    assert classifier.input_shape == (8, 6, 3)


@pytest.mark.parametrize("k", [keras, tf_keras], ids=["keras3", "tf_keras"])
def test_classifier_without_batch_norm(tmp_path, k):
    layers = [k.layers.Input((8, 8, 3)), k.layers.Conv2D(4, 3), k.layers.Flatten()]
    k.Sequential([*layers, k.layers.Dense(2)]).save(tmp_path / "folded.keras")
    text = refusal(tmp_path / "folded.keras", preprocessing="unit")
    assert "has no BatchNormalization layer" in text
    assert "without_bn_statistics=True" in text
    classifier = load_classifier(
        str(tmp_path / "folded.keras"), preprocessing="unit", without_bn_statistics=True
    )
    assert not classifier.has_bn_statistics
    assert classifier.model.output_shape == (None, 2)


def test_statistics_there_are_do_not_stay_unused(tiny_path):
    text = refusal(tiny_path, preprocessing="unit", without_bn_statistics=True)
    assert "drop without_bn_statistics" in text
    assert load_classifier(str(tiny_path), preprocessing="unit").has_bn_statistics


@pytest.mark.parametrize("k", [keras, tf_keras], ids=["keras3", "tf_keras"])
def test_scaling_layers_become_part_of_the_preprocessing(tmp_path, k):
    image = k.Input((8, 8, 3))
    x = k.layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    x = k.layers.BatchNormalization()(k.layers.Conv2D(4, 3, padding="same")(x))
    model = k.Model(image, k.layers.Dense(2)(k.layers.Flatten()(x)))
    trained(model).save(tmp_path / "m.keras")
    classifier = load_classifier(str(tmp_path / "m.keras"), preprocessing="uint8")
    expected = make_preprocessing("tf", 3)
    np.testing.assert_allclose(classifier.preprocessing.scale, expected.scale, 1e-6)
    assert classifier.preprocessing.offset == expected.offset
    assert classifier.preprocessing.formula() == "q = pixel - 128"


def test_one_sigmoid_unit_is_proven_equal(tmp_path):
    image = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(image))
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(1, activation="sigmoid")(x)
    trained(keras.Model(image, outputs)).save(tmp_path / "two.keras")
    classifier = load_classifier(str(tmp_path / "two.keras"), preprocessing="unit")
    assert (classifier.head, classifier.num_classes) == ("sigmoid", 2)


def test_several_sigmoid_units_are_proven_equal(tmp_path):
    image = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(image))
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(5, activation="sigmoid")(x)
    trained(keras.Model(image, outputs)).save(tmp_path / "five.keras")
    classifier = load_classifier(str(tmp_path / "five.keras"), preprocessing="unit")
    assert (classifier.head, classifier.num_classes) == ("multi_label", 5)


def test_fixed_batch_size(tmp_path):
    image = keras.Input(batch_shape=(1, 8, 8, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(image))
    x = keras.ops.reshape(x, (1, 144))  # cannot take more than one image
    model = keras.Model(image, keras.layers.Dense(2)(x))
    trained(model).save(tmp_path / "one.keras")
    classifier = load_classifier(str(tmp_path / "one.keras"), preprocessing="unit")
    assert classifier.model.input_shape == (None, 8, 8, 3)
    assert classifier.model(np.zeros((2, 8, 8, 3))).shape == (2, 2)


# ---- the proof


def test_wrong_translation_is_refused(tiny_path, monkeypatch):
    translate = load.canonicalize

    def broken(*args):
        canonical = translate(*args)
        kernel = canonical.model.get_layer("conv1").kernel
        kernel.assign(kernel * 1.001)
        return canonical

    monkeypatch.setattr(load, "canonicalize", broken)
    text = refusal(tiny_path, preprocessing="unit")
    assert "tiny cannot be reproduced" in text
    assert "expected at most" in text


def test_wrong_head_is_refused(tiny_path, monkeypatch):
    translate = load.canonicalize
    monkeypatch.setattr(
        load,
        "canonicalize",
        lambda *args: dataclasses.replace(translate(*args), head=Head.SOFTMAX),
    )
    assert "cannot be reproduced" in refusal(tiny_path, preprocessing="unit")


def test_layer_called_in_training_mode_is_refused(tmp_path):
    k = tf_keras  # Keras 3 lets training=False of the whole model win
    image = k.Input((8, 8, 3))
    x = k.layers.BatchNormalization()(k.layers.Conv2D(4, 3)(image), training=True)
    model = k.Model(image, k.layers.Dense(2)(k.layers.Flatten()(x)))
    model.save(tmp_path / "training.keras")
    text = refusal(tmp_path / "training.keras", preprocessing="unit")
    assert "training=True" in text


# ---- statistics


def fold(layer):
    """What folding leaves of a BatchNormalization: gamma * x / sqrt(1) + beta."""
    gamma, _, mean, variance = layer.get_weights()
    variance = np.ones_like(variance) - layer.epsilon
    layer.set_weights([np.ones_like(gamma), 0 * mean, 0 * mean, variance])


def test_statistics_as_initialized_are_refused(tmp_path):
    model = build_tiny_classifier()
    for name in ("bn1", "bn2", "bn3"):
        fold(model.get_layer(name))
    model.save(tmp_path / "folded.keras")
    text = refusal(tmp_path / "folded.keras", preprocessing="unit")
    assert "3 of 3 BatchNormalization layers of folded ('bn1' first)" in text


def test_some_statistics_as_initialized_are_a_warning(tmp_path):
    model = build_tiny_classifier()
    fold(model.get_layer("bn2"))
    model.save(tmp_path / "partly.keras")
    with pytest.warns(UserWarning, match=r"1 of 3 Batch.* of partly \('bn2' first\)"):
        load_classifier(str(tmp_path / "partly.keras"), preprocessing="unit")


@pytest.mark.parametrize("touched", ["mean", "variance"])
def test_one_channel_with_statistics_is_enough(tmp_path, touched):
    model = build_tiny_classifier()
    for name in ("bn1", "bn2", "bn3"):
        fold(model.get_layer(name))
        getattr(model.get_layer(name), f"moving_{touched}")[0].assign(0.5)
    model.save(tmp_path / "net.keras")
    load_classifier(str(tmp_path / "net.keras"), preprocessing="unit")


# ---- input range


def classifier_of_range(low, high):
    """A conv net whose statistics were measured on inputs uniform in [low, high]."""
    image = keras.Input((8, 8, 3))
    features = keras.layers.Conv2D(
        8,
        3,
        use_bias=False,
        kernel_initializer=keras.initializers.GlorotUniform(seed=1),
        name="conv",
    )(image)
    features = keras.layers.BatchNormalization(momentum=0.0, name="bn")(features)
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(features))
    model = keras.Model(image, keras.layers.Dense(3)(features))
    images = tf.random.stateless_uniform((64, 8, 8, 3), (1, 2), low, high)
    model(images, training=True)
    return model


@pytest.mark.parametrize("preprocessing", ["uint8", "caffe"])
def test_inputs_far_too_large_are_refused(tmp_path, preprocessing):
    classifier_of_range(0.0, 1.0).save(tmp_path / "unit.keras")
    message = refusal(tmp_path / "unit.keras", preprocessing=preprocessing)
    assert f"preprocessing '{preprocessing}' does not fit the statistics" in message
    # Noise has no neighbours alike, as images have: the named one may be its sibling.
    assert re.search(r"which may be preprocessing='(unit|tf)'$", message)


def test_inputs_far_too_small_are_refused(tmp_path):
    classifier_of_range(0.0, 255.0).save(tmp_path / "uint8.keras")
    message = refusal(tmp_path / "uint8.keras", preprocessing="unit")
    assert re.search(r"which may be preprocessing='(uint8|caffe)'$", message)


def test_a_range_that_no_candidate_has_is_refused_by_its_factor(tmp_path):
    classifier_of_range(0.0, 5000.0).save(tmp_path / "wide.keras")
    message = refusal(tmp_path / "wide.keras", preprocessing="unit")
    assert re.search(r"gives activations 0\.000\d+ times as large", message)
    assert "preprocessing: one of" in message


@pytest.mark.parametrize("preprocessing", ["unit", "tf", "torch"])
def test_plausible_ranges_are_accepted(tmp_path, preprocessing):
    classifier_of_range(0.0, 1.0).save(tmp_path / "unit.keras")
    load_classifier(str(tmp_path / "unit.keras"), preprocessing=preprocessing)


# ---- trained models


@pytest.mark.parametrize(
    ("file", "mean", "std", "convs"),
    [
        ("resnet20_cifar10", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 19),
        ("resnet20w_cifar100", (0.507, 0.487, 0.441), (0.267, 0.256, 0.276), 22),
    ],
)
def test_trained_resnets_keep_their_accuracy(data_dir, file, mean, std, convs):
    classifier = load_classifier(
        str(data_dir / "models" / f"{file}.keras"),
        preprocessing="custom",
        mean=mean,
        std=std,
    )
    names = [type(layer).__name__ for layer in classifier.model.layers]
    assert classifier.head == Head.LOGITS
    assert names.count("Conv2D") == names.count("BatchNormalization") == convs
    dataset = file.split("_")[1]
    with np.load(data_dir / "data" / f"{dataset}_test.npz") as data:
        images, labels = data["x_test"][:200], data["y_test"][:200].ravel()
    predicted = classifier.model(classifier.preprocessing.to_input(images))
    correct = np.mean(np.argmax(predicted, axis=-1) == labels)
    assert correct > {10: 0.88, 100: 0.62}[classifier.num_classes]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_trained_mobilenet(data_dir, suffix):
    path = data_dir / "models" / f"mobilenet_v1_0.25_224_imagenet{suffix}"
    classifier = load_classifier(str(path), preprocessing="tf")
    assert classifier.head == Head.SOFTMAX
    assert classifier.input_shape == (224, 224, 3)
    assert classifier.num_classes == 1000
    assert classifier.model.count_params() == 475_544
