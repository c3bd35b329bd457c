"""What is called on what, and what comes of it."""

from __future__ import annotations

import numpy as np
import pytest

from gdfq_tf import memory_needs
from gdfq_tf.config import ReconstructionConfig, parse_bit_widths
from gdfq_tf.graph.bn_statistics import with_statistics_of
from gdfq_tf.preprocessing import make_preprocessing
from gdfq_tf.progress import NullProgress
from gdfq_tf.quantization import equalization, reconstruction
from gdfq_tf.quantization.plan import make_plan
from gdfq_tf.quantization.reconstruction import reconstruct
from gdfq_tf.synthesis.generator_training import noise_images
from gdfq_tf.synthesis.image_pool import ImagePool
from tests.tiny import (
    INPUT_SHAPE,
    Recorder,
    alike,
    build_tiny_classifier,
    classifier_of,
)

PREPROCESSING = make_preprocessing("tf", 3)
IMAGES = noise_images(INPUT_SHAPE, 96, seed=0)


def run(model, bits, config, progress=None, images=IMAGES):
    return reconstruct(
        classifier_of(model),
        make_plan(model, parse_bit_widths(bits)),
        images,
        config,
        progress or NullProgress(),
    )


def test_progress_goes_kernel_by_kernel(tiny_classifier):
    recorder = Recorder()
    run(tiny_classifier, "w4a4", ReconstructionConfig(alike(40)), recorder)
    kernels = [layer for layer in tiny_classifier.layers if layer.weights]
    kernels = [layer for layer in kernels if not layer.name.startswith("bn")]
    assert recorder.stages == [
        ("calibration", 1, 1),
        ("reconstruction", len(kernels), len(kernels)),
    ]


def test_takes_no_more_images_than_memory_holds(tiny_classifier, monkeypatch):
    # All layers but the last two give 8 channels at the input's height and width.
    largest = INPUT_SHAPE[0] * INPUT_SHAPE[1] * 8
    assert memory_needs.images_that_fit(tiny_classifier) == 2**28 // largest
    monkeypatch.setattr(memory_needs, "_MAX_VALUES", 40 * largest + 1)
    limited = run(tiny_classifier, "w4a4", ReconstructionConfig(alike(40)))
    monkeypatch.undo()
    first_40 = IMAGES[:40]
    expected = run(
        tiny_classifier, "w4a4", ReconstructionConfig(alike(40)), images=first_40
    )
    for a, b in zip(limited.model.weights, expected.model.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("images_are_noise", [False, True])
def test_equalized_by_what_students_are_fitted_to(
    tiny_classifier, monkeypatch, images_are_noise
):
    """The classifier itself, or one whose statistics are the noise's."""
    measured = []

    def channel_ranges(model, plan, inputs):
        measured.append((model.get_weights(), inputs))
        return equalization.channel_ranges(model, plan, inputs)

    monkeypatch.setattr(reconstruction, "channel_ranges", channel_ranges)
    plan = make_plan(tiny_classifier, parse_bit_widths("w4a4/paper"))
    config = ReconstructionConfig(alike(40), images_are_noise=images_are_noise)
    found = reconstruction.equalized(
        classifier_of(tiny_classifier), plan, IMAGES, config, NullProgress()
    ).model
    inputs = PREPROCESSING.to_input(IMAGES.pixels).numpy()
    np.testing.assert_allclose(found(inputs), tiny_classifier(inputs), atol=1e-4)
    changed = found.get_layer("dw2").get_weights()[0]
    assert not np.array_equal(
        changed, tiny_classifier.get_layer("dw2").get_weights()[0]
    )
    ((weights, seen),) = measured
    np.testing.assert_array_equal(seen, inputs)
    expected = tiny_classifier
    if images_are_noise:
        expected = with_statistics_of(tiny_classifier, inputs)
    for now, then in zip(weights, expected.get_weights(), strict=True):
        np.testing.assert_array_equal(now, then)


def test_nothing_is_equalized_where_all_activations_have_8_bits(tiny_classifier):
    plan = make_plan(tiny_classifier, parse_bit_widths("w4a8"))
    classifier = classifier_of(tiny_classifier)
    found = reconstruction.equalized(
        classifier, plan, IMAGES, ReconstructionConfig(alike(40)), NullProgress()
    )
    assert found is classifier


def logits_error(student, classifier, pixels) -> float:
    """Relative to the deviation of the classifier's logits."""
    expected = classifier(PREPROCESSING.to_input(pixels), training=False).numpy()
    logits = student.model(PREPROCESSING.to_student_input(pixels)).numpy()
    return np.sqrt(np.mean((logits - expected) ** 2)) / expected.std()


@pytest.mark.parametrize("images_are_noise", [False, True])
def test_eight_bits_are_nearly_the_classifier_whatever_the_images_are(
    images_are_noise,
):
    """Noise stands in for images of quite other statistics."""
    classifier = build_tiny_classifier()
    config = ReconstructionConfig(alike(40), images_are_noise=images_are_noise)
    student = run(classifier, "w8a8", config)
    unseen = noise_images(INPUT_SHAPE, 64, seed=1).pixels
    assert logits_error(student, classifier, unseen) < 0.15


def test_statistics_are_the_classifiers_at_the_end_but_for_shifts(tiny_classifier):
    config = ReconstructionConfig(alike(40), images_are_noise=True)
    before = tiny_classifier.get_weights()
    student = run(tiny_classifier, "w8a8", config)
    for name in ("bn1", "bn2", "bn3"):
        copy, original = student.layer(name), tiny_classifier.get_layer(name)
        np.testing.assert_array_equal(copy.moving_variance, original.moving_variance)
        np.testing.assert_array_equal(copy.gamma, original.gamma)
        # At 8 bits there is next to nothing to shift (the input's half level aside).
        deviation = np.sqrt(original.moving_variance.numpy())
        shift = (copy.moving_mean - original.moving_mean) / deviation
        assert np.abs(shift).max() < 0.1
    for now, then in zip(tiny_classifier.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_noise_is_calibrated_on_a_classifier_of_its_own_statistics(
    tiny_classifier, monkeypatch
):
    """Ranges behind a BatchNormalization are those of normalized activations."""
    far = ImagePool((IMAGES.pixels // 32 + 120).astype(np.uint8), IMAGES.labels)
    config = ReconstructionConfig(alike(40))
    noisy = ReconstructionConfig(alike(40), images_are_noise=True)
    plain = run(tiny_classifier, "w8a8", config, images=far)
    helped = run(tiny_classifier, "w8a8", noisy, images=far)
    # bn3: outputs of mean beta and deviation gamma reach about 3 deviations around.
    layer = tiny_classifier.get_layer("bn3")
    reach = np.max(np.abs(layer.beta) + 2.5 * np.abs(layer.gamma))

    def range_of(student):
        return 127 * float(student.activation_quantizers["bn3"].scale)

    assert range_of(plain) < 0.5 * reach < range_of(helped) < 3 * reach
