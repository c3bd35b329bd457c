"""The images that students are made from."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class ImagePool:
    """A pool of synthetic images.

    Attributes:
      pixels: (N, H, W, C) uint8, what a camera would deliver.
      labels: (N,) int32, the classes asked of the generator; of a multi-label
        network the one label asked to be on; 0 where there are only features; -1 of
        noise.
    """

    pixels: np.ndarray
    labels: np.ndarray
