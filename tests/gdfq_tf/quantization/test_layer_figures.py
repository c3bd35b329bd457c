from __future__ import annotations

import numpy as np
import pytest

from gdfq_tf.config import BitWidths
from gdfq_tf.keras_compat import keras
from gdfq_tf.quantization.calibration import calibrate
from gdfq_tf.quantization.layer_figures import layer_figures
from gdfq_tf.quantization.lowering import lower
from gdfq_tf.quantization.plan import make_plan
from gdfq_tf.quantization.student import build_student
from tests.tiny import INPUT_SHAPE, classifier_of

PIXELS = np.random.default_rng(0).integers(0, 256, (16, *INPUT_SHAPE)).astype(np.uint8)


@pytest.fixture
def student_of(tiny_classifier):
    """(classifier, student) for a number of weight bits."""

    def make(weight_bits: int):
        classifier = classifier_of(tiny_classifier)
        plan = make_plan(tiny_classifier, BitWidths(weight_bits, 8), frozenset())
        inputs = classifier.preprocessing.to_input(PIXELS).numpy()
        calibration = calibrate(classifier, plan, inputs)
        return classifier, build_student(classifier, plan, calibration)

    return make


def figures(classifier, student) -> dict:
    network = lower(student, classifier)
    rows = layer_figures(network, student, classifier, PIXELS)
    return {row.name: row for row in rows}


def test_rounding_alone_costs_a_step_over_the_root_of_12(student_of):
    found = figures(*student_of(8))
    # Sums of many steps fall anywhere between two steps of the output.
    assert found["add3"].rmse_over_scale == pytest.approx(1 / np.sqrt(12), rel=0.15)
    for name in ("conv1", "conv3", "logits"):
        assert found[name].rmse_over_scale < 0.45, name
        assert found[name].clipped < 0.01
        assert found[name].cosine > 0.999


def test_half_a_level_between_both_inputs_is_no_error(tiny_classifier, student_of):
    """Of "tf" the student's inputs are half a level less; equal weights add it up."""
    layer = tiny_classifier.get_layer("conv1")
    layer.set_weights([np.ones_like(x) for x in layer.get_weights()])
    assert figures(*student_of(8))["conv1"].rmse_over_scale < 0.4


def test_few_bits_show_where_they_are(student_of):
    eight, four = figures(*student_of(8)), figures(*student_of(4))
    assert four["conv3"].weight_bits == 4
    assert four["conv3"].rmse_over_scale > 3 * eight["conv3"].rmse_over_scale
    # The layer behind has 8 bits: what it loses is not its own.
    assert four["logits"].weight_bits == 8
    assert four["logits"].rmse_over_scale < 0.45
    assert four["logits"].signal_to_noise_db < eight["logits"].signal_to_noise_db - 3


def test_what_the_output_cannot_hold_is_counted(student_of):
    classifier, student = student_of(8)
    name = student.plan.tensor_groups["relu1"]
    scale = student.activation_quantizers[name].scale
    scale.assign(scale / 4)
    found = figures(classifier, student)["conv1"]
    probe = keras.Model(
        classifier.model.input, classifier.model.get_layer("relu1").output
    )
    values = probe(classifier.preprocessing.to_input(PIXELS)).numpy()
    # Beyond the highest of 256 levels that begin at zero, by more than half a step.
    expected = np.mean(values > 255.5 * found.scale)
    assert 0.01 < expected < 0.9
    assert found.clipped == pytest.approx(expected, abs=1e-4)
    assert found.rmse_over_scale > 5


def test_logits_have_the_signal_and_angle_of_their_vectors(student_of):
    classifier, student = student_of(4)
    found = figures(classifier, student)["logits"]
    a = classifier.model(classifier.preprocessing.to_input(PIXELS)).numpy().ravel()
    taken = classifier.preprocessing.to_student_input(PIXELS)
    b = student.model(taken).numpy().ravel()  # what the integers compute
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    decibels = 20 * np.log10(np.linalg.norm(a) / np.linalg.norm(a - b))
    assert found.cosine == pytest.approx(cosine, abs=1e-3)
    assert found.signal_to_noise_db == pytest.approx(decibels, abs=1)
    assert found.activation_bits == 8
