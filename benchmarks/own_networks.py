"""Trains eight small networks of as many kinds, on which nothing was tuned.

    python -m benchmarks.own_networks --data=cifar10_test.npz --output_dir=runs/networks

Half of the labelled images of --data train them, the other half is written beside them
to be tested on: <network>.keras and <network>.npz, for `benchmarks.accuracy`. All take
pixels as `--preprocessing=tf` has them. Files that are there already are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from absl import flags

from benchmarks import commands
from benchmarks.train_classifier import AugmentedBatches, reestimate_batch_norm
from gdfq_tf.cli.labelled_images import read_labelled_images
from gdfq_tf.input_format import InputFormat
from gdfq_tf.preprocessing import make_preprocessing

_layers = keras.layers
_LARGE = 96  # pixels, height and width
_BATCH_SIZE = 100

Tensor: TypeAlias = Any  # keras.KerasTensor; Keras has no types


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    defined.group("The benchmark")
    defined.string("data", "Labelled images of 32x32, .npz.", required=True)
    defined.string("output_dir", "Folder for the files.", required=True)
    defined.texts("networks", ",".join(NETWORKS), "Some of them.")
    defined.integer("epochs", 25, "Passes over the training half.", low=1)
    defined.integer("seed", 0, "Of weights and batches.", low=0)
    return defined


def _conv(
    x: Tensor,
    channels: int,
    strides: int = 1,
    size: int = 3,
    activation: str | None = "relu",
) -> Tensor:
    x = _layers.Conv2D(channels, size, strides, padding="same", use_bias=False)(x)
    x = _layers.BatchNormalization()(x)
    return x if activation is None else _layers.Activation(activation)(x)


def _depthwise(x: Tensor, strides: int = 1, activation: str = "relu6") -> Tensor:
    x = _layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)(x)
    return _layers.Activation(activation)(_layers.BatchNormalization()(x))


def _plain(x: Tensor) -> Tensor:
    for channels in (32, 64, 128):
        x = _conv(_conv(x, channels), channels)
        x = _layers.MaxPooling2D()(x)
    return x


def _narrow(x: Tensor) -> Tensor:
    for channels, strides in ((8, 1), (8, 2), (16, 2), (32, 2)):
        x = _conv(x, channels, strides)
    return x


def _residual(x: Tensor) -> Tensor:
    """ResNet-8: 78k parameters."""
    x = _conv(x, 16)
    for channels, strides in ((16, 1), (32, 2), (64, 2)):
        branch = _conv(_conv(x, channels, strides), channels, activation=None)
        if strides > 1:
            x = _conv(x, channels, strides, size=1, activation=None)
        x = _layers.ReLU()(_layers.Add()([x, branch]))
    return x


def _separable(x: Tensor) -> Tensor:
    x = _conv(x, 24, activation="relu6")
    for channels, strides in ((48, 2), (48, 1), (96, 2), (96, 1), (192, 2)):
        x = _conv(_depthwise(x, strides), channels, size=1, activation="relu6")
    return x


def _inverted(x: Tensor, activation: str, excites: bool) -> Tensor:
    """Inverted residuals, with squeeze-and-excitation if it `excites`."""
    x = _conv(x, 16, activation=activation)
    for channels, strides in ((24, 2), (24, 1), (40, 2), (40, 1), (64, 2)):
        y = _conv(x, 4 * x.shape[-1], size=1, activation=activation)
        y = _depthwise(y, strides, activation)
        if excites:
            gate = _layers.GlobalAveragePooling2D(keepdims=True)(y)
            gate = _layers.Conv2D(8, 1, activation="relu")(gate)
            gate = _layers.Conv2D(y.shape[-1], 1, activation="sigmoid")(gate)
            y = _layers.Multiply()([y, gate])
        y = _conv(y, channels, size=1, activation=None)
        x = _layers.Add()([x, y]) if x.shape == y.shape else y
    return _conv(x, 128, size=1, activation=activation)


def _dense(x: Tensor) -> Tensor:
    x = _conv(x, 24)
    for stage in range(3):
        for _ in range(3):
            x = _layers.Concatenate()([x, _conv(_conv(x, 48, size=1), 16)])
        if stage < 2:
            x = _layers.AveragePooling2D(2)(_conv(x, x.shape[-1] // 2, size=1))
    return x


def _signal(x: Tensor) -> Tensor:
    """Rows of pixels as a signal of 32 steps."""
    height, width, channels = x.shape[1:]
    x = _layers.Reshape((height, width * channels))(x)
    for count, strides in ((64, 1), (64, 2), (96, 1), (96, 2), (128, 2)):
        x = _layers.Conv1D(count, 3, strides, padding="same", use_bias=False)(x)
        x = _layers.ReLU()(_layers.BatchNormalization()(x))
    return x


def _large(x: Tensor) -> Tensor:
    return _separable(_conv(x, 16, strides=2))


# Name -> (height and width of images, from the image to the features before pooling).
NETWORKS: Mapping[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "plain": (32, _plain),
    "narrow": (32, _narrow),
    "resnet8": (32, _residual),
    "separable": (32, _separable),
    "excitation": (32, lambda x: _inverted(x, "hard_swish", excites=True)),
    "densely_connected": (32, _dense),
    "signal": (32, _signal),
    "large": (_LARGE, _large),
}


def build(name: str, num_classes: int) -> keras.Model:
    """An untrained network that gives logits.

    Args:
      name: a key of `NETWORKS`.
      num_classes: how many logits.
    """
    size, body = NETWORKS[name]
    image = keras.Input((size, size, 3))
    x = body(image)
    pool = (
        _layers.GlobalAveragePooling2D
        if len(x.shape) == 4
        else _layers.GlobalAveragePooling1D
    )
    return keras.Model(image, _layers.Dense(num_classes)(pool()(x)), name=name)


def train(
    model: keras.Model, pixels: np.ndarray, labels: np.ndarray, epochs: int, seed: int
) -> None:
    """Trains in place: AdamW, one cosine period after an epoch of warm-up.

    Args:
      model: of logits.
      pixels: uint8 (N, H, W, 3).
      labels: (N,).
      epochs: passes over them.
      seed: of batches and how they are augmented.
    """
    preprocessing = make_preprocessing("tf", pixels.shape[-1])

    def preprocess(batch: np.ndarray) -> np.ndarray:
        return preprocessing.to_input(batch).numpy()

    batches = AugmentedBatches(
        pixels, labels, model.output_shape[-1], _BATCH_SIZE, preprocess, seed
    )
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=len(batches) * max(1, epochs - 1),
        warmup_target=4e-3,
        warmup_steps=len(batches),
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.02)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.05)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    model.fit(batches, epochs=epochs, verbose=2)
    reestimate_batch_norm(model, preprocess(pixels))


def main(values: flags.FlagValues) -> None:
    """Trains and writes the networks that --output_dir does not hold yet."""
    given = InputFormat((32, 32, 3), (32, 32, 3), make_preprocessing("tf", 3))
    data = read_labelled_images(values.data, given)
    half, output_dir = len(data.labels) // 2, Path(values.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    for name in values.networks:
        path = output_dir / f"{name}.keras"
        if path.exists():
            continue
        keras.utils.set_random_seed(values.seed)
        size, _ = NETWORKS[name]
        pixels = data.pixels
        if size != pixels.shape[1]:
            pixels = tf.image.resize(pixels, (size, size)).numpy()
            pixels = np.round(pixels).astype(np.uint8)
        num_classes = int(data.labels.max()) + 1
        model = build(name, num_classes)
        train(model, pixels[:half], data.labels[:half], values.epochs, values.seed)
        np.savez_compressed(
            output_dir / f"{name}.npz",
            x_test=pixels[half:],
            y_test=data.labels[half:].astype(np.uint8),
        )
        # A fresh model with the same weights carries no optimizer and no loss.
        trained = build(name, num_classes)
        trained.set_weights(model.get_weights())
        trained.save(path)


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__, bare="data")
