"""Collages: pieces cut from a generator's images, tinted and laid over each other.

A generator trained for minutes makes textures. What photographs have besides are
things: areas of one kind, of any size, with sharp edges around them and often little
inside. Collages have those, of the very textures that the classifier asked for. Of
small images nearly all is edges anyway, and pieces of two pixels show no texture.

Source: "dead leaves", shapes whose sizes and occlusions give the edges and the spectrum
of photographs, Lee, Mumford & Huang 2001; as images to learn from, Baradad et al. 2021.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from gdfq_tf.system import large_arrays

# Of the shorter side: images of 32 pixels gained nothing (docs/experiments.md).
_SMALLEST_IMAGE = 64
_NUM_PIECES = 60  # 255 at most
# Of the longer side. Between them the density of radii r falls as 1 / r^2.
_SMALLEST_RADIUS, _LARGEST_RADIUS = 0.06, 0.6
_NARROWEST = 0.4
_SHARE_OF_RECTANGLES = 0.4
# Of a piece's colour, in pixel levels: of all channels together, of each by itself, and
# from its middle to its end.
_BRIGHTNESS_DEVIATION, _COLOUR_DEVIATION, _SHADING_DEVIATION = 60.0, 24.0, 25.0
# How strong a piece's texture still is.
_TEXTURE = 0.4
# Edges are smooth for being cut at so many times the resolution.
_OVERSAMPLING = 2


def make_collages(images: np.ndarray, seed: int) -> np.ndarray:
    """The images, uint8 (N, H, W, C), every second one under pieces of them all.

    The others stay: what the generator makes of a whole image is worth as much. So do
    images with a side below 64 pixels.
    """
    if min(images.shape[1:3]) < _SMALLEST_IMAGE:
        return images
    rng = np.random.default_rng(seed)
    means = images.mean(axis=(1, 2))
    made = large_arrays.zeros(images.shape, images.dtype)
    made[...] = images
    for i in range(1, len(images), 2):
        made[i] = _collage(images, means, i, rng)
    return made


def _collage(
    images: np.ndarray, means: np.ndarray, below: int, rng: np.random.Generator
) -> np.ndarray:
    """Pieces upon image `below`; `means` (N, C) are the images' own."""
    count, (_, height, width, channels) = _NUM_PIECES, images.shape
    longer_side = max(height, width)
    radii = longer_side * np.minimum(
        _SMALLEST_RADIUS / (1 - rng.random(count)), _LARGEST_RADIUS
    )
    centers = rng.uniform(-0.1, 1.1, (count, 2)) * (height, width)
    angles = rng.uniform(0, np.pi, count)
    directions = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    narrowness = rng.uniform(_NARROWEST, 1, count)
    rectangular = rng.random(count) < _SHARE_OF_RECTANGLES
    piece = visible_pieces(
        [
            center + radius * outline(direction, narrow, 4 if straight else 32)
            for center, radius, direction, narrow, straight in zip(
                centers, radii, directions, narrowness, rectangular, strict=True
            )
        ],
        height,
        width,
    )
    # Piece k shows offsets[k] + slopes[k] (y, x) + strengths[k] texture; number 0 is
    # the image below.
    colours = 127.5 + rng.normal(0, _BRIGHTNESS_DEVIATION, (count, 1))
    colours = colours + rng.normal(0, _COLOUR_DEVIATION, (count, channels))
    slopes = directions * (rng.normal(0, _SHADING_DEVIATION, count) / radii)[:, None]
    sources = rng.integers(0, len(images), count)
    offsets = colours - _TEXTURE * means[sources]
    offsets -= np.sum(slopes * centers, axis=1, keepdims=True)
    offsets = np.concatenate([np.zeros((1, channels)), offsets]).astype(np.float32)
    slopes = np.concatenate([np.zeros((1, 2)), slopes]).astype(np.float32)
    strengths = np.array([1.0] + [_TEXTURE] * count, np.float32)
    sources = np.concatenate([[below], sources])

    y, x = np.indices(piece.shape, np.float32) / _OVERSAMPLING
    shading = slopes[piece, 0] * y + slopes[piece, 1] * x
    texture = images[sources[piece], y.astype(int), x.astype(int)]
    shown = offsets[piece] + shading[..., None] + strengths[piece][..., None] * texture
    cells = shown.reshape(height, _OVERSAMPLING, width, _OVERSAMPLING, channels)
    return np.clip(np.round(cells.mean(axis=(1, 3))), 0, 255).astype(np.uint8)


def outline(direction: np.ndarray, narrow: float, num_corners: int) -> np.ndarray:
    """Corners (y, x) of a rectangle, or of an ellipse if there are many, around 0.

    Args:
      direction: unit vector (y, x) along which it reaches from -1 to 1.
      narrow: how far it reaches across.
      num_corners: 4 of a rectangle.

    Returns:
      float64 (num_corners, 2).
    """
    turns = np.pi * (2 * np.arange(num_corners) + 1) / num_corners
    corners = np.stack([np.cos(turns), narrow * np.sin(turns)], axis=1)
    corners /= np.cos(np.pi / num_corners)  # sides, not corners, are one away
    across = np.array([direction[1], -direction[0]])
    return corners @ np.stack([direction, across])


def visible_pieces(outlines: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Which piece is on top: numbers from 1 on in the order they were laid, 0 for none.

    Args:
      outlines: the corners (y, x) of each piece, in pixels, float (corners, 2).
      height: of the image, in pixels.
      width: likewise.

    Returns:
      int32 (H, W), both times the oversampling.
    """
    canvas = Image.new("L", (_OVERSAMPLING * width, _OVERSAMPLING * height))
    pen = ImageDraw.Draw(canvas)
    for number, corners in enumerate(outlines, start=1):
        points = _OVERSAMPLING * corners[:, ::-1]  # x first
        pen.polygon([tuple(point) for point in points.tolist()], fill=number)
    return np.asarray(canvas, np.int32)
