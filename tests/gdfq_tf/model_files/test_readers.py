from __future__ import annotations

import importlib
import json
import re
import shutil
import socket
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf.errors import UserError
from gdfq_tf.frontend.layer_importers import check_layer
from gdfq_tf.keras_compat import keras as tf_keras
from gdfq_tf.model_files import readers
from gdfq_tf.model_files.applications import preprocessing_of
from gdfq_tf.model_files.readers import ReadOptions, read_model
from gdfq_tf.preprocessing import make_preprocessing
from tests.tiny import operations

# Keras itself says that HDF5 is a legacy format.
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")

LIBRARIES = {"keras3": keras, "tf_keras": tf_keras}
IMAGE = np.linspace(-1, 1, 8 * 8 * 3, dtype=np.float32).reshape(1, 8, 8, 3)


def small(k, *extra, name="small"):
    lay = k.layers
    layers = [lay.Input((8, 8, 3)), lay.Conv2D(4, 3, name="conv"), *extra]
    layers += [lay.BatchNormalization(name="bn"), lay.ReLU(), lay.Flatten()]
    return k.Sequential([*layers, lay.Dense(3, name="classes")], name=name)


def read(path, weights=None, **options):
    weights = None if weights is None else str(weights)
    return read_model(
        str(path), ReadOptions(weights=weights, **options), check_layer=check_layer
    )


def refusal(path, weights=None, **options):
    with pytest.raises(UserError) as error:
        read(path, weights, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def matches(pattern, text):
    assert re.search(pattern, text), text


def edit_config(path, edit):
    """Rewrites config.json inside a .keras file."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    edit(config)
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


# ---- files


@pytest.mark.parametrize("k", LIBRARIES.values(), ids=LIBRARIES)
def test_sequential_models_without_an_input(tmp_path, k):
    """Keras saves none, but nothing would say of what shape their weights are."""
    path = tmp_path / "net.keras"
    small(k).save(path)

    def without_input(config):
        _, *config["config"]["layers"] = config["config"]["layers"]
        config["config"].pop("build_input_shape", None)

    edit_config(path, without_input)
    assert refusal(path) == (
        f"{path} has no fixed graph: no layer says what it takes; build it with an "
        "Input layer in front, and save it again"
    )


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_each_file_is_read_by_the_keras_that_wrote_it(tmp_path, library, suffix):
    k = LIBRARIES[library]
    model = small(k)
    path = tmp_path / f"my net{suffix}"
    if (library, suffix) == ("keras3", ".hdf5"):  # Keras 3 writes .h5 only
        model.save(tmp_path / "net.h5")
        shutil.move(tmp_path / "net.h5", path)
    else:
        model.save(path)
    source = read(path)
    assert isinstance(source.model, k.Model)
    assert (source.name, source.preprocessing) == ("my_net", None)
    np.testing.assert_array_equal(
        np.asarray(source.model(IMAGE)), np.asarray(model(IMAGE))
    )


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_layers_of_convnext_are_known(tmp_path, library, suffix):
    k = LIBRARIES[library]
    convnext = importlib.import_module(f"{k.__name__}.src.applications.convnext")
    image = k.Input((4, 4, 3))
    scaled = convnext.StochasticDepth(0.5)(convnext.LayerScale(0.25, 3)(image))
    model = k.Model(image, k.layers.Flatten()(scaled))
    model.save(tmp_path / f"net{suffix}")
    values = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    found = read(tmp_path / f"net{suffix}").model(values)
    np.testing.assert_array_equal(found, values.reshape(2, -1) / 4)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_layer_of_inception_resnet_is_known(tmp_path, library, suffix):
    k = LIBRARIES[library]
    inception_resnet = importlib.import_module(
        f"{k.__name__}.src.applications.inception_resnet_v2"
    )
    left, right = k.Input((3,), name="left"), k.layers.Dense(3, name="dense")
    total = inception_resnet.CustomScaleLayer(0.25)([left, right(left)])
    model = k.Model(left, total)
    model.save(tmp_path / f"net{suffix}")
    values = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    kernel, _ = map(np.asarray, right.get_weights())
    np.testing.assert_allclose(
        read(tmp_path / f"net{suffix}").model(values),
        values + 0.25 * (values @ kernel),
        rtol=1e-5,
    )


@pytest.mark.parametrize("suffix", [".keras", ".h5", ""])
def test_batch_normalization_over_several_devices(tmp_path, suffix):
    lay = tf_keras.layers
    layers = [lay.Input((8, 8, 3)), lay.experimental.SyncBatchNormalization()]
    model = tf_keras.Sequential([*layers, lay.Flatten(), lay.Dense(2)])
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1, w.shape) for w in model.get_weights()])
    model.save(tmp_path / f"net{suffix}", **({} if suffix else {"save_format": "tf"}))
    found = read(tmp_path / f"net{suffix}").model(IMAGE)
    np.testing.assert_allclose(found, model(IMAGE), rtol=1e-6)


def test_shapes_of_tf_keras_are_lists(tmp_path):
    model = small(tf_keras)
    shape = '"batch_input_shape": [null, 8, 8, 3]'
    written = '{"class_name": "TensorShape", "items": [null, 8, 8, 3]}'
    text = model.to_json()
    assert shape in text
    (tmp_path / "net.json").write_text(
        text.replace(shape, f'"batch_input_shape": {written}')
    )
    model.save_weights(tmp_path / "net.weights.h5")
    copy = read(tmp_path / "net.json", tmp_path / "net.weights.h5").model
    np.testing.assert_array_equal(copy(IMAGE), model(IMAGE))


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_a_compiled_model_was_trained_with_does_not_matter(tmp_path, library):
    k = LIBRARIES[library]

    class OwnLoss(k.losses.Loss):
        def call(self, y_true, y_pred):
            return y_pred

    model = small(k)
    model.compile(loss=OwnLoss())
    model.save(tmp_path / "compiled.keras")
    assert read(tmp_path / "compiled.keras").model.count_params() == 112 + 16 + 435


def test_file_without_keras_version_goes_to_tf_keras(tmp_path):
    path = tmp_path / "old.h5"
    small(tf_keras).save(path)
    with h5py.File(path, "a") as file:
        del file.attrs["keras_version"]
        file.attrs["model_config"] = np.bytes_(file.attrs["model_config"])
    assert isinstance(read(path).model, tf_keras.Model)


@pytest.mark.parametrize("stem", ["..", "___", "模型"])
def test_name_is_safe_for_files(tmp_path, stem):
    path = tmp_path / f"{stem}.keras"
    small(keras).save(path)
    assert read(path).name == "classifier"


def test_missing_file_directory_and_suffix(tmp_path):
    matches(
        r"nothing\.keras does not exist.*keras\.applications", refusal("nothing.keras")
    )
    matches(r"is a directory without.*model\.save", refusal(tmp_path))
    (tmp_path / "net.tflite").write_bytes(b"x")
    matches(r"ends in '\.tflite'; expected a \.keras", refusal(tmp_path / "net.tflite"))
    (tmp_path / "net").write_bytes(b"x")
    matches(r"ends in ''", refusal(tmp_path / "net"))


@pytest.mark.slow
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_damaged_files(tmp_path, library, suffix):
    path = tmp_path / f"net{suffix}"
    small(LIBRARIES[library]).save(path)
    whole = path.read_bytes()
    for content in (b"", b"no model", whole[: len(whole) // 2], whole[:-100]):
        path.write_bytes(content)
        matches(r"net.*(damaged|cannot be loaded)", refusal(path))
    for start in range(0, len(whole), len(whole) // 20):  # anything but a traceback
        content = bytearray(whole)
        content[start : start + 40] = b"\xff" * 40
        path.write_bytes(content)
        try:
            read(path)  # some bytes are padding
        except UserError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    "missing", ["metadata.json", "config.json", "model.weights.h5"]
)
def test_incomplete_archive(tmp_path, missing):
    small(keras).save(tmp_path / "whole.keras")
    path = tmp_path / "part.keras"
    with (
        zipfile.ZipFile(tmp_path / "whole.keras") as whole,
        zipfile.ZipFile(path, "w") as part,
    ):
        for name in set(whole.namelist()) - {missing}:
            part.writestr(name, whole.read(name))
    matches(r"part\.keras.*(damaged|cannot be loaded)", refusal(path))


def test_config_that_is_no_model(tmp_path):
    path = tmp_path / "net.keras"
    for edit, pattern in (
        (lambda config: config.clear(), r"damaged"),
        (lambda config: config["config"].pop("layers"), r"damaged"),
        (
            lambda config: config.update(class_name="Mine", config={"layers": [3]}),
            r"class '.*Mine' and no graph of layers, .*; expected Keras' own Fun",
        ),
    ):
        small(keras).save(path)
        edit_config(path, edit)
        matches(pattern, refusal(path))


@pytest.mark.parametrize("library", LIBRARIES)
def test_weights_only(tmp_path, library):
    model = small(LIBRARIES[library])
    model.save_weights(tmp_path / "net.weights.h5")
    matches(r"weights only.*model\.save", refusal(tmp_path / "net.weights.h5"))


def test_unknown_keras_version(tmp_path):
    path = tmp_path / "net.h5"
    small(tf_keras).save(path)
    with h5py.File(path, "a") as file:
        file.attrs["keras_version"] = "4.0.1"
    matches(r"written by Keras 4\.0\.1; expected Keras 2 or 3", refusal(path))


def test_weights_with_a_file(tmp_path):
    text = refusal(tmp_path / "net.keras", weights="imagenet")
    matches(r"does not exist", text)
    small(keras).save(tmp_path / "net.keras")
    text = refusal(tmp_path / "net.keras", weights="imagenet")
    matches(r"weights='imagenet' was given.*keras\.applications", text)
    text = refusal(tmp_path / "net.keras", input_size=32)
    matches(r"input_size=32 was given.*keras\.applications", text)


def test_saved_model_of_keras_2(tmp_path):
    model = small(tf_keras)
    for variable in model.variables:
        variable.assign(np.random.default_rng(0).uniform(0.5, 1, variable.shape))
    model.save(tmp_path / "net", save_format="tf")
    source = read(tmp_path / "net")
    assert source.name == "net"
    np.testing.assert_array_equal(source.model(IMAGE), model(IMAGE))


def test_damaged_saved_model(tmp_path):
    path = tmp_path / "net"
    small(tf_keras).save(path, save_format="tf")
    index = path / "variables" / "variables.index"
    index.write_bytes(index.read_bytes()[:-20])
    matches(r"net is damaged, save the model again", refusal(path))
    (path / "keras_metadata.pb").write_bytes(b"no metadata")
    matches(r"net is damaged", refusal(path))


def test_saved_model_runs_no_code(tmp_path, monkeypatch):
    path = tmp_path / "net"
    model = small(tf_keras, tf_keras.layers.Lambda(lambda x: x, name="code"))
    model.save(path, save_format="tf")
    forbid_building(monkeypatch)
    matches(
        r"'code' \(Lambda\).*not run unasked.*allow_unsafe=True.*trust", refusal(path)
    )


# ---- outputs


def two_heads(k):
    """Outputs: "head", of a layer, and those of an inner model "inner"."""
    image = k.Input((8, 8, 3))
    x = k.layers.Flatten()(image)
    inner_input = k.Input((192,))
    inner = k.Model(inner_input, k.layers.Dense(2)(inner_input), name="inner")
    return k.Model(image, [k.layers.Dense(3, name="head")(x), inner(x)])


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(("name", "index"), [("head", 0), ("inner", 1)])
def test_one_of_several_outputs(tmp_path, library, name, index):
    model = two_heads(LIBRARIES[library])
    model.save(tmp_path / "net.keras")
    chosen = read(tmp_path / "net.keras", output_name=name).model
    np.testing.assert_array_equal(
        np.asarray(chosen(IMAGE)), np.asarray(model(IMAGE)[index])
    )


def test_output_that_is_not_there(tmp_path):
    two_heads(keras).save(tmp_path / "net.keras")
    text = refusal(tmp_path / "net.keras", output_name="tail")
    matches(r"output_name='tail' names 0 outputs.*expected one of head, inner$", text)


def test_the_only_output_may_be_named(tmp_path):
    small(keras).save(tmp_path / "net.keras")
    assert read(tmp_path / "net.keras", output_name="classes").model.name == "small"
    text = refusal(tmp_path / "net.keras", output_name="conv")
    matches(r"output_name='conv' names 0 outputs.*expected one of classes$", text)


# ---- code inside files


def forbid_building(monkeypatch):
    def build(*args, **kwargs):
        raise AssertionError("the network was built")

    monkeypatch.setattr(readers, "build_model", build)


class Custom(keras.layers.Layer):
    def call(self, x):
        return x


class CustomTf(tf_keras.layers.Layer):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("library", "layer"), [("keras3", Custom), ("tf_keras", CustomTf)]
)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_custom_layer_is_named(tmp_path, library, layer, suffix):
    path = tmp_path / f"net{suffix}"
    small(LIBRARIES[library], layer(name="mine")).save(path)
    matches(rf"'mine' \({layer.__name__}\) is not supported", refusal(path))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_lambda_is_named_and_does_not_run(tmp_path, library, suffix, monkeypatch):
    k = LIBRARIES[library]
    path = tmp_path / f"net{suffix}"
    small(k, k.layers.Lambda(lambda x: x, name="code")).save(path)

    forbid_building(monkeypatch)
    matches(
        r"'code' \(Lambda\).*not run unasked.*allow_unsafe=True.*trust", refusal(path)
    )


HOSTILE = [
    ("keras.layers", "Lambda"),
    ("keras.layers", "TFSMLayer"),
    (None, "Lambda"),
    (None, "__lambda__"),
    ("keras.utils", "function"),
    ("os", "function"),
]


@pytest.mark.parametrize(("module", "class_name"), HOSTILE)
@pytest.mark.parametrize("place", ["activation", "argument"])
def test_objects_inside_layers_cannot_bring_code(
    tmp_path, monkeypatch, module, class_name, place
):
    path = tmp_path / "net.keras"
    small(keras).save(path)
    value = {"module": module, "class_name": class_name, "config": "system"}

    def edit(config):
        conv = config["config"]["layers"][1]
        assert conv["config"]["name"] == "conv"
        if place == "activation":
            conv["config"]["activation"] = value
        else:
            conv["inbound_nodes"] = [{"args": [], "kwargs": {"mask": [value]}}]

    edit_config(path, edit)
    forbid_building(monkeypatch)
    named = f"{module}.{class_name}" if module else class_name
    pattern = rf"'conv' .*net\.keras holds .*{re.escape(named)}' as its 'activation'"
    if place == "argument":
        pattern = r"'conv' \(as called\) of .*net\.keras holds .* as its 'mask'; expect"
    matches(pattern, refusal(path))


@pytest.mark.parametrize("library", LIBRARIES)
def test_known_names_from_foreign_modules_are_not_imported(
    tmp_path, monkeypatch, library
):
    path = tmp_path / "net.keras"
    forbid_building(monkeypatch)
    model = small(LIBRARIES[library])
    model.save(path)
    edit_config(path, lambda c: c["config"]["layers"][1].update(module="evil.sub"))
    matches(r"'conv' of .*evil\.sub\.Conv2D", refusal(path))
    model.save(path)
    edit_config(path, lambda config: config.update(module="kerasevil"))
    with pytest.warns(UserWarning, match=r"class 'kerasevil\.Sequential', whose code"):
        matches("the network was built", refusal(path))


class OwnInitializer(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return keras.ops.zeros(shape)


def test_what_only_training_needs_is_not_built(tmp_path):
    path = tmp_path / "net.keras"
    lay = keras.layers
    conv = lay.Conv2D(
        4, 3, activation=lay.ReLU(6.0), kernel_initializer=OwnInitializer()
    )
    norm = lay.BatchNormalization(name="norm", beta_regularizer="l2")
    model = small(keras, conv, norm)
    model.save(path)

    def edit(config):  # what a newer Keras may add
        layers = {x["config"]["name"]: x["config"] for x in config["config"]["layers"]}
        layers["norm"]["renorm_momentum"] = 0.9
        layers["norm"]["gamma_initializer"]["config"]["future"] = 1

    edit_config(path, edit)
    copy = read(path).model
    assert isinstance(copy.layers[1].activation, lay.ReLU)
    np.testing.assert_array_equal(np.asarray(copy(IMAGE)), np.asarray(model(IMAGE)))


@pytest.mark.parametrize(
    ("library", "file"),
    [("keras3", "net.keras"), ("keras3", "net.h5"), ("tf_keras", "net.h5")],
)
def test_layers_as_activations(library, file, tmp_path):
    path, k = tmp_path / file, LIBRARIES[library]
    activations = k.layers.LeakyReLU(0.1), k.layers.ReLU(3.0)
    model = small(k, *(k.layers.Conv2D(4, 1, activation=x) for x in activations))
    model.save(path)
    copy = read(path).model
    np.testing.assert_array_equal(np.asarray(copy(IMAGE)), np.asarray(model(IMAGE)))


def test_unknown_argument_is_one_line(tmp_path):
    path = tmp_path / "net.keras"
    small(keras).save(path)
    edit_config(path, lambda c: c["config"]["layers"][1]["config"].update(future=1))
    matches(r"'conv' \(Conv2D\) of .* holds 'future', an argument that", refusal(path))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_sequential_without_input_layer(tmp_path, library, suffix):
    k = LIBRARIES[library]
    model = k.Sequential([k.layers.Conv2D(4, 3), k.layers.Flatten()])
    model.build((None, 8, 8, 3))
    model.save(tmp_path / f"net{suffix}")
    copy = read(tmp_path / f"net{suffix}").model
    assert copy.inputs[0].shape[1:] == (8, 8, 3)
    np.testing.assert_array_equal(np.asarray(copy(IMAGE)), np.asarray(model(IMAGE)))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_nested_models_and_operations(tmp_path, library, suffix):
    k = LIBRARIES[library]
    image = k.Input((8, 8, 3))
    outputs = small(k, name="backbone")(image)
    if (library, suffix) != ("keras3", ".h5"):  # Keras 3 cannot read those itself
        outputs = 2.0 * (1.0 - outputs / 3.0) + np.ones(3)
    model = k.Model(image, outputs)
    path = tmp_path / f"net{suffix}"
    model.save(path)
    np.testing.assert_allclose(
        np.asarray(read(path).model(IMAGE)), np.asarray(model(IMAGE)), atol=1e-6
    )


def moves(k, x):
    """Every operation that moves, bounds or reduces values, of either Keras."""
    lay, ops = k.layers, operations(k)
    x = lay.Permute((2, 1, 3))(lay.CenterCrop(6, 7)(x))
    x = lay.Average()([lay.Maximum()([x, x * 0.5]), lay.Minimum()([x, x * 2.0])])
    left, right = ops.split(ops.transpose(x, (0, 3, 1, 2)), 2, axis=3)
    x = ops.squeeze(ops.expand_dims(ops.concatenate([right, left], -1), 1), 1)
    x = ops.maximum(ops.minimum(ops.clip(x, -0.5, 0.75), 0.7), -0.4)
    if k is keras:
        x = ops.moveaxis(ops.swapaxes(x, 1, -1), (2, 1), (1, 3))
    return lay.Flatten()(x)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_moving_operations(tmp_path, library, suffix):
    k = LIBRARIES[library]
    image = k.Input((8, 8, 3))
    model = k.Model(image, moves(k, image))
    model.save(tmp_path / f"net{suffix}")
    found = np.asarray(read(tmp_path / f"net{suffix}").model(IMAGE))
    np.testing.assert_allclose(found, np.asarray(model(IMAGE)), atol=1e-6)
    assert len(np.unique(found)) > 10


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_what_nested_models_hold_is_checked(tmp_path, library, suffix, monkeypatch):
    k = LIBRARIES[library]
    path = tmp_path / f"net{suffix}"
    inner = small(k, k.layers.Lambda(lambda x: x, name="code"), name="inner")
    small_input = k.Input((8, 8, 3))
    k.Model(small_input, inner(small_input)).save(path)
    forbid_building(monkeypatch)
    matches(
        r"'code' \(Lambda\).*not run unasked.*allow_unsafe=True.*trust", refusal(path)
    )


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_only_known_tensorflow_functions_are_called(tmp_path, suffix, monkeypatch):
    image = tf_keras.Input((8, 8, 3))
    path = tmp_path / f"net{suffix}"
    tf_keras.Model(image, tf.io.encode_base64(tf.strings.as_string(image))).save(path)
    forbid_building(monkeypatch)
    matches(r"\(tf\.strings\.as_string\) is not supported", refusal(path))


# ---- applications


def test_application_needs_weights():
    matches(
        r"MobileNetV2 without weights.*weights='imagenet'",
        refusal("keras.applications.MobileNetV2"),
    )


@pytest.mark.parametrize("name", ["MobileNetV9", "", "mobilenet_v2", "__name__"])
def test_unknown_application(name):
    text = refusal(f"keras.applications.{name}", weights="imagenet")
    matches(rf"keras\.applications\.{name} is unknown; .*MobileNetV2", text)


def quarter_of_mobilenet(monkeypatch):
    """The builder of each library, which then builds it too if asked for MobileNet."""
    return {
        library: make_small(monkeypatch, k.applications, "MobileNet", alpha=0.25)
        for library, k in LIBRARIES.items()
    }


def make_small(monkeypatch, applications, name, **options):
    build = getattr(applications, name)

    def build_small(weights=None, **kwargs):
        return build(
            **{"input_shape": (32, 32, 3), **options, **kwargs, "weights": None}
        )

    monkeypatch.setattr(applications, name, build_small)
    return build_small


def assert_same_weights(ours, theirs):
    pairs = zip(ours.get_weights(), theirs.get_weights(), strict=True)
    assert all(np.array_equal(x, y) for x, y in pairs)


@pytest.mark.parametrize(
    ("library", "file", "num_classes"),
    [
        ("keras3", "net.weights.h5", 7),
        ("tf_keras", "net.weights.h5", 1000),
        ("tf_keras", "net.h5", 7),
    ],
)
def test_application_with_a_weights_file(
    tmp_path, monkeypatch, library, file, num_classes
):
    build = quarter_of_mobilenet(monkeypatch)[library]
    author = build(classes=num_classes)
    author.compile("sgd")
    author.save_weights(tmp_path / file)
    source = read("keras.applications.MobileNet", tmp_path / file)
    assert (source.name, source.preprocessing) == ("mobilenet", "tf")
    assert isinstance(source.model, LIBRARIES[library].Model)
    assert source.model.output_shape == (None, num_classes)
    assert_same_weights(source.model, author)
    sized = read("keras.applications.MobileNet", tmp_path / file, input_size=64)
    assert sized.model.input_shape == (None, 64, 64, 3)
    assert_same_weights(sized.model, author)


def test_family_that_keras_3_lacks(tmp_path, monkeypatch):
    assert not hasattr(keras.applications, "RegNetX002")
    build = make_small(monkeypatch, tf_keras.applications, "RegNetX002")
    author = build(classes=5)
    author.save_weights(tmp_path / "net.h5")
    source = read("keras.applications.RegNetX002", tmp_path / "net.h5")
    assert (source.name, source.preprocessing) == ("regnetx002", "uint8")
    assert_same_weights(source.model, author)


def test_application_with_other_weights(tmp_path, monkeypatch):
    quarter_of_mobilenet(monkeypatch)
    name = "keras.applications.MobileNet"
    matches(r"nothing\.h5' is no file", refusal(name, "nothing.h5"))
    for library, k in LIBRARIES.items():
        file = tmp_path / f"{library}.weights.h5"
        small(k).save_weights(file)
        pattern = rf"{library}.*does not fit {name}: it holds 563 numbers, expected 475"
        matches(pattern, refusal(name, file))
    (tmp_path / "text.h5").write_text("no weights")
    matches(r"text\.h5 is damaged", refusal(name, tmp_path / "text.h5"))


def test_weights_of_the_right_size_for_another_application(tmp_path, monkeypatch):
    quarter_of_mobilenet(monkeypatch)
    k = LIBRARIES["keras3"]
    num_floats = k.applications.MobileNet().count_params()
    other = k.Sequential([k.layers.Input((1,)), k.layers.Dense(num_floats // 2)])
    other.save_weights(tmp_path / "net.weights.h5")
    text = refusal("keras.applications.MobileNet", tmp_path / "net.weights.h5")
    matches(r"net\.weights\.h5' does not fit .*MobileNet: ", text)


def test_input_size_that_the_application_refuses(tmp_path):
    small(keras).save_weights(tmp_path / "net.weights.h5")
    text = refusal(
        "keras.applications.MobileNet", tmp_path / "net.weights.h5", input_size=8
    )
    matches(r"MobileNet cannot be built: .*[Ii]nput size", text)


@pytest.mark.parametrize("library", LIBRARIES)
def test_architecture_and_weights_in_two_files(tmp_path, library):
    model = small(LIBRARIES[library])
    (tmp_path / "net.json").write_text(model.to_json())
    model.save_weights(tmp_path / "net.weights.h5")
    source = read(tmp_path / "net.json", tmp_path / "net.weights.h5")
    assert source.name == "net"
    assert isinstance(source.model, LIBRARIES[library].Model)
    np.testing.assert_array_equal(
        np.asarray(source.model(IMAGE)), np.asarray(model(IMAGE))
    )


def test_architecture_with_other_weights(tmp_path):
    path = tmp_path / "net.json"
    path.write_text(small(keras).to_json())
    matches(r"net\.json without weights", refusal(path))
    matches(r"none\.h5' is no file", refusal(path, "none.h5"))
    deeper = small(keras, keras.layers.Conv2D(4, 1))
    deeper.save_weights(tmp_path / "net.weights.h5")
    text = refusal(path, tmp_path / "net.weights.h5")
    matches(r"does not fit .*net\.json: it holds 583 numbers, expected 563", text)
    for content in ("[]", "{}", "no JSON"):
        path.write_text(content)
        matches(r"net\.json is damaged", refusal(path, tmp_path / "net.weights.h5"))


def test_architecture_runs_no_code(tmp_path, monkeypatch):
    model = small(keras, keras.layers.Lambda(lambda x: x, name="code"))
    (tmp_path / "net.json").write_text(model.to_json())
    model.save_weights(tmp_path / "net.weights.h5")
    forbid_building(monkeypatch)
    text = refusal(tmp_path / "net.json", tmp_path / "net.weights.h5")
    matches(r"'code' \(Lambda\).*not run unasked.*allow_unsafe=True.*trust", text)


def test_failed_download_is_one_line_and_has_a_timeout(monkeypatch):
    def build(weights):
        assert weights == "imagenet"
        assert socket.getdefaulttimeout() == 15
        raise Exception("URL fetch failure on https://storage\nand more")

    monkeypatch.setattr(tf_keras.applications, "MobileNetV2", build)
    before = socket.getdefaulttimeout()
    text = refusal("keras.applications.MobileNetV2", weights="imagenet")
    matches(r"weights of MobileNetV2 cannot be had.*weights='FILE.*URL fetch", text)
    assert socket.getdefaulttimeout() == before


@pytest.mark.parametrize(
    ("module", "application", "expected"),
    [
        ("convnext", "ConvNeXtTiny", "uint8"),
        ("densenet", "DenseNet121", "torch"),
        ("efficientnet", "EfficientNetB0", "uint8"),
        ("inception_resnet_v2", "InceptionResNetV2", "tf"),
        ("inception_v3", "InceptionV3", "tf"),
        ("mobilenet", "MobileNet", "tf"),
        ("mobilenet_v2", "MobileNetV2", "tf"),
        ("mobilenet_v3", "MobileNetV3Small", "uint8"),
        ("nasnet", "NASNetMobile", "tf"),
        ("resnet", "ResNet50", "caffe"),
        ("resnet_v2", "ResNet101V2", "tf"),
        ("vgg16", "VGG16", "caffe"),
        ("xception", "Xception", "tf"),
    ],
)
def test_preprocessing_is_what_the_application_does(module, application, expected):
    assert preprocessing_of(application) == expected
    pixels = np.float32([[[[0, 0, 0], [255, 255, 255], [10, 20, 30]]]])
    theirs = getattr(tf_keras.applications, module).preprocess_input(pixels.copy())
    ours = make_preprocessing(expected, 3).to_input(pixels).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".json", ""])
@pytest.mark.parametrize("library", LIBRARIES)
def test_weights_of_every_kind_of_layer(tmp_path, library, suffix):
    """All layers that have weights, also frozen and inside models."""
    if (library, suffix) == ("keras3", ""):
        pytest.skip("Keras 3 writes no SavedModels that can be read")
    k, rng = LIBRARIES[library], np.random.default_rng(0)
    lay = k.layers
    signal = k.Input((12, 3), name="signal")
    statistics = lay.Normalization()
    statistics.adapt(rng.normal(2, 3, (50, 12, 3)))
    x = lay.Conv1D(6, 3, groups=3)(statistics(signal))
    for inner in (lay.Dense(6), lay.Dropout(0.5), lay.BatchNormalization()):
        if suffix:  # weights inside wrappers are not looked for in SavedModels
            x = lay.TimeDistributed(inner)(x)
    x = lay.DepthwiseConv1D(3, depth_multiplier=2)(lay.Conv1DTranspose(4, 2)(x))
    x = lay.LayerNormalization()(lay.SeparableConv1D(8, 3)(x))
    x = lay.Reshape((-1, 1, 8))(x)
    x = lay.BatchNormalization(scale=False)(lay.Conv2D(6, 1, use_bias=False)(x))
    x = lay.BatchNormalization(center=False)(lay.DepthwiseConv2D(1)(x))
    x = lay.SeparableConv2D(4, 1)(lay.Conv2DTranspose(4, 2)(x))
    x = lay.PReLU(shared_axes=[1, 2])(x)
    x = lay.PReLU()(lay.GlobalAveragePooling2D()(lay.RandomFlip()(x)))
    row = [lay.Input((4,)), lay.Dense(5, trainable=False), lay.BatchNormalization()]
    inner = k.Sequential([*row, lay.Dense(5)], name="inner")
    model = k.Model(signal, lay.Dense(3)(inner(x)))
    weights = model.get_weights()
    model.set_weights(
        [w if w.dtype.kind != "f" else rng.uniform(0.2, 1, w.shape) for w in weights]
    )
    for layer in (model.layers[1],):  # sets what it computes from its weights
        layer.finalize_state()
    path, stored = tmp_path / f"net{suffix}", None
    if suffix == ".json":
        path.write_text(model.to_json())
        stored = tmp_path / "net.weights.h5"
        model.save_weights(stored)
    else:
        model.save(path, **({} if suffix else {"save_format": "tf"}))
    values = rng.normal(size=(2, 12, 3)).astype(np.float32)
    np.testing.assert_allclose(
        np.asarray(read(path, stored).model(values)),
        np.asarray(model(values)),
        rtol=1e-4,
        atol=1e-4,
    )
