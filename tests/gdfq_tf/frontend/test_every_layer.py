"""Every layer and operation of the installed Kerases: taken and equal, or refused."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from gdfq_tf.errors import UserError
from gdfq_tf.frontend.layer_importers import _LAYERS, _TRANSLATORS, check_layer
from gdfq_tf.frontend.load import load_classifier
from gdfq_tf.frontend.operation_importers import OPERATIONS, POST_PROCESSING
from gdfq_tf.frontend.refusals import is_refused, reason_against
from gdfq_tf.keras_compat import keras as tf_keras
from gdfq_tf.model_files.augmentation import is_augmentation
from gdfq_tf.model_files.layer_arguments import IDENTITIES
from tests.gdfq_tf.frontend.test_canonical import check_same, make

# Layers whose operation of that name stands for both.
NAMED_AS_OPERATIONS = ("Add", "Maximum", "Minimum", "Multiply", "Subtract")
KERASES = pytest.mark.parametrize("k", [keras, tf_keras], ids=["keras3", "tf_keras"])
IMAGE, SIGNAL = (8, 9, 4), (9, 4)


def layer_classes(k):
    """Names of all layers of one Keras, by their classes."""
    places = [k.layers]
    if k is tf_keras:
        experimental = tf_keras.layers.experimental
        places += [experimental, experimental.preprocessing]
    found = (getattr(place, name) for place in places for name in dir(place))
    return {
        x.__name__
        for x in found
        if inspect.isclass(x) and issubclass(x, k.layers.Layer)
    }


def operation_classes():
    """Names of all operations of the installed Keras 3."""
    package = importlib.import_module("keras.src.ops")
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    modules = [
        importlib.import_module(f"keras.src.ops.{name}")
        for name in names
        if not name.endswith("_test")
    ]
    return {
        x.__name__
        for module in modules
        for x in vars(module).values()
        if inspect.isclass(x)
        and issubclass(x, keras.Operation)
        and x.__module__.startswith("keras.src.ops")
    }


@KERASES
def test_every_layer_has_a_row(k):
    known = {*_LAYERS, *NAMED_AS_OPERATIONS}
    missing = {
        name
        for name in layer_classes(k) - known
        if not is_refused(name) and not is_augmentation(name)
    }
    assert not missing, f"neither translated nor refused with a reason: {missing}"


def test_every_operation_has_a_row():
    # Average is named as a layer, which refuses to take one tensor.
    known = {*OPERATIONS, "Average"}
    missing = {x for x in operation_classes() - known if not is_refused(x)}
    assert not missing, f"neither translated nor refused with a reason: {missing}"


def test_nothing_is_both_taken_and_refused():
    assert not {name for name in _TRANSLATORS if is_refused(name)}


def test_refusals_give_the_reason_of_the_row():
    for name in ("LSTM", "Exp", "Conv3D", "OfTomorrow"):
        with pytest.raises(UserError) as error:
            check_layer("mine", name)
        assert str(error.value).endswith(reason_against(name))
    assert "docs/networks.md" in reason_against("OfTomorrow")


# ---- what is taken

# Arguments of layers that need some, and those that make a layer do something.
ARGUMENTS = {
    "Activation": ("relu",),
    "AdaptiveAveragePooling1D": (3,),
    "AdaptiveAveragePooling2D": ((4, 3),),
    "AdaptiveMaxPooling1D": (3,),
    "AdaptiveMaxPooling2D": ((4, 3),),
    "AveragePooling1D": (2,),
    "AveragePooling2D": (2,),
    "CenterCrop": (6, 7),
    "Conv1D": (5, 3),
    "Conv1DTranspose": (5, 3),
    "Conv2D": (5, 3),
    "Conv2DTranspose": (5, 3),
    "CustomScaleLayer": (0.3,),
    "Dense": (5,),
    "DepthwiseConv1D": (3,),
    "DepthwiseConv2D": (3,),
    "LayerScale": (0.3, 4),
    "Permute": ((2, 1, 3),),
    "RandomCrop": (8, 9),
    "Rescaling": (0.3,),
    "Reshape": ((-1, 6, 4),),
    "SeparableConv1D": (5, 3),
    "SeparableConv2D": (5, 3),
    "AlphaDropout": (0.1,),
    "Dropout": (0.1,),
    "GaussianDropout": (0.1,),
    "GaussianNoise": (0.1,),
    "SpatialDropout1D": (0.1,),
    "SpatialDropout2D": (0.1,),
    "StochasticDepth": (0.1,),
}
OF_APPLICATIONS = {
    "CustomScaleLayer": "inception_resnet_v2",
    "LayerScale": "convnext",
    "StochasticDepth": "convnext",
}
# Softmax, Resizing and InputLayer may stand at the ends only: tests of their own.
AT_THE_ENDS = {"InputLayer", "Resizing", "Softmax"}
OF_TWO = {"Average", "Concatenate", "CustomScaleLayer", *NAMED_AS_OPERATIONS}
TAKEN = sorted({*_LAYERS, *NAMED_AS_OPERATIONS} - AT_THE_ENDS)


def layer_class(k, name):
    if name in OF_APPLICATIONS:
        module = f"{k.__name__}.src.applications.{OF_APPLICATIONS[name]}"
        return getattr(importlib.import_module(module), name)
    experimental = getattr(k.layers, "experimental", None)
    return getattr(k.layers, name, None) or getattr(experimental, name, None)


@KERASES
@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.filterwarnings("ignore:.*SyncBatchNormalization")
def test_layers_that_are_taken_compute_the_same(k, name):
    found = layer_class(k, name)
    if found is None:
        pytest.skip("this Keras lacks it")
    options = {"mean": 0.5, "variance": 2.0} if name == "Normalization" else {}
    inner = [k.layers.Dense(5)] if name == "TimeDistributed" else []
    layer = found(*ARGUMENTS.get(name, inner), **options)

    def body(lay, x):
        x = lay.Dense(4)(x)
        return layer([x, lay.ReLU()(x)] if name in OF_TWO else x)

    kinds = check_same(make(k, body, SIGNAL if "1D" in name else IMAGE))
    if name in IDENTITIES:
        assert kinds == ["Conv2D"]


def on(function, *arguments, **keywords):
    return lambda x: function(x, *arguments, **keywords)


OPERATIONS_OF_KERAS_3 = {
    "Add": lambda x: keras.ops.add(x, keras.ops.relu(x)),
    "Clip": on(keras.ops.clip, -0.5, 2.0),
    "Concatenate": lambda x: keras.ops.concatenate([x, keras.ops.relu(x)], axis=-1),
    "Divide": on(keras.ops.divide, 3.0),
    "Elu": on(keras.ops.elu, 0.7),
    "ExpandDims": on(keras.ops.expand_dims, 1),
    "Gelu": on(keras.ops.gelu, approximate=False),
    "GetItem": lambda x: x[..., :2],
    "HardSigmoid": on(keras.ops.hard_sigmoid),
    "HardSilu": on(keras.ops.hard_silu),
    "LeakyRelu": on(keras.ops.leaky_relu),
    "Max": on(keras.ops.max, axis=(1, 2)),
    "Maximum": lambda x: keras.ops.maximum(x, keras.ops.relu(-x)),
    "Mean": on(keras.ops.mean, axis=(1, 2)),
    "Minimum": lambda x: keras.ops.minimum(x, keras.ops.relu(-x)),
    "Moveaxis": on(keras.ops.moveaxis, 1, 2),
    "Multiply": on(keras.ops.multiply, 3.0),
    "Negative": on(keras.ops.negative),
    "Pad": on(keras.ops.pad, ((0, 0), (1, 1), (0, 2), (0, 0))),
    "Relu": on(keras.ops.relu),
    "Relu6": on(keras.ops.relu6),
    "Reshape": on(keras.ops.reshape, (-1, 6, 12, 4)),
    "Selu": on(keras.ops.selu),
    "Sigmoid": on(keras.ops.sigmoid),
    "Silu": on(keras.ops.silu),
    "Split": lambda x: keras.ops.split(x, 2, axis=-1)[1],
    "Squeeze": lambda x: keras.ops.squeeze(keras.ops.reshape(x, (-1, 72, 4, 1)), -1),
    "Subtract": on(keras.ops.subtract, 0.5),
    "Swapaxes": on(keras.ops.swapaxes, 1, 2),
    "Tanh": on(keras.ops.tanh),
    "Transpose": on(keras.ops.transpose, (0, 2, 1, 3)),
    "TrueDivide": on(keras.ops.true_divide, 3.0),
}
FUNCTIONS_OF_TENSORFLOW = {
    "tf.__operators__.add": lambda x: x + 0.5,
    "tf.__operators__.getitem": lambda x: x[..., :2],
    "tf.clip_by_value": on(tf.clip_by_value, -0.5, 2.0),
    "tf.compat.v1.pad": on(tf.compat.v1.pad, ((0, 0), (1, 1), (0, 2), (0, 0))),
    "tf.compat.v1.squeeze": lambda x: tf.compat.v1.squeeze(
        tf.reshape(x, (-1, 72, 4, 1)), -1
    ),
    "tf.compat.v1.transpose": on(tf.compat.v1.transpose, (0, 2, 1, 3)),
    "tf.expand_dims": on(tf.expand_dims, 1),
    "tf.concat": lambda x: tf.concat([x, tf.nn.relu(x)], -1),
    "tf.keras.activations.gelu": on(tf_keras.activations.gelu),
    "tf.keras.activations.swish": on(tf_keras.activations.swish),
    "tf.math.add": on(tf.math.add, 0.5),
    "tf.math.divide": on(tf.math.divide, 3.0),
    "tf.math.maximum": lambda x: tf.math.maximum(x, tf.nn.relu(-x)),
    "tf.math.minimum": lambda x: tf.math.minimum(x, tf.nn.relu(-x)),
    "tf.math.multiply": on(tf.math.multiply, 3.0),
    "tf.math.negative": on(tf.math.negative),
    "tf.math.reduce_max": on(tf.math.reduce_max, axis=(1, 2)),
    "tf.math.reduce_mean": on(tf.math.reduce_mean, axis=(1, 2)),
    "tf.math.sigmoid": on(tf.math.sigmoid),
    "tf.math.subtract": on(tf.math.subtract, 0.5),
    "tf.math.tanh": on(tf.math.tanh),
    "tf.math.truediv": on(tf.math.truediv, 3.0),
    "tf.nn.elu": on(tf.nn.elu),
    "tf.nn.gelu": on(tf.nn.gelu),
    "tf.nn.leaky_relu": on(tf.nn.leaky_relu),
    "tf.nn.relu": on(tf.nn.relu),
    "tf.nn.relu6": on(tf.nn.relu6),
    "tf.nn.selu": on(tf.nn.selu),
    "tf.nn.silu": on(tf.nn.silu),
    "tf.pad": on(tf.pad, ((0, 0), (1, 1), (0, 2), (0, 0))),
    "tf.reshape": on(tf.reshape, (-1, 6, 12, 4)),
    "tf.split": lambda x: tf.split(x, 2, axis=-1)[1],
}


def test_every_operation_that_is_taken_is_tried():
    tried = {*OPERATIONS_OF_KERAS_3, *FUNCTIONS_OF_TENSORFLOW}
    at_the_end = {*POST_PROCESSING, "Softmax", "tf.nn.softmax"}
    assert tried | at_the_end == set(OPERATIONS)


@pytest.mark.parametrize("name", [*OPERATIONS_OF_KERAS_3, *FUNCTIONS_OF_TENSORFLOW])
def test_operations_that_are_taken_compute_the_same(name):
    tables = OPERATIONS_OF_KERAS_3 | FUNCTIONS_OF_TENSORFLOW
    k = tf_keras if name.startswith("tf.") else keras
    check_same(make(k, lambda lay, x: tables[name](lay.Dense(4)(x)), IMAGE))


# ---- tfmot


def plain_network():
    lay = tf_keras.layers
    layers = [lay.Input((8, 8, 3)), lay.Conv2D(4, 3), lay.BatchNormalization(name="bn")]
    layers += [lay.ReLU(), lay.GlobalAveragePooling2D(), lay.Dense(3)]
    model = tf_keras.Sequential(layers)
    bn = model.get_layer("bn")
    bn.set_weights([w + 0.1 for w in bn.get_weights()])
    return model


WRAPPED = {
    "strip_pruning": (
        tfmot.sparsity.keras.prune_low_magnitude,
        tfmot.sparsity.keras.prune_scope,
        tfmot.sparsity.keras.strip_pruning,
    ),
    "strip_clustering": (
        lambda model: tfmot.clustering.keras.cluster_weights(
            model, 4, tfmot.clustering.keras.CentroidInitialization.LINEAR
        ),
        tfmot.clustering.keras.cluster_scope,
        tfmot.clustering.keras.strip_clustering,
    ),
}


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("call", WRAPPED)
def test_wrappers_of_training_are_refused_with_what_takes_them_off(tmp_path, call):
    wrap, scope, strip = WRAPPED[call]
    model, path = wrap(plain_network()), tmp_path / "net.h5"
    model.save(path)
    for source in (model, path):
        with pytest.raises(UserError, match=rf"{call}\(model\).*{scope.__name__}\(\)"):
            load_classifier(source, preprocessing="unit")
    with scope():
        stripped = strip(tf_keras.models.load_model(path, compile=False))
    stripped.save(path)
    classifier = load_classifier(path, preprocessing="unit")
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(classifier.model(images), stripped(images), rtol=1e-4)


def test_what_imitates_integers_is_refused():
    functional = tf_keras.models.clone_model(plain_network())
    model = tfmot.quantization.keras.quantize_model(functional)
    with pytest.raises(UserError, match=r"as it was before tfmot\.quantization"):
        load_classifier(model, preprocessing="unit")
