from __future__ import annotations

import json
import sys

import keras  # Keras 3, as the tool
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

import gdfq_tf.embedded
from benchmarks import train_classifier
from tests.gdfq_tf.cli.test_labelled_images import write_idx


def test_small_images_are_centred_on_zeros():
    pixels = np.full((2, 28, 29, 1), 9, np.uint8)
    padded = train_classifier.pad_to_min_size(pixels)
    assert padded.shape == (2, 32, 32, 1)
    assert padded.dtype == np.uint8
    np.testing.assert_array_equal(padded[:, 2:30, 1:30], pixels)
    assert padded.sum() == pixels.sum()


def test_large_images_stay_as_they_are():
    pixels = np.ones((1, 32, 40, 3), np.uint8)
    assert train_classifier.pad_to_min_size(pixels).shape == pixels.shape


def test_augmentation_shifts_and_mirrors():
    count = 2000
    pixels = np.zeros((count, 8, 8, 2), np.uint8)
    pixels[:, 3, 2] = (1, 7)
    augmented = train_classifier.augment(pixels, np.random.default_rng(0))
    assert augmented.shape == pixels.shape
    index, rows, columns = np.nonzero(augmented[..., 0])
    np.testing.assert_array_equal(index, np.arange(count))  # one dot an image
    np.testing.assert_array_equal(augmented[..., 1], 7 * augmented[..., 0])
    assert set(rows) == {1, 2, 3, 4, 5}
    # Column 2 shifted by up to 2, or its mirror image 5: both sides alike.
    assert set(columns) == {0, 1, 2, 3, 4, 5, 6, 7}
    assert np.mean(columns < 3.5) == pytest.approx(0.5, abs=0.04)


def test_batches_are_shuffled_anew_and_hold_each_image_once():
    pixels = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, 8, 8, 1), np.uint8
    )
    labels = np.arange(10) % 3
    batches = train_classifier.AugmentedBatches(
        pixels, labels, 3, 3, lambda x: x.astype(np.float32), seed=0
    )
    assert len(batches) == 3

    def epoch():
        # Shifted images keep their values in the centre.
        pairs = [batches[i] for i in range(len(batches))]
        shown = np.concatenate([x[:, 4, 4, 0] for x, _ in pairs]).astype(int)
        one_hot = np.concatenate([y for _, y in pairs])
        np.testing.assert_array_equal(one_hot, np.eye(3)[shown % 3])
        return shown.tolist()

    first = epoch()
    batches.on_epoch_end()
    second = epoch()
    assert len(set(first)) == len(set(second)) == 9
    assert first != second


def test_batch_norm_statistics_become_the_means_over_batches():
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.BatchNormalization(momentum=0.9)]
    )
    inputs = np.random.default_rng(0).normal(3.0, 2.0, (4000, 5)).astype(np.float32)
    train_classifier.reestimate_batch_norm(model, inputs)
    (layer,) = model.layers
    batches = inputs.reshape(4, 1000, 5)
    np.testing.assert_allclose(layer.moving_mean, inputs.mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, batches.var(1).mean(0), rtol=1e-4)
    assert layer.momentum == 0.9


def build_small(input_shape, alpha, weights, classes):
    """Takes the arguments of a keras.applications function."""
    assert (alpha, weights) == (0.35, None)
    layers = [
        keras.Input(input_shape),
        keras.layers.Conv2D(4, 3, strides=4, use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.Flatten(),
        keras.layers.Dense(classes, activation="softmax"),
    ]
    return keras.Sequential(layers, name="small")


def test_training_writes_what_it_measured(tmp_path, monkeypatch, capsys):
    """Two classes told apart by brightness are learnt, saved and reported."""
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 600), ("t10k", 60)):
        labels = rng.integers(0, 2, count)
        pixels = rng.integers(0, 128, (count, 28, 28)) + 100 * labels[:, None, None]
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", pixels)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", labels)
    monkeypatch.setitem(train_classifier._NETWORKS, "mobilenet_v2", build_small)
    monkeypatch.setattr(train_classifier, "_NUM_VALIDATION", 88)
    out = tmp_path / "out"
    command = ["tool", f"--dataset={tmp_path}", f"--output_dir={out}", "--epochs=2"]
    command += ["--num_test_images=50", "--name=two", "--batch_size=32"]
    monkeypatch.setattr(sys, "argv", command)
    with flagsaver.flagsaver():
        flags.FLAGS(command)
        train_classifier.main()

    facts = json.loads((out / "two_mobilenet_v2.json").read_text())
    assert facts["command"].startswith(
        "python -m benchmarks.train_classifier --dataset="
    )
    assert facts["test_images"] == 60
    assert facts["test_accuracy"] > 0.9
    assert json.dumps(facts["test_accuracy"]) in capsys.readouterr().out

    model = keras.models.load_model(out / "two_mobilenet_v2.keras")
    assert not model.compiled
    (batch_norm,) = (x for x in model.layers if "batch_norm" in x.name)
    assert batch_norm.momentum == 0.99  # keras' default, not the training's
    with np.load(out / "two_test.npz") as arrays:
        pixels, labels = arrays["x_test"], arrays["y_test"]
    assert pixels.shape == (50, 32, 32, 1)
    assert pixels.dtype == np.uint8
    answers = model.predict(pixels / np.float32(127.5) - 1, verbose=0).argmax(-1)
    assert np.mean(answers == labels) == pytest.approx(facts["shipped_test_accuracy"])


def test_embedded_model_reproduces_its_accuracy():
    facts = json.loads(gdfq_tf.embedded.FACTS_PATH.read_text())
    model = keras.models.load_model(gdfq_tf.embedded.MODEL_PATH)
    assert facts["preprocessing"] == gdfq_tf.embedded.PREPROCESSING == "tf"
    with np.load(gdfq_tf.embedded.TEST_IMAGES_PATH) as arrays:
        pixels, labels = arrays["x_test"], arrays["y_test"]
    assert model.input_shape == (None, *pixels.shape[1:])
    assert len(labels) == facts["shipped_test_images"]
    outputs = model.predict(pixels / np.float32(127.5) - 1, batch_size=500, verbose=0)
    right = int(np.sum(outputs.argmax(-1) == labels))
    # Another CPU may round one or two near ties differently.
    expected = facts["shipped_test_accuracy"] * facts["shipped_test_images"]
    assert abs(right - expected) <= 2
