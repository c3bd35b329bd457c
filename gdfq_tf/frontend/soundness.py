"""Whether a network works at all: found out on a few images, before minutes are spent.

Nothing of the training data is known but BatchNormalization's statistics. What these
say of a ReLU (behind a mean of beta and a deviation of |gamma|) holds for the training
images whatever the preprocessing given; what random images show may be its fault.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from gdfq_tf.config import RECIPES
from gdfq_tf.errors import UserError
from gdfq_tf.frontend.stored_values import FLOAT32_MAX
from gdfq_tf.graph.bn_statistics import batch_normalization_layers
from gdfq_tf.graph.queries import consumers, input_layers, output_layer
from gdfq_tf.graph.traits import has_kernel
from gdfq_tf.keras_compat import Layer, keras
from tflite_export.names import shown

_layers = keras.layers

# Side of the grids of random values that images are enlarged from, beside noise.
_SMOOTH_GRIDS = (2, 8)
# Of each kind.
_NUM_PROBES = 4
# 16 images of 512 x 512.
_MOST_PIXELS = 2**22
_LARGEST_BATCH = max(recipe.synthesis.batch_size for recipe in RECIPES.values())
# Synthetic images excite networks more than random ones do.
_HEADROOM = 100.0
# Differences below are the rounding of sums that are equal.
_ROUNDING = 8 * np.finfo(np.float32).eps
# Deviations from the mean that next to no activation exceeds.
_FARTHEST = 6.0
# Share of silent channels from which on a warning tells of them.
_MANY = 0.5


@dataclasses.dataclass(frozen=True)
class Observation:
    """What a layer gave on a few images.

    Attributes:
      low, high: the least and the greatest value; not finite if any was not.
      varies: whether any value depends on the image.
    """

    low: float
    high: float
    varies: bool

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return max(abs(self.low), abs(self.high))


@dataclasses.dataclass(frozen=True)
class Death:
    """Where what the image says is lost.

    Attributes:
      reason: the layer and why, in words.
      by_weights: whether the weights alone tell, whatever the images.
    """

    reason: str
    by_weights: bool


def probe_images(shape: tuple[int, int, int], num_images: int) -> list[np.ndarray]:
    """Pixels of random images, from noise to smooth: one (num_images, H, W, C) each."""
    height, width, channels = shape
    rng = np.random.default_rng(0)
    kinds = [rng.integers(0, 256, (num_images, *shape))]
    for side in _SMOOTH_GRIDS:
        grid = rng.integers(0, 256, (num_images, side, side, channels))
        kinds.append(tf.image.resize(grid, (height, width), "bilinear").numpy())
    return kinds


def num_probes(shape: tuple[int, int, int], wanted: int) -> int:
    """How many images of (H, W, C) to look at together: of large ones fewer."""
    return max(1, min(wanted, _MOST_PIXELS // (shape[0] * shape[1])))


def observe(model: keras.Model, inputs: tf.Tensor) -> dict[str, Observation]:
    """Layer name -> what it gives, in graph order; the input layer's first.

    Args:
      model: canonical.
      inputs: (N, H, W, C) float32, two or more images.
    """
    waiting = {name: len(layers) for name, layers in consumers(model).items()}
    tensors = {model.layers[0].name: inputs}
    observations = {model.layers[0].name: _observed(inputs)}
    for layer in model.layers[1:]:
        producers = [producer.name for producer in input_layers(layer)]
        given = [tensors[name] for name in producers]
        output = layer(given if len(given) > 1 else given[0])
        tensors[layer.name], observations[layer.name] = output, _observed(output)
        for name in producers:
            waiting[name] -= 1
            if not waiting[name]:
                del tensors[name]
    return observations


def _observed(values: tf.Tensor) -> Observation:
    # In eager mode min and max pass over NaN.
    if not tf.reduce_all(tf.math.is_finite(values)):
        return Observation(-math.inf, math.inf, True)
    least, greatest = tf.reduce_min(values, 0), tf.reduce_max(values, 0)
    low, high = float(tf.reduce_min(least)), float(tf.reduce_max(greatest))
    # Channels may be of any size.
    axes = list(range(len(least.shape) - 1))
    spread = tf.reduce_max(greatest - least, axes)
    largest = tf.reduce_max(tf.maximum(tf.abs(least), tf.abs(greatest)), axes)
    return Observation(low, high, bool(tf.reduce_any(spread > _ROUNDING * largest)))


def observe_on_probes(
    model: keras.Model, to_input: Callable[[np.ndarray], tf.Tensor]
) -> dict[str, Observation]:
    """`observe` on `probe_images`; `to_input`: see `Preprocessing`."""
    shape = tuple(model.input_shape[1:])
    kinds = probe_images(shape, num_probes(shape, _NUM_PROBES))
    return observe(model, to_input(np.concatenate(kinds)))


def check_magnitudes(
    model: keras.Model, observations: Mapping[str, Observation]
) -> None:
    """Refuses activations that leave no room for float32 arithmetic.

    Raises:
      UserError: names the first layer, its values and its weights.
    """
    for layer in model.layers[1:]:
        found = observations[layer.name].largest
        positions = math.prod(layer.output_shape[1:-1])
        # Batch statistics and losses sum squares.
        limit = _room(_LARGEST_BATCH * positions, 2)
        if found > limit:
            raise UserError(_too_large(layer, found, limit, observations))
        if isinstance(layer, _layers.BatchNormalization):
            _check_statistics_fit(layer, observations)


def _room(count: int, power: int) -> float:
    """How large `count` values may be for float32 to hold the sum of their powers."""
    return (FLOAT32_MAX / count) ** (1 / power) / _HEADROOM


def _too_large(
    layer: Layer,
    found: float,
    limit: float,
    observations: Mapping[str, Observation],
) -> str:
    inputs = max(observations[x.name].largest for x in input_layers(layer))
    weights = [np.abs(w).max() for w in layer.get_weights()]
    return (
        f"{_named(layer)} gives up to {found:.2g} on random images, of inputs up to "
        f"{inputs:.2g}"
        + (f" and weights up to {max(weights):.2g}" if weights else "")
        + f"; expected at most {limit:.2g}, so that float32 holds sums of squares: "
        "pass the network as it was before its training diverged"
    )


def _check_statistics_fit(
    layer: Layer, observations: Mapping[str, Observation]
) -> None:
    """Refuses inputs of a BatchNormalization beyond all that it stored.

    The loss on its statistics has their distance in stored deviations squared, and
    the optimizer the square of that one's gradient.
    """
    (before,) = input_layers(layer)
    found = observations[before.name].largest
    mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    # The narrowest channel's deviation, not less than `losses` takes it for.
    deviation = math.sqrt(np.min(variance) + 1e-3 * np.mean(variance) + 1e-5)
    limit = _room(_LARGEST_BATCH, 4)
    distance = (found + np.abs(mean).max()) / deviation
    if distance > limit:
        raise UserError(
            f"{_named(layer)} holds means up to {np.abs(mean).max():.2g} and variances "
            f"from {variance.min():.2g}, but {_named(before)} before it gives up to "
            f"{found:.2g} on random images, {distance:.2g} deviations away; expected "
            f"at most {limit:.2g}: these statistics are not of this network's "
            "training; pass both as they were saved together"
        )


def find_death(
    model: keras.Model, observations: Mapping[str, Observation]
) -> Death | None:
    """Where the image is lost, if the outputs do not depend on it."""
    end = output_layer(model)
    if observations[end.name].varies:
        return None
    # Back along what does not depend on the image, to where it should have.
    roots, stack = set(), [end]
    while stack:
        layer = stack.pop()
        dead = [x for x in input_layers(layer) if not observations[x.name].varies]
        stack += dead
        if not dead:
            roots.add(layer.name)
    first = next(layer for layer in model.layers if layer.name in roots)
    return _death_of(first, observations[first.name])


def _death_of(layer: Layer, found: Observation) -> Death:
    if has_kernel(layer):
        largest = np.abs(layer.get_weights()[0]).max()
        if largest < np.finfo(np.float32).tiny:
            reason = f"has a kernel of zeros alone (at most {largest:.2g})"
            return Death(f"{_named(layer)} {reason}", True)
    if isinstance(layer, _layers.BatchNormalization) and not np.any(layer.gamma):
        return Death(f"{_named(layer)} has a gamma of 0 in every channel", True)
    if isinstance(layer, _layers.ReLU):
        (before,) = input_layers(layer)
        if isinstance(before, _layers.BatchNormalization) and all(_is_off(before)):
            return Death(
                f"{_named(layer)} is never on: {_named(before)} before it has "
                f"betas up to {np.max(before.beta):.3g} beside gammas up to "
                f"{np.max(np.abs(before.gamma)):.3g}",
                True,
            )
        if found.high == 0:
            return Death(f"{_named(layer)} is never on", False)
    return Death(
        f"{_named(layer)} gives the same for all images, {found.low:.3g} to "
        f"{found.high:.3g}, though its input differs",
        False,
    )


def warn_of_silent_channels(model: keras.Model) -> None:
    """Warns (UserWarning) if many channels were the same for all training images.

    By their BatchNormalization: gamma is 0, or beta so far below 0 that the ReLU behind
    is never on. A last gamma of 0 in a residual branch is how many are initialized.
    """
    consumed_by = consumers(model)
    silent = {}
    for layer in batch_normalization_layers(model):
        silent[layer.name] = np.asarray(layer.gamma) == 0
        following = consumed_by[layer.name]
        if following and all(isinstance(x, _layers.ReLU) for x in following):
            silent[layer.name] |= _is_off(layer)
    whole = [name for name, channels in silent.items() if channels.all()]
    num_silent = sum(int(channels.sum()) for channels in silent.values())
    num_channels = sum(channels.size for channels in silent.values())
    if whole or num_silent > _MANY * num_channels:
        layers = f", all of {shown(whole[0])} among them" if whole else ""
        warnings.warn(
            f"{num_silent} of {num_channels} channels say nothing{layers}: their "
            "BatchNormalization has a gamma of 0, or a beta so far below 0 that the "
            "ReLU behind is never on; check that the network was trained like this",
            stacklevel=2,
        )


def _is_off(layer: keras.layers.BatchNormalization) -> np.ndarray:
    """Per channel, whether a ReLU behind was never on in training, bool (channels,)."""
    return np.asarray(layer.beta + _FARTHEST * tf.abs(layer.gamma)) <= 0


def _named(layer: Layer) -> str:
    # Its class may be another than in the source.
    return f"layer {shown(layer.name)}"
