from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf import evaluation
from gdfq_tf.baselines import make_baselines
from gdfq_tf.classifier import Head
from tests.tiny import INPUT_SHAPE, build_tiny_classifier, classifier_of
from tflite_export.convert import post_training_quantize
from tflite_export.interpreter import TFLiteClassifier

PIXELS = np.random.default_rng(0).integers(0, 256, (20, *INPUT_SHAPE)).astype(np.uint8)


@pytest.fixture(scope="module", params=["unit", "torch"])
def classifier(request):
    return classifier_of(build_tiny_classifier(), request.param, Head.SOFTMAX)


@pytest.fixture(scope="module")
def baselines(classifier):
    return make_baselines(classifier, seed=0)


def test_float_outputs_are_the_models_on_preprocessed_pixels(classifier, monkeypatch):
    monkeypatch.setattr(evaluation, "_BATCH_SIZE", 8)  # 8 + 8 + 4
    logits = evaluation.float_logits(classifier, PIXELS)
    inputs = classifier.preprocessing.to_input(PIXELS)
    expected = classifier.model(inputs, training=False)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_float_tflite_files_take_real_inputs(classifier, baselines):
    outputs = evaluation.tflite_outputs(
        baselines.float32, classifier.preprocessing, PIXELS
    )
    expected = tf.nn.softmax(evaluation.float_logits(classifier, PIXELS))
    np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("range_factor", [1.0, 1.5])
def test_other_converters_files_take_inputs_on_their_own_quant_params(
    classifier, range_factor
):
    def model(inputs):
        return tf.nn.softmax(classifier.model(inputs, training=False))

    inputs = classifier.preprocessing.to_input(PIXELS).numpy()
    tflite = post_training_quantize(model, INPUT_SHAPE, range_factor * inputs)
    outputs = evaluation.tflite_outputs(tflite, classifier.preprocessing, PIXELS)
    file = TFLiteClassifier(tflite)
    levels = file.run(file.quantize_input(inputs)).astype(np.float32)
    expected = (levels + 128) / 256  # TFLite's softmax grid
    assert np.abs(outputs - expected).max() <= 1 / 256  # grids may differ by rounding
    assert np.abs(outputs - model(inputs)).max() < 0.05


def test_facts_hold_what_can_be_known():
    outputs = np.array([[2, 1], [0, 3], [5, 4], [1, 0]], np.int8)
    labels = np.array([0, 1, 1, 0])
    facts = evaluation.accuracy_facts(outputs, labels, np.array([[1, 0]] * 4))
    assert facts["num_images"] == 4
    assert facts["top1"] == 0.75
    low, high = facts["top1_interval_95"]
    # Wilson's interval of 3 out of 4, from published tables.
    assert (low, high) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert facts["agreement_with_float"] == 0.75
    assert evaluation.accuracy_facts(outputs, None, None) == {"num_images": 4}


def test_labels_are_compared_one_by_one():
    outputs, reference = np.array([[0.9, 0.1, 0.7]]), np.array([[0.6, 0.2, 0.3]])
    facts = evaluation.accuracy_facts(outputs, None, reference, Head.MULTI_LABEL)
    assert facts == {"num_images": 1, "label_agreement_with_float": 2 / 3}


def test_features_are_compared_by_their_error():
    reference = np.array([[2.0], [-2.0]])
    facts = evaluation.accuracy_facts(1.1 * reference, None, reference, Head.FEATURES)
    assert facts == {"num_images": 2, "signal_to_noise_db": pytest.approx(20.0)}
