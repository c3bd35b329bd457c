"""Pictures of kinds that networks are trained on; networks with their statistics."""

from __future__ import annotations

import numpy as np

from gdfq_tf.keras_compat import keras
from gdfq_tf.preprocessing import Preprocessing


def photographs(count: int, shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """uint8 (count, *shape): waves of all lengths, long ones stronger, and a tint."""
    rng = np.random.default_rng(seed)
    height, width, channels = shape
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    pixels = np.empty((count, *shape), np.uint8)
    for image in pixels:
        grey = np.zeros((height, width))
        for _ in range(16):
            frequency, angle = 2 ** rng.uniform(-2, 3), rng.uniform(0, 2 * np.pi)
            way = rows * np.sin(angle) + columns * np.cos(angle)
            phase = 2 * np.pi * (frequency * way + rng.uniform())
            grey += 20 * frequency**-0.25 * np.cos(phase)
        tint = rng.normal(0, 10, channels)
        image[:] = np.clip(118 + grey[..., np.newaxis] + tint, 0, 255)
    return pixels


def lines_on_black(count: int, shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 (count, *shape), as digits are written: a few strokes, the rest 0."""
    rng = np.random.default_rng(1)
    height, width, _ = shape
    pixels = np.zeros((count, *shape), np.uint8)
    for image in pixels:
        row, column = rng.integers(2, height - 2), rng.integers(2, width - 2)
        image[row - 1 : row + 1, 3 : width - 3] = 255
        image[3 : height - 3, column - 1 : column + 1] = 255
    return pixels


def network_of(
    pixels: np.ndarray, preprocessing: Preprocessing, *before: keras.layers.Layer
) -> keras.Model:
    """Random kernels, with the statistics that these images have under them.

    Args:
      pixels: uint8 (N, H, W, C).
      preprocessing: pixels -> input of the network.
      before: what it begins with.
    """
    keras.utils.set_random_seed(3)
    layers = keras.layers
    x = image = keras.Input(pixels.shape[1:])
    for layer in before:
        x = layer(x)
    x = layers.Conv2D(24, 3, padding="same", use_bias=False, name="conv")(x)
    x = layers.BatchNormalization(momentum=0.0, epsilon=1e-7, name="norm")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    model = keras.Model(image, layers.Dense(3)(x), name="pictured")
    model(preprocessing.to_input(pixels), training=True)
    return model
