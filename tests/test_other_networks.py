"""Networks beyond RGB softmax classifiers with BatchNormalization, all the way."""

from __future__ import annotations

import dataclasses

import keras as keras_3
import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf import evaluation
from gdfq_tf.classifier import Classifier, Head
from gdfq_tf.config import (
    RECIPES,
    DistillationConfig,
    Limits,
    ReconstructionConfig,
    RefinementConfig,
    StudentBudget,
    parse_bit_widths,
)
from gdfq_tf.errors import UserError
from gdfq_tf.frontend.load import load_classifier
from gdfq_tf.graph.bn_statistics import with_statistics_of
from gdfq_tf.job import Job
from gdfq_tf.keras_compat import keras
from gdfq_tf.pipeline import quantize
from gdfq_tf.result import Result
from gdfq_tf.synthesis.generator_training import noise_images
from gdfq_tf.synthesis.image_pool import ImagePool
from tests.tiny import alike
from tflite_export.flatbuffer import read_model
from tflite_export.interpreter import TFLiteClassifier

_layers = keras.layers
WIDTHS = tuple(map(parse_bit_widths, ("w8a8", "w4a8")))
PAPER = parse_bit_widths("w4a4/paper")
BALANCED = RECIPES["balanced"]
# The default recipe with everything in it, only less of it.
TINY = dataclasses.replace(
    BALANCED,
    synthesis=dataclasses.replace(
        BALANCED.synthesis, num_steps=2, batch_size=16, num_snapshots=2
    ),
    refinement=RefinementConfig(num_steps=2),
    student=ReconstructionConfig(alike(96, DistillationConfig(num_steps=2))),
)
CALIBRATE = RECIPES["calibrate"].with_budgets(lambda _: StudentBudget(96))


def network(head, shape=(8, 8, 3), normalized: bool = True, kernel=3) -> keras.Model:
    """conv - depthwise - conv - `head(features)`, settled."""
    image = keras.Input(shape)
    x = image
    for layer in (
        _layers.Conv2D(8, kernel, padding="same"),
        _layers.DepthwiseConv2D(kernel, padding="same"),
        _layers.Conv2D(12, 1),
    ):
        x = layer(x)
        x = _layers.BatchNormalization()(x) if normalized else x
        x = _layers.ReLU()(x)
    return settled(keras.Model(image, head(x)))


def settled(model: keras.Model) -> keras.Model:
    """The model with weights of a fixed seed and statistics of noise in [-1, 1]."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, _layers.BatchNormalization):
            layer.beta.assign(np.full(layer.beta.shape, 0.2))
        elif layer.get_weights():
            kernel, bias = layer.get_weights()
            fan_in = kernel.size / kernel.shape[-1]
            if isinstance(layer, _layers.DepthwiseConv2D):
                fan_in = kernel[..., 0, 0].size
            deviation = np.sqrt(2 / fan_in)
            layer.set_weights(
                [rng.normal(0, deviation, kernel.shape), rng.normal(0, 0.1, bias.shape)]
            )
    noise = noise_images(model.input_shape[1:], 64, seed=1).pixels / 127.5 - 1
    return with_statistics_of(model, noise.astype(np.float32))


def loaded(model: keras.Model, tmp_path, preprocessing="tf", **options) -> Classifier:
    model.save(tmp_path / "net.keras")
    return load_classifier(
        str(tmp_path / "net.keras"), preprocessing=preprocessing, **options
    )


def run(classifier, recipe, bit_widths, *, pool=None, **limits) -> Result:
    job = Job(classifier, recipe, tuple(bit_widths), **limits)
    return quantize(job, pool=pool)


def float_outputs(model: keras.Model, classifier: Classifier, pixels) -> np.ndarray:
    outputs = model(classifier.preprocessing.to_input(pixels), training=False).numpy()
    return outputs.reshape(len(pixels), -1)


def tflite_outputs(tflite: bytes, classifier: Classifier, pixels) -> np.ndarray:
    """What the file gives, as real numbers."""
    file = TFLiteClassifier(tflite)
    return file.dequantize_output(
        file.run(classifier.preprocessing.to_integers(pixels))
    )


def held_out(recipe) -> int:
    """A quarter of 96 images, or those laid over six of each other."""
    return 24 if recipe.refinement is None else 6 * 24


def check_verified(result: Result) -> None:
    assert tuple(model.bit_widths for model in result.models) == WIDTHS
    for model in result.models:
        assert all(finding.passed for finding in model.findings)
        assert model.agreement.num_images == 128
        assert model.agreement.max_lsb <= 1


def check_near(result, model, classifier, bounds) -> None:
    """Each width's file errs by less than its bound: root mean square over that of the
    network's outputs."""
    pixels = result.images.pixels
    expected = float_outputs(model, classifier, pixels)
    for quantized, bound in zip(result.models, bounds, strict=True):
        error = tflite_outputs(quantized.tflite, classifier, pixels) - expected
        spread = np.linalg.norm(expected - expected.mean(axis=0))
        assert np.linalg.norm(error) / spread < bound


def classes(x):
    return _layers.Dense(3)(_layers.GlobalAveragePooling2D()(x))


# ---- no BatchNormalization


@pytest.mark.parametrize("recipe", [TINY, CALIBRATE], ids=lambda x: x.name)
def test_networks_without_batch_normalization(recipe, tmp_path):
    model = network(classes, normalized=False)
    classifier = loaded(model, tmp_path, without_bn_statistics=True)
    result = run(classifier, recipe, WIDTHS)
    check_verified(result)
    check_near(result, model, classifier, (0.15, 0.3))


def test_without_batch_normalization_images_reach_their_classes(tmp_path):
    model = network(classes, normalized=False)
    # As sure as trained ones, and on noise without a favourite.
    noise = np.random.default_rng(1).uniform(-1, 1, (64, 8, 8, 3)).astype(np.float32)
    kernel, bias = model.layers[-1].get_weights()
    bias = bias - model(noise).numpy().mean(axis=0)
    model.layers[-1].set_weights([20 * kernel, 20 * bias])
    classifier = loaded(model, tmp_path, without_bn_statistics=True)
    recipe = dataclasses.replace(
        TINY,
        synthesis=dataclasses.replace(TINY.synthesis, num_steps=300),
        refinement=RefinementConfig(num_steps=20),
    )
    result = run(classifier, recipe, WIDTHS[:1])
    assert result.job.recipe.refinement is None
    images = result.images
    outputs = float_outputs(model, classifier, images.pixels)
    assert np.mean(outputs.argmax(axis=-1) == images.labels) > 0.8
    # The logits' grid ends where those of the images do.
    (quantized,) = result.models
    quant_params = quantized.network.ops[-1].quant_params
    np.testing.assert_allclose(quant_params.high, outputs.max(), rtol=0.1)


def convnext() -> keras.Model:
    """A stem and two blocks of ConvNeXt, weights of a fixed seed."""
    rng = np.random.default_rng(0)
    image = keras.Input((16, 16, 3))
    x = _layers.LayerNormalization(epsilon=1e-6)(
        _layers.Conv2D(12, 4, strides=4)(image)
    )
    for _ in range(2):
        y = _layers.Conv2D(12, 3, padding="same", groups=12)(x)
        y = _layers.Dense(24, activation="gelu")(_layers.LayerNormalization()(y))
        x = x + _layers.Dense(12)(y)
    x = _layers.LayerNormalization()(_layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, _layers.Dense(3)(x))
    for layer in model.layers:
        shapes = [w.shape for w in layer.get_weights()]
        if isinstance(layer, _layers.LayerNormalization):
            gamma, beta = shapes
            layer.set_weights([rng.uniform(0.5, 1.5, gamma), rng.normal(0, 0.2, beta)])
        elif shapes:
            kernel, bias = shapes
            deviation = (np.prod(kernel[:-1])) ** -0.5
            layer.set_weights(
                [rng.normal(0, deviation, kernel), rng.normal(0, 0.1, bias)]
            )
    return model


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [TINY, CALIBRATE], ids=lambda x: x.name)
def test_networks_with_layer_normalization(recipe, tmp_path):
    model = convnext()
    classifier = loaded(model, tmp_path, without_bn_statistics=True)
    result = run(classifier, recipe, WIDTHS)
    check_verified(result)
    assert all(x.agreement.exact_outputs == 1 for x in result.models)
    # What differs between images of noise is little, and rounding is all the more.
    check_near(result, model, classifier, (0.15, 0.4))


# ---- labels beside each other


def labels(x):
    return _layers.Dense(4, activation="sigmoid")(_layers.GlobalAveragePooling2D()(x))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [TINY, CALIBRATE], ids=lambda x: x.name)
def test_multi_label_networks(recipe, tmp_path):
    model = network(labels)
    classifier = loaded(model, tmp_path)
    result = run(classifier, recipe, WIDTHS)
    check_verified(result)
    pixels = result.images.pixels
    expected = float_outputs(model, classifier, pixels)
    for quantized, tolerance in zip(result.models, (0.02, 0.08), strict=True):
        file = read_model(quantized.tflite)
        assert file.operators[-1].name == "LOGISTIC"
        (output,) = file.outputs
        assert file.tensors[output].scales == (1 / 256,)
        assert file.tensors[output].zero_points == (-128,)
        found = tflite_outputs(quantized.tflite, classifier, pixels)
        assert np.abs(found - expected).mean() < tolerance
        assert quantized.estimate.num_images == held_out(recipe)
        assert quantized.estimate.label_agreement > 0.8
    # The baselines are of the same outputs.
    baseline = TFLiteClassifier(result.baselines.float32)
    inputs = classifier.preprocessing.to_input(pixels).numpy()
    np.testing.assert_allclose(baseline.run(inputs), expected, rtol=1e-3, atol=1e-5)


def test_images_of_a_multi_label_network_have_the_label_asked_for(tmp_path):
    model = network(labels)
    kernel, bias = model.layers[-1].get_weights()
    noise = np.random.default_rng(1).uniform(-1, 1, (64, 8, 8, 3)).astype(np.float32)
    logits = tf.math.log(1 / (1 / model(noise) - 1))
    bias = bias - tf.reduce_mean(logits, axis=0)
    model.layers[-1].set_weights([8 * kernel, 8 * bias])
    classifier = loaded(model, tmp_path)
    recipe = dataclasses.replace(
        TINY,
        synthesis=dataclasses.replace(TINY.synthesis, num_steps=30, bn_weight=1.0),
        refinement=RefinementConfig(num_steps=20, bn_weight=1.0),
    )
    images = run(classifier, recipe, WIDTHS[:1]).images
    probabilities = float_outputs(model, classifier, images.pixels)
    assert set(images.labels) == set(range(4))
    asked = probabilities[np.arange(len(images.labels)), images.labels]
    assert np.mean(asked > 0.5) > 0.9


@pytest.mark.parametrize(
    ("recipe", "limits", "text"),
    [
        (RECIPES["gdfq"], {}, "recipe 'gdfq' trains on classes"),
        (
            TINY,
            {"limits": Limits(max_accuracy_loss=1.0)},
            "max_accuracy_loss is of top-1",
        ),
    ],
)
def test_what_needs_classes_is_refused_before_any_work(recipe, limits, text, tmp_path):
    classifier = loaded(network(labels), tmp_path)
    with pytest.raises(UserError, match=text) as error:
        run(classifier, recipe, WIDTHS, **limits)
    assert "\n" not in str(error.value)


# ---- no classes at all


def pooled(x):
    return _layers.GlobalAveragePooling2D()(x)


FEATURES = {
    "embedding": lambda x: _layers.Dense(6)(pooled(x)),
    "regression": lambda x: _layers.Dense(1)(pooled(x)),
    "bounded": lambda x: _layers.Dense(5, activation="tanh")(pooled(x)),
    "backbone": lambda x: x,
    "image": lambda x: _layers.Conv2D(3, 3, padding="same")(x),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "recipe"),
    [("embedding", CALIBRATE), *((case, TINY) for case in FEATURES)],
)
def test_networks_of_features(case, recipe, tmp_path):
    model = network(FEATURES[case])
    classifier = loaded(model, tmp_path, task="features")
    assert classifier.head == Head.FEATURES
    result = run(classifier, recipe, WIDTHS)
    check_verified(result)
    check_near(result, model, classifier, (0.15, 0.4))
    eight, four = (quantized.estimate for quantized in result.models)
    assert eight.num_images == four.num_images == held_out(recipe)
    # The edge protocol leaves the backbone no layer for four bits.
    assert (eight == four) == (case == "backbone")
    assert eight.signal_to_noise_db >= four.signal_to_noise_db > 5


def test_outputs_have_8_bits_whatever_the_rest_has(tmp_path):
    model = network(FEATURES["backbone"])  # ends in a ReLU
    classifier = loaded(model, tmp_path, task="features")
    (quantized,) = run(classifier, CALIBRATE, [PAPER]).models
    quant_params_of = {op.name: op.quant_params for op in quantized.network.ops}
    outputs = tflite_outputs(
        quantized.tflite,
        classifier,
        np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3)),
    )
    levels = np.unique(np.round(outputs / list(quant_params_of.values())[-1].scale))
    assert len(levels) > 16


@pytest.mark.parametrize(
    ("model", "options", "recipe", "limits", "text"),
    [
        (
            network(pooled),
            {},
            TINY,
            {"limits": Limits(max_accuracy_loss=1.0)},
            "a network of features",
        ),
        (network(pooled), {}, RECIPES["gdfq"], {}, "trains on classes"),
        (
            network(pooled, normalized=False),
            {"without_bn_statistics": True},
            TINY,
            {},
            "neither classes nor BatchNormalization statistics",
        ),
    ],
)
def test_what_features_do_not_tell_is_refused_before_any_work(
    model, options, recipe, limits, text, tmp_path
):
    classifier = loaded(model, tmp_path, task="features", **options)
    with pytest.raises(UserError, match=text) as error:
        run(classifier, recipe, WIDTHS, **limits)
    assert "\n" not in str(error.value)


def test_features_without_statistics_are_calibrated_on_noise(tmp_path):
    model = network(FEATURES["embedding"], normalized=False)
    classifier = loaded(model, tmp_path, task="features", without_bn_statistics=True)
    result = run(classifier, CALIBRATE, WIDTHS)
    check_verified(result)
    check_near(result, model, classifier, (0.15, np.inf))


# ---- images from images


def autoencoder(k, interpolation: str, kernel_size: int):
    """A convolutional autoencoder, unsettled, of either Keras."""
    lay = k.layers
    image = x = k.Input((8, 8, 3))
    for layer in (
        lay.Conv2D(8, 3, strides=2, padding="same"),
        lay.Conv2D(12, 3, strides=2, padding="same"),
        lay.Conv2DTranspose(8, kernel_size, strides=2, padding="same"),
        lay.UpSampling2D(2, interpolation=interpolation),
        lay.Conv2D(6, 3, padding="same"),
    ):
        x = layer(x)
        if not isinstance(layer, lay.UpSampling2D):
            x = lay.ReLU()(lay.BatchNormalization()(x))
    x = lay.Conv2DTranspose(3, 3, padding="same", activation="sigmoid")(x)
    return k.Model(image, x)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("k", "interpolation", "kernel_size", "recipe", "decoder"),
    [
        (
            keras_3, "nearest", 3, TINY,
            ["PAD", "CONV_2D", "DEPTH_TO_SPACE", "RESIZE_NEAREST_NEIGHBOR"],
        ),
        (
            keras, "bilinear", 4, TINY,
            ["PAD", "CONV_2D", "DEPTH_TO_SPACE", "SLICE", "RESIZE_BILINEAR"],
        ),
        (
            keras, "nearest", 5, CALIBRATE,
            ["CONV_2D", "DEPTH_TO_SPACE", "RESIZE_NEAREST_NEIGHBOR"],
        ),
    ],
)  # fmt: skip
def test_autoencoders(k, interpolation, kernel_size, recipe, decoder, tmp_path):
    model = settled(autoencoder(keras, interpolation, kernel_size))
    source = autoencoder(k, interpolation, kernel_size)
    for layer, original in zip(source.layers, model.layers, strict=True):
        layer.set_weights(original.get_weights())
    classifier = loaded(source, tmp_path, task="features")
    result = run(classifier, recipe, WIDTHS)
    check_verified(result)
    assert all(x.agreement.exact_outputs == 1.0 for x in result.models)
    names = [x.name for x in read_model(result.models[0].tflite).operators]
    # Normalization and ReLU are in the convolutions, also in the transposed one.
    ends = ["CONV_2D", "CONV_2D"], ["CONV_2D", "CONV_2D", "LOGISTIC", "RESHAPE"]
    assert names == [*ends[0], *decoder, *ends[1]]
    check_near(result, model, classifier, (0.15, 0.4))


# ---- inputs of other shapes


@pytest.mark.parametrize(
    ("shape", "kernel"),
    [
        pytest.param((16, 12, 1), 3, marks=pytest.mark.slow),
        pytest.param((12, 20, 5), 3, marks=pytest.mark.slow),  # many channels
        ((49, 10, 1), (10, 4)),  # keyword spotting: frames x coefficients
        ((64, 1, 6), (5, 1)),  # a signal of six sensors
        pytest.param((1, 48, 2), (1, 3), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_inputs_of_other_shapes(shape, kernel, tmp_path):
    model = network(classes, shape, kernel=kernel)
    mean, std = np.linspace(0.3, 0.6, shape[-1]), np.linspace(0.2, 0.5, shape[-1])
    classifier = loaded(
        model, tmp_path, preprocessing="custom", mean=tuple(mean), std=tuple(std)
    )
    assert classifier.input_shape == shape
    result = run(classifier, TINY, WIDTHS)
    check_verified(result)
    assert result.images.pixels.shape == (72, *shape)
    check_near(result, model, classifier, (0.2, 0.4))


def test_one_column_without_batch_normalization(tmp_path):
    model = network(classes, (64, 1, 6), normalized=False, kernel=(5, 1))
    classifier = loaded(model, tmp_path, "unit", without_bn_statistics=True)
    result = run(classifier, TINY, WIDTHS)
    check_verified(result)
    assert classifier.preprocessing.formula() == "q = pixel - 128"


def test_layers_without_a_bias_make_good_for_the_half_level_of_the_input(tmp_path):
    image = keras.Input((8, 8, 1))
    x = _layers.Conv2D(6, 3, padding="valid", use_bias=False)(image)
    x = _layers.GlobalAveragePooling2D()(_layers.ReLU()(x))
    model = keras.Model(image, _layers.Dense(2, use_bias=False)(x))
    # Large in units of the pixel level that [-1, 1] is half a one off.
    kernel = np.full((3, 3, 1, 6), 20.0)
    model.set_weights([kernel, np.eye(6, 2) / 20])
    classifier = loaded(model, tmp_path, without_bn_statistics=True)
    pixels = np.random.default_rng(0).integers(128, 144, (96, 8, 8, 1))
    pool = ImagePool(pixels.astype(np.uint8), np.zeros(96, np.int32))
    (quantized,) = run(classifier, CALIBRATE, WIDTHS[:1], pool=pool).models
    expected = float_outputs(model, classifier, pixels)
    error = tflite_outputs(quantized.tflite, classifier, pixels) - expected
    # Half a level of nine pixels would be 9 / 255.
    assert np.abs(error.mean(axis=0)).max() < 1 / 255


# ---- graphs of other shapes


@pytest.mark.parametrize("preprocessing", ["tf", "unit"])
def test_features_joined_with_the_image_keep_their_range(preprocessing, tmp_path):
    image = keras.Input((8, 8, 3))
    x = _layers.Conv2D(5, 3, 2, padding="same")(image)
    x = _layers.Concatenate()([x, _layers.MaxPooling2D()(image)])
    x = _layers.ReLU()(_layers.BatchNormalization()(_layers.Conv2D(12, 3)(x)))
    model = settled(keras.Model(image, classes(x)))
    kernel, bias = model.layers[1].get_weights()
    # Far beyond the pixels' range.
    model.layers[1].set_weights([8 * kernel, bias])
    model = with_statistics_of(model, noise_images((8, 8, 3), 64, seed=1).pixels / 255)
    classifier = loaded(model, tmp_path, preprocessing)
    result = run(classifier, TINY, WIDTHS)
    check_verified(result)
    check_near(result, model, classifier, (0.1, 0.25))


def test_branches_that_normalize_one_tensor_each(tmp_path):
    def head(x):
        branches = [
            _layers.Conv2D(8, kernel, padding="same")(
                _layers.ReLU()(_layers.BatchNormalization()(x))
            )
            for kernel in (1, 3)
        ]
        return classes(_layers.Add()(branches))

    model = network(head)
    normalizations = [
        x for x in model.layers if isinstance(x, _layers.BatchNormalization)
    ]
    normalizations[-1].gamma.assign(np.linspace(0.5, 2, 12))
    classifier = loaded(model, tmp_path)
    result = run(classifier, TINY, WIDTHS)
    check_verified(result)
    check_near(result, model, classifier, (0.1, 0.25))


def gated(x):
    """A gate for each channel, and features behind a leaky ReLU."""
    x = _layers.Conv2D(8, 3, padding="same")(x)
    means = _layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = _layers.Multiply()([x, _layers.Conv2D(8, 1, activation="sigmoid")(means)])
    x = _layers.Dense(6)(_layers.GlobalAveragePooling2D()(x))
    return _layers.Dense(3)(_layers.LeakyReLU(0.2)(x))


def test_activations_of_16_bits_come_nearer_than_those_of_8(tmp_path):
    model = network(gated)
    classifier = loaded(model, tmp_path, task="features")
    widths = tuple(map(parse_bit_widths, ("w8a8", "w8a16", "w4a16")))
    result = run(classifier, CALIBRATE, widths)
    pixels = result.images.pixels
    expected = float_outputs(model, classifier, pixels)
    errors = []
    for quantized in result.models:
        assert all(finding.passed for finding in quantized.findings)
        assert quantized.agreement.max_lsb == 0
        outputs = evaluation.tflite_outputs(
            quantized.tflite, classifier.preprocessing, pixels
        )
        errors.append(np.linalg.norm(outputs - expected))
    narrow, wide, few = errors
    assert wide < narrow / 3
    assert wide < few
    facts = result.summary(result.compare())["models"][-1]
    assert facts["int16_input"] == "q = 128 * (pixel - 128)"
    assert "int16_output" in facts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_type": "uint8"}, "w8a16.* int16 ends"),
        ({"target": "tflm"}, "does not take .*w8a16"),
        ({"target": "c99"}, "does not take .*w8a16.*kernels are for int8"),
    ],
)
def test_what_int16_does_not_go_with_is_refused_before_any_work(
    options, message, tmp_path
):
    classifier = loaded(network(classes), tmp_path)
    with pytest.raises(UserError, match=message) as error:
        Job(classifier, TINY, (parse_bit_widths("w8a16"),), **options).checked()
    assert "\n" not in str(error.value)
