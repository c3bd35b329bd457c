"""Which preprocessing a network was trained with, told from its statistics.

The first BatchNormalization stored the mean and variance of what stands before it.
Under the right preprocessing, images of some natural kind give the same; under another
one they are shifted, or too large or too small. Measured is the misfit of a channel,

    sqrt(log(deviation / stored deviation)^2 + (difference of means / deviation)^2),

as median over channels, for the kind of images that fits best. 0.7 is a deviation that
is off by a factor of two.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from gdfq_tf.config import PREPROCESSINGS
from gdfq_tf.graph.bn_statistics import (
    batch_normalization_layers,
    batch_statistics,
    is_untouched,
    normalized_tensor,
    stored_statistics,
)
from gdfq_tf.keras_compat import keras
from gdfq_tf.natural_images import amplitudes_of
from gdfq_tf.preprocessing import Preprocessing, make_preprocessing

Channels = npt.NDArray[np.float64]
# Amplitudes of photographs fall with frequency to this power.
_SPECTRUM = 1.25


@dataclasses.dataclass(frozen=True)
class Population:
    """A kind of images: textures, brightened, contrasted and cut off at 0 and 255.

    Attributes:
      brightness: of the middle of the texture, one for each of RGB or one for all.
      contrast: levels per deviation of the texture.
      rarity: misfit that is added, as fewer networks are trained on such images.
      spectrum: of the texture, see `natural_textures`.
    """

    brightness: tuple[float, ...]
    contrast: float
    rarity: float = 0.1
    spectrum: float = _SPECTRUM

    def pixels(self, textures: Channels) -> Channels:
        """Images, (N, H, W, C) as `textures`."""
        channels = textures.shape[-1]
        brightness = np.array(self.brightness)
        if len(brightness) != channels:
            brightness = np.full(channels, brightness.mean())
        return np.clip(np.rint(brightness + self.contrast * textures), 0, 255)


# Cut off at both ends, textures of large contrast are figures on an even ground.
_POPULATIONS = (
    Population((122.0, 115.0, 103.0), 64.0, rarity=0.0),  # photographs
    Population((122.0, 115.0, 103.0), 40.0),  # of low contrast
    Population((122.0, 115.0, 103.0), 90.0),  # of high contrast
    Population((70.0,), 50.0),  # dark
    Population((190.0,), 50.0),  # bright
    Population((-510.0,), 510.0),  # lines on black, as MNIST
    Population((-150.0,), 510.0),  # shapes on black, as Fashion-MNIST
    Population((405.0,), 510.0),  # shapes on white
    Population((765.0,), 510.0),  # lines on white, as text
    Population((122.0,), 64.0, spectrum=0.4),  # rough, as what sensors measure
)
# Share of the variance that the channels do not have in common.
_COLOUR = 0.04
_NUM_TEXTURES = 8
# Of large images fewer: five of 224 x 224.
_MOST_PIXELS = 2**18
# Networks that scale pixels themselves divide them by ten or more, as photographs have
# deviations of some tens of levels; one that takes [0, 1] multiplies.
_LARGEST_PIXEL_SCALE = 0.1


@dataclasses.dataclass(frozen=True)
class Fit:
    """How well a preprocessing goes with a network's statistics.

    Attributes:
      preprocessing: pixels -> input of the network as its author built it.
      misfit: see the module; 0 is perfect.
    """

    preprocessing: Preprocessing
    misfit: float

    def __str__(self) -> str:
        """Name and misfit, for messages."""
        return f"{self.preprocessing.name} ({self.misfit:.2f})"


def candidates(num_channels: int) -> list[Preprocessing]:
    """What has a name and can be for so many channels."""
    of_imagenet = ("torch", "caffe")
    return [
        make_preprocessing(name, num_channels)
        for name in PREPROCESSINGS
        if name != "custom" and (num_channels == 3 or name not in of_imagenet)
    ]


def scales_pixels(scale: Channels, offset: Channels) -> bool:
    """Whether scale * x + offset, (channels,) each, is a scaling of pixels x.

    What becomes 0 is a pixel then: black, or the mean of images.
    """
    zero = -offset / scale
    is_pixel = (zero >= 0) & (zero <= 255)
    return bool(np.all(is_pixel & (scale <= _LARGEST_PIXEL_SCALE)))


def rank(
    model: keras.Model,
    preprocessings: Iterable[Preprocessing],
    input_scale: Channels,
    input_offset: Channels,
) -> list[Fit]:
    """How well preprocessings fit, best first; none if there are no statistics.

    Args:
      model: canonical.
      preprocessings: pixels -> input of the source.
      input_scale: see `Canonical`.
      input_offset: likewise.
    """
    layer = _first_with_statistics(model)
    if layer is None:
        return []
    shape, misfit = tuple(model.input_shape[1:]), _misfit_of(model, layer)
    textures = functools.cache(lambda spectrum: natural_textures(shape, spectrum))
    images = functools.cache(lambda x: x.pixels(textures(x.spectrum)))
    fits = []
    for preprocessing in preprocessings:
        whole = preprocessing.then(input_scale, input_offset)
        misfits = [
            population.rarity + misfit(whole.to_input(images(population)))
            for population in (*_POPULATIONS, *_declared(preprocessing))
        ]
        fits.append(Fit(preprocessing, min(misfits)))
    return sorted(fits, key=lambda fit: fit.misfit)


def _declared(preprocessing: Preprocessing) -> Sequence[Population]:
    """The images that a custom preprocessing makes standard: mean 0, deviation 1."""
    if preprocessing.name != "custom":
        return ()
    scale, offset = np.array(preprocessing.scale), np.array(preprocessing.offset)
    contrast = float(np.mean(1 / scale))
    return (Population(tuple(-offset / scale), contrast, rarity=0.0),)


def _first_with_statistics(
    model: keras.Model,
) -> keras.layers.BatchNormalization | None:
    layers = batch_normalization_layers(model)
    return next((layer for layer in layers if not is_untouched(layer)), None)


def _misfit_of(
    model: keras.Model, layer: keras.layers.BatchNormalization
) -> Callable[[tf.Tensor], float]:
    """The misfit of model inputs (N, H, W, C) at a layer, infinite if not finite."""
    normalized = keras.Model(model.input, normalized_tensor(layer))
    probe = tf.function(
        lambda inputs: batch_statistics(normalized(inputs)), autograph=False
    )
    stored = stored_statistics(layer)
    stored_mean = np.asarray(stored.mean, np.float64)
    stored_variance = np.asarray(stored.variance, np.float64) + layer.epsilon

    def misfit(inputs: tf.Tensor) -> float:
        found = probe(inputs)
        mean = np.asarray(found.mean, np.float64)
        variance = np.asarray(found.variance, np.float64)
        # A kernel of zeros says nothing of its input.
        says = variance > 0
        if not says.any() or not np.isfinite(variance).all():
            return math.inf
        variance = variance + layer.epsilon
        ratio = 0.5 * np.log(variance / stored_variance)
        pooled = np.sqrt((variance + stored_variance) / 2)
        shift = (mean - stored_mean) / pooled
        return float(np.median(np.hypot(ratio, shift)[says]))

    return misfit


def natural_textures(
    shape: tuple[int, int, int], spectrum: float = _SPECTRUM
) -> Channels:
    """Noise whose amplitudes fall with frequency^spectrum, float64 (N, *shape).

    Its mean is 0, its deviation 1, and channels are nearly alike, as those of
    photographs are.
    """
    height, width, channels = shape
    count = max(1, min(_NUM_TEXTURES, _MOST_PIXELS // (height * width)))
    rng = np.random.default_rng(0)
    frequencies = np.hypot(
        np.fft.fftfreq(height, 1 / height)[:, None],
        np.fft.fftfreq(width, 1 / width),
    )
    amplitudes = amplitudes_of(frequencies, spectrum)

    def noise(num_channels: int) -> Channels:
        white = rng.normal(size=(count, height, width, num_channels))
        spectrum = np.fft.fft2(white, axes=(1, 2)) * amplitudes[:, :, None]
        values = np.fft.ifft2(spectrum, axes=(1, 2)).real
        values -= values.mean()
        # A single pixel has no deviation.
        return np.asarray(values / max(values.std(), np.finfo(float).tiny))

    return np.sqrt(1 - _COLOUR) * noise(1) + np.sqrt(_COLOUR) * noise(channels)


def guess_input_range(model: keras.Model) -> tuple[Channels, Channels] | None:
    """Where the inputs that a network was trained on lie, about: low and high (C,).

    Two deviations about the mean that the first BatchNormalization's statistics speak
    of. None where it stored none, or where not only linear layers stand before it.

    Args:
      model: canonical.
    """
    layer = _first_with_statistics(model)
    if layer is None:
        return None
    probe = keras.Model(model.input, normalized_tensor(layer))
    shape = tuple(model.input_shape[1:])
    stored = stored_statistics(layer)
    deviation = np.sqrt(np.asarray(stored.variance, np.float64) + layer.epsilon)

    def means(inputs: npt.NDArray[np.float64]) -> Channels:
        """Means (N, K) of what each input (N, C), constant over the image, becomes."""
        images = np.broadcast_to(inputs[:, None, None], (len(inputs), *shape))
        values = probe(tf.constant(images, tf.float32))
        axes = list(range(1, len(values.shape) - 1))
        return np.asarray(tf.reduce_mean(values, axes), np.float64)

    channels = shape[-1]
    base = means(np.zeros((1, channels)))
    responses = means(np.eye(channels)) - base
    opposite = means(-np.eye(channels)) - base
    if not np.allclose(opposite, -responses, 1e-3, 1e-3 * np.abs(responses).max()):
        return None
    # Each kernel's mean is known as well as its deviation is small.
    target = (np.asarray(stored.mean, np.float64) - base[0]) / deviation
    mean = np.linalg.lstsq((responses / deviation).T, target, rcond=1e-2)[0]
    textures = tf.constant(natural_textures(shape), tf.float32)
    found = np.sqrt(np.asarray(batch_statistics(probe(textures)).variance, np.float64))
    spread = 2 * np.median(deviation[found > 0] / found[found > 0])
    return mean - spread, mean + spread
