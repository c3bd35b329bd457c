"""The whole way on a tiny classifier: slow steps are shared by all tests."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf import pipeline
from gdfq_tf.classifiers import Classifier
from gdfq_tf.config import (
    RECIPES,
    Recipe,
    ReconstructionConfig,
    SynthesisConfig,
    parse_bit_widths,
)
from gdfq_tf.pipeline import make_baselines, quantize
from gdfq_tf.preprocessing import make_preprocessing
from tests.tiny import INPUT_SHAPE, NUM_CLASSES, build_tiny_classifier
from tflite_export.affine_quantization import weight_limit
from tflite_export.errors import ExportError
from tflite_export.integer_inference import infer
from tflite_export.interpreter import TFLiteClassifier

TINY_RECIPE = Recipe(
    "tiny",
    SynthesisConfig(num_steps=4, batch_size=16, pool_size=96, num_snapshots=2),
    ReconstructionConfig(num_images=48),
)
WIDTHS = tuple(map(parse_bit_widths, ("w8a8", "w4a8", "w4a4/paper")))


def make_classifier(head: str = "logits") -> Classifier:
    preprocessing = make_preprocessing("tf", 3)
    return Classifier("tiny", build_tiny_classifier(), preprocessing, head)


@pytest.fixture(scope="module")
def result():
    return quantize(make_classifier(), TINY_RECIPE, WIDTHS, seed=1)


def test_one_verified_model_per_width_in_the_order_asked(result):
    assert tuple(model.widths for model in result.models) == WIDTHS
    for model in result.models:
        assert model.findings
        assert all(finding.passed for finding in model.findings)
        assert model.agreement.num_images == 128  # 64 random, 64 synthetic
        assert model.agreement.max_lsb <= 1
        assert model.seconds > 0
    assert result.synthesis_seconds > 0


def test_files_compute_what_their_networks_say(result):
    rng = np.random.default_rng(7)
    inputs = rng.integers(-128, 128, (16, *INPUT_SHAPE), np.int8)
    for model in result.models:
        outputs = TFLiteClassifier(model.tflite).run(inputs)
        assert outputs.dtype == np.int8
        difference = outputs.astype(int) - np.rint(infer(model.network, inputs))
        assert np.abs(difference).max() <= 1


def test_widths_are_kept(result):
    for model in result.models:
        limit = weight_limit(model.widths.weight_bits)
        kernels = [op.kernel for op in model.network.ops if op.kernel is not None]
        assert len(kernels) == 4
        for kernel in kernels:
            assert kernel.bits == model.widths.weight_bits
            assert np.abs(kernel.values.astype(int)).max() <= limit
    eight, four, _ = result.models
    assert len(four.tflite) < len(eight.tflite)


def test_the_image_input_is_pixel_minus_128(result):
    for model in result.models:
        file = TFLiteClassifier(model.tflite)
        assert file.input_shape == (1, *INPUT_SHAPE)
        assert file.input_quantization.scale == pytest.approx(2 / 255, rel=2e-5)
        assert file.input_quantization.zero_point == 0
        assert file.num_classes == NUM_CLASSES


def test_eight_bits_keep_the_classifiers_logits(result):
    classifier = make_classifier()
    logits = classifier.model(
        classifier.preprocessing.to_input(result.images.pixels), training=False
    ).numpy()
    file = TFLiteClassifier(result.models[0].tflite)
    outputs = file.run(classifier.preprocessing.to_int8(result.images.pixels))
    error = file.dequantize_output(outputs) - logits
    assert np.sqrt(np.mean(error**2)) < 0.1 * np.std(logits)


def test_widths_share_one_pool(result):
    # Of 96, a quarter is held out for the estimate.
    assert result.images.pixels.shape == (72, *INPUT_SHAPE)
    assert [model.estimate.num_images for model in result.models] == [24] * 3


def test_the_same_seed_gives_the_same_bytes_and_another_others(result):
    alone = quantize(make_classifier(), TINY_RECIPE, WIDTHS[1:2], seed=1)
    assert alone.models[0].tflite == result.models[1].tflite
    assert alone.baselines.float32 == result.baselines.float32
    assert alone.baselines.noise_ptq == result.baselines.noise_ptq
    np.testing.assert_array_equal(alone.images.pixels, result.images.pixels)
    other = quantize(make_classifier(), TINY_RECIPE, WIDTHS[1:2], seed=2)
    assert other.models[0].tflite != result.models[1].tflite
    assert other.baselines.float32 == result.baselines.float32


def test_the_classifier_is_left_as_it_was():
    classifier = make_classifier()
    before = classifier.model.get_weights()
    quantize(classifier, TINY_RECIPE, WIDTHS[:1])
    for now, then in zip(classifier.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_published_recipe_and_softmax_end_in_verified_models():
    published = RECIPES["gdfq"]
    recipe = dataclasses.replace(
        published,
        synthesis=dataclasses.replace(
            published.synthesis, num_steps=2, batch_size=16, pool_size=20
        ),
        student=dataclasses.replace(published.student, num_steps=2),
    )
    result = quantize(make_classifier("softmax"), recipe, WIDTHS[2:])
    (model,) = result.models
    assert all(finding.passed for finding in model.findings)
    assert model.agreement.max_lsb <= 1
    assert model.network.softmax
    assert result.images.pixels.shape == (15, *INPUT_SHAPE)
    assert model.estimate.num_images == 5
    file = TFLiteClassifier(model.tflite)
    # The grid that TFLite's softmax kernel prescribes.
    assert file.output_quantization.scale == pytest.approx(1 / 256)
    assert file.output_quantization.zero_point == -128


def test_baselines_are_the_float_model_and_its_noise_calibration():
    classifier = make_classifier("softmax")
    baselines = make_baselines(classifier, seed=0)
    pixels = np.random.default_rng(0).integers(0, 256, (8, *INPUT_SHAPE))
    inputs = classifier.preprocessing.to_input(pixels).numpy()
    expected = tf.nn.softmax(classifier.model(inputs, training=False))
    exact = TFLiteClassifier(baselines.float32)
    assert exact.dtype == np.float32
    np.testing.assert_allclose(exact.logits(inputs), expected, atol=1e-5)
    noisy = TFLiteClassifier(baselines.noise_ptq)
    assert noisy.dtype == np.int8
    np.testing.assert_allclose(noisy.logits(inputs), expected, atol=0.05)


def test_a_file_that_computes_something_else_is_refused(result, monkeypatch):
    model = result.models[0]

    def verify(infer):
        monkeypatch.setattr(pipeline, "infer", infer)
        return pipeline.verify(
            model.network,
            model.tflite,
            make_classifier(),
            result.images,
            model.widths,
            result.baselines,
        )

    findings, agreement = verify(infer)
    assert (findings, agreement) == (model.findings, model.agreement)
    with pytest.raises(ExportError, match="within 1 LSB") as error:
        verify(lambda network, inputs: np.clip(infer(network, inputs), None, 120) + 2)
    assert "\n" not in str(error.value)


def test_a_file_of_other_widths_is_refused(result):
    four = result.models[1]
    with pytest.raises(ExportError, match="breaks"):
        pipeline.verify(
            four.network,
            four.tflite,
            make_classifier(),
            result.images,
            WIDTHS[0],
            result.baselines,
        )
