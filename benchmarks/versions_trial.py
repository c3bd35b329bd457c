"""What benchmarks/versions.py runs in each environment, away from the checkout.

Uses the installed package as its users do: a model by name, live models of both
Kerases, a file, and the console command. Prints one line of JSON at its end, or a
traceback.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import gdfq_tf

if TYPE_CHECKING:
    from gdfq_tf.keras_compat import KerasLibrary, KerasModel

_BITS = "w8a8,w4a8"


def main() -> None:
    """In the current folder, which is to be empty."""
    result = gdfq_tf.quantize("embedded", bits=_BITS, recipe="calibrate", seed=0)
    summary = result.save("by_api") / "summary.json"

    import keras as keras_3
    import tf_keras

    live, path = _network(keras_3), "tiny.keras"
    live.save(path)
    for model in (live, _network(tf_keras), path):
        gdfq_tf.load_classifier(model, preprocessing="tf")
    command = Path(sysconfig.get_path("scripts")) / "gdfq"
    subprocess.run(
        [
            command,
            "quantize",
            path,
            "--preprocessing=tf",
            "--recipe=calibrate",
            f"--bits={_BITS}",
            "--output_dir=by_command",
        ],
        check=True,
    )
    print(
        json.dumps(
            {
                "versions": json.loads(summary.read_text())["versions"],
                "exact": {
                    model.bit_widths.name: model.agreement.exact_outputs
                    for model in result
                },
                "sha256": {
                    model.bit_widths.name: hashlib.sha256(model.tflite).hexdigest()
                    for model in result
                },
            }
        )
    )


def _network(keras: KerasLibrary) -> KerasModel:
    """Most of what networks are made of, with random weights."""
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((16, 16, 3))
    maps = layers.Conv2D(8, 3, strides=2, padding="same")(image)
    maps = layers.ReLU(6.0)(layers.BatchNormalization()(maps))
    branch = layers.DepthwiseConv2D(3, padding="same")(maps)
    branch = layers.LeakyReLU()(layers.BatchNormalization()(branch))
    maps = layers.Concatenate()([layers.Add()([maps, branch]), maps])
    maps = layers.UpSampling2D()(layers.MaxPooling2D()(maps))
    maps = layers.Conv2DTranspose(6, 2, strides=2)(layers.AveragePooling2D(2)(maps))
    maps = layers.ReLU()(layers.BatchNormalization()(maps))
    maps = layers.GlobalAveragePooling2D()(maps)
    model = keras.Model(image, layers.Dense(3, activation="softmax")(maps))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.moving_mean.assign(rng.normal(0, 0.2, shape))
            layer.moving_variance.assign(rng.uniform(0.3, 1.2, shape))
    return model


if __name__ == "__main__":
    main()
