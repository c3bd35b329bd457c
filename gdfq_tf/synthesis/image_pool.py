"""The images that students are made from."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from gdfq_tf.system import large_arrays
from gdfq_tf.system.output_files import write_whole


@dataclasses.dataclass(frozen=True, eq=False)
class ImagePool:
    """A pool of synthetic images.

    Attributes:
      pixels: (N, H, W, C) uint8, what a camera would deliver; of large pools mapped
        from a file (`large_arrays`).
      labels: (N,) int32, the classes asked of the generator; of a multi-label
        network the one label asked to be on; 0 where there are only features; -1 of
        noise.
    """

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Pixels and labels by name, as files hold them, see `pool_of`."""
        return {"pixels": self.pixels, "labels": self.labels}

    # As of a `GrowingPool`: these images were there before the run.
    seconds = 0.0

    def first(self, num_images: int) -> ImagePool:
        """The first `num_images`, or all if there are fewer."""
        return self[:num_images]

    def save(self, path: str | Path) -> Path:
        """Writes an `.npz` of `pixels` and `labels`; what is there is replaced.

        Returns:
          The path, with `~` as the home directory.

        Raises:
          UserError: the file cannot be written.
        """
        path, file = Path(path).expanduser(), io.BytesIO()
        self.write(file)
        write_whole(path, file.getvalue())
        return path

    def write(self, file: BinaryIO) -> None:
        """Writes what `save` does into an open file."""
        np.savez_compressed(file, pixels=self.pixels, labels=self.labels)

    def __len__(self) -> int:
        """The number of images N."""
        return len(self.labels)

    def __getitem__(self, chosen: slice | npt.NDArray[np.intp]) -> ImagePool:
        """The images of a slice, or of an array of indices (M,), in its order."""
        labels = self.labels[chosen]
        if isinstance(chosen, slice):
            return ImagePool(self.pixels[chosen], labels)
        pixels = large_arrays.zeros((len(chosen), *self.pixels.shape[1:]), np.uint8)
        for image, place in zip(pixels, chosen, strict=True):
            image[...] = self.pixels[place]
        return ImagePool(pixels, labels)

    def split(self) -> tuple[ImagePool, ImagePool]:
        """The images to work with, and the last quarter, held out for the estimate."""
        count = len(self) * 3 // 4
        return self[:count], self[count:]


def pool_of(arrays: Mapping[str, npt.NDArray[Any]]) -> ImagePool:
    """The pool of `ImagePool.arrays` that were in a file."""
    return ImagePool(large_arrays.in_file(arrays["pixels"]), arrays["labels"])


def pools_of(arrays: Mapping[str, npt.NDArray[Any]]) -> list[ImagePool]:
    """Pools of `ImagePool.arrays` that `checkpoints.together` put into one mapping."""
    names = dict.fromkeys(name.partition("/")[0] for name in arrays)
    return [
        ImagePool(arrays[f"{name}/pixels"], arrays[f"{name}/labels"]) for name in names
    ]


def joined(pools: Sequence[ImagePool]) -> ImagePool:
    """The images of all pools, one pool after the other."""
    if len(pools) == 1:
        return pools[0]
    labels = np.concatenate([pool.labels for pool in pools])
    pixels = large_arrays.zeros((len(labels), *pools[0].pixels.shape[1:]), np.uint8)
    np.concatenate([pool.pixels for pool in pools], out=pixels)
    return ImagePool(pixels, labels)
