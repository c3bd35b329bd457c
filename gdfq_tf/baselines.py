"""What quantized models are held against: the float one and the converter's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from gdfq_tf.checkpoints import NO_CHECKPOINTS, Checkpoints, once
from gdfq_tf.classifier import Classifier
from tflite_export.convert import convert_float, post_training_quantize

_NUM_PTQ_IMAGES = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Baselines:
    """What the quantized models are held against, as `.tflite` bytes.

    Attributes:
      float32: the classifier as it came.
      noise_ptq: the converter's int8 post-training quantization, calibrated on
        uniform noise: what is left to people without data.
    """

    float32: bytes
    noise_ptq: bytes


def make_baselines(
    classifier: Classifier, seed: int, checkpoints: Checkpoints = NO_CHECKPOINTS
) -> Baselines:
    """The float model and its noise-calibrated quantization, as TFLite."""

    def make() -> dict[str, np.ndarray]:
        noise = np.random.default_rng(seed).integers(
            0, 256, (_NUM_PTQ_IMAGES, *classifier.input_shape)
        )
        files = {
            "float32": convert_float(_function(classifier), classifier.example_shape),
            "noise_ptq": quantize_post_training(classifier, noise),
        }
        return {name: np.frombuffer(file, np.uint8) for name, file in files.items()}

    made = once(checkpoints.of("baselines", seed=seed), make)
    return Baselines(made["float32"].tobytes(), made["noise_ptq"].tobytes())


def quantize_post_training(classifier: Classifier, pixels: np.ndarray) -> bytes:
    """The converter's own int8 quantization, as `.tflite` bytes.

    Args:
      classifier: what is quantized.
      pixels: uint8 (N, H, W, C); it is calibrated on the first hundred.
    """
    inputs = classifier.preprocessing.to_input(pixels[:_NUM_PTQ_IMAGES]).numpy()
    shape = classifier.example_shape
    inputs = inputs.reshape(-1, *shape)
    return post_training_quantize(_function(classifier), shape, inputs)


def _function(classifier: Classifier) -> Callable[[tf.Tensor], tf.Tensor]:
    """Examples, scaled -> what the original model gave."""
    shape = classifier.input_shape

    def outputs(inputs: tf.Tensor) -> tf.Tensor:
        if classifier.example_shape != shape:
            inputs = tf.reshape(inputs, (1, *shape))
        return classifier.head.outputs_of(classifier.model(inputs, training=False))

    return outputs
