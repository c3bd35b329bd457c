"""Networks trained under other policies than float32: what they compute in float32."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import pytest

from gdfq_tf import quantize
from gdfq_tf.errors import UserError
from gdfq_tf.frontend.layer_importers import check_layer
from gdfq_tf.frontend.load import load_classifier
from gdfq_tf.keras_compat import keras as tf_keras
from gdfq_tf.model_files.readers import read_model

# Keras itself says that HDF5 is a legacy format.
pytestmark = [
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5"),
    pytest.mark.filterwarnings("ignore:.*compute capability"),
]

KERASES = pytest.mark.parametrize("k", [keras, tf_keras], ids=["keras3", "tf_keras"])
POLICIES = ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "float64"]


@contextlib.contextmanager
def policy(k, name):
    before = k.mixed_precision.global_policy()
    k.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        k.mixed_precision.set_global_policy(before)


def build(k, name):
    """A network under a policy, with a model inside, and its twin under float32."""
    rng, made = np.random.default_rng(0), []
    for each in (name, "float32"):
        with policy(k, each):
            lay = k.layers
            inner = k.Sequential(
                [
                    lay.Input((8, 8, 4)),
                    lay.Conv2D(6, 3, name="inner_conv"),
                    lay.BatchNormalization(name="bn"),
                ],
                name="inner",
            )
            image = k.Input((8, 8, 3), name="image")
            x = lay.ReLU(name="relu")(inner(lay.Conv2D(4, 1, name="conv")(image)))
            x = lay.GlobalAveragePooling2D(name="pool")(x)
            x = lay.Dense(3, name="classes")(x)
            outputs = lay.Activation("softmax", dtype="float32", name="p")(x)
            made.append(k.Model(image, outputs, name="net"))
    # What bfloat16 can hold, all of them can.
    values = [
        np.round(rng.uniform(0.25, 1, w.shape) * 64) / 64 for w in made[0].get_weights()
    ]
    for model in made:
        model.set_weights(values)
    return made


def images():
    return np.random.default_rng(1).normal(size=(4, 8, 8, 3)).astype(np.float32)


@KERASES
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", POLICIES)
def test_files_are_read_as_of_float32(k, name, suffix, tmp_path):
    model, twin = build(k, name)
    model.save(tmp_path / f"net{suffix}")
    copy = read_model(tmp_path / f"net{suffix}", check_layer=check_layer).model
    np.testing.assert_array_equal(copy(images()), twin(images()))


@KERASES
@pytest.mark.parametrize("name", ["mixed_float16", "bfloat16"])
def test_live_models_are_copied_into_float32(k, name):
    model, twin = build(k, name)
    classifier = load_classifier(model, preprocessing="unit")
    outputs = classifier.head.outputs_of(classifier.model(images()))
    np.testing.assert_allclose(outputs, twin(images()), atol=1e-5)
    assert model.get_layer("conv").dtype_policy.name == name


@KERASES
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_policies_of_the_process_change_nothing_and_stay(k, dtype, tmp_path):
    (_, twin), path = build(k, "mixed_float16"), tmp_path / "net.keras"
    twin.save(path)
    floatx = k.backend.floatx()
    with policy(k, "mixed_bfloat16"):
        k.backend.set_floatx(dtype)
        try:
            classifier = load_classifier(path, preprocessing="unit")
            assert k.mixed_precision.global_policy().name == "mixed_bfloat16"
            assert k.backend.floatx() == dtype
        finally:
            k.backend.set_floatx(floatx)
    outputs = classifier.head.outputs_of(classifier.model(images()))
    assert outputs.dtype == "float32"
    np.testing.assert_allclose(outputs, twin(images()), atol=1e-5)


def test_a_live_model_is_quantized_under_its_policy():
    model, twin = build(tf_keras, "mixed_float16")
    expected, *_ = (
        quantize(x, preprocessing="unit", recipe="calibrate").models
        for x in (twin, model)
    )
    with policy(tf_keras, "mixed_float16"):
        found = quantize(model, preprocessing="unit", recipe="calibrate").models
    assert [x.tflite for x in found] == [x.tflite for x in expected]


@KERASES
def test_python_code_in_another_precision_is_refused(k):
    with policy(k, "mixed_float16"):
        layers = [k.layers.Input((8, 8, 3)), k.layers.Lambda(lambda x: x * 2.0)]
        model = k.Sequential([*layers, k.layers.Flatten(), k.layers.Dense(2)])
    with pytest.raises(UserError, match=r"mixed_float16 and has Lambda.*set_weights"):
        load_classifier(model, preprocessing="unit")


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`")
@pytest.mark.filterwarnings("ignore:Layer Flatten does not have a `quantize`")
def test_quantized_layers_are_refused_with_what_to_pass(tmp_path):
    model = keras.Sequential(
        [keras.layers.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    model.quantize("int8")
    model.save(tmp_path / "net.keras")
    for source in (model, tmp_path / "net.keras"):
        with pytest.raises(UserError, match=r"as (it was )?before model\.quantize"):
            load_classifier(source, preprocessing="unit")
