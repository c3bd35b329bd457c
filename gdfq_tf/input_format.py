"""How examples are given to a model: in which shape, as pixels or as features."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gdfq_tf.errors import UserError
from gdfq_tf.preprocessing import Preprocessing

_PICTURE_CHANNELS = (1, 3)

# (dimensions, ...) of one example, without the batch.
ExampleShape: TypeAlias = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class InputFormat:
    """What a model takes, and what the rest of the program makes of it.

    Attributes:
      shape: of one example as the model takes it: (height, width, channels),
        (height, width), (time, features) or (values,).
      image_shape: (height, width, channels) of the same values in the same order.
      preprocessing: tells pixels from features.
    """

    shape: ExampleShape
    image_shape: tuple[int, int, int]
    preprocessing: Preprocessing

    @property
    def takes_pixels(self) -> bool:
        """Whether examples are uint8 pixels; else they are features."""
        return self.preprocessing.input_range is None

    @property
    def picture_shape(self) -> tuple[int, int, int] | None:
        """(height, width, channels) of image files to read; None: of no picture."""
        shape = (*self.shape, 1) if len(self.shape) == 2 else self.image_shape
        if not self.takes_pixels or shape[-1] not in _PICTURE_CHANNELS:
            return None
        return None if shape[:2] == (1, 1) else (shape[0], shape[1], shape[2])

    def fits(self, shape: ExampleShape) -> bool:
        """Whether examples of that shape hold the same values in the same order.

        Dimensions of one value may be there or not.
        """
        return _without_ones(shape) in map(
            _without_ones, (self.shape, self.image_shape)
        )

    def images(self, examples: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Examples as the program works on them.

        Args:
          examples: see `reshaped`.

        Returns:
          (N, *image_shape): uint8 pixels, or features as float32 levels.

        Raises:
          UserError: see `reshaped`.
        """
        images = self.reshaped(examples)
        return images if self.takes_pixels else self.preprocessing.levels(images)

    def features(self, levels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Features (N, *shape), float32, of levels (N, *image_shape), as of `images`.

        Raises:
          ValueError: the model takes pixels.
        """
        found = self.preprocessing.features(levels)
        return found.reshape(len(levels), *self.shape)

    def reshaped(self, examples: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Examples as images, of their own type.

        Args:
          examples: uint8 pixels, or features of any real type, (N, ...) of a shape
            that fits.

        Returns:
          (N, *image_shape).

        Raises:
          UserError: another type or shape.
        """
        examples = np.asarray(examples)
        self._check_type(examples)
        if not self.fits(examples.shape[1:]):
            raise UserError(
                f"examples are {examples.shape[1:]}, but the model takes {self.shape}"
                f"{_advice(examples.shape[1:], self.shape)}"
            )
        return examples.reshape(len(examples), *self.image_shape)

    def _check_type(self, examples: npt.NDArray[Any]) -> None:
        if self.takes_pixels and examples.dtype != np.uint8:
            raise UserError(
                f"pixels are {examples.dtype}; expected uint8 in 0..255, before any "
                "preprocessing (it is applied here)"
            )
        if examples.dtype.kind not in "buif":
            raise UserError(f"features are {examples.dtype}; expected real numbers")

    def in_words(self) -> str:
        """What one example is, for people."""
        what = "uint8 pixels" if self.takes_pixels else "features"
        if len(self.shape) == len(self.image_shape):
            return f"{self.shape} (height, width, channels) of {what}"
        height, width, channels = self.image_shape
        if (height, width) == (1, 1):
            return f"{self.shape} {what}"
        inner = f"{self.image_shape} (height, width, channels)"
        if width == 1:
            inner = f"({height}, {channels}) (time, features)"
        same = (
            "" if inner.startswith(f"{self.shape} ") else f", in the order of {inner}"
        )
        return f"{self.shape} {what}{same}"


def _without_ones(shape: ExampleShape) -> ExampleShape:
    return tuple(size for size in shape if size != 1)


def _advice(shape: ExampleShape, expected: ExampleShape) -> str:
    """What surely makes examples of the one shape such of the other, if that is known.

    Where shapes could be brought together in several ways, only the one who made the
    data knows which is right.
    """
    if len(expected) != 3:
        return ""
    height, width, channels = expected
    if channels == 3 and shape == (3, height, width) and height != 3:
        return ": move the channels to the end, np.moveaxis(images, 1, -1)"
    if channels == 3 and _without_ones(shape) == _without_ones((height, width)):
        return (
            f": repeat the channel, np.repeat(images.reshape(-1, {height}, {width}, "
            "1), 3, -1)"
        )
    return ": pass them in the size and order that it was trained on"
