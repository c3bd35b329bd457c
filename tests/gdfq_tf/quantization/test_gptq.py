"""Ridge regression and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from gdfq_tf.config import parse_bit_widths
from gdfq_tf.keras_compat import keras
from gdfq_tf.preprocessing import make_preprocessing
from gdfq_tf.quantization.calibration import calibrate
from gdfq_tf.quantization.gptq import (
    best_kernel,
    descend,
    round_kernels,
    round_rows,
)
from gdfq_tf.quantization.moments import Moments
from gdfq_tf.quantization.plan import make_plan
from gdfq_tf.quantization.student import Student, build_student
from gdfq_tf.system import large_arrays
from gdfq_tf.system.large_arrays import ArrayFile
from tests.tiny import INPUT_SHAPE, build_tiny_classifier, classifier_of

layers = keras.layers
PREPROCESSING = make_preprocessing("tf", 3)


def smooth_pixels(num_images: int, seed: int = 0) -> np.ndarray:
    """Images whose neighbouring pixels are alike, as rounding lives on that."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (num_images, 3, 3, 3))
    fine = tf.image.resize(coarse, INPUT_SHAPE[:2], method="bicubic").numpy()
    fine += rng.normal(0, 10, fine.shape)
    return np.clip(np.round(fine), 0, 255).astype(np.uint8)


PIXELS = smooth_pixels(96)


def no_progress(n: int = 1, **metrics: float) -> None: ...


def moments_of(x: np.ndarray, y: np.ndarray, num_rows: int | None = None) -> Moments:
    """Of rows x (R, K), y (R, M), one group."""
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    centred_x, centred_y = x - x_mean, y - y_mean
    return Moments(
        (centred_x.T @ centred_x / len(x))[np.newaxis],
        (centred_x.T @ centred_y / len(x))[np.newaxis],
        x_mean[np.newaxis],
        y_mean[np.newaxis],
        num_rows or len(x),
    )


def test_what_the_student_sees_as_the_teacher_does_needs_no_other_kernel():
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 1.0, (200, 5)) @ rng.normal(size=(5, 5))
    kernel = rng.normal(size=(1, 5, 4))
    best, _ = best_kernel(kernel, moments_of(x, x @ kernel[0] + 7.0))
    np.testing.assert_allclose(best, kernel, rtol=1e-9)


@pytest.mark.parametrize(
    ("num_rows", "ridge"),
    [(500, 0.01), (50, 0.1), (5, 1.0)],  # 5 unknowns: 5 / rows, 0.01 at least
)
def test_the_best_kernel_is_the_ridge_regressions(num_rows, ridge):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(num_rows, 5)) @ rng.normal(size=(5, 5)) + 2.0
    y = rng.normal(size=(num_rows, 3))
    kernel = rng.normal(size=(1, 5, 3))
    best, damped = best_kernel(kernel, moments_of(x, y))
    # min ||X W - Y||^2 / R + r ||W - W_teacher||^2 as one least-squares problem.
    penalty = np.sqrt(ridge * x.var(axis=0).mean())
    rows = np.concatenate([(x - x.mean(0)) / np.sqrt(num_rows), penalty * np.eye(5)])
    right = np.concatenate([(y - y.mean(0)) / np.sqrt(num_rows), penalty * kernel[0]])
    expected = np.linalg.lstsq(rows, right, rcond=None)[0]
    np.testing.assert_allclose(best[0], expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(damped[0], rows.T @ rows, rtol=1e-9)


def test_constant_inputs_keep_the_teachers_kernel():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(300, 4))
    x[:, 2] = 5.0
    kernel = rng.normal(size=(1, 4, 2))
    best, damped = best_kernel(kernel, moments_of(x, rng.normal(size=(300, 2))))
    np.testing.assert_allclose(best[0, 2], kernel[0, 2], rtol=1e-9)
    assert np.abs(best[0, 0] - kernel[0, 0]).max() > 0.1
    assert np.linalg.eigvalsh(damped[0]).min() > 0


def test_dead_groups_keep_the_teachers_kernel():
    # Depthwise: one channel lives, one is constant in all images.
    kernel = np.random.default_rng(3).normal(size=(2, 4, 1))
    live = np.diag([1.0, 2.0, 3.0, 4.0])
    for xx in ([live, np.zeros((4, 4))], [np.zeros((4, 4))] * 2):
        moments = Moments(
            np.stack(xx), np.zeros((2, 4, 1)), np.zeros((2, 4)), np.zeros((2, 1)), 1000
        )
        best, damped = best_kernel(kernel, moments)
        np.testing.assert_allclose(best[1], kernel[1], rtol=1e-9)
        levels = round_rows(best, damped, np.full((2, 1), 0.1), (-7, 7))
        np.testing.assert_array_equal(
            levels[1], np.clip(np.round(kernel[1] / 0.1), -7, 7)
        )


def test_independent_rows_are_rounded_to_the_nearest_level():
    rng = np.random.default_rng(0)
    target = rng.normal(0, 3, (2, 6, 4))
    damped = np.stack([np.diag(rng.uniform(0.1, 5.0, 6)) for _ in range(2)])
    scale = rng.uniform(0.5, 1.0, (2, 4))
    expected = np.clip(np.round(target / scale[:, np.newaxis]), -3, 3)
    np.testing.assert_array_equal(round_rows(target, damped, scale, (-3, 3)), expected)


def loss(levels, target, damped, scale) -> np.ndarray:
    """(groups, M): (q s - W)^T D (q s - W)."""
    error = levels * scale[:, np.newaxis] - target
    return np.einsum("gkm,gkl,glm->gm", error, damped, error)


@pytest.mark.parametrize(
    ("damped", "expected", "expected_loss"),
    [
        # Plain rounding gives (0, 0), loss 0.16 (1 + 1 + 1.8) = 0.608. Row 0 becomes
        # 0, its -0.4 moves row 1 to 0.4 + 0.9 * 0.4 = 0.76, so 1: 0.16 + 0.36 - 0.432.
        ([[1.0, 0.9], [0.9, 1.0]], [0, 1], 0.088),
        # The larger diagonal goes first: row 1 becomes 0, row 0 is moved to
        # 0.4 + 1.8 * 0.4 = 1.12: 0.36 + 4 * 0.16 - 0.864. The other order has 0.736.
        ([[1.0, 1.8], [1.8, 4.0]], [1, 0], 0.136),
        # What is lost points the other way where rows are opposed: row 1 is moved to
        # 0.4 - 0.36 = 0.04.
        ([[1.0, -0.9], [-0.9, 1.0]], [0, 0], 0.032),
    ],
)
def test_strongly_correlated_rows_by_hand(damped, expected, expected_loss):
    target = np.full((1, 2, 1), 0.4)
    damped, scale = np.array([damped]), np.ones((1, 1))
    levels = round_rows(target, damped, scale, (-7, 7))
    assert levels.ravel().tolist() == expected
    assert loss(levels, target, damped, scale).item() == pytest.approx(expected_loss)


def correlated(rng: np.random.Generator, groups: int, size: int) -> np.ndarray:
    """Positive definite (groups, size, size), with strong correlations."""
    x = rng.normal(size=(groups, 3 * size, size)) + 2 * rng.normal(
        size=(groups, 3 * size, 1)
    )
    return np.einsum("grk,grl->gkl", x, x) / (3 * size) + 0.01 * np.eye(size)


@pytest.mark.parametrize("limit", [1, 3])
def test_near_the_best_of_all_level_combinations(limit):
    """On average within 1.15 times the least possible loss; plain rounding: twice."""
    found, plain, best = [], [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        damped = correlated(rng, 1, 3)
        target = rng.uniform(-limit, limit, (1, 3, 1))
        scale = np.ones((1, 1))
        levels = round_rows(target, damped, scale, (-limit, limit))
        found.append(loss(levels, target, damped, scale).item())
        nearest = np.clip(np.round(target), -limit, limit)
        plain.append(loss(nearest, target, damped, scale).item())
        all_levels = itertools.product(range(-limit, limit + 1), repeat=3)
        combinations = np.array(list(all_levels), float).T[np.newaxis]
        losses = loss(combinations, target, damped, np.ones((1, combinations.shape[2])))
        best.append(losses.min())
        assert best[-1] <= found[-1] * (1 + 1e-9)
    assert np.mean(found) < 1.15 * np.mean(best)
    assert np.mean(plain) > 2 * np.mean(best)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    groups=st.integers(1, 3),
    size=st.integers(1, 9),
    channels=st.integers(1, 4),
    bits=st.integers(2, 8),
)
def test_levels_are_whole_and_within_limits_and_each_channel_is_its_own(
    seed, groups, size, channels, bits
):
    rng = np.random.default_rng(seed)
    bounds = lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    damped = correlated(rng, groups, size)
    scale = rng.uniform(0.1, 2.0, (groups, channels))
    target = rng.normal(0, highest, (groups, size, channels)) * scale[:, np.newaxis]
    before = target.copy()
    levels = round_rows(target, damped, scale, bounds)
    np.testing.assert_array_equal(target, before)
    assert levels.shape == target.shape
    np.testing.assert_array_equal(levels, np.rint(levels))
    assert lowest <= levels.min() <= levels.max() <= highest
    for g, m in itertools.product(range(groups), range(channels)):
        alone = round_rows(
            target[g : g + 1, :, m : m + 1],
            damped[g : g + 1],
            scale[g : g + 1, m : m + 1],
            bounds,
        )
        np.testing.assert_array_equal(alone[0, :, 0], levels[g, :, m])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 9))
def test_without_clipping_the_loss_has_the_bound_of_successive_rounding(seed, size):
    """Half a step of each row, in what the rows after it cannot make good."""
    rng = np.random.default_rng(seed)
    damped = correlated(rng, 1, size)
    target, scale = rng.normal(0, 3, (1, size, 2)), np.array([[0.5, 2.0]])
    levels = round_rows(target, damped, scale, (-(10**9), 10**9))
    order = np.argsort(-np.diag(damped[0]), kind="stable")
    ordered = damped[0][np.ix_(order, order)]
    # Row k's variance unexplained by the rows after it.
    unexplained = 0.0
    for k in range(size):
        after = ordered[k + 1 :, k]
        explained = after @ np.linalg.solve(ordered[k + 1 :, k + 1 :], after)
        unexplained += ordered[k, k] - explained
    bound = unexplained * (scale[0] / 2) ** 2
    assert (loss(levels, target, damped, scale)[0] <= bound * (1 + 1e-6)).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), bits=st.integers(2, 6))
def test_many_channels_lose_less_than_with_plain_rounding(seed, bits):
    rng = np.random.default_rng(seed)
    limit = 2 ** (bits - 1) - 1
    damped = correlated(rng, 2, 18)
    target = rng.normal(0, limit / 2, (2, 18, 32))
    scale = np.ones((2, 32))
    nearest = np.clip(np.round(target), -limit, limit)
    found = loss(
        round_rows(target, damped, scale, (-limit, limit)), target, damped, scale
    )
    plain = loss(nearest, target, damped, scale)
    assert found.mean() < 0.8 * plain.mean()


@pytest.mark.parametrize(
    ("levels", "target", "expected"),
    [
        ([1, 2], [1.1, 2.2], 1.1),
        ([1, -1], [1.3, -0.9], 1.1),
        ([1, 2], [2.0, 4.0], 1.25),  # near the calibrated scale, 1
        ([1, 2], [0.1, 0.2], 0.8),
        ([0, 0], [0.1, 0.2], 0.8),  # nothing to fit; still positive
    ],
)
def test_refitted_scales_by_hand(levels, target, expected):
    _, scale = descend(
        np.reshape(levels, (1, 2, 1)),
        np.reshape(target, (1, 2, 1)),
        np.eye(2)[np.newaxis],
        np.ones((1, 1)),
        (-8, 7),
        num_rounds=0,
    )
    assert scale.item() == pytest.approx(expected)


def test_refitted_scales_weigh_directions_as_the_inputs_do():
    # Row 0 matters alone: 2 s = 2.2.
    _, scale = descend(
        np.reshape([2.0, 1.0], (1, 2, 1)),
        np.reshape([2.2, 0.8], (1, 2, 1)),
        np.diag([1.0, 1e-9])[np.newaxis],
        np.ones((1, 1)),
        (-8, 7),
        num_rounds=0,
    )
    assert scale.item() == pytest.approx(1.1)


def test_a_row_is_rounded_again_beside_the_others_by_hand():
    """Targets .4 and .4 of rows that stand in for each other: 1 and 0, not 0 and 0.

    Row 0 beside 0: .4 + .9 * .4 = .76, 1; row 1 beside 1: .4 - .9 * .6 = -.14, 0. The
    scale: (1, .9) . (.4, .4) / 1 = .76, no less than .8.
    """
    levels, scale = descend(
        np.zeros((1, 2, 1)),
        np.full((1, 2, 1), 0.4),
        np.array([[[1.0, 0.9], [0.9, 1.0]]]),
        np.ones((1, 1)),
        (-8, 7),
        num_rounds=1,
    )
    assert levels.ravel().tolist() == [1, 0]
    assert scale.item() == pytest.approx(0.8)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    groups=st.integers(1, 3),
    size=st.sampled_from([1, 2, 9, 63, 64, 65, 130]),  # blocks have 64 rows
    bits=st.integers(2, 7),
    num_rounds=st.integers(1, 3),
)
def test_rounding_again_never_loses_and_one_more_row_gains_nothing(
    seed, groups, size, bits, num_rounds
):
    rng = np.random.default_rng(seed)
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    damped = correlated(rng, groups, size)
    start = rng.uniform(0.1, 2.0, (groups, 3))
    target = rng.normal(0, highest / 2 + 0.5, (groups, size, 3)) * start[:, np.newaxis]
    first = np.clip(np.round(target / start[:, np.newaxis]), lowest, highest)
    given_to, losses = first.copy(), []
    for rounds in range(num_rounds + 1):
        levels, scale = descend(
            first, target, damped, start, (lowest, highest), num_rounds=rounds
        )
        losses.append(loss(levels, target, damped, scale))
        np.testing.assert_array_equal(levels, np.rint(levels))
        assert lowest <= levels.min() <= levels.max() <= highest
    np.testing.assert_array_equal(first, given_to)
    for before, after in itertools.pairwise(losses):
        assert (after <= before * (1 + 1e-9) + 1e-12).all()
    # The last row saw all others as they are, at the scale before the last refit.
    _, scale = descend(
        first, target, damped, start, (lowest, highest), num_rounds=num_rounds - 1
    )
    here = loss(levels, target, damped, scale)
    for step in (-1, 1):
        moved = levels.copy()
        moved[:, -1] = np.clip(moved[:, -1] + step, lowest, highest)
        assert (here <= loss(moved, target, damped, scale) * (1 + 1e-9) + 1e-12).all()


def make_student(classifier: keras.Model, bits: str) -> Student:
    plan = make_plan(classifier, parse_bit_widths(bits))
    inputs = PREPROCESSING.to_input(PIXELS).numpy()
    calibration = calibrate(classifier_of(classifier), plan, inputs)
    return build_student(classifier_of(classifier), plan, calibration)


def teacher_outputs(classifier: keras.Model, pixels, name: str) -> np.ndarray:
    probe = keras.Model(classifier.input, classifier.get_layer(name).output)
    return probe(PREPROCESSING.to_input(pixels), training=False).numpy()


def student_outputs(student: Student, pixels, name: str) -> np.ndarray:
    probe = keras.Model(student.model.input, student.wrapper(name).output)
    return probe(PREPROCESSING.to_student_input(pixels), training=False).numpy()


@pytest.fixture(scope="module")
def classifier() -> keras.Model:
    return build_tiny_classifier()


@pytest.fixture(scope="module", params=["w4a8/paper", "w2a8/paper", "w3a4/paper"])
def pair(request, classifier):
    """(calibrated student, the same with rounded kernels)."""
    plain, rounded = (make_student(classifier, request.param) for _ in range(2))
    round_kernels(rounded, classifier_of(classifier), PIXELS, no_progress)
    return plain, rounded


@pytest.mark.parametrize("pixels", [PIXELS, smooth_pixels(64, seed=1)])
@pytest.mark.parametrize("name", ["bn1", "bn2", "bn3", "relu3", "logits"])
def test_layers_come_closer_to_the_teachers_than_by_plain_rounding(
    classifier, pair, name, pixels
):
    expected = teacher_outputs(classifier, pixels, name)
    plain, rounded = (
        np.mean((student_outputs(student, pixels, name) - expected) ** 2)
        for student in pair
    )
    assert rounded < 0.8 * plain


def test_mean_outputs_are_the_teachers(classifier, pair):
    plain, rounded = pair
    for name in ("bn1", "bn2"):  # nothing is rounded between kernel and here
        expected = teacher_outputs(classifier, PIXELS, name).mean(axis=(0, 1, 2))
        found = student_outputs(rounded, PIXELS, name).mean(axis=(0, 1, 2))
        np.testing.assert_allclose(found, expected, atol=1e-4)
        before = student_outputs(plain, PIXELS, name).mean(axis=(0, 1, 2))
        assert np.abs(before - expected).max() > 1e-3
    # The logits' own grid is coarser than that.
    expected = teacher_outputs(classifier, PIXELS, "logits").mean(axis=0)
    found = student_outputs(rounded, PIXELS, "logits").mean(axis=0)
    step = float(rounded.activation_quantizers["logits"].scale)
    np.testing.assert_allclose(found, expected, atol=0.5 * step)


def test_kernels_lie_on_their_quant_params_and_scales_near_the_best(classifier, pair):
    _, rounded = pair
    for quantizer in rounded.weight_quantizers.values():
        levels = quantizer.channels_last().numpy() / quantizer.scale.numpy()
        np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)
        highest = 2 ** (quantizer.bits - 1) - 1
        assert levels.max() <= highest + 1e-3
        assert levels.min() >= -highest - (quantizer.bits < 8) - 1e-3
        assert (quantizer.scale.numpy() > 0).all()


def test_the_classifier_and_what_is_not_a_kernel_stay(classifier, pair):
    _, rounded = pair
    fresh = build_tiny_classifier()
    for now, then in zip(classifier.get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_array_equal(now, then)
    for name in ("bn1", "bn2", "bn3"):
        copy, original = rounded.layer(name), classifier.get_layer(name)
        np.testing.assert_array_equal(copy.gamma, original.gamma)
        np.testing.assert_array_equal(copy.beta, original.beta)
        np.testing.assert_array_equal(copy.moving_variance, original.moving_variance)


def test_rounding_again_changes_nothing(classifier):
    student = make_student(classifier, "w4a8/paper")
    round_kernels(student, classifier_of(classifier), PIXELS, no_progress)
    before = [v.numpy() for v in student.model.variables]
    round_kernels(student, classifier_of(classifier), PIXELS, no_progress)
    for variable, value in zip(student.model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_activations_in_files_give_the_same_kernels(classifier, monkeypatch):
    students = [make_student(classifier, "w3a4/paper") for _ in range(2)]
    files = []
    for student, largest in zip(students, (2**27, 0), strict=True):
        monkeypatch.setattr(large_arrays, "_LARGEST_BYTES_IN_MEMORY", largest)
        with monkeypatch.context() as patch:
            patch.setattr(ArrayFile, "append", appending(files))
            round_kernels(student, classifier_of(classifier), PIXELS, no_progress)
        assert bool(files) == (largest == 0)
    for in_files, in_memory in zip(
        *(student.model.variables for student in students), strict=True
    ):
        np.testing.assert_array_equal(in_files, in_memory)


def appending(files: list[ArrayFile]):
    """`ArrayFile.append` that also puts the files into a list."""
    append = ArrayFile.append

    def appended(file: ArrayFile, values: np.ndarray) -> None:
        files.append(file)
        append(file, values)

    return appended


def test_depthwise_multiplier_concatenation_and_kernels_that_cannot_shift():
    image = keras.Input(INPUT_SHAPE)
    bare = layers.Conv2D(6, 3, padding="same", use_bias=False, name="bare")(image)
    left = layers.ReLU(name="left")(bare)
    right = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="dw")
    right = layers.ReLU(6.0, name="right")(right(left))
    joined = layers.Concatenate(name="joined")([left, right])
    pooled = layers.MaxPooling2D(2, name="pooled")(joined)
    end = layers.Conv2D(5, 3, strides=2, name="end")(pooled)
    end = layers.GlobalAveragePooling2D()(layers.ReLU()(end))
    model = keras.Model(image, layers.Dense(3, name="logits")(end))
    rng = np.random.default_rng(4)
    for layer in model.layers:
        weights = [rng.normal(0, 0.4, w.shape) for w in layer.get_weights()]
        layer.set_weights(weights)
    plain, rounded = (
        make_student(model, "w3a8/paper"),
        make_student(model, "w3a8/paper"),
    )
    round_kernels(rounded, classifier_of(model), PIXELS, no_progress)
    for name in ("left", "right", "pooled", "end", "logits"):
        expected = teacher_outputs(model, PIXELS, name)
        errors = [
            np.mean((student_outputs(student, PIXELS, name) - expected) ** 2)
            for student in (plain, rounded)
        ]
        assert errors[1] < 0.9 * errors[0], name


def test_a_channel_that_never_varies_keeps_its_weights():
    pixels = PIXELS.copy()
    pixels[..., 1] = 100
    image = keras.Input(INPUT_SHAPE)
    end = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Conv2D(4, 3)(image)))
    model = keras.Model(image, layers.Dense(3)(end))
    conv = model.layers[1]
    student = make_student(model, "w8a8")
    round_kernels(student, classifier_of(model), pixels, no_progress)
    quantizer = student.weight_quantizers[conv.name]
    difference = quantizer.kernel.numpy() - conv.get_weights()[0]
    steps = np.abs(difference / quantizer.scale.numpy())
    assert steps[:, :, 1].max() < 1.0
    assert np.isfinite(steps).all()
    expected = teacher_outputs(model, pixels, conv.name).mean(axis=(0, 1, 2))
    found = student_outputs(student, pixels, conv.name).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(found, expected, atol=1e-4)
