"""The losses fall, the first step by hand, exposure."""

from __future__ import annotations

import numpy as np
import pytest

from gdfq_tf.config import RefinementConfig
from gdfq_tf.errors import UserError
from gdfq_tf.preprocessing import make_preprocessing
from gdfq_tf.progress import NullProgress
from gdfq_tf.synthesis import refinement
from gdfq_tf.synthesis.generator_training import noise_images
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.synthesis.losses import classification_loss, relative_bn_gaps
from gdfq_tf.synthesis.natural_basis import NaturalBasis
from gdfq_tf.synthesis.refinement import Refiner, vary_exposure
from gdfq_tf.synthesis.teacher import Teacher
from tests.tiny import INPUT_SHAPE, NUM_CLASSES, Recorder, classifier_of

PREPROCESSING = make_preprocessing("tf", 3)
LABELS = np.arange(40, dtype=np.int32) % NUM_CLASSES
IMAGES = ImagePool(noise_images(INPUT_SHAPE, 40, seed=0).pixels, LABELS)
START = vary_exposure(IMAGES.pixels, 0)


def run(model, config, *, seed=0, progress=None):
    if not isinstance(config, RefinementConfig):
        config = RefinementConfig(config, batch_size=20)
    refiner = Refiner(classifier_of(model), progress or NullProgress())
    return refiner.refine(IMAGES, config, seed=seed)


def losses(model, pixels, labels) -> tuple[float, float]:
    teacher = Teacher(classifier_of(model))
    outputs = teacher(PREPROCESSING.to_input(pixels))
    return (
        float(classification_loss(logits=outputs.logits, labels=labels)),
        float(
            np.mean(
                relative_bn_gaps(
                    stored=teacher.stored_statistics, batch=outputs.statistics
                )
            )
        ),
    )


@pytest.mark.parametrize(("bn_weight", "loss"), [(0.5, 0), (200.0, 1)])
def test_the_loss_of_most_weight_falls_in_each_batch(tiny_classifier, bn_weight, loss):
    config = RefinementConfig(40, batch_size=20, bn_weight=bn_weight, learning_rate=0.1)
    refined = run(tiny_classifier, config)
    for batch in (slice(0, 20), slice(20, 40)):
        before = losses(tiny_classifier, START[batch], LABELS[batch])[loss]
        after = losses(tiny_classifier, refined.pixels[batch], LABELS[batch])[loss]
        assert after < 0.8 * before


def test_temperature_takes_images_further_beyond_the_boundary(tiny_classifier):
    def mean_margin(temperature):
        config = RefinementConfig(
            40,
            batch_size=20,
            bn_weight=1.0,
            temperature=temperature,
            learning_rate=0.1,
        )
        pixels = run(tiny_classifier, config).pixels
        logits = Teacher(classifier_of(tiny_classifier))(
            PREPROCESSING.to_input(pixels)
        ).logits.numpy()
        asked = logits[np.arange(len(LABELS)), LABELS]
        logits[np.arange(len(LABELS)), LABELS] = -np.inf
        return np.mean(asked - logits.max(axis=1))

    assert mean_margin(4.0) > mean_margin(1.0) + 0.1


def test_labels_order_and_type_stay(tiny_classifier):
    refined = run(tiny_classifier, 1)
    np.testing.assert_array_equal(refined.labels, LABELS)
    assert refined.pixels.shape == IMAGES.pixels.shape
    assert refined.pixels.dtype == np.uint8


def test_the_first_step_moves_every_wave_by_the_learning_rate(tiny_classifier):
    """Adam's first step is the gradient's sign, of half of 255 levels each."""
    config = RefinementConfig(1, batch_size=20, learning_rate=0.1)
    refined = run(tiny_classifier, config).pixels.astype(float)
    # No value near an end was cut off: the waves can be read off again.
    inside = ((START > 60) & (START < 195)).all(axis=(1, 2, 3))
    moved = (refined - START)[inside] / 127.5
    waves = waves_of(moved)
    assert len(waves)
    np.testing.assert_allclose(np.abs(waves), 0.1, atol=0.05)


def waves_of(images: np.ndarray) -> np.ndarray:
    """Coefficients of images, by solving for them."""
    count = int(np.prod(INPUT_SHAPE))
    each = np.eye(count, dtype=np.float32).reshape(count, *INPUT_SHAPE)
    basis = NaturalBasis(INPUT_SHAPE).images(each).numpy().reshape(count, count)
    return np.linalg.solve(basis.T.astype(np.float64), images.reshape(-1, count).T).T


def test_it_starts_from_collages_each_exposed_anew(tiny_classifier, monkeypatch):
    monkeypatch.setattr(
        refinement, "make_collages", lambda pixels, seed: pixels[::-1] // (1 + seed)
    )
    refined = run(tiny_classifier, RefinementConfig(1, learning_rate=0.0), seed=1)
    start = vary_exposure(IMAGES.pixels[::-1] // 2, 1)
    np.testing.assert_allclose(refined.pixels, start, atol=0.51)


def test_one_seed_one_result_and_other_seeds_others(tiny_classifier):
    first, again, other = (run(tiny_classifier, 3, seed=s).pixels for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.mean(first != other) > 0.5


@pytest.mark.parametrize(
    ("batch_size", "num_batches"), [(20, 2), (16, 2), (12, 3), (64, 1), (128, 1)]
)
def test_batches_are_of_nearly_the_size_asked(tiny_classifier, batch_size, num_batches):
    """None is left over small: its statistics would be those of a few images."""
    recorder = Recorder()
    refined = run(
        tiny_classifier, RefinementConfig(2, batch_size=batch_size), progress=recorder
    )
    steps = 2 * num_batches
    assert recorder.stages == [("refinement", steps, steps)]
    assert len(refined.pixels) == 40


def test_a_loss_that_is_not_finite_ends_the_run(tiny_classifier):
    tiny_classifier.get_layer("logits").bias.assign([np.nan] * NUM_CLASSES)
    with pytest.raises(UserError, match="became nan at step 1 of 10"):
        run(tiny_classifier, 5)


def test_a_batch_that_broke_between_two_checks_of_the_loss_ends_the_run(
    tiny_classifier,
):
    config = RefinementConfig(3, batch_size=20, learning_rate=float("nan"))
    with pytest.raises(UserError, match="synthetic images became nan or inf; check"):
        run(tiny_classifier, config)


def test_exposure_of_grey_images_is_brightness_and_tint():
    """At mid grey, contrast changes nothing: deviations by hand from 40 and 12."""
    grey = np.full((4000, 1, 2, 3), 127.5, np.float32)
    exposed = vary_exposure(grey, 0)
    assert exposed.dtype == np.float32
    np.testing.assert_array_equal(exposed[:, :, 0], exposed[:, :, 1])
    shift = exposed[:, 0, 0] - 127.5
    assert np.abs(shift.mean(axis=0)).max() < 2.5
    np.testing.assert_allclose(shift.std(axis=0), np.hypot(40, 12), rtol=0.05)
    tint = shift - shift.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(tint.std(), 12 * np.sqrt(2 / 3), rtol=0.05)


def test_exposure_stretches_each_image_around_mid_grey():
    pixels = np.array([117.5, 137.5], np.float32).reshape(1, 1, 2, 1)
    exposed = vary_exposure(np.repeat(pixels, 4000, axis=0), 0)
    inside = (exposed > 0).all(axis=(1, 2, 3)) & (exposed < 255).all(axis=(1, 2, 3))
    width = (exposed[:, 0, 1, 0] - exposed[:, 0, 0, 0])[inside] / 20
    np.testing.assert_allclose(np.log(width).std(), 0.6, rtol=0.06)
    assert exposed.min() >= 0
    assert exposed.max() <= 255
