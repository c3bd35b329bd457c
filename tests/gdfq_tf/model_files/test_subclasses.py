"""Graphs of layers in subclasses that train in a way of their own."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from gdfq_tf.errors import UserError
from gdfq_tf.frontend.layer_importers import check_layer
from gdfq_tf.frontend.load import load_classifier
from gdfq_tf.keras_compat import keras as tf_keras
from gdfq_tf.model_files.readers import read_model

# Keras itself says that HDF5 is a legacy format.
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")

KERASES = pytest.mark.parametrize("k", [keras, tf_keras], ids=["keras3", "tf_keras"])
KINDS = pytest.mark.parametrize("kind", ["Model", "Sequential"])
FORMATS = pytest.mark.parametrize(
    ("k", "suffix"),
    [
        (keras, ".keras"),
        (keras, ".h5"),
        (tf_keras, ".keras"),
        (tf_keras, ".h5"),
        (tf_keras, ""),
    ],
)
calls = []


def trainer(base):
    class Trainer(base):
        code = "its author's"

        @classmethod
        def from_config(cls, config, custom_objects=None):
            calls.append("read")
            return super().from_config(config, custom_objects)

        def train_step(self, data):
            return {}

    return Trainer


def build(k, kind, shape=(8, 8, 3)):
    lay = k.layers
    layers = [lay.Input(shape), lay.Conv2D(4, 3), lay.BatchNormalization(name="bn")]
    layers += [lay.Flatten(), lay.Dense(3)]
    if kind == "Sequential":
        model = trainer(k.Sequential)(layers)
    else:
        x = layers[0]
        for layer in layers[1:]:
            x = layer(x)
        model = trainer(k.Model)(layers[0], x)
    bn = model.get_layer("bn")
    bn.set_weights([w + 0.5 for w in bn.get_weights()])
    return model


def images():
    return np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)


def read(path):
    return read_model(path, check_layer=check_layer).model


@FORMATS
@KINDS
def test_the_graph_is_taken_and_no_code_runs(tmp_path, k, suffix, kind):
    model, path = build(k, kind), tmp_path / f"net{suffix}"
    model.save(path, **({} if suffix else {"save_format": "tf"}))
    calls.clear()
    with pytest.warns(UserWarning, match=r"net.* class '.*Trainer', whose code is not"):
        copy = read(path)
    assert not calls
    assert not hasattr(type(copy), "code")
    np.testing.assert_allclose(copy(images()), model(images()), rtol=1e-6)


@FORMATS
@KINDS
def test_so_it_is_inside_other_models(tmp_path, k, suffix, kind):
    if (k, suffix) == (keras, ".h5"):
        pytest.skip("Keras 3 cannot save it")
    path, image = tmp_path / f"net{suffix}", k.Input((8, 8, 3))
    model = k.Model(image, k.layers.ReLU()(build(k, kind)(image)))
    model.save(path, **({} if suffix else {"save_format": "tf"}))
    with pytest.warns(UserWarning, match="Trainer"):
        copy = read(path)
    np.testing.assert_allclose(copy(images()), model(images()), rtol=1e-6)


class Net(keras.Model):
    def __init__(self, units=3):
        super().__init__()
        self.dense = keras.layers.Dense(units)

    def get_config(self):
        return {"units": 3}

    def call(self, inputs):
        return self.dense(inputs)


def test_a_class_without_a_graph_is_refused(tmp_path):
    net = Net()
    net(np.zeros((1, 4), np.float32))
    net.save(tmp_path / "net.keras")
    with pytest.raises(UserError, match=r"Net' and no graph of layers.*keras\.Model"):
        read(tmp_path / "net.keras")


@KERASES
@KINDS
def test_live_ones_are_taken_as_they_are(k, kind):
    model = build(k, kind)
    classifier = load_classifier(model, preprocessing="unit")
    np.testing.assert_allclose(classifier.model(images()), model(images()), rtol=1e-4)


@KERASES
def test_a_live_one_that_computes_something_else_is_refused(k):
    class Doubled(trainer(k.Model)):
        def call(self, inputs, training=None, mask=None):
            return 2.0 * super().call(inputs)

    model = build(k, "Model")
    doubled = Doubled(model.inputs[0], model.outputs[0])
    with pytest.raises(UserError, match="cannot be reproduced"):
        load_classifier(doubled, preprocessing="unit")
