"""A fake-quantized copy that shares nothing."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf.config import BitWidths
from gdfq_tf.graph.layers import DepthToSpace
from gdfq_tf.keras_compat import keras
from gdfq_tf.preprocessing import make_preprocessing
from gdfq_tf.quantization.calibration import calibrate
from gdfq_tf.quantization.plan import make_plan
from gdfq_tf.quantization.student import Student, _student_graph, build_student
from tests.tiny import INPUT_SHAPE, build_tiny_classifier, classifier_of

layers = keras.layers
PREPROCESSING = make_preprocessing("tf", 3)
PIXELS = np.random.default_rng(0).integers(0, 256, (64, *INPUT_SHAPE))


def make_student(model: keras.Model, bit_widths: BitWidths) -> Student:
    plan = make_plan(model, bit_widths)
    inputs = PREPROCESSING.to_input(PIXELS).numpy()
    calibration = calibrate(classifier_of(model), plan, inputs)
    return build_student(classifier_of(model), plan, calibration)


def randomize(model: keras.Model) -> keras.Model:
    """Random weights everywhere, positive ones where a variance is meant."""
    rng = np.random.default_rng(1)
    for variable in model.weights:
        values = rng.normal(0, 0.4, variable.shape)
        variable.assign(np.abs(values) + 0.5 if "variance" in variable.name else values)
    return model


@pytest.fixture(scope="module")
def classifier() -> keras.Model:
    return build_tiny_classifier()


@pytest.fixture(scope="module")
def student(classifier) -> Student:
    return make_student(classifier, BitWidths(4, 4, "paper"))


def test_variables_are_its_own(classifier, student):
    pointers = {v.handle._id for v in classifier.weights}
    assert not pointers & {v.handle._id for v in student.model.weights}
    before = classifier.get_weights()
    copy = make_student(classifier, BitWidths(8, 8))
    for variable in copy.model.weights:
        variable.assign(tf.ones_like(variable))
    for old, new in zip(before, classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_starts_with_the_classifiers_weights(classifier, student):
    np.testing.assert_array_equal(
        student.weight_quantizers["dw2"].kernel,
        classifier.get_layer("dw2").depthwise_kernel,
    )
    np.testing.assert_array_equal(
        student.layer("bn2").gamma, classifier.get_layer("bn2").gamma
    )


@pytest.mark.parametrize(
    ("bit_widths", "error"), [(BitWidths(8, 8), 0.03), (BitWidths(4, 8), 0.4)]
)
def test_stays_close_to_the_classifier(classifier, bit_widths, error):
    student = make_student(classifier, bit_widths)
    expected = classifier(PREPROCESSING.to_input(PIXELS)).numpy()
    logits = student.model(PREPROCESSING.to_student_input(PIXELS)).numpy()
    difference = np.abs(logits - expected).mean() / expected.std()
    assert 1e-4 < difference < error


def outputs_of(student: Student, *names: str) -> list[tf.Tensor]:
    """What the student's layers of these names give for `PIXELS`."""
    outputs = [student.wrapper(name).output for name in names]
    probe = keras.Model(student.model.input, outputs)
    return probe(PREPROCESSING.to_student_input(PIXELS), training=False)


def test_every_kernel_and_tensor_of_the_plan_is_quantized(student):
    names = ["relu1", "relu2", "relu3"]
    logits, *features = outputs_of(student, "logits", *names)
    for name, values in zip(names, features, strict=True):
        levels = np.unique(np.rint(values / student.activation_quantizers[name].scale))
        assert 8 < len(levels) <= 16
        np.testing.assert_allclose(
            values,
            np.rint(values / student.activation_quantizers[name].scale)
            * student.activation_quantizers[name].scale,
            rtol=1e-5,
        )
    scale = student.activation_quantizers["logits"].scale
    levels = logits / scale
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)


def training_step(student: Student, optimizer=None):
    inputs = PREPROCESSING.to_student_input(PIXELS)
    variables = student.model.trainable_variables
    weights = np.random.default_rng(2).normal(size=(len(PIXELS), 3))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(student.model(inputs, training=False) * weights)
    gradients = tape.gradient(loss, variables)
    if optimizer is not None:
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return dict(zip((v.name for v in variables), gradients, strict=True))


def test_every_trainable_variable_has_a_gradient(student):
    gradients = training_step(student)
    assert len(gradients) == len(student.model.trainable_variables)
    without = [name for name, g in gradients.items() if g is None or not np.any(g)]
    assert without == []
    # 4 kernels, 1 bias, 3 gammas and betas.
    assert len(gradients) == 4 + 1 + 6


def test_bn_statistics_are_not_trained(classifier):
    student = make_student(classifier, BitWidths(4, 8))
    names = {v.name for v in student.model.trainable_variables}
    assert not any("moving" in name for name in names)
    training_step(student, keras.optimizers.Adam(0.05))
    for name in ("bn1", "bn2", "bn3"):
        copy, original = student.layer(name), classifier.get_layer(name)
        assert np.any(copy.gamma != original.gamma)
        np.testing.assert_array_equal(copy.moving_variance, original.moving_variance)
        if name != "bn1":  # its mean has absorbed the input's shift
            np.testing.assert_array_equal(copy.moving_mean, original.moving_mean)
    assert np.any(
        student.weight_quantizers["conv3"].kernel
        != classifier.get_layer("conv3").kernel
    )


def test_a_shared_scale_is_one_variable():
    image = keras.Input(INPUT_SHAPE)
    first = layers.ReLU(name="first")(layers.Conv2D(4, 3, name="a")(image))
    second = layers.ReLU(name="second")(layers.Conv2D(4, 3, name="b")(image))
    joined = layers.Concatenate(name="joined")([first, second])
    pooled = layers.GlobalAveragePooling2D(name="pooled")(joined)
    model = randomize(keras.Model(image, layers.Dense(3, name="logits")(pooled)))
    student = make_student(model, BitWidths(4, 8))
    assert set(student.activation_quantizers) == {
        student.plan.input_group, "first", "pooled", "logits"
    }  # fmt: skip
    quantizer = student.activation_quantizers["first"]
    (found,) = (v for v in student.model.variables if "first_scale" in v.name)
    assert found is quantizer.scale
    # Both tensors follow it.
    quantizer.scale.assign(0.75)
    for values in outputs_of(student, "first", "second"):
        levels = values / 0.75
        np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)


def shifted_models():
    def model(*chain):
        image = keras.Input(INPUT_SHAPE)
        x = image
        for layer in chain:
            x = layer(x)
        return randomize(keras.Model(image, layers.Dense(3)(layers.Flatten()(x))))

    conv = layers.Conv2D
    yield "bias", model(conv(4, 3), layers.ReLU())
    yield "bn", model(conv(4, 3, use_bias=False), layers.BatchNormalization())
    yield "bias and bn", model(conv(4, 3), layers.BatchNormalization())
    yield "depthwise", model(layers.DepthwiseConv2D(3, depth_multiplier=2))
    yield (
        "depthwise bn",
        model(
            layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
            layers.BatchNormalization(),
        ),
    )
    yield "dense", model()
    yield "reshape", model(layers.Reshape((4, 16, 3)), conv(2, 3, strides=2))
    yield "phases", model(layers.Reshape((4, 4, 12)), DepthToSpace((2, 2)), conv(2, 3))
    for interpolation in ("nearest", "bilinear"):
        enlarging = layers.UpSampling2D(2, interpolation=interpolation)
        yield interpolation, model(enlarging, conv(2, 3, strides=2))
    for pool in (layers.MaxPooling2D, layers.AveragePooling2D):
        yield pool.__name__, model(pool(3, 2, padding="same"), conv(2, 3))
    yield "global", model(layers.GlobalAveragePooling2D())
    image = keras.Input(INPUT_SHAPE)
    joined = layers.Concatenate()([image, layers.MaxPooling2D(3, 1, "same")(image)])
    flat = layers.Flatten()(layers.Conv2D(3, 3)(joined))
    yield "joined", randomize(keras.Model(image, layers.Dense(3)(flat)))
    image = keras.Input(INPUT_SHAPE)
    ends = [layers.Conv2D(3, 3)(image), layers.DepthwiseConv2D(3)(image)]
    pooled = layers.GlobalAveragePooling2D()(layers.Add()(ends))
    yield "two", randomize(keras.Model(image, layers.Dense(3)(pooled)))


@pytest.mark.parametrize(
    "model", [pytest.param(model, id=name) for name, model in shifted_models()]
)
def test_shifted_input_gives_the_classifiers_outputs(model):
    x = np.random.default_rng(3).normal(size=(5, *INPUT_SHAPE)).astype(np.float32)
    shift = 0.25
    base = _student_graph(model, shift)
    expected = model(x, training=False).numpy()
    computed = base(x - shift, training=False).numpy()
    tolerance = 2e-5 * np.abs(expected).max()
    np.testing.assert_allclose(computed, expected, atol=tolerance)
    # The shift is not too small to be seen.
    unshifted = _student_graph(model, 0.0)
    np.testing.assert_allclose(unshifted(x, training=False), expected, atol=tolerance)
    assert np.abs(unshifted(x - shift, training=False) - expected).max() > 0.01


def test_half_a_pixel_of_shift_is_compensated_at_8_bits():
    image = keras.Input(INPUT_SHAPE)
    x = layers.ReLU()(layers.Conv2D(8, 3, name="conv")(image))
    x = layers.GlobalAveragePooling2D()(x)
    model = randomize(keras.Model(image, layers.Dense(3)(x)))
    # One sign: half a level on every pixel then moves the outputs one way.
    for name in ("conv", model.layers[-1].name):
        kernel, bias = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([np.abs(kernel), bias])
    student = make_student(model, BitWidths(8, 8))
    expected = model(PREPROCESSING.to_input(PIXELS)).numpy()
    logits = student.model(PREPROCESSING.to_student_input(PIXELS)).numpy()
    step = float(student.activation_quantizers[model.layers[-1].name].scale)
    # Without compensation: sums of kernels times half a level, several steps.
    kernel = model.get_layer("conv").get_weights()[0]
    lost = PREPROCESSING.grid_shift() * kernel.sum() * 0.1
    assert lost > step
    assert abs((logits - expected).mean()) < 0.5 * step
    assert np.abs(logits - expected).max() < 2 * step


def test_layers_and_their_wrappers_are_found_by_the_classifiers_names(
    classifier, student
):
    for layer in classifier.layers[1:]:
        assert type(student.layer(layer.name)) is type(layer)
        assert student.wrapper(layer.name).layer is student.layer(layer.name)
    # A wrapper quantizes what it computes.
    x = tf.constant(np.random.default_rng(0).uniform(0, 3, (4, 8, 8, 8)), tf.float32)
    levels = student.wrapper("relu2")(x) / student.activation_quantizers["relu2"].scale
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
    np.testing.assert_array_equal(student.layer("relu2")(x), np.clip(x, 0, 6))


@pytest.mark.parametrize("mode", ["tf", "torch", "uint8"])
def test_quantized_inputs_are_the_exported_models(mode):
    classifier = classifier_of(build_tiny_classifier(), mode)
    preprocessing = classifier.preprocessing
    plan = make_plan(classifier.model, BitWidths(8, 8))
    inputs = preprocessing.to_input(PIXELS).numpy()
    calibration = calibrate(classifier, plan, inputs)
    student = build_student(classifier, plan, calibration)
    quantized = student.quantize_input(preprocessing.to_student_input(PIXELS))
    quant_params = preprocessing.input_quantization()
    levels = preprocessing.to_integers(PIXELS).astype(float) - quant_params.zero_point
    np.testing.assert_allclose(
        quantized, levels * quant_params.scale, atol=1e-4 * quant_params.scale
    )


def test_output_shifts_go_into_bias_or_statistics_and_are_absolute():
    image = keras.Input(INPUT_SHAPE)
    x = layers.BatchNormalization(name="bn")(
        layers.Conv2D(4, 3, use_bias=False, name="normalized")(image)
    )
    x = layers.BatchNormalization(name="bn_too")(
        layers.DepthwiseConv2D(3, depth_multiplier=2, name="both")(layers.ReLU()(x))
    )
    x = layers.ReLU()(layers.Conv2D(3, 3, use_bias=False, name="bare")(x))
    x = layers.GlobalAveragePooling2D()(x)
    model = randomize(keras.Model(image, layers.Dense(3, name="logits")(x)))
    consumed_by = {layer.name: layer for layer in model.layers}
    student = make_student(model, BitWidths(8, 8))
    inputs = np.random.default_rng(0).normal(size=(6, 6, 4)).astype(np.float32)[None]

    def shift(name, following, values):
        values = np.asarray(values, np.float64)
        for _ in range(2):  # set, not added
            student.set_output_shift(
                model.get_layer(name), [consumed_by[x] for x in following], values
            )

    # Behind the BatchNormalization, kernel output + shift is what the classifier's
    # own layer makes of it.
    shift("normalized", ["bn"], [0.5, -1.0, 0.0, 2.0])
    shifted = inputs + np.float32([0.5, -1.0, 0.0, 2.0])
    np.testing.assert_allclose(
        student.layer("bn")(inputs, training=False),
        model.get_layer("bn")(shifted, training=False),
        rtol=1e-4,
        atol=1e-4,
    )
    before = student.layer("bn_too").get_weights()
    shift("both", ["bn_too"], np.arange(8))
    np.testing.assert_array_equal(student.layer("both").bias, np.arange(8))
    for now, then in zip(student.layer("bn_too").get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    shift("logits", [], [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(student.layer("logits").bias, [1.0, 2.0, 3.0])
    # Without either, nothing can be added and nothing else may change.
    before = student.model.get_weights()
    shift("bare", [model.layers[-3].name], [1.0, 2.0, 3.0])
    shift("bare", [], [1.0, 2.0, 3.0])
    for now, then in zip(student.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_moved_statistics_keep_what_was_shifted(classifier):
    source, student = build_tiny_classifier(), make_student(classifier, BitWidths(8, 8))
    rng = np.random.default_rng(0)
    shifts = {}
    for name in ("bn1", "bn2", "bn3"):
        gamma, beta, mean, variance = source.get_layer(name).get_weights()
        source.get_layer(name).set_weights([gamma, beta, mean + 3.0, 2 * variance])
        shifts[name] = rng.normal(size=mean.shape)
        student.layer(name).set_weights(
            [gamma, beta, mean + 3.0 + shifts[name], 2 * variance]
        )
    student.move_statistics(source, classifier)
    for name in ("bn1", "bn2", "bn3"):
        gamma, beta, mean, variance = classifier.get_layer(name).get_weights()
        found = student.layer(name).get_weights()
        np.testing.assert_array_equal(found[0], gamma)
        np.testing.assert_array_equal(found[1], beta)
        np.testing.assert_allclose(found[2], mean + shifts[name], atol=1e-5)
        np.testing.assert_array_equal(found[3], variance)
