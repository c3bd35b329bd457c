"""Models with several inputs, all but one of which are constant."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf.errors import UserError, as_flag
from gdfq_tf.frontend.load import load_classifier
from gdfq_tf.keras_compat import keras as tf_keras

# Keras itself says that HDF5 is a legacy format.
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")

KERASES = pytest.mark.parametrize("k", [keras, tf_keras], ids=["keras3", "tf_keras"])
SHAPE = (6, 6, 3)
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(3, *SHAPE)).astype(np.float32)
MASK = (RNG.random((6, 6, 1)) > 0.5).astype(np.float32)
CAMERA = RNG.uniform(0.1, 1.0, 4).astype(np.float32)


def conditioned(k, *, as_dict=False, batch_size=None):
    """Scores of a masked image, conditioned on a camera; the month does not matter."""
    lay = k.layers
    mask, image, camera, month = (
        k.Input(shape, batch_size=batch_size, name=name)
        for name, shape in (
            ("mask", (6, 6, 1)),
            ("image", SHAPE),
            ("camera", (4,)),
            ("month", (12,)),
        )
    )
    x = lay.BatchNormalization(name="bn")(lay.Conv2D(5, 3, padding="same")(image))
    x = lay.Multiply()([mask, lay.ReLU()(x)])
    factor, shift = (lay.Reshape((1, 1, 5))(lay.Dense(5)(camera)) for _ in range(2))
    x = lay.Multiply()([x, factor]) + shift
    x = lay.GlobalAveragePooling2D()(lay.Conv2D(4, 3, activation="relu")(x))
    x = lay.Concatenate()([lay.Normalization(mean=0.5, variance=2.0)(camera), x])
    outputs = lay.Dense(3, activation="softmax", name="classes")(x)
    inputs = [mask, image, camera, month]
    if as_dict:
        inputs = dict(zip(("m", "i", "c", "t"), inputs, strict=True))
    model = k.Model(inputs, [outputs, lay.Dense(2)(month)])
    rng = np.random.default_rng(1)
    for layer in model.layers:  # no ReLU is off for good
        shapes = [w.shape for w in layer.get_weights()]
        layer.set_weights([rng.uniform(0.1, 0.5, shape) for shape in shapes])
    return model


def load(source, **options):
    return load_classifier(
        source, preprocessing="unit", output_name="classes", **options
    )


def refusal(source, show=None, **options):
    with pytest.raises(UserError) as error:
        load(source, **options)
    assert "\n" not in str(error.value)
    return error.value.render(show) if show else str(error.value)


def scores(model, mask=MASK, camera=CAMERA, *, as_dict=False):
    """What the model itself gives, one image after the other."""
    found = []
    for image in IMAGES:
        given = [mask, image, camera, np.zeros(12)]
        given = [tf.constant(x[np.newaxis], tf.float32) for x in given]
        if as_dict:
            given = dict(zip(("m", "i", "c", "t"), given, strict=True))
        found.append(np.asarray(model(given, training=False)[0]))
    return np.concatenate(found)


def check(classifier, expected):
    found = classifier.head.outputs_of(classifier.model(IMAGES))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@KERASES
@pytest.mark.parametrize("source", ["live", ".keras", ".h5"])
def test_inputs_are_bound_in_models_and_files(tmp_path, k, source):
    model = conditioned(k)
    given = model
    if source != "live":
        given = tmp_path / f"net{source}"
        model.save(given)
    classifier = load(given, constant_inputs={"mask": MASK, "camera": CAMERA})
    check(classifier, scores(model))
    assert classifier.example_shape == SHAPE
    low, high = CAMERA.min(), CAMERA.max()
    assert classifier.constant_inputs == {
        "mask": "(6, 6, 1) of 0 to 1",
        "camera": f"(4,) of {low:.6g} to {high:.6g}",
    }


@KERASES
def test_numbers_broadcast_and_inputs_that_do_not_matter_may_be_bound(k):
    model = conditioned(k)
    bound = {"mask": 1, "camera": [[0.5]][0], "month": 3}
    classifier = load(model, constant_inputs=bound)
    check(classifier, scores(model, np.ones_like(MASK), np.full(4, 0.5)))
    assert classifier.constant_inputs == {"mask": 1.0, "camera": 0.5, "month": 3.0}
    # A mask of ones leaves nothing to compute.
    masked = load(model, constant_inputs=bound | {"mask": MASK})
    assert len(masked.model.layers) == len(classifier.model.layers) + 3


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
@KERASES
def test_inputs_in_a_dict_are_known_by_their_keys_too(k):
    model = conditioned(k, as_dict=True)
    classifier = load(model, constant_inputs={"m": MASK, "camera": CAMERA})
    check(classifier, scores(model, as_dict=True))


@KERASES
def test_models_of_fixed_batch_size_are_bound(k):
    model = conditioned(k, batch_size=2)
    classifier = load(model, constant_inputs={"mask": MASK, "camera": CAMERA})
    twice = [np.repeat(x[np.newaxis], 2, 0) for x in (MASK, CAMERA, np.zeros(12))]
    mask, camera, month = (tf.constant(x, tf.float32) for x in twice)
    expected = model([mask, tf.constant(IMAGES[:2]), camera, month])[0]
    found = classifier.head.outputs_of(classifier.model(IMAGES[:2]))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@KERASES
def test_the_model_is_left_as_it_is(k):
    def state(model):
        return [
            (len(x._inbound_nodes), len(x._outbound_nodes))
            for x in (model, *model.layers)
        ]

    model = conditioned(k)
    before = state(model)
    load(model, constant_inputs={"mask": 1, "camera": 1})
    assert state(model) == before


@KERASES
def test_indices_are_bound_as_integers(k):
    lay = k.layers
    image, number = k.Input(SHAPE), k.Input((1,), dtype="int32", name="number")
    x = lay.BatchNormalization(name="bn")(lay.Conv2D(4, 3)(image))
    x = lay.GlobalAveragePooling2D()(lay.ReLU()(x))
    embedded = lay.Flatten()(lay.Embedding(7, 4)(number))
    model = k.Model([image, number], lay.Dense(3)(lay.Add()([x, embedded])))
    model.get_layer("bn").moving_variance.assign(np.full(4, 0.4))
    classifier = load_classifier(
        model, preprocessing="unit", constant_inputs={"number": 5}
    )
    numbers = tf.fill((3, 1), 5)
    expected = np.asarray(model([tf.constant(IMAGES), numbers]))
    np.testing.assert_allclose(classifier.model(IMAGES), expected, atol=1e-5)


@KERASES
def test_several_inputs_are_refused_with_advice_that_works(k):
    model = conditioned(k)
    bound = "constant_inputs={'mask': 1, 'camera': 1}"
    text = refusal(model)
    assert "3 inputs that its outputs depend on, mask, image, camera; expected" in text
    assert f"as in {bound}, or train" in text
    # Beside what is bound already, all of it is advised.
    text = refusal(model, constant_inputs={"camera": 0})
    assert "2 inputs that its outputs depend on, mask, image; expected one" in text
    assert f"as in {bound}, or train" in text
    assert "--constant_inputs=mask=1,camera=1, or" in refusal(model, show=as_flag)
    load(model, constant_inputs={"mask": 1, "camera": 1})


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"masc": 1}, "names 'masc', which is no input of model .*one of mask, image"),
        (
            {"mask": np.ones((3, 3)), "camera": 0},
            r"'mask' values of shape \(3, 3\); .* without the batch, \(6, 6, 1\)$",
        ),
        ({"camera": np.ones((1, 4))}, r"'camera' values of shape \(1, 4\);"),
        ({"camera": [0, 1, np.inf, 0]}, "'camera' values that are not finite"),
        ({"mask": "one"}, "'mask' 'one'; expected a number or an array"),
        (
            {"mask": 1, "camera": 1, "image": 0},
            "binds mask, camera, image, all that .* expected one input to be left",
        ),
    ],
)
def test_constants_that_do_not_fit_are_refused(given, reason):
    text = refusal(conditioned(tf_keras), constant_inputs=given)
    assert re.search(reason, text), text
