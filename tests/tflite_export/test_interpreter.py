"""Tests of tflite_export.interpreter."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests import tiny_tflite
from tests.tiny_tflite import convert, fake_quant
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import pack_model, unpack_model
from tflite_export.interpreter import TFLiteClassifier, load_interpreter, read_tflite

SCALE = 2 / 255  # of the range [-1, 1] that `fake_quant` spans


def negate_first_two(x):
    """(1, 3) -> (1, 2): exact in int8, so that outputs are known by hand."""
    weights = np.float32([[-1, 0], [0, -1], [0, 0]])
    return tf.matmul(x, weights)


@pytest.fixture(scope="module")
def int8_tflite() -> bytes:
    return convert(
        lambda x: fake_quant(-fake_quant(x)[:, :2]),
        (1, 3),
    )


@pytest.fixture(scope="module")
def float_tflite() -> bytes:
    return convert(negate_first_two, (1, 3), quantize=False)


@pytest.fixture(scope="module")
def image_tflite() -> bytes:
    return convert(lambda x: tiny_tflite.classifier(x, bits=8), (1, 8, 8, 3))


def test_shapes_types_and_quantization(image_tflite):
    classifier = TFLiteClassifier(image_tflite)
    assert classifier.input_shape == (1, 8, 8, 3)
    assert classifier.num_classes == 5
    assert classifier.dtype == np.int8
    assert classifier.input_quantization.scale == pytest.approx(SCALE)
    assert classifier.input_quantization.zero_point == 0
    # The Dense layer's fake quantization spans [-4, 4].
    assert classifier.output_quantization.scale == pytest.approx(8 / 255)


def test_int8_run_negates_each_image(int8_tflite):
    classifier = TFLiteClassifier(int8_tflite)
    inputs = np.int8([[1, -2, 3], [100, 0, -7], [-128, 127, 0]])
    outputs = classifier.run(inputs)
    assert outputs.dtype == np.int8
    np.testing.assert_array_equal(outputs, [[-1, 2], [-100, 0], [127, -127]])


def test_float_run_negates_each_image(float_tflite):
    classifier = TFLiteClassifier(float_tflite)
    assert classifier.dtype == np.float32
    outputs = classifier.run(np.float32([[0.5, -2.0, 3.0], [1.0, 0.25, 0.0]]))
    assert outputs.dtype == np.float32
    np.testing.assert_array_equal(outputs, [[-0.5, 2.0], [-1.0, -0.25]])


def test_outputs_are_those_of_one_invocation_each(image_tflite):
    images = np.random.default_rng(0).integers(-128, 128, (7, 8, 8, 3), np.int8)
    outputs = TFLiteClassifier(image_tflite).run(images)
    assert len(np.unique(outputs, axis=0)) == 7
    np.testing.assert_array_equal(
        outputs, tiny_tflite.run(image_tflite, images, "xnnpack")
    )


def test_running_again_gives_the_same(image_tflite):
    images = np.random.default_rng(0).integers(-128, 128, (3, 8, 8, 3), np.int8)
    classifier = TFLiteClassifier(image_tflite, num_threads=2)
    first = classifier.run(images)
    classifier.run(images[::-1])
    np.testing.assert_array_equal(classifier.run(images), first)


def test_no_images_give_no_outputs(image_tflite):
    classifier = TFLiteClassifier(image_tflite)
    assert classifier.run(np.empty((0, 8, 8, 3), np.int8)).shape == (0, 5)


def test_quantize_input_rounds_to_even_and_saturates(int8_tflite):
    classifier = TFLiteClassifier(int8_tflite)
    scale = classifier.input_quantization.scale
    real = np.array([0.0, 2.0, 2.5, 3.5, -2.5, 2.6, 127.4, 500.0, -500.0]) * scale
    quantized = classifier.quantize_input(real)
    assert quantized.dtype == np.int8
    np.testing.assert_array_equal(quantized, [0, 2, 2, 4, -2, 3, 127, 127, -128])


def test_zero_points_shift_inputs_and_outputs():
    # [0, 255] in steps of 1 has zero point -128.
    tflite = convert(
        lambda x: fake_quant(tf.nn.relu(fake_quant(x, 0.0, 255.0)), 0.0, 255.0), (1, 3)
    )
    classifier = TFLiteClassifier(tflite)
    assert classifier.input_quantization.zero_point == -128
    np.testing.assert_array_equal(
        classifier.quantize_input(np.float32([0, 1, 255])), [-128, -127, 127]
    )
    np.testing.assert_array_equal(
        classifier.dequantize_output(np.int8([-128, -127, 127])), [0.0, 1.0, 255.0]
    )


def test_logits_of_an_int8_model_are_on_the_output_quant_params(int8_tflite):
    logits = TFLiteClassifier(int8_tflite).logits(np.array([[0.5, -1.0, 0.0]]))
    assert logits.dtype == np.float32
    # 0.5 / SCALE = 63.75 -> 64; -1.0 / SCALE = -127.5 -> -128 -> 127 once negated.
    np.testing.assert_allclose(logits, [[-64 * SCALE, 127 * SCALE]], rtol=1e-6)


def test_logits_of_a_float_model_are_its_outputs(float_tflite):
    logits = TFLiteClassifier(float_tflite).logits(np.array([[0.5, -1.0, 0.0]]))
    np.testing.assert_array_equal(logits, np.float32([[-0.5, 1.0]]))


def test_a_file_gives_what_its_bytes_give(int8_tflite, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(int8_tflite)
    assert read_tflite(path) == read_tflite(int8_tflite) == int8_tflite
    inputs = np.int8([[1, 2, 3]])
    np.testing.assert_array_equal(
        TFLiteClassifier(path).run(inputs), TFLiteClassifier(int8_tflite).run(inputs)
    )


@pytest.mark.parametrize(
    "inputs",
    [
        np.zeros((2, 3), np.float32),
        np.zeros((2, 3), np.uint8),
        np.zeros((2, 4), np.int8),
        np.zeros(3, np.int8),
        np.zeros((2, 1, 3), np.int8),
    ],
)
def test_inputs_of_another_type_or_shape_are_refused(int8_tflite, inputs):
    with pytest.raises(ExportError, match=r"expected int8 of shape \(N, 3"):
        TFLiteClassifier(int8_tflite).run(inputs)


def test_float_models_have_no_quantization(float_tflite):
    classifier = TFLiteClassifier(float_tflite)
    with pytest.raises(ExportError, match="input is float32, which has no"):
        _ = classifier.input_quantization
    with pytest.raises(ExportError, match="output is float32, which has no"):
        classifier.dequantize_output(np.zeros((1, 2)))
    with pytest.raises(ExportError, match="expected int8"):
        classifier.quantize_input(np.zeros((1, 3)))


@pytest.mark.parametrize(
    ("function", "shape", "message"),
    [
        (lambda x: x + 1.0, (2, 3), r"input has shape \(2, 3\); expected a batch of 1"),
        (lambda x: x + 1.0, (1, 2, 3), r"output has shape \(1, 2, 3\); expected \(1, "),
        (lambda x: tf.tile(x, (2, 1)), (1, 3), r"output has shape \(2, 3\)"),
        (lambda x: (x + 1.0, x * 2.0), (1, 3), "has 2 outputs; expected 1"),
        (
            lambda x: tf.cast(x, tf.int32),
            (1, 3),
            "output is int32; expected int8, uint8, int16 or",
        ),
    ],
)
def test_models_that_are_no_classifier_are_refused(function, shape, message):
    tflite = convert(function, shape, quantize=False)
    with pytest.raises(ExportError, match=message):
        TFLiteClassifier(tflite)


def test_damaged_files_are_refused_in_one_line(int8_tflite):
    for data in (b"", b"abc", int8_tflite[: len(int8_tflite) // 2]):
        with pytest.raises(ExportError, match="LiteRT refuses") as caught:
            TFLiteClassifier(data)
        assert "\n" not in str(caught.value)


def test_names_that_are_no_text_are_refused_in_one_line(int8_tflite):
    (name,) = (
        detail["name"].encode()
        for detail in load_interpreter(int8_tflite).get_output_details()
    )
    damaged = int8_tflite.replace(name, b"\xff" + name[1:])
    assert damaged != int8_tflite
    with pytest.raises(ExportError, match=r"LiteRT refuses .* can't decode") as caught:
        TFLiteClassifier(damaged)
    assert "\n" not in str(caught.value)


def test_operators_litert_lacks_are_refused_in_one_line(int8_tflite):
    model = unpack_model(int8_tflite)
    for code in model.operatorCodes:
        code.version = 99
    with pytest.raises(ExportError, match="version '99'") as caught:
        load_interpreter(pack_model(model))
    assert "\n" not in str(caught.value)


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(ExportError, match=r"cannot read '.*none\.tflite' \(No such"):
        TFLiteClassifier(tmp_path / "none.tflite")


@pytest.mark.parametrize("num_threads", [0, -1])
def test_fewer_than_one_thread_is_refused(int8_tflite, num_threads):
    with pytest.raises(ExportError, match="expected 1 or more"):
        TFLiteClassifier(int8_tflite, num_threads=num_threads)
