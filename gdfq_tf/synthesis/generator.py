"""The generator G(latents, labels): class-conditional images of any size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import tensorflow as tf

from gdfq_tf.distribution.replicas import global_moments
from gdfq_tf.graph.bn_statistics import batch_statistics
from gdfq_tf.keras_compat import keras
from gdfq_tf.preprocessing import Preprocessing

_layers = keras.layers

# Above this many classes a product of embedding and latents tells them apart too
# slowly; below, its images vary more within a class than those of conditional batch
# normalization. The published generators change over between 100 and 1000 classes.
MAX_EMBEDDED_CLASSES = 32
_LATENT_DIM = 100  # published configuration
_SMALLEST_BASE = 8  # pixels on the short side of the first feature map
_MAX_CHANNELS = 128
_WIDTHS = (64, 48, 32, 24, 16, 12, 8, 6, 4)
_NARROW = 16  # channels
_MAX_HALVINGS = 2  # of the image's sides
# Weights of generators of neighbouring seeds are to have no seed in common.
_SEEDS_PER_GENERATOR = 1000
# Latents and labels of one step are drawn with two keys; those of labels belong to
# steps that no run reaches.
_FIRST_STEP_OF_LABELS = 2**30


@dataclasses.dataclass(frozen=True)
class GeneratorShape:
    """What fixes the generator's size.

    Attributes:
      image: (height, width, channels) of the classifier's input.
      num_classes: labels run from 0 to num_classes - 1.
      num_upsamplings: doublings from the first feature map to the image.
      width: channels of the last feature map; each level below has twice as many,
        `_MAX_CHANNELS` at most.
      enlargement: how often the image is as large as the last feature map.
    """

    image: tuple[int, int, int]
    num_classes: int
    num_upsamplings: int
    width: int
    enlargement: int = 1

    def channels(self, level: int) -> int:
        """Channels after `level` upsamplings."""
        return min(self.width * 2 ** (self.num_upsamplings - level), _MAX_CHANNELS)

    def size(self, level: int) -> tuple[int, int]:
        """Height and width after `level` upsamplings, before enlargement and crop."""
        factor = 2**self.num_upsamplings * self.enlargement
        height, width, _ = self.image
        return (
            math.ceil(height / factor) * 2**level,
            math.ceil(width / factor) * 2**level,
        )

    @property
    def multiply_adds(self) -> int:
        """Of one image's convolutions and first dense layer."""
        height, width = self.size(0)
        total = _LATENT_DIM * height * width * self.channels(0)
        for level in range(1, self.num_upsamplings + 1):
            height, width = self.size(level)
            total += (
                9 * height * width * self.channels(level - 1) * self.channels(level)
            )
        height, width = self.size(self.num_upsamplings)
        return total + 9 * height * width * self.width * self.image[2]


def choose_shape(
    image: tuple[int, int, int], num_classes: int, max_multiply_adds: float
) -> GeneratorShape:
    """The largest generator within a compute budget (the smallest if none fits).

    Images are enlarged only where the last feature map would be narrow otherwise: few
    channels make poorer images than few pixels do.
    """
    num_upsamplings = 1  # however small the image, one hidden convolution
    while min(image[:2]) / 2 ** (num_upsamplings + 1) >= _SMALLEST_BASE:
        num_upsamplings += 1
    num_halvings = min(_MAX_HALVINGS, num_upsamplings - 1)
    shapes = [
        GeneratorShape(
            image, num_classes, num_upsamplings - halvings, width, 2**halvings
        )
        for halvings in range(num_halvings + 1)
        for width in _WIDTHS
        if width >= _NARROW or halvings == num_halvings
    ]
    fitting = [shape for shape in shapes if shape.multiply_adds <= max_multiply_adds]
    return fitting[0] if fitting else shapes[-1]


class ConditionalBatchNormalization(keras.layers.Layer):
    """Batch normalization whose gamma and beta are looked up by class.

    Always normalizes by the batch's own statistics: the generator is only ever
    run on full batches. Source: Xu et al. 2020 §3.2 (ImageNet generator).
    """

    def __init__(self, num_classes: int, **kwargs: object) -> None:
        """Takes the number of classes; `kwargs`: of every layer."""
        super().__init__(**kwargs)
        self.num_classes = num_classes

    def build(self, input_shape: Sequence[tf.TensorShape]) -> None:
        """Makes a gamma and a beta per class and channel."""
        channels = input_shape[0][-1]
        self.gamma = self.add_weight(
            "gamma", (self.num_classes, channels), initializer="ones"
        )
        self.beta = self.add_weight(
            "beta", (self.num_classes, channels), initializer="zeros"
        )

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """`inputs`: features (N, H, W, C) float32 and labels (N,) int32."""
        features, labels = inputs
        mean, variance = batch_statistics(features)
        scale = tf.gather(self.gamma, labels) * tf.math.rsqrt(variance + 1e-5)
        shift = tf.gather(self.beta, labels) - mean * scale
        # Two passes over the features, where the textbook order takes four.
        return (
            features * scale[:, tf.newaxis, tf.newaxis]
            + shift[:, tf.newaxis, tf.newaxis]
        )


class BatchNormalization(keras.layers.Layer):
    """Normalization by the batch's own statistics; gamma and beta learnt."""

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes a gamma and a beta per channel."""
        channels = input_shape[-1]
        self.gamma = self.add_weight("gamma", (channels,), initializer="ones")
        self.beta = self.add_weight("beta", (channels,), initializer="zeros")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """`inputs`: (N, H, W, C) float32."""
        own = tf.nn.moments(inputs, [0, 1, 2])
        ((mean, variance),) = global_moments([own], inputs)
        return tf.nn.batch_normalization(
            inputs, mean, variance, self.beta, self.gamma, 1e-5
        )


class PixelRange(keras.layers.Layer):
    """Squashes (N, H, W, C) smoothly into the classifier's input range."""

    def __init__(self, preprocessing: Preprocessing, **kwargs: object) -> None:
        """Takes the range of each channel; `kwargs`: of every layer."""
        super().__init__(**kwargs)
        self.center = (preprocessing.high + preprocessing.low) / 2
        self.half_range = (preprocessing.high - preprocessing.low) / 2

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Unit-variance inputs use most of the range and saturate rarely."""
        return self.center + self.half_range * tf.tanh(inputs)


def build_generator(
    shape: GeneratorShape, preprocessing: Preprocessing, seed: int
) -> keras.Model:
    """A model from [latents (N, 100), labels (N,) int32] to model inputs.

    Source: Xu et al. 2020 §3.2: label embedding times latents for few classes,
    conditional batch normalization for many; nearest-neighbour upsampling.
    Deviation: channels follow `shape` and the output fills the legal input range.
    """
    seeds = _initializer_seeds(seed)

    def initializer() -> keras.initializers.Initializer:
        return keras.initializers.GlorotUniform(next(seeds))

    latents = keras.Input((_LATENT_DIM,), name="latents")
    labels = keras.Input((), dtype="int32", name="labels")
    conditional = shape.num_classes > MAX_EMBEDDED_CLASSES

    def normalize(features: tf.Tensor) -> tf.Tensor:
        if conditional:
            return ConditionalBatchNormalization(shape.num_classes)([features, labels])
        return BatchNormalization()(features)

    features = latents
    if not conditional:
        embedding = _layers.Embedding(
            shape.num_classes,
            _LATENT_DIM,
            embeddings_initializer=keras.initializers.RandomNormal(
                stddev=1.0, seed=next(seeds)
            ),
        )(labels)
        features = embedding * latents
    height, width = shape.size(0)
    features = _layers.Dense(
        height * width * shape.channels(0), kernel_initializer=initializer()
    )(features)
    features = _layers.Reshape((height, width, shape.channels(0)))(features)
    features = normalize(features)
    for level in range(1, shape.num_upsamplings + 1):
        features = _layers.UpSampling2D(2)(features)
        features = _layers.Conv2D(
            shape.channels(level), 3, padding="same", kernel_initializer=initializer()
        )(features)
        features = _layers.LeakyReLU(0.2)(normalize(features))
    image = _layers.Conv2D(
        shape.image[2], 3, padding="same", kernel_initializer=initializer()
    )(features)
    height, width = (
        shape.enlargement * size for size in shape.size(shape.num_upsamplings)
    )
    if shape.enlargement > 1:
        image = _layers.UpSampling2D(shape.enlargement, interpolation="bilinear")(image)
    image = _layers.Cropping2D(
        ((0, height - shape.image[0]), (0, width - shape.image[1]))
    )(image)
    image = PixelRange(preprocessing)(BatchNormalization()(image))
    return keras.Model([latents, labels], image, name="generator")


def _initializer_seeds(seed: int) -> Iterator[int]:
    """One for each weight of a generator, none of which another generator has."""
    first = seed * _SEEDS_PER_GENERATOR
    return iter(range(first, first + _SEEDS_PER_GENERATOR))


def sample_inputs(
    *, seed: int, step: int | tf.Tensor, batch_size: int, num_classes: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The generator's inputs of one step: a function of seed and step alone.

    Source: Xu et al. 2020 Eq. 2. Stateless, so a resumed run draws the same.

    Returns:
      Latents (N, 100) ~ N(0, 1), float32, and labels (N,) uniform, int32.
    """
    key = tf.stack([tf.cast(seed, tf.int32), tf.cast(step, tf.int32)])
    latents = tf.random.stateless_normal((batch_size, _LATENT_DIM), key)
    labels = tf.random.stateless_uniform(
        (batch_size,),
        key + tf.constant([0, _FIRST_STEP_OF_LABELS]),
        0,
        num_classes,
        tf.int32,
    )
    return latents, labels
