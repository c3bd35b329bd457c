"""Layers that change images in training only, and those that look like them."""

from __future__ import annotations

import inspect
import json

import keras
import numpy as np
import pytest

from gdfq_tf.errors import UserError
from gdfq_tf.frontend.canonical import canonicalize
from gdfq_tf.frontend.layer_importers import check_layer
from gdfq_tf.keras_compat import keras as tf_keras
from gdfq_tf.model_files.augmentation import is_augmentation
from gdfq_tf.model_files.layer_arguments import ARGUMENTS
from gdfq_tf.model_files.readers import ReadOptions, read_model

# Keras itself says that HDF5 is a legacy format.
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")

KERASES = pytest.mark.parametrize("k", [keras, tf_keras], ids=["keras3", "tf_keras"])
# Of those that cannot do without, or would do nothing in training either.
ARGUMENTS_OF = {
    "RandomPosterization": (3,),
    "RandomShear": (0.1, 0.1),
    "RandomTranslation": (0.1, 0.1),
    "Solarization": (0.3, 0.2),
    "MaxNumBoundingBoxes": (3,),
}


def augmentations(k):
    """Those of the installed Keras that its inference leaves out, with arguments."""
    changing = ("AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization")
    names = {
        name
        for name in dir(k.layers)
        if is_augmentation(name) and name not in ARGUMENTS and name not in changing
    }
    return sorted(
        name for name in names - {"RandomCrop", "CenterCrop"} if hasattr(k.layers, name)
    )


def make(k, name):
    layer_class = getattr(k.layers, name)
    first = next(iter(inspect.signature(layer_class).parameters.values()), None)
    is_required = first is not None and first.default is first.empty
    has_one = is_required and first.kind is first.POSITIONAL_OR_KEYWORD
    return layer_class(*ARGUMENTS_OF.get(name, (0.2,) if has_one else ()))


def can_stand(k, name):
    """Whether the layer can stand in a model: some make a cycle of their own input."""
    image = k.Input((12, 12, 3))
    return make(k, name)(image) is not image


def network(k, layers):
    lay = k.layers
    x = image = k.Input((12, 12, 3))
    for layer in layers:
        x = layer(x)
    x = lay.Conv2D(4, 3, name="conv")(x)
    return k.Model(image, lay.Dense(3, name="classes")(lay.GlobalAveragePooling2D()(x)))


def values(model):
    images = np.random.default_rng(0).uniform(0, 255, (2, 12, 12, 3))
    return np.asarray(model(images.astype(np.float32), training=False))


@KERASES
def test_there_are_some(k):
    assert {"RandomFlip", "RandomZoom", "RandomBrightness"} <= set(augmentations(k))
    assert "RandomHeight" in augmentations(tf_keras)


@pytest.mark.parametrize(
    ("k", "suffix"),  # Keras 3 cannot write some of them into HDF5 files
    [(keras, ".keras"), (tf_keras, ".keras"), (tf_keras, ".h5")],
)
def test_files_with_all_of_them_are_taken(tmp_path, k, suffix):
    layers = [make(k, name) for name in augmentations(k) if can_stand(k, name)]
    model, path = network(k, layers), tmp_path / f"net{suffix}"
    model.save(path)
    copy = read_model(path, check_layer=check_layer).model
    np.testing.assert_array_equal(values(copy), values(model))
    # Live ones are tried, too.
    for source in (copy, model):
        canonical = canonicalize(source)
        names = [layer.name for layer in canonical.model.layers[1:]]
        assert names[0] == "conv"
        np.testing.assert_allclose(values(canonical.model), values(model), rtol=1e-4)


@pytest.mark.skipif(
    not hasattr(keras.layers, "AutoContrast"), reason="this Keras lacks it"
)
def test_what_changes_images_at_inference_is_refused(tmp_path):
    model = network(keras, [keras.layers.AutoContrast(name="contrast")])
    model.save(tmp_path / "net.keras")
    message = r"'contrast' \(AutoContrast\) is not supported: it changes images at infe"
    with pytest.raises(UserError, match=message):
        canonicalize(model)
    with pytest.raises(UserError, match=message):
        read_model(tmp_path / "net.keras", check_layer=check_layer)


def test_a_class_of_the_same_name_is_not_keras_own():
    class RandomFlip(keras.layers.Layer):
        def call(self, inputs):
            return 2.0 * inputs

    model = network(keras, [RandomFlip(name="flip")])
    with pytest.raises(UserError, match=r"'flip' .*no layer of Keras' own"):
        canonicalize(model)


@pytest.mark.parametrize("value", ["/etc/passwd", {"class_name": "Lambda"}, [[1] * 99]])
def test_only_plain_arguments_reach_a_constructor(tmp_path, value):
    model = network(tf_keras, [tf_keras.layers.RandomContrast(0.2, name="contrast")])
    config = model.to_json().replace('"factor": 0.2', f'"factor": {json.dumps(value)}')
    (tmp_path / "net.json").write_text(config)
    model.save_weights(tmp_path / "net.weights.h5")
    with pytest.raises(UserError, match=r"'contrast'.* as its 'factor'; expected numb"):
        read_model(
            tmp_path / "net.json",
            ReadOptions(weights=tmp_path / "net.weights.h5"),
            check_layer=check_layer,
        )
