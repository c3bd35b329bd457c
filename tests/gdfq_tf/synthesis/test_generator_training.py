from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf.config import SynthesisConfig
from gdfq_tf.errors import UserError
from gdfq_tf.graph.queries import multiply_adds
from gdfq_tf.keras_compat import keras
from gdfq_tf.progress import NullProgress
from gdfq_tf.synthesis import generator_training, objective
from gdfq_tf.synthesis.generator import sample_inputs
from gdfq_tf.synthesis.generator_training import (
    LossReport,
    generate,
    make_generator,
    make_generator_step,
    noise_images,
    pool_step,
    synthesize,
)
from gdfq_tf.synthesis.teacher import Teacher
from tests.tiny import (
    INPUT_SHAPE,
    NUM_CLASSES,
    Recorder,
    build_tiny_classifier,
    classifier_of,
)

CONFIG = SynthesisConfig(num_steps=20, batch_size=16, num_snapshots=4)


def decisive_classifier() -> keras.Model:
    """Large logits that on noise favour no class."""
    classifier = build_tiny_classifier(seed=2)
    noise = np.random.default_rng(0).uniform(-1, 1, (64, *INPUT_SHAPE))
    layer = classifier.get_layer("logits")
    kernel, bias = layer.get_weights()
    layer.set_weights([6 * kernel, 0 * bias])
    logits = classifier(noise.astype(np.float32), training=False).numpy()
    layer.set_weights([6 * kernel, -logits.mean(axis=0)])
    return classifier


def make_step(classifier, config=CONFIG, seed=0):
    teacher = Teacher(classifier_of(classifier))
    generator = make_generator(classifier_of(classifier), config, seed)
    optimizer = keras.optimizers.Adam(config.learning_rate, beta_1=0.5)
    return (
        generator,
        teacher,
        make_generator_step(generator, teacher, optimizer, config, seed),
    )


def changed(variables, before) -> list[bool]:
    return [
        not np.array_equal(now, then)
        for now, then in zip(variables, before, strict=True)
    ]


def test_a_step_moves_the_whole_generator_and_nothing_of_the_teacher(tiny_classifier):
    generator, teacher, step = make_step(tiny_classifier)
    generator_before = generator.get_weights()
    teacher_before = teacher.classifier.model.get_weights()
    metrics = step(tf.constant(0))
    assert all(changed(generator.get_weights(), generator_before))
    assert not any(changed(teacher.classifier.model.get_weights(), teacher_before))
    assert metrics["images"].shape == (16, *INPUT_SHAPE)
    assert metrics["labels"].shape == (16,)
    assert float(metrics["loss"]) == pytest.approx(
        float(metrics["cross_entropy"]) + CONFIG.bn_weight * float(metrics["bn"])
    )


def test_steps_are_traced_once_and_draw_fresh_images(tiny_classifier):
    _, _, step = make_step(tiny_classifier)
    drawn = [step(tf.constant(i))["labels"].numpy() for i in range(3)]
    assert step.experimental_get_tracing_count() == 1
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])


def test_losses_fall_and_images_grow_sure_of_their_labels():
    classifier = decisive_classifier()
    config = SynthesisConfig(
        50, batch_size=32, learning_rate=1e-2, bn_weight=1.0, compute_ratio=20.0
    )
    _, _, step = make_step(classifier, config)
    history: dict[str, list] = {"loss": [], "cross_entropy": [], "bn": [], "top1": []}
    for i in range(50):
        metrics = step(tf.constant(i))
        for name in ("loss", "cross_entropy", "bn"):
            history[name].append(float(metrics[name]))
        predicted = np.argmax(classifier(metrics["images"]), axis=-1)
        history["top1"].append(np.mean(predicted == metrics["labels"]))
    first = {name: values[0] for name, values in history.items()}
    last = {name: np.mean(values[-5:]) for name, values in history.items()}
    assert last["loss"] < 0.6 * first["loss"]
    assert last["cross_entropy"] < 0.5 * first["cross_entropy"]
    assert last["bn"] < 0.9 * first["bn"]
    assert first["top1"] < 0.6
    assert last["top1"] > 0.9


@pytest.mark.parametrize("relative", [True, False])
def test_the_configured_statistics_loss_is_minimised(
    tiny_classifier, relative, monkeypatch
):
    def constant(value):
        return lambda **_: tf.constant(value)

    monkeypatch.setattr(objective, "relative_bn_statistics_loss", constant(3.0))
    monkeypatch.setattr(objective, "bn_statistics_loss", constant(5.0))
    config = SynthesisConfig(1, batch_size=4, relative_bn_loss=relative)
    _, _, step = make_step(tiny_classifier, config)
    assert float(step(tf.constant(0))["bn"]) == (3.0 if relative else 5.0)


def test_generator_takes_its_size_from_the_classifier(tiny_classifier):
    generator = make_generator(classifier_of(tiny_classifier), CONFIG, 0)
    assert generator.output_shape == (None, *INPUT_SHAPE)
    (embedding,) = (
        x for x in generator.layers if isinstance(x, keras.layers.Embedding)
    )
    assert embedding.input_dim == NUM_CLASSES
    generous = SynthesisConfig(1, compute_ratio=100.0)
    larger = make_generator(classifier_of(tiny_classifier), generous, 0)
    assert larger.count_params() > generator.count_params()
    assert multiply_adds(larger) <= 100 * multiply_adds(tiny_classifier)


@pytest.mark.parametrize(("num_images", "num_snapshots"), [(50, 4), (7, 3)])
def test_the_pool_has_exactly_the_images_asked_for(
    tiny_classifier, num_images, num_snapshots
):
    config = SynthesisConfig(num_steps=6, batch_size=16, num_snapshots=num_snapshots)
    recorder = Recorder()
    pool = synthesize(
        classifier_of(tiny_classifier), config, num_images, seed=0, progress=recorder
    )
    assert pool.pixels.shape == (num_images, *INPUT_SHAPE)
    assert pool.pixels.dtype == np.uint8
    assert pool.labels.shape == (num_images,)
    assert pool.labels.dtype == np.int32
    assert pool.labels.min() >= 0
    assert pool.labels.max() < NUM_CLASSES
    assert recorder.stages == [("generator", 6, 6)]
    # No image is there twice.
    assert len(np.unique(pool.pixels.reshape(num_images, -1), axis=0)) == num_images


def test_snapshots_lie_evenly_in_the_second_half(tiny_classifier, monkeypatch):
    first_steps = []

    def spy(*args, first_step, **kwargs):
        first_steps.append(first_step)
        return generate(*args, first_step=first_step, **kwargs)

    monkeypatch.setattr(generator_training, "generate", spy)
    synthesize(
        classifier_of(tiny_classifier), CONFIG, 50, seed=0, progress=NullProgress()
    )
    # Of 20, after the update of that step.
    assert first_steps == [pool_step(number - 1) for number in (13, 15, 18, 20)]


def test_a_single_step_fills_the_pool_as_well(tiny_classifier):
    config = SynthesisConfig(num_steps=1, batch_size=8)
    pool = synthesize(
        classifier_of(tiny_classifier), config, 20, seed=0, progress=NullProgress()
    )
    assert len(pool.pixels) == len(pool.labels) == 20


def test_the_same_seed_gives_the_same_pool(tiny_classifier):
    config = SynthesisConfig(num_steps=3, batch_size=8, num_snapshots=2)

    def pool(seed):
        return synthesize(
            classifier_of(tiny_classifier),
            config,
            20,
            seed=seed,
            progress=NullProgress(),
        )

    first, again, other = pool(1), pool(1), pool(2)
    np.testing.assert_array_equal(first.labels, again.labels)
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, other.pixels)


def test_pixels_are_what_the_generator_shows(tiny_classifier):
    classifier, config = classifier_of(tiny_classifier), replace(CONFIG, batch_size=8)
    generator = make_generator(classifier, config, 0)
    images = generate(generator, classifier, config, 12, seed=0, first_step=9)
    assert images.pixels.shape == (12, *INPUT_SHAPE)
    latents, labels = sample_inputs(
        seed=0, step=9, batch_size=8, num_classes=NUM_CLASSES
    )
    inputs = generator([latents, labels]).numpy()
    expected = np.clip(np.round((inputs + 1.0) * 127.5), 0, 255)
    difference = np.abs(images.pixels[:8].astype(float) - expected)
    assert difference.max() <= 1  # at ties, by float noise
    assert difference.mean() < 0.01
    np.testing.assert_array_equal(images.labels[:8], labels)


def test_broken_weights_end_in_one_line(tiny_classifier):
    layer = tiny_classifier.get_layer("logits")
    layer.set_weights([np.nan * w for w in layer.get_weights()])
    with pytest.raises(UserError, match="at step 1 of 20") as error:
        synthesize(
            classifier_of(tiny_classifier), CONFIG, 8, seed=0, progress=NullProgress()
        )
    assert "'loss' became nan" in str(error.value)
    assert "\n" not in str(error.value)


def test_losses_are_shown_every_few_steps_and_at_the_end():
    shown = []

    def advance(n=1, **metrics):
        shown.append(metrics)

    metrics = {
        "loss": tf.constant(1.5),
        "bn_gaps": tf.constant([4.0, 1 / 9]),
        "images": tf.zeros((2, 2)),
    }
    report = LossReport("generator", 14, advance, ["first", "block/second"])
    for step in range(14):
        report(metrics, step)
    assert len(shown) == 14
    assert [i for i, x in enumerate(shown) if x] == [0, 10, 13]
    # Gaps are roots of mean squares, of four digits.
    gaps = {"bn_gap/first": 2.0, "bn_gap/block/second": 0.3333}
    assert shown[0] == {"loss": 1.5, **gaps}


@pytest.mark.parametrize(("value", "text"), [(np.inf, "inf"), (np.nan, "nan")])
def test_losses_that_are_not_finite_stop_the_run(value, text):
    metrics = {"loss": tf.constant(1.0), "bn": tf.constant(value)}
    report = LossReport("warm-up", 40, lambda **metrics: None, ())
    expected = f"loss 'bn' became {text} at step 11 of 40 of stage 'warm-up'; check"
    with pytest.raises(UserError, match=expected):
        report(metrics, 10)


def test_images_that_the_last_step_broke_are_not_kept(tiny_classifier):
    classifier = classifier_of(tiny_classifier)
    generator = make_generator(classifier, CONFIG, 0)
    generator.trainable_variables[-1].assign(
        np.full(generator.trainable_variables[-1].shape, np.nan)
    )
    with pytest.raises(UserError, match="synthetic images became nan or inf; check"):
        generate(generator, classifier, CONFIG, 8, seed=0, first_step=0)


@pytest.mark.parametrize(
    "shape", [(8, 8, 3), (32, 32, 1), (28, 30, 3), (33, 17, 2), (1, 5, 1), (2, 2, 3)]
)
def test_noise_images_have_the_shape_asked_for_and_no_classes(shape):
    images = noise_images(shape, 5, seed=0)
    assert images.pixels.shape == (5, *shape)
    assert images.pixels.dtype == np.uint8
    assert images.labels.dtype == np.int32
    assert images.labels.tolist() == [-1] * 5


@pytest.mark.parametrize("shape", [(20_000, 1, 2), (3, 5000, 1)])
def test_noise_of_long_signals_takes_no_square_grids(shape, monkeypatch):
    grids = []
    resize = tf.image.resize
    monkeypatch.setattr(
        tf.image,
        "resize",
        lambda grid, *args, **kw: grids.append(grid.shape) or resize(grid, *args, **kw),
    )
    pixels = noise_images(shape, 3, seed=0).pixels.astype(float)
    assert max(math.prod(grid[1:3]) for grid in grids) <= 8 * math.prod(shape[:2])
    assert 40 < pixels.std(axis=(1, 2, 3)).mean() < 70


def test_noise_of_one_pixel_differs_from_image_to_image():
    assert len(np.unique(noise_images((1, 1, 1), 8, seed=0).pixels)) > 4


def test_noise_images_are_a_function_of_the_seed():
    first = noise_images((16, 16, 3), 4, seed=3).pixels
    np.testing.assert_array_equal(first, noise_images((16, 16, 3), 4, seed=3).pixels)
    assert not np.array_equal(first, noise_images((16, 16, 3), 4, seed=4).pixels)
    assert len(np.unique(first.reshape(4, -1), axis=0)) == 4


def test_noise_images_are_mid_grey_with_the_spectrum_of_photographs():
    pixels = noise_images((64, 64, 3), 100, seed=0).pixels.astype(float)
    assert pixels.mean() == pytest.approx(128, abs=6)
    assert 45 < pixels.std() < 75
    assert np.mean((pixels == 0) | (pixels == 255)) < 0.08
    # A photograph's amplitude falls with frequency; white noise's does not.
    spectrum = np.abs(np.fft.fft2(pixels, axes=(1, 2)))
    along = np.sqrt((spectrum**2).mean(axis=(0, 3))[0])
    bands = [along[1:3].mean(), along[4:8].mean(), along[16:32].mean()]
    assert bands[0] > 2 * bands[1] > 4 * bands[2] > 0


def test_without_steps_the_pool_is_noise(tiny_classifier, monkeypatch):
    def unreachable(*args, **kwargs):
        raise AssertionError("nothing is to be trained")

    monkeypatch.setattr(generator_training, "make_generator", unreachable)
    recorder = Recorder()
    pool = synthesize(
        classifier_of(tiny_classifier),
        SynthesisConfig(0),
        7,
        seed=5,
        progress=recorder,
    )
    expected = noise_images(INPUT_SHAPE, 7, seed=5)
    np.testing.assert_array_equal(pool.pixels, expected.pixels)
    np.testing.assert_array_equal(pool.labels, expected.labels)
    assert recorder.stages == []


def test_large_images_come_in_smaller_steps(tiny_classifier, monkeypatch):
    monkeypatch.setattr("gdfq_tf.config._PIXELS_PER_STEP", 40 * 8 * 8)
    _, _, step = make_step(tiny_classifier, SynthesisConfig(1, batch_size=128))
    assert step(tf.constant(0))["images"].shape == (40, *INPUT_SHAPE)


def test_the_step_returns_the_teachers_logits_on_its_images(tiny_classifier):
    _, teacher, step = make_step(tiny_classifier)
    made = step(tf.constant(0))
    expected = teacher.classifier.model(made["images"], training=False)
    np.testing.assert_allclose(made["logits"], expected, rtol=1e-4, atol=1e-4)
