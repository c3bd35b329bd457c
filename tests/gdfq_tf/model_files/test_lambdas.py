"""Lambda layers: refused, or with allow_unsafe restored and translated."""

from __future__ import annotations

import base64
import json
import re
import struct
import sys
import types
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf.errors import UserError
from gdfq_tf.frontend.canonical import canonicalize
from gdfq_tf.frontend.layer_importers import check_layer
from gdfq_tf.frontend.load import load_classifier
from gdfq_tf.keras_compat import keras as tf_keras
from gdfq_tf.model_files.readers import ReadOptions, read_model

# Keras itself says that HDF5 is a legacy format.
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")

LIBRARIES = [pytest.param(keras, id="keras3"), pytest.param(tf_keras, id="tf_keras")]
FILES = [
    pytest.param(keras, ".keras", id="keras3.keras"),
    pytest.param(keras, ".h5", id="keras3.h5"),
    pytest.param(tf_keras, ".keras", id="tf_keras.keras"),
    pytest.param(tf_keras, ".h5", id="tf_keras.h5"),
    pytest.param(tf_keras, "", id="tf_keras_saved_model"),
]
EDITABLE = FILES[:-1]
IMAGES = np.random.default_rng(0).normal(0, 2, (2, 8, 8, 3)).astype(np.float32)


def network(k, *layers):
    """A classifier of images with `layers` in front, weights all different."""
    lay = k.layers
    end = [lay.Conv2D(4, 3), lay.BatchNormalization(), lay.Flatten(), lay.Dense(3)]
    model = k.Sequential([lay.Input((8, 8, 3)), *layers, *end])
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.2, 1, w.shape) for w in model.get_weights()])
    return model


def save(model, folder, suffix):
    path = folder / f"net{suffix}"
    model.save(path, **({} if suffix else {"save_format": "tf"}))
    return path


def read(path, allow_unsafe=True, weights=None):
    options = ReadOptions(weights=weights, allow_unsafe=allow_unsafe)
    return read_model(path, options, check_layer=check_layer).model


def refusal(path, **options):
    with pytest.raises(UserError) as error:
        read(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def matches(pattern, text):
    assert re.search(pattern, text), text


def edit_lambda(path, edit):
    """Applies `edit` to the configuration of the Lambda layer in a file."""

    def edited(text):
        config = json.loads(text)
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "Lambda":
                edit(layer["config"])
        return json.dumps(config)

    if path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            file.attrs["model_config"] = edited(file.attrs["model_config"])
        return
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["config.json"] = edited(parts["config.json"].decode()).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def check_same(source):
    """Canonicalizes; compares on images; returns the layers behind the input."""
    canonical = canonicalize(source)
    inputs = canonical.input_scale * IMAGES + canonical.input_offset
    expected = np.asarray(source(IMAGES))
    np.testing.assert_allclose(
        canonical.model(inputs.astype(np.float32)),
        expected,
        rtol=1e-4,
        atol=1e-5 * np.abs(expected).max(),
    )
    return [(x.name, type(x).__name__) for x in canonical.model.layers[1:]]


# ---- files


def halves(shift):
    return lambda x, scale=0.5: x[:, ::2, 1:] * scale + shift


@pytest.mark.parametrize(("k", "suffix"), FILES)
def test_code_of_a_file_is_restored_and_translated(tmp_path, k, suffix):
    model = network(k, k.layers.Lambda(halves(shift=3.0), name="halves"))
    source = read(save(model, tmp_path, suffix))
    np.testing.assert_array_equal(np.asarray(source(IMAGES)), np.asarray(model(IMAGES)))
    kinds = [kind for _, kind in check_same(source)]
    # The map x / 2 + 3 has become part of the padding-free convolution behind it.
    assert kinds[:3] == ["Cropping2D", "AveragePooling2D", "Conv2D"]


@pytest.mark.parametrize("k", LIBRARIES)
def test_architecture_and_weights_in_two_files(tmp_path, k):
    model = network(k, k.layers.Lambda(lambda x: 1.0 - x))
    (tmp_path / "net.json").write_text(model.to_json())
    model.save_weights(tmp_path / "net.weights.h5")
    weights = str(tmp_path / "net.weights.h5")
    source = read(tmp_path / "net.json", weights=weights)
    np.testing.assert_array_equal(np.asarray(source(IMAGES)), np.asarray(model(IMAGES)))


def test_file_of_an_old_keras_2(tmp_path):
    path = save(network(tf_keras, tf_keras.layers.Lambda(halves(1.0))), tmp_path, ".h5")
    edit_lambda(path, lambda config: config.pop("output_shape_module"))
    with h5py.File(path, "a") as file:
        file.attrs["keras_version"] = "2.4.0"
    check_same(read(path))


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
@pytest.mark.parametrize(("k", "suffix"), FILES)
def test_code_may_tell_shape_and_mask_in_a_nested_model(tmp_path, k, suffix):
    layer = k.layers.Lambda(
        lambda x: x[:, 1:],
        output_shape=lambda shape: (shape[0], shape[1] - 1, *shape[2:]),
        mask=lambda inputs, mask: None,
        name="code",
    )
    image = k.Input((8, 8, 3))
    model = k.Model(image, network(k, layer)(image))
    check_same(read(save(model, tmp_path, suffix)))


@pytest.mark.parametrize(("k", "suffix"), FILES)
def test_code_runs_only_if_allowed(tmp_path, k, suffix):
    sentinel = tmp_path / "sentinel"

    def writer(name):
        # The code of a file can name builtins alone.
        return lambda x: (open(name, "w").close(), x)[1]  # noqa: PTH123 - see above

    layer = k.layers.Lambda(writer(str(sentinel)), name="code")
    path = save(network(k, layer), tmp_path, suffix)
    sentinel.unlink()
    text = refusal(path, allow_unsafe=False)
    matches(r"'code' \(Lambda\).*not run unasked.*allow_unsafe=True.*trust", text)
    assert not sentinel.exists()
    read(path)
    assert sentinel.exists()


@pytest.mark.parametrize("k", LIBRARIES)
@pytest.mark.parametrize("fails", [False, True])
def test_keras_restores_code_in_this_one_load_only(tmp_path, k, fails):
    layer = k.layers.Lambda(lambda x: 2 * x)
    path = save(network(k, layer), tmp_path, ".keras")
    if fails:
        edit_lambda(path, lambda config: config.update(future=1))
        refusal(path)
    else:
        read(path)
    assert k.src.saving.serialization_lib.in_safe_mode() is None


# ---- refused all the same


def function_of_this_module(x):
    return x


def test_functions_that_a_file_only_names(tmp_path):
    layer = keras.layers.Lambda(function_of_this_module, name="code")
    path = save(network(keras, layer), tmp_path, ".keras")
    matches(r"'code' \(Lambda\) of .*kept outside the file", refusal(path))


HOSTILE = [
    {"module": "os", "class_name": "function", "config": "system"},
    {"module": "evil", "class_name": "Evil", "config": {}},
    {"module": "builtins", "class_name": "function", "config": "exec"},
    "system",
    None,
]


@pytest.mark.parametrize(("k", "suffix"), EDITABLE)
@pytest.mark.parametrize("value", HOSTILE)
def test_objects_of_modules(tmp_path, monkeypatch, k, suffix, value):
    path = save(network(k, k.layers.Lambda(lambda x: x, name="code")), tmp_path, suffix)
    edit_lambda(path, lambda config: config.update(function=value))
    matches(r"'code' \(Lambda\) of .*kept outside the file", refusal(path))


@pytest.mark.parametrize(("k", "suffix"), EDITABLE)
def test_objects_beside_the_function(tmp_path, k, suffix):
    path = save(network(k, k.layers.Lambda(lambda x: x, name="code")), tmp_path, suffix)
    value = {"module": "evil", "class_name": "Evil", "config": {}}
    edit_lambda(path, lambda config: config.update(arguments={"a": [value]}))
    matches(r"'code' \(Lambda\) of .* holds the object 'evil\.Evil'", refusal(path))


class Custom(keras.layers.Layer):
    def call(self, x):
        return x


def test_custom_layers(tmp_path):
    path = save(network(keras, Custom(name="mine")), tmp_path, ".keras")
    matches(r"'mine' \(Custom\) is not supported", refusal(path))


def with_code(code):
    """An edit that replaces a function's bytecode, marshalled."""
    text = base64.encodebytes(code).decode()

    def edit(config):
        function = config["function"]
        if isinstance(function, dict):
            function["config"]["code"] = text
        else:
            function[0] = text

    return edit


# The start of a function that Python 3.8 to 3.10 wrote: counts of arguments and local
# variables, stack size, flags; from 3.11 on there are fewer numbers.
OLD_PYTHON = b"\xe3" + struct.pack("<6I", 1, 0, 0, 1, 2, 67) + b"s\x08\x00\x00\x00|\x00"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 reads on")
@pytest.mark.parametrize(("k", "suffix"), EDITABLE)
@pytest.mark.parametrize("code", [OLD_PYTHON, b"", b"nonsense"])
def test_bytecode_that_cannot_be_restored(tmp_path, k, suffix, code):
    path = save(network(k, k.layers.Lambda(lambda x: x, name="code")), tmp_path, suffix)
    edit_lambda(path, with_code(code))
    text = refusal(path)
    matches(r"'code' \(Lambda\) of .*net.* holds code that Python 3\.\d+ cannot", text)


@pytest.mark.parametrize(("k", "suffix"), EDITABLE)
def test_bytecode_of_another_version_does_not_run(tmp_path, monkeypatch, k, suffix):
    path = save(network(k, k.layers.Lambda(lambda x: x, name="code")), tmp_path, suffix)
    monkeypatch.setattr(
        "gdfq_tf.model_files.readers.is_of_this_python", lambda code: False
    )
    built = []
    monkeypatch.setattr(
        "gdfq_tf.model_files.readers._make_lambda", lambda *a: built.append(a)
    )
    matches(r"cannot run, damaged or of another version; load", refusal(path))
    assert not built


@pytest.mark.parametrize(("k", "suffix"), FILES)
def test_names_that_the_file_does_not_hold(tmp_path, k, suffix):
    # This module has both; a file is of another.
    layer = k.layers.Lambda(lambda x: matches and keras.ops.relu(x), name="code")
    text = refusal(save(network(k, layer), tmp_path, suffix))
    matches(r"'code' \(Lambda\) of .*net.* uses keras, matches, which the file", text)


@pytest.mark.parametrize("k", LIBRARIES)
def test_code_that_fails_here(tmp_path, monkeypatch, k):
    module = types.SimpleNamespace(same=lambda x: x)
    monkeypatch.setitem(sys.modules, "of_the_author", module)
    layer = k.layers.Lambda(lambda x: __import__("of_the_author").same(x))
    path = save(network(k, layer), tmp_path, ".keras")
    monkeypatch.delitem(sys.modules, "of_the_author")
    text = refusal(path)
    if k is keras:
        matches(r"net\.keras has no fixed graph: the code of its Lambda", text)
    else:
        matches(r"net\.keras, written by.*No module named 'of_the_author'", text)


# ---- translation


def joined(lay, x):
    y = lay.Conv2D(3, 1, name="conv")(x)
    return lay.Lambda(lambda xs: xs[0] + 0.5 * xs[1], name="sum")([x, y])


TRANSLATED = {
    "nothing": (lambda lay, x: lay.Lambda(lambda t: t)(x), []),
    "scale_at_the_input": (lambda lay, x: lay.Lambda(lambda t: t / 127.5 - 1)(x), []),
    "arguments": (
        lambda lay, x: lay.ReLU(name="relu")(
            lay.Lambda(lambda t, by: t[:, by:], arguments={"by": 2}, name="crop")(x)
        ),
        [("relu", "ReLU"), ("crop_crop", "Cropping2D")],
    ),
    "several_inputs": (
        joined,
        [("conv", "Conv2D"), ("sum_1", "Add")],  # half of it is folded into conv,
    ),
    "named_after_the_layer": (
        lambda lay, x: lay.Lambda(lambda t: (t + t)[:, 1:] + t[:, 1:], name="code")(x),
        [
            ("code", "Add"),
            ("code_crop", "Cropping2D"),
            ("code_crop_1", "Cropping2D"),
            ("code_1", "Add"),
        ],
    ),
}


@pytest.mark.parametrize("k", LIBRARIES)
@pytest.mark.parametrize("case", TRANSLATED)
def test_what_the_function_calls_takes_the_place_of_the_layer(k, case):
    body, expected = TRANSLATED[case]
    image = k.Input((8, 8, 3))
    x = k.layers.Flatten(name="flat")(body(k.layers, image))
    source = k.Model(image, k.layers.Dense(3, name="classes")(x))
    expected = [*expected, ("flat", "Flatten"), ("classes", "Dense")]
    assert check_same(source) == expected


@pytest.mark.parametrize("k", LIBRARIES)
def test_functions_of_the_models_own_keras(k):
    relu6 = keras.ops.relu6 if k is keras else tf.nn.relu6
    source = network(k, k.layers.Lambda(lambda x: relu6(x) + x, name="code"))
    assert check_same(source)[:2] == [("code", "ReLU"), ("code_1", "Add")]


@pytest.mark.parametrize("k", LIBRARIES)
def test_a_lambda_that_is_called_twice(k):
    layer = k.layers.Lambda(lambda x: x[:, 1:], name="code")
    names = [name for name, _ in check_same(network(k, layer, layer))]
    assert names[:2] == ["code_crop", "code_crop_1"]


UNTRANSLATED = {
    "constant": (lambda x: tf.ones((1, 8, 8, 3)), r"its code gives \w+; expected one"),
    "several": (lambda x: (x, x), r"its code gives tuple; expected one tensor"),
    "unsupported": (
        lambda x: (x * x) ** 3,
        r"in its code, layer '\S*pow\S*' \(\S+\) is not supported",
    ),
}


@pytest.mark.parametrize("k", LIBRARIES)
@pytest.mark.parametrize("case", UNTRANSLATED)
def test_what_cannot_be_translated_is_refused_by_name(k, case):
    function, pattern = UNTRANSLATED[case]
    image = k.Input((8, 8, 3))
    x = k.layers.Lambda(function, output_shape=(8, 8, 3), name="code")(image)
    x = x[0] if isinstance(x, (tuple, list)) else x
    source = k.Model(image, k.layers.Dense(3)(k.layers.Flatten()(x)))
    with pytest.raises(UserError, match=rf"'code' \(Lambda\).*{pattern}") as error:
        canonicalize(source)
    assert "\n" not in str(error.value)


def test_tensorflow_in_keras_3_is_refused():
    source = network(keras, keras.layers.Lambda(tf.nn.relu, name="code"))
    with pytest.raises(UserError, match=r"'code'.* fails on symbolic") as error:
        canonicalize(source)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("k", LIBRARIES)
def test_precision(k):
    layer = k.layers.Lambda(lambda x: 2 * x, dtype="mixed_float16", name="code")
    with pytest.raises(UserError, match=r"'code' \(Lambda\).*mixed_float16"):
        canonicalize(network(k, layer))


@pytest.mark.parametrize(("k", "suffix"), FILES)
def test_the_copy_is_proven_equal(tmp_path, k, suffix):
    layer = k.layers.Lambda(lambda x: x[:, :, :6] / 2)
    path = save(network(k, layer), tmp_path, suffix)
    classifier = load_classifier(str(path), allow_unsafe=True, preprocessing="tf")
    assert classifier.num_classes == 3


@pytest.mark.parametrize("k", LIBRARIES)
def test_functions_that_change_are_refused(tmp_path, k):
    layer = k.layers.Lambda(lambda x: x * __import__("random").random())
    path = save(network(k, layer), tmp_path, ".keras")
    with pytest.raises(UserError, match=r"cannot be reproduced"):
        load_classifier(str(path), allow_unsafe=True, preprocessing="tf")
