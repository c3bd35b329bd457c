"""The losses put together, each computed again on its own."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf.classifier import Head
from gdfq_tf.keras_compat import keras
from gdfq_tf.synthesis import losses
from gdfq_tf.synthesis.objective import LossWeights, image_losses
from gdfq_tf.synthesis.teacher import Teacher
from tests.tiny import INPUT_SHAPE, NUM_CLASSES, classifier_of

IMAGES = np.random.default_rng(0).normal(0, 1, (6, *INPUT_SHAPE)).astype(np.float32)
LABELS = tf.constant([0, 1, 2, 0, 1, 2])


def without_statistics() -> keras.Model:
    image = keras.Input(INPUT_SHAPE)
    features = keras.layers.Conv2D(4, 3, activation="relu")(image)
    features = keras.layers.GlobalAveragePooling2D()(features)
    return keras.Model(image, keras.layers.Dense(NUM_CLASSES)(features))


@pytest.mark.parametrize("relative", [True, False])
def test_cross_entropy_and_statistics(tiny_classifier, relative):
    teacher = Teacher(classifier_of(tiny_classifier))
    found, logits = image_losses(
        teacher, IMAGES, LABELS, weights=LossWeights(3.0), relative_bn_loss=relative
    )
    outputs = teacher(IMAGES)
    np.testing.assert_array_equal(logits, outputs.logits)
    cross_entropy = losses.classification_loss(logits=logits, labels=LABELS)
    both = {"stored": teacher.stored_statistics, "batch": outputs.statistics}
    gaps = losses.relative_bn_gaps(**both)
    bn = tf.reduce_mean(gaps) if relative else losses.bn_statistics_loss(**both)
    np.testing.assert_allclose(found.pop("bn_gaps"), gaps, rtol=1e-5)
    assert len(gaps) == len(teacher.stored_statistics) > 1
    expected = {
        "loss": cross_entropy + 3 * bn,
        "cross_entropy": cross_entropy,
        "bn": bn,
    }
    assert {name: float(x) for name, x in found.items()} == pytest.approx(
        {name: float(x) for name, x in expected.items()}, rel=1e-5
    )


def test_labels_are_asked_for_one_by_one(tiny_classifier):
    found, logits = image_losses(
        Teacher(classifier_of(tiny_classifier, head=Head.MULTI_LABEL)),
        IMAGES,
        LABELS,
        weights=LossWeights(3.0),
    )
    expected = float(losses.label_loss(logits=logits, labels=LABELS))
    assert float(found["cross_entropy"]) == pytest.approx(expected)
    total = expected + 3 * float(found["bn"])
    assert float(found["loss"]) == pytest.approx(total)


@pytest.mark.parametrize(
    ("head", "loss"),
    [(Head.LOGITS, losses.classification_loss), (Head.MULTI_LABEL, losses.label_loss)],
)
def test_the_cross_entropy_has_the_temperature_asked_for(tiny_classifier, head, loss):
    found, logits = image_losses(
        Teacher(classifier_of(tiny_classifier, head=head)),
        IMAGES,
        LABELS,
        weights=LossWeights(3.0),
        temperature=4.0,
    )
    expected = float(loss(logits=logits, labels=LABELS, temperature=4.0))
    assert float(found["cross_entropy"]) == pytest.approx(expected)


def test_features_have_statistics_alone(tiny_classifier):
    teacher = Teacher(classifier_of(tiny_classifier, head=Head.FEATURES))
    found, _ = image_losses(teacher, IMAGES, LABELS, weights=LossWeights(3.0))
    assert set(found) == {"loss", "bn", "bn_gaps"}
    gaps = losses.relative_bn_gaps(
        stored=teacher.stored_statistics, batch=teacher(IMAGES).statistics
    )
    expected = np.mean(gaps)
    assert float(found["bn"]) == pytest.approx(expected, rel=1e-5)
    assert float(found["loss"]) == pytest.approx(3 * expected, rel=1e-5)


def test_without_statistics_images_are_to_be_smooth():
    teacher = Teacher(classifier_of(without_statistics()))
    ramp = np.linspace(0, 1, 8, dtype=np.float32)[:, np.newaxis, np.newaxis]
    smooth = IMAGES * 0.01 + ramp
    rough, _ = image_losses(teacher, IMAGES, LABELS, weights=LossWeights(3.0))
    found, logits = image_losses(teacher, smooth, LABELS, weights=LossWeights(3.0))
    assert set(found) == {"loss", "cross_entropy", "smoothness", "bn_gaps"}
    assert found["bn_gaps"].shape == (0,)
    cross_entropy = losses.classification_loss(logits=logits, labels=LABELS)
    assert float(found["cross_entropy"]) == pytest.approx(float(cross_entropy))
    assert float(found["smoothness"]) < 0.1 * float(rough["smoothness"])
    difference = found["loss"] - found["cross_entropy"]
    assert 0 < float(difference) < 0.1 * float(rough["loss"] - rough["cross_entropy"])
