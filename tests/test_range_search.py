"""Tests of gdfq_tf.range_search against the distance computed in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gdfq_tf.calibration import calibrate
from gdfq_tf.config import parse_bit_widths
from gdfq_tf.preprocessing import make_preprocessing
from gdfq_tf.quantization_plan import make_plan
from gdfq_tf.range_search import search_ranges
from gdfq_tf.student import Student, build_student
from gdfq_tf.teacher import predict_logits
from tests.tiny import INPUT_SHAPE, build_tiny_classifier

PREPROCESSING = make_preprocessing("tf", 3)
# Two batches, the second a short one.
PIXELS = np.random.default_rng(0).integers(0, 256, (80, *INPUT_SHAPE)).astype(np.uint8)
STEP = math.log(1.18)


@pytest.fixture(scope="module")
def classifier():
    return build_tiny_classifier()


@pytest.fixture(scope="module")
def teacher_logits(classifier):
    return predict_logits(classifier, PIXELS, PREPROCESSING.to_input)


def make_student(classifier, bits: str) -> Student:
    plan = make_plan(classifier, parse_bit_widths(bits))
    inputs = PREPROCESSING.to_input(PIXELS).numpy()
    calibration = calibrate(classifier, plan, inputs, PREPROCESSING)
    return build_student(classifier, plan, calibration, PREPROCESSING)


def distance(student: Student, teacher_logits: np.ndarray) -> float:
    """16 KL of the outputs at temperature 4, mean over images."""

    def log_shares(logits):
        logits = logits.astype(np.float64) / 4
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    logits = student.model(PREPROCESSING.to_student_input(PIXELS)).numpy()
    p, q = log_shares(teacher_logits), log_shares(logits)
    return 16 * float(np.mean(np.sum(np.exp(p) * (p - q), axis=1)))


def log_scales(student: Student) -> dict[str, float]:
    return {
        name: float(quantizer.log_scale)
        for name, quantizer in student.activation_quantizers.items()
        if quantizer.log_scale is not None
    }


@pytest.mark.parametrize("bits", ["w8a4/paper", "w8a3/paper", "w4a4", "w2a3/paper"])
def test_only_low_widths_move_by_a_step_at_most_and_nothing_gets_worse(
    classifier, teacher_logits, bits
):
    student = make_student(classifier, bits)
    before, first = log_scales(student), distance(student, teacher_logits)
    others = [v.numpy() for v in student.model.variables if "log_scale" not in v.name]
    low = {name for name, group in student.plan.groups.items() if group.bits < 8}
    assert low == ({"relu1", "relu2", "relu3"} if "paper" in bits else {"relu2"})
    search_ranges(student, PIXELS, teacher_logits, PREPROCESSING)
    for name, value in log_scales(student).items():
        if name in low:
            allowed = [before[name] + step for step in (-STEP, 0.0, STEP)]
            assert min(abs(value - x) for x in allowed) < 1e-5
        else:
            assert value == before[name]
    assert distance(student, teacher_logits) <= first * (1 + 1e-4)
    now = [v.numpy() for v in student.model.variables if "log_scale" not in v.name]
    for one, two in zip(now, others, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("factor", [1.18**5, 1.18**-4])
def test_a_wrong_range_is_moved_towards_the_right_one(
    classifier, teacher_logits, factor
):
    student = make_student(classifier, "w8a4")
    log_scale = student.activation_quantizers["relu2"].log_scale
    wrong = float(log_scale) + math.log(factor)
    log_scale.assign(wrong)
    first = distance(student, teacher_logits)
    search_ranges(student, PIXELS, teacher_logits, PREPROCESSING)
    expected = wrong - STEP if factor > 1 else wrong + STEP
    assert float(log_scale) == pytest.approx(expected, abs=1e-5)
    assert distance(student, teacher_logits) < 0.9 * first


def test_the_best_of_three_is_kept(classifier, teacher_logits):
    student = make_student(classifier, "w8a4")  # relu2 alone has 4 bits
    log_scale = student.activation_quantizers["relu2"].log_scale
    start = float(log_scale)
    tried = {}
    for candidate in (start - STEP, start, start + STEP):
        log_scale.assign(candidate)
        tried[candidate] = distance(student, teacher_logits)
    log_scale.assign(start)
    search_ranges(student, PIXELS, teacher_logits, PREPROCESSING)
    best = min(tried, key=lambda candidate: tried[candidate])
    assert float(log_scale) == pytest.approx(best, abs=1e-5)


def test_ranges_of_8_bits_are_left_alone(classifier, teacher_logits):
    student = make_student(classifier, "w4a8")
    before = log_scales(student)
    search_ranges(student, PIXELS, teacher_logits, PREPROCESSING)
    assert log_scales(student) == before
