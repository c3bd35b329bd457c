"""A keyword spotter with features of their own range: trained, then quantized.

Its inputs are log-mel energies in dB (see `spoken_digits.py`), the network is the
depthwise-separable one usual for the task. Test words are of speakers it never heard.
Rows beside GDFQ's: the converter's int8 quantization, calibrated on real features
and on noise.

Example:
  python -m benchmarks.keyword_spotting --output=docs/results/keyword_spotting.json
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import flags

import gdfq_tf
from benchmarks import commands
from benchmarks.spoken_digits import (
    NUM_BANDS,
    NUM_FRAMES,
    WORDS,
    spoken_digits,
)
from gdfq_tf.baselines import quantize_post_training
from gdfq_tf.classifier import Classifier
from gdfq_tf.evaluation import ModelFile, compare
from gdfq_tf.system.machine import describe_machine
from gdfq_tf.system.output_files import write_whole

_INPUT_RANGE = (-60.0, 50.0)  # dB, as the feature extractor's floor and gain allow
_BATCH_SIZE = 100


def define_flags() -> commands.Flags:
    """How much is trained and quantized."""
    defined = commands.Flags()
    defined.group("The benchmark")
    defined.integer("num_training_words", 12_000, "Utterances to train on.", low=100)
    defined.integer("num_test_words", 4_000, "Utterances to test on.", low=100)
    defined.integer("epochs", 12, "Passes over the training words.", low=1)
    defined.texts("bits", "w8a8,w4a8", "Widths.")
    defined.texts("recipes", "fast,balanced", "Presets.")
    defined.texts("seeds", "0", "Of the quantization.")
    defined.string("output", "The JSON file for the figures.", required=True)
    return defined


def build_network() -> keras.Model:
    """Log-mel (49, 20) as they come -> logits; the network adds the channel."""
    layers = keras.layers
    x = features = keras.Input((NUM_FRAMES, NUM_BANDS))
    x = layers.Reshape((NUM_FRAMES, NUM_BANDS, 1))(x)
    x = layers.Conv2D(32, (9, 4), strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for _ in range(3):
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Conv2D(32, 1, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(features, layers.Dense(len(WORDS))(x), name="keyword_spotter")


def train(
    model: keras.Model, features: np.ndarray, labels: np.ndarray, epochs: int
) -> None:
    """Fits the network with Adam and a cosine."""
    steps = epochs * len(labels) // _BATCH_SIZE
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(features, labels, _BATCH_SIZE, epochs, verbose=2)


def calibrated_on_real(classifier: Classifier, features: np.ndarray) -> bytes:
    """The converter's int8 quantization with a hundred of the training features."""
    return quantize_post_training(classifier, classifier.input_format.images(features))


def main(values: flags.FlagValues) -> None:
    """Trains, quantizes and writes the rows."""
    keras.utils.set_random_seed(0)
    started = time.monotonic()
    training = spoken_digits(values.num_training_words, seed=1)
    test, labels = spoken_digits(values.num_test_words, seed=2)
    model = build_network()
    train(model, *training, values.epochs)
    seconds = time.monotonic() - started
    classifier = gdfq_tf.load_classifier(model, input_range=_INPUT_RANGE)
    real = ModelFile(
        "int8 PTQ on real features",
        "real.tflite",
        calibrated_on_real(classifier, training[0][:100]),
    )
    images = classifier.input_format.images(test)
    rows: list[dict[str, Any]] = [
        {"recipe": "", "seed": 0, **row}
        for row in compare([real], classifier, images, labels, lambda: None)
    ]
    for recipe in values.recipes:
        for seed in map(int, values.seeds):
            result = gdfq_tf.quantize(
                classifier, bits=values.bits, recipe=recipe, seed=seed
            )
            exact = [None, None, *(x.agreement.exact_outputs for x in result)]
            compared = zip(result.compare(test, labels), exact, strict=True)
            rows += [
                {"recipe": recipe, "seed": seed, **row, "exact_outputs": share}
                for row, share in compared
            ]
    for row in rows:
        print(
            f"{row['recipe']:9} seed {row['seed']} {row['title']:26} "
            f"{100 * row['top1']:6.2f} % {row['size_bytes']:>8,}"
        )
    facts = {
        "num_parameters": model.count_params(),
        "training_seconds": seconds,
        "int8_input": classifier.preprocessing.formula(),
        "machine": describe_machine(),
    }
    rows = [{**row, **facts} for row in rows]
    write_whole(Path(values.output), (json.dumps(rows, indent=1) + "\n").encode())


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__, bare="output")
