"""Synthetic images as they are shown: a few of each class."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gdfq_tf.synthesis.image_pool import ImagePool

if TYPE_CHECKING:
    from PIL import Image

# So many are shown together, and of one class.
_MOST_IMAGES, _MOST_OF_CLASS = 60, 6
# Larger ones are made smaller and compressed.
_LARGEST_SIDE, _LARGEST_LOSSLESS = 112, 64
_QUALITY = 82


@dataclasses.dataclass(frozen=True)
class Strip:
    """Images of one class beside each other.

    Attributes:
      title: the class.
      count: how many images.
      width, height: of all of them together, in pixels.
      uri: the picture, as a data URI.
    """

    title: str
    count: int
    width: int
    height: int
    uri: str


def chosen(labels: npt.NDArray[np.integer]) -> dict[int, list[int]]:
    """Class -> indices of its images that are shown, in the order of classes.

    Args:
      labels: of all images, (N,).
    """
    classes = list(dict.fromkeys(labels.tolist()))[:_MOST_IMAGES]
    of_class = min(_MOST_OF_CLASS, max(1, _MOST_IMAGES // max(1, len(classes))))
    if len(classes) == 1:
        of_class = 2 * _MOST_OF_CLASS
    return {
        label: np.flatnonzero(labels == label)[:of_class].tolist()
        for label in sorted(classes)
    }


def strips(images: ImagePool, class_names: Sequence[str]) -> list[Strip]:
    """One for each class that is shown.

    Args:
      images: of 1 or 3 channels.
      class_names: or none.
    """
    return [
        _strip(title_of(label, class_names), images.pixels[indices])
        for label, indices in chosen(images.labels).items()
    ]


def title_of(label: int, class_names: Sequence[str]) -> str:
    """A class for people."""
    if label < 0:
        return "noise"
    return class_names[label] if label < len(class_names) else f"class {label}"


def sheet(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """Images (N, H, W, C) of 1 or 3 channels in one picture, nearly square."""
    from PIL import Image

    side = math.ceil(math.sqrt(len(pixels)))
    count, height, width, channels = pixels.shape
    rows = math.ceil(count / side)
    places = np.full((rows * side, height, width, channels), 255, np.uint8)
    places[:count] = pixels
    in_rows = places.reshape(rows, side, height, width, channels).swapaxes(1, 2)
    whole = in_rows.reshape(rows * height, side * width, channels)
    return Image.fromarray(whole.squeeze(-1) if channels == 1 else whole)


def encoded(image: Image.Image, **options: object) -> bytes:
    """A picture as a PNG file, or as `options` of Pillow's `save` say."""
    stream = io.BytesIO()
    image.save(stream, **{"format": "PNG", **options})  # type: ignore[arg-type]
    return stream.getvalue()


def _strip(title: str, pixels: npt.NDArray[np.uint8]) -> Strip:
    from PIL import Image

    count, height, width, channels = pixels.shape
    beside = pixels.swapaxes(0, 1).reshape(height, count * width, channels)
    image = Image.fromarray(beside.squeeze(-1) if channels == 1 else beside)
    factor = min(1.0, _LARGEST_SIDE / max(height, width))
    if factor < 1:
        size = round(count * width * factor), round(height * factor)
        image = image.resize(size, Image.Resampling.LANCZOS)
    if max(height, width) > _LARGEST_LOSSLESS:
        kind, content = "webp", encoded(image, format="WEBP", quality=_QUALITY)
    else:
        kind, content = "png", encoded(image, optimize=True)
    text = base64.b64encode(content).decode()
    uri = f"data:image/{kind};base64,{text}"
    return Strip(title, count, image.width, image.height, uri)
