"""What stands before and behind the classifier in a model."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf.errors import UserError
from gdfq_tf.frontend.load import load_classifier
from gdfq_tf.keras_compat import keras as tf_keras

# Keras itself says that HDF5 is a legacy format.
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")

KERASES = pytest.mark.parametrize("k", [keras, tf_keras], ids=["keras3", "tf_keras"])
FORMATS = pytest.mark.parametrize(
    ("k", "suffix"), [(keras, ".keras"), (tf_keras, ".keras"), (tf_keras, ".h5")]
)


def backbone(k):
    image = k.Input((8, 8, 3), name="image")
    x = k.layers.BatchNormalization(name="bn")(k.layers.Conv2D(4, 3)(image))
    return image, k.layers.GlobalAveragePooling2D(name="features")(k.layers.ReLU()(x))


def trained(model):
    bn = model.get_layer("bn")
    bn.set_weights([w + 0.1 for w in bn.get_weights()])
    return model


def load(source, **options):
    return load_classifier(source, preprocessing="unit", **options)


def refusal(source, **options):
    with pytest.raises(UserError) as error:
        load(source, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def images():
    return np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)


def check(classifier, scores):
    outputs = classifier.head.outputs_of(classifier.model(images()))
    np.testing.assert_allclose(outputs, scores(images()), rtol=1e-4, atol=1e-5)


# ---- post-processing


def largest(k, x):
    return k.ops.argmax(x, axis=-1) if k is keras else tf.argmax(x, axis=-1)


def largest_as_number(k, x):
    number = largest(k, x)
    return k.ops.cast(number, "int32") if k is keras else tf.cast(number, tf.int32)


def best_two(k, x):
    return list(k.ops.top_k(x, 2) if k is keras else tf.math.top_k(x, 2))


def above_half(k, x):
    return k.ops.cast(x > 0.5, "float32") if k is keras else tf.cast(x > 0.5, "float32")


def with_scores(k, x):
    return [x, largest(k, x)]


POST_PROCESSINGS = [largest, largest_as_number, best_two, above_half, with_scores]


@FORMATS
@pytest.mark.parametrize("process", POST_PROCESSINGS)
def test_classifiers_are_taken_up_to_their_scores(tmp_path, k, suffix, process):
    image, features = backbone(k)
    scores = k.layers.Dense(3, activation="softmax")(features)
    model = trained(k.Model(image, process(k, scores)))
    model.save(tmp_path / f"net{suffix}")
    for source in (model, tmp_path / f"net{suffix}"):
        with pytest.warns(UserWarning, match="ends in .*; it is taken up to the sco"):
            classifier = load(source)
        check(classifier, k.Model(image, scores))


@KERASES
def test_several_scores_stay_outputs(k):
    image, features = backbone(k)
    scores = [k.layers.Dense(3, name=name)(features) for name in ("left", "right")]
    model = k.Model(image, {"a": largest(k, scores[0]), "b": scores[1]})
    assert "has the outputs a, b; expected one" in refusal(trained(model))
    with pytest.warns(UserWarning, match="it is taken up to the scores"):
        check(load(model, output_name="a"), k.Model(image, scores[0]))


@KERASES
def test_casts_to_real_numbers_are_nothing_to_tell_of(k):
    image, x = backbone(k)
    cast = k.ops.cast if k is keras else tf.cast
    x = k.layers.Dense(3)(cast(x, "float32"))
    model = trained(k.Model(image, cast(x, "float32")))
    check(load(model), model)


@KERASES
def test_classes_in_the_middle_are_refused(k):
    image, x = backbone(k)
    cast = k.ops.cast if k is keras else tf.cast
    x = k.layers.Dense(3)(cast(x > 0.5, "float32"))
    assert "at the end of a classifier only" in refusal(trained(k.Model(image, x)))


# ---- outputs


def two_outputs(k):
    image, features = backbone(k)
    outputs = {"logits": k.layers.Dense(5, name="last")(features), "code": features}
    return trained(k.Model(image, outputs))


@FORMATS
def test_outputs_are_chosen_by_the_keys_of_their_dict(tmp_path, k, suffix):
    model = two_outputs(k)
    model.save(tmp_path / f"net{suffix}")
    for source in (model, tmp_path / f"net{suffix}"):
        text = refusal(source)
        assert "has the outputs" in text
        assert text.endswith("choose it with output_name='logits'")
        check(load(source, output_name="logits"), lambda x: model(x)["logits"])
        check(load(source, output_name="last"), lambda x: model(x)["logits"])
        assert "expected one of" in refusal(source, output_name="features_")


@KERASES
def test_a_softmax_is_proposed_rather_than_a_row_of_numbers(k):
    image, features = backbone(k)
    boxes = k.layers.Dense(4, name="boxes")(features)
    classes = k.layers.Dense(3, activation="softmax", name="classes")(features)
    model = k.Model(image, [boxes, classes])
    assert refusal(model).endswith("choose it with output_name='classes'")


# ---- inputs


@FORMATS
def test_inputs_that_do_not_matter_are_left_out(tmp_path, k, suffix):
    image, features = backbone(k)
    other = k.Input((6,), name="weather")
    logits = k.layers.Dense(3, name="logits")(features)
    both = k.layers.Concatenate(name="both")([logits, k.layers.Dense(2)(other)])
    model = trained(k.Model([other, image], [logits, both]))
    model.save(tmp_path / f"net{suffix}")
    for source in (model, tmp_path / f"net{suffix}"):
        check(load(source, output_name="logits"), k.Model(image, logits))
        text = refusal(source, output_name="both")
        assert "2 inputs that its outputs depend on, " in text
        assert "train it on the images alone" in text
