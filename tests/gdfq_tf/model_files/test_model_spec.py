"""The JSON of models, read by ourselves, and networks built from it."""

from __future__ import annotations

import copy
import json
import re

import keras
import numpy as np
import pytest

from gdfq_tf.errors import UserError
from gdfq_tf.frontend.layer_importers import _LAYERS, check_layer
from gdfq_tf.frontend.operation_importers import _FUNCTIONS, OPERATIONS
from gdfq_tf.keras_compat import keras as tf_keras
from gdfq_tf.model_files.argument_values import UNFIT
from gdfq_tf.model_files.layer_arguments import (
    ACTIVATIONS,
    ARGUMENTS,
    IDENTITIES,
    INITIALIZERS,
)
from gdfq_tf.model_files.model_builder import ParameterBudget, build_model
from gdfq_tf.model_files.model_spec import TensorRef
from gdfq_tf.model_files.operation_arguments import OPERATION_MODULES
from gdfq_tf.model_files.spec_reader import read_model_spec

LIBRARIES = [pytest.param(keras, id="keras3"), pytest.param(tf_keras, id="tf_keras")]


def config_of(model):
    return json.loads(model.to_json())


def spec_of(config):
    return read_model_spec(config, "net", check_layer)


def built(config, library, num_stored=10**6):
    return build_model(spec_of(config), library, ParameterBudget(num_stored), None)


def refusal(config, library=tf_keras, **options):
    with pytest.raises(UserError) as error:
        built(config, library, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def matches(pattern, text):
    assert re.search(pattern, text), text


def dense_network(k):
    image = k.Input((4,), name="image")
    return k.Model(image, k.layers.Dense(3, name="dense")(image), name="net")


def layers_of(config):
    return {layer["config"]["name"]: layer for layer in config["config"]["layers"]}


# ---- the tables


def test_every_layer_that_is_translated_has_arguments():
    # Translated like operations.
    merging = {"Add", "Maximum", "Minimum", "Multiply", "Subtract"}
    assert {*ARGUMENTS, *IDENTITIES} == {*_LAYERS, *merging}
    assert not set(ARGUMENTS) & set(IDENTITIES)


def test_every_operation_that_is_translated_has_a_module():
    operations = {name for name in OPERATIONS if not name.startswith("tf.")}
    assert set(OPERATION_MODULES) == operations
    for name, module in OPERATION_MODULES.items():
        found = getattr(getattr(keras.src.ops, module), name)
        assert issubclass(found, keras.Operation)


def test_activations_are_those_that_are_translated():
    assert set(ACTIVATIONS) == {*_FUNCTIONS, "linear", "hard_sigmoid", "selu"}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", sorted(INITIALIZERS))
def test_initializers_are_those_of_the_layers(library, name):
    arguments = {"filters": 2, "units": 2, "kernel_size": 3}
    known = {k: v for k, v in arguments.items() if k in ARGUMENTS[name]}
    elsewhere = tf_keras.layers.experimental  # of one Keras alone
    made = getattr(library.layers, name, None) or getattr(elsewhere, name)
    config = made(**known).get_config()
    found = {key for key in config if key.endswith("_initializer")}
    # tf_keras' separable and depthwise layers hand on that of their base class.
    assert found - set(INITIALIZERS[name]) <= {"kernel_initializer"}


# ---- specifications


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_network_in_plain_values(library):
    spec = spec_of(config_of(dense_network(library)))
    image, dense = spec.layers
    assert (image.class_name, dense.class_name) == ("InputLayer", "Dense")
    assert dense.arguments["units"] == 3
    assert not any("initializer" in name for name in dense.arguments)
    (call,) = dense.calls
    assert [*call.tensors()] == [TensorRef("image", 0, 0)]


@pytest.mark.parametrize("library", LIBRARIES)
def test_models_called_several_times(library):
    inner_input = library.Input((4,))
    inner = library.Model(inner_input, library.layers.Dense(4)(inner_input), name="in")
    row = library.Sequential([library.layers.Input((4,)), library.layers.Dense(4)])
    image = library.Input((4,))
    first, second = inner(image), inner(inner(image))
    both = library.layers.Add()([row(second), row(row(first))])
    model = library.Model(image, both)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=np.shape(w)) for w in model.get_weights()])
    copied = built(config_of(model), library)
    copied.set_weights(model.get_weights())
    values = rng.normal(size=(2, 4)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(copied(values)), np.asarray(model(values)))


@pytest.mark.parametrize("library", LIBRARIES)
def test_layers_that_are_the_identity_need_no_arguments(library):
    layers = [library.layers.Input((4, 4, 3))]
    layers += [library.layers.GaussianNoise(0.3, name="noisy")]
    layers += [library.layers.Dropout(0.3, name="dropped")]
    config = config_of(library.Sequential(layers))
    for layer in config["config"]["layers"]:
        layer["config"].pop("stddev", None)
    model = built(config, library)
    values = np.ones((1, 4, 4, 3), np.float32)
    np.testing.assert_array_equal(np.asarray(model(values, training=True)), values)


# ---- what is refused


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("argument", "value", "expected"),
    [
        ("units", 0, "a positive integer"),
        ("units", 2**62, "a positive integer"),
        ("units", True, "a positive integer"),
        ("units", "3", "a positive integer"),
        ("units", {"class_name": "int", "config": "3"}, "a positive integer"),
        ("use_bias", 1, "true or false"),
        ("activation", "softplus", "one of elu, gelu"),
        ("activation", {"class_name": "Dense", "config": {}}, "one of elu"),
        ("dtype", "string", "one of float16"),
        ("dtype", {"class_name": "DTypePolicy", "config": {"name": []}}, "one of"),
        ("batch_input_shape", [None, 0], "positive sizes"),
    ],
)
def test_values_of_no_such_kind(library, argument, value, expected):
    config = config_of(dense_network(library))
    layers_of(config)["dense"]["config"][argument] = value
    text = refusal(config, library)
    matches(rf"'dense' \(Dense\) of net holds .* as its '{argument}'; expected", text)
    assert expected in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e400])
def test_numbers_that_are_not_finite(value):
    model = tf_keras.Sequential([tf_keras.layers.Input((4,)), tf_keras.layers.ReLU(6)])
    config = config_of(model)
    config["config"]["layers"][1]["config"]["max_value"] = value
    matches(r"as its 'max_value'; expected a finite number", refusal(config))


def test_text_where_a_tensor_stands():
    config = config_of(dense_network(tf_keras))
    nodes = [[["_CONSTANT_VALUE", -1, "__import__('os')", {}]]]
    layers_of(config)["dense"]["inbound_nodes"] = nodes
    matches(r"'dense' \(as called\) .*; expected tensors, numbers", refusal(config))


@pytest.mark.parametrize(
    ("edit", "pattern"),
    [
        (lambda node: node.__setitem__(0, "nobody"), r"'dense' takes .*'nobody'"),
        (lambda node: node.__setitem__(1, 3), r"takes output 3 of 'image'"),
        (lambda node: node.__setitem__(2, 1), r"output 1 of layer 'image' is used"),
        (lambda node: node.__setitem__(0, "dense"), r"computed from itself"),
        (lambda node: node[3].update(training="x"), r"expected tensors and `training`"),
        (lambda node: node[3].update(mask=[1]), r"expected tensors and `training`"),
    ],
)
def test_calls_that_do_not_fit(edit, pattern):
    config = config_of(dense_network(tf_keras))
    edit(layers_of(config)["dense"]["inbound_nodes"][0][0])
    matches(pattern, refusal(config))


def test_two_layers_of_one_name():
    config = config_of(dense_network(tf_keras))
    config["config"]["layers"].append(config["config"]["layers"][1])
    matches(r"two layers named 'dense'", refusal(config))


def test_too_many_layers():
    config = config_of(dense_network(tf_keras))
    config["config"]["layers"] *= 6000
    matches(r"holds 12,000 layers and more; expected 10,000", refusal(config))


def nested(config, times, depth):
    """A network that calls itself `times` times in a row, `depth` times over."""
    for level in range(depth):
        inner = copy.deepcopy(config) | {"name": f"inner{level}"}
        nodes = [[["image", 0, 0, {}]]]
        nodes += [[[f"inner{level}", i, 0, {}]] for i in range(1, times)]
        image = layers_of(config)["image"]
        content = {
            "name": "net",
            "layers": [image, inner | {"inbound_nodes": nodes}],
            "input_layers": [["image", 0, 0]],
            "output_layers": [[f"inner{level}", times, 0]],
        }
        config = {"class_name": "Functional", "config": content}
    return config


def same_size():
    image = tf_keras.Input((4,), name="image")
    return config_of(tf_keras.Model(image, tf_keras.layers.Dense(4)(image)))


def test_models_that_multiply():
    assert built(nested(same_size(), 2, 3), tf_keras).count_params() == 20
    matches(r"calls more than 20,000 layers", refusal(nested(same_size(), 2, 15)))
    matches(r"more than 16 deep", refusal(nested(same_size(), 1, 18)))


@pytest.mark.parametrize("library", LIBRARIES)
def test_more_parameters_than_are_stored(library):
    config = config_of(dense_network(library))
    assert built(config, library, num_stored=15).count_params() == 15
    text = refusal(config, library, num_stored=14)
    matches(r"declare 15 parameters and more, but 14 are stored", text)
    # No memory is taken for them: this many there is none for.
    layers_of(config)["dense"]["config"]["units"] = 2**24
    layers_of(config)["image"]["config"] |= {"batch_input_shape": [None, 2**24]}
    layers_of(config)["image"]["config"].pop("batch_shape", None)
    if library is tf_keras:
        matches(r"declare 281,474,976,710,656 param", refusal(config, library))


@pytest.mark.parametrize("library", LIBRARIES)
def test_tensors_beyond_any_memory(library):
    lay = library.layers
    layers = [lay.Input((64, 64, 3)), lay.UpSampling2D(1, name="up"), lay.Flatten()]
    config = config_of(library.Sequential(layers))
    layers_of(config)["up"]["config"]["size"] = [2**12, 2**12]
    matches(r"'up' gives .* GiB for one image; expected", refusal(config, library))


@pytest.mark.parametrize(
    "config",
    [None, [], {}, {"class_name": "Functional"}, {"class_name": [], "config": {}},
     {"class_name": "Functional", "config": {"layers": 3}}, "text", 3],
)  # fmt: skip
def test_what_is_no_model(config):
    with pytest.raises((UserError, *UNFIT)):
        spec_of(config)


def test_names_are_printed_harmlessly():
    config = config_of(dense_network(tf_keras))
    name = "\x1b[31m\n\u202e" + "x" * 200
    layers_of(config)["dense"]["config"] |= {"name": name, "units": -1}
    text = refusal(config)
    assert text.isprintable() and len(text) < 400
