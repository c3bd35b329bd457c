"""Models in memory, the embedded one, and what loading leaves of the process."""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf import embedded
from gdfq_tf.classifier import Head
from gdfq_tf.errors import UserError, as_flag
from gdfq_tf.frontend.importer import read_graph
from gdfq_tf.frontend.load import load_classifier
from gdfq_tf.keras_compat import keras as tf_keras
from gdfq_tf.preprocessing import make_preprocessing
from tests.tiny import build_tiny_classifier

KERASES = pytest.mark.parametrize("k", [keras, tf_keras], ids=["keras3", "tf_keras"])


def refusal(model, **options):
    with pytest.raises(UserError) as error:
        load_classifier(model, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def build(k, activation="softmax"):
    """A classifier with statistics that are not the initial ones."""
    image = k.Input((8, 8, 3), name="image")
    x = k.layers.Conv2D(4, 3, name="conv")(image)
    x = k.layers.BatchNormalization(name="bn")(x)
    x = k.layers.Lambda(lambda values: values * 2.0, name="double")(x)
    x = k.layers.ReLU(name="relu")(x)
    x = k.layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = k.layers.Dense(3, activation=activation, name="classes")(x)
    model = k.Model(image, outputs, name="my model")
    *weights, mean, variance = model.get_layer("bn").get_weights()
    model.get_layer("bn").set_weights([*weights, mean + 0.01, variance])
    return model


def state(model):
    """All that could be changed of a model: its graph, weights and switches."""
    return [
        (
            layer.name,
            layer.trainable,
            len(layer._inbound_nodes),
            len(layer._outbound_nodes),
            [w.tobytes() for w in layer.get_weights()],
        )
        for layer in [model, *model.layers]
    ]


@KERASES
def test_live_models_are_taken_and_left_as_they_are(k):
    model = build(k)
    model.compile("sgd", "categorical_crossentropy")
    before, optimizer = state(model), model.optimizer
    classifier = load_classifier(model, preprocessing="unit")
    assert classifier.name == "my_model"
    assert classifier.head == Head.SOFTMAX
    assert classifier.preprocessing == make_preprocessing("unit", 3)
    assert isinstance(classifier.model, tf_keras.Model)
    assert state(model) == before
    assert model.optimizer is optimizer
    pixels = np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3))
    images = classifier.preprocessing.to_input(pixels)
    np.testing.assert_allclose(
        classifier.head.outputs_of(classifier.model(images)),
        model(images.numpy(), training=False),
        atol=1e-5,
    )


def test_live_models_and_their_files_give_one_classifier(tmp_path):
    model = build_tiny_classifier()
    model.save(tmp_path / f"{model.name}.keras")
    live = load_classifier(model, preprocessing="unit")
    stored = load_classifier(tmp_path / f"{model.name}.keras", preprocessing="unit")
    assert live.name == stored.name
    assert live.model.get_config() == stored.model.get_config()
    for ours, theirs in zip(
        live.model.get_weights(), stored.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@KERASES
def test_graph_of_models_in_models_is_left_as_it_is(k):
    inner = k.Sequential(
        [k.layers.Input((8, 8, 3)), k.layers.Conv2D(2, 3)], name="inner"
    )
    image = k.Input((8, 8, 3))
    x = k.layers.Lambda(lambda values: values + 1.0)(inner(image))
    model = k.Model(image, k.layers.Dense(2)(k.layers.Flatten()(x)))
    before = state(model), state(inner), len(inner.inputs[0]._keras_history)
    read_graph(model)
    assert (state(model), state(inner), len(inner.inputs[0]._keras_history)) == before


@KERASES
def test_statistics_and_input_range_of_live_models_are_checked(k):
    model = build(k)
    weights = model.get_layer("bn").get_weights()
    model.get_layer("bn").set_weights([*weights[:3], weights[3] * 1e-8])
    assert "passed" not in refusal(model, preprocessing="uint8")
    model.get_layer("bn").set_weights(
        [*weights[:2], 0 * weights[2], 0 * weights[3] + 1]
    )
    assert "preprocessing: one of" in refusal(model)
    assert "hold mean 0 and variance 1" in refusal(model, preprocessing="unit")


@KERASES
def test_an_output_of_a_live_model_is_chosen(k):
    model = build(k, activation=None)
    both = k.Model(model.input, [model.output, model.get_layer("relu").output])
    before = state(both)
    name = both.output_names[0]
    classifier = load_classifier(both, output_name=name, preprocessing="unit")
    assert classifier.num_classes == 3
    assert state(both) == before
    assert "output_name='none' names 0 outputs" in refusal(both, output_name="none")


@KERASES
def test_models_without_a_graph_are_refused(k):
    class Subclassed(k.Model):
        def __init__(self):
            super().__init__()
            self.dense = k.layers.Dense(2)

        def call(self, inputs):
            return self.dense(inputs)

    subclassed = Subclassed()
    subclassed(np.zeros((1, 4), np.float32))
    unbuilt = k.Sequential([k.layers.Flatten(), k.layers.Dense(2)])
    for model in (Subclassed(), subclassed, unbuilt):
        assert "has no fixed graph" in refusal(model, preprocessing="unit")
        text = refusal(model, preprocessing="unit", output_name="classes")
        assert "output_name='classes' names 0 outputs" in text


@pytest.mark.parametrize(
    ("name", "value"),
    [("weights", "w.h5"), ("input_size", 32), ("allow_unsafe", True)],
)
def test_options_of_files_do_not_go_with_live_models(name, value):
    text = refusal(build_tiny_classifier(), preprocessing="unit", **{name: value})
    assert text.startswith(f"{name}=")
    assert "drop it" in text


@pytest.mark.parametrize("value", [None, 7, tf_keras.layers.Dense(2), np.zeros(3)])
def test_other_objects_are_no_models(value):
    text = refusal(value)
    assert f"model is a {type(value).__name__}; expected a path" in text


# ---- Classifiers, names and paths


def test_a_classifier_is_returned_as_it_is():
    classifier = load_classifier(build_tiny_classifier(), preprocessing="unit")
    assert load_classifier(classifier) is classifier
    for option in ({"preprocessing": "unit"}, {"task": "features"}, {"mean": [0.5]}):
        text = refusal(classifier, **option)
        assert text.startswith(f"{next(iter(option))} does not go with a Classifier")


def test_embedded_is_a_name():
    classifier = load_classifier("embedded")
    assert classifier.name == embedded.MODEL_PATH.stem
    assert classifier.preprocessing.name == embedded.PREPROCESSING
    with pytest.raises(UserError) as error:
        load_classifier("embedded", std=(0.5,))
    assert error.value.render(as_flag) == (
        "--std does not go with --model=embedded, of which all is known; drop it"
    )


def test_paths_may_be_objects_relative_or_begin_at_home(tmp_path, monkeypatch):
    build_tiny_classifier().save(tmp_path / "net.keras")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("net.keras", Path("net.keras"), "~/net.keras", Path("~/net.keras")):
        assert load_classifier(path, preprocessing="tf").name == "net"


def test_weights_may_be_a_path_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    model = build_tiny_classifier()
    (tmp_path / "net.json").write_text(model.to_json())
    model.save_weights(tmp_path / "net.weights.h5")
    for weights in ("~/net.weights.h5", Path("~/net.weights.h5")):
        classifier = load_classifier(
            "~/net.json", weights=weights, preprocessing="unit"
        )
        assert classifier.num_classes == 3


# ---- what loading leaves


@KERASES
def test_loading_leaves_no_trace_in_the_process(k, tmp_path):
    model = build(k)
    path = tmp_path / "net.keras"
    build_tiny_classifier().save(path)
    environment, filters = dict(os.environ), list(warnings.filters)
    before = random.getstate(), np.random.get_state()[1].tolist()
    tf.random.set_seed(3)
    expected = tf.random.uniform(()).numpy()
    tf.random.set_seed(3)
    for source in (model, path):
        load_classifier(source, preprocessing="unit")
    assert tf.random.uniform(()).numpy() == expected
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    assert warnings.filters == filters
    assert dict(os.environ) == environment
