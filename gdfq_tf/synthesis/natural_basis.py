"""Images as sums of waves that are as strong as those of photographs.

Steps of equal size on pixels change an image mostly where photographs have least, in
its finest detail. On these coefficients they change it as photographs differ: long
waves most, and all colours together.

Source: optimisation in a decorrelated, whitened space, Olah, Mordvintsev & Schubert
2017 ("Feature Visualization", preconditioning); here on a cosine transform, whose waves
need not meet at opposite edges, and from an image to start with.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from gdfq_tf.natural_images import amplitudes_of, colour_deviations

_Matrix = npt.NDArray[np.float64]


class NaturalBasis:
    """The waves for images of one shape.

    Attributes:
      shape: (height, width, channels), of coefficients as of images.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        """Lays out the waves and how strong they are."""
        height, width, channels = shape
        self.shape = shape
        # A wave of the transform has half as many periods as its number says.
        periods = np.hypot(np.arange(height)[:, np.newaxis], np.arange(width)) / 2
        amplitudes = amplitudes_of(periods)
        # Equal steps on all coefficients then change pixels by as much on average.
        amplitudes /= np.sqrt(np.mean(np.square(amplitudes)))
        self._amplitudes = _constant(amplitudes[..., np.newaxis])
        self._down = _constant(cosines(height))
        self._across = _constant(cosines(width))
        self._colours = _constant(colour_deviations(channels))

    def images(self, coefficients: tf.Tensor) -> tf.Tensor:
        """What coefficients, float32 (N, H, W, C), stand for, of the same shape."""
        waves = tf.tensordot(coefficients * self._amplitudes, self._colours, 1)
        columns = tf.einsum("uh,nuvc->nhvc", self._down, waves)
        return tf.einsum("vw,nhvc->nhwc", self._across, columns)


def cosines(size: int) -> _Matrix:
    """The orthonormal cosine transform (DCT-II), float64, one of `size` waves a row."""
    numbers, places = np.arange(size)[:, np.newaxis], np.arange(size) + 0.5
    waves = np.sqrt(2 / size) * np.cos(np.pi / size * numbers * places)
    waves[0] /= np.sqrt(2)
    return waves


def _constant(values: _Matrix) -> tf.Tensor:
    return tf.constant(values, tf.float32)
