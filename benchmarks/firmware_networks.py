"""Networks for `benchmarks.firmware` and `.parity` of which there are no trained files.

    python -m benchmarks.firmware_networks --output_dir=runs/networks

Their weights are random, their BatchNormalization has the statistics of noise: flash,
memory, instructions and rounding do not depend on them. `keyword_spotter` is that of
`keyword_spotting.py`; `gated` has squeeze-and-excitation and hard-swish as MobileNetV3
has them. Beside each lies an `.npz` file of inputs such as it takes: spoken digits, and
clothes in gray.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from absl import flags

from benchmarks import commands, keyword_spotting
from benchmarks.spoken_digits import spoken_digits
from gdfq_tf.embedded import TEST_IMAGES_PATH

_NUM_BATCHES = 200  # after which little is left of the statistics to begin with
_BATCH_SIZE = 16
_NUM_INPUTS = 1000


def define_flags() -> commands.Flags:
    """Where they go."""
    defined = commands.Flags()
    defined.group("The benchmark")
    defined.string("output_dir", "The folder for the files.", required=True)
    return defined


def main(values: flags.FlagValues) -> None:
    """Writes a .keras file of each, and a file of inputs."""
    keras.utils.set_random_seed(0)
    folder = Path(values.output_dir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    networks = (
        (keyword_spotting.build_network(), (-60.0, 50.0)),
        (gated_network(), (-1.0, 1.0)),
    )
    for model, (low, high) in networks:
        _measure_noise(model, low, high)
        model.save(folder / f"{model.name}.keras")
    features, words = spoken_digits(_NUM_INPUTS, seed=2)
    np.savez_compressed(folder / "keyword_spotter.npz", x=features, y=words)
    clothes = np.load(TEST_IMAGES_PATH)
    images, kinds = (clothes[x][:_NUM_INPUTS] for x in ("x_test", "y_test"))
    images = np.pad(
        images, ((0, 0), (8, 8), (8, 8), (0, 2)), mode="edge"
    )  # 48 x 48 RGB
    np.savez_compressed(folder / "gated.npz", x=images, y=kinds)


def gated_network() -> keras.Model:
    """Images (48, 48, 3) -> 10 logits, in blocks of MobileNetV3."""
    layers = keras.layers
    x = images = keras.Input((48, 48, 3))
    x = _normalized(layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(x))
    x = layers.Activation("hard_swish")(x)
    for width, filters, size, strides in (
        (16, 16, 3, 2),
        (72, 24, 3, 2),
        (96, 40, 5, 2),
        (240, 40, 5, 1),
        (288, 96, 5, 2),
    ):
        x = _block(x, width, filters, size, strides)
    x = layers.Activation("hard_swish")(_normalized(layers.Conv2D(288, 1)(x)))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(10)(x), name="gated")


def _block(
    x: keras.KerasTensor, width: int, filters: int, size: int, strides: int
) -> keras.KerasTensor:
    layers, source = keras.layers, x
    x = _normalized(layers.Conv2D(width, 1, use_bias=False)(x))
    x = layers.Activation("hard_swish")(x)
    x = layers.DepthwiseConv2D(size, strides, padding="same", use_bias=False)(x)
    x = layers.Activation("hard_swish")(_normalized(x))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(max(8, width // 4), 1, activation="relu")(gate)
    gate = layers.Conv2D(width, 1, activation="hard_sigmoid")(gate)
    x = layers.Multiply()([x, gate])
    x = _normalized(layers.Conv2D(filters, 1, use_bias=False)(x))
    return layers.Add()([source, x]) if source.shape == x.shape else x


def _normalized(x: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.BatchNormalization(momentum=0.95)(x)


def _measure_noise(model: keras.Model, low: float, high: float) -> None:
    """Gives BatchNormalization layers the statistics that uniform noise has."""
    rng = np.random.default_rng(0)
    for _ in range(_NUM_BATCHES):
        batch = rng.uniform(low, high, (_BATCH_SIZE, *model.input_shape[1:]))
        model(batch.astype(np.float32), training=True)


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__, bare="output_dir")
