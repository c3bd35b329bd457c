"""How much room on disk a run takes at most, told from the shapes of the classifier.

That is where it is to be, and in the temporary directory, where arrays of many images
lie while it works (`large_arrays`).
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gdfq_tf.config import BitWidths, Recipe
from gdfq_tf.errors import UserError, option
from gdfq_tf.keras_compat import keras
from gdfq_tf.memory_needs import images_that_fit, reconstructed_arrays
from gdfq_tf.system.large_arrays import bytes_in_file, bytes_in_mapped_file
from tflite_export.names import shown

# Bytes of a parameter in all files: of those compared with, float32 and int8, which are
# kept until the run is in its place as well; of each width, the file, likewise, and its
# student, then the student in float32 with values and moments of its training, twice
# while it is written anew.
_BYTES_OF_BASELINES = 2 * (4 + 1)
_BYTES_OF_WIDTH = 2 * 1 + 1 + 2 * (4 + 3 * 4)
# Images as they are generated, and as they are refined, each twice: while they are
# written anew, and in the run.
_COPIES_OF_IMAGES = 2
# Of a pool's pixel, in temporary files: generated, twice while images are mixed; as
# refinement starts, uint8 and float32; refined, joined, and blended.
_BYTES_OF_TEMPORARY_PIXEL = 10


def disk_need(
    model: keras.Model, recipe: Recipe, bit_widths: Sequence[BitWidths]
) -> int:
    """Bytes that the files of a run take, with all that it goes on from if killed.

    Args:
      model: canonical.
      recipe: of the run.
      bit_widths: one for each student.
    """
    shape = tuple(model.input_shape[1:])
    images = recipe.pool_sizes(shape)[-1] + recipe.pool_size(shape, bit_widths)
    of_parameter = _BYTES_OF_BASELINES + _BYTES_OF_WIDTH * len(bit_widths)
    return (
        _COPIES_OF_IMAGES * images * math.prod(shape)
        + of_parameter * model.count_params()
    )


def temporary_need(
    model: keras.Model, recipe: Recipe, bit_widths: Sequence[BitWidths]
) -> int:
    """Bytes that intermediate results take, but for those in memory.

    Args:
      model: canonical.
      recipe: of the run.
      bit_widths: one for each student.
    """
    shape = tuple(model.input_shape[1:])
    most = recipe.pool_sizes(shape)[-1] * math.prod(shape)
    need = 0
    if bytes_in_mapped_file(4 * most):
        need += _BYTES_OF_TEMPORARY_PIXEL * most
    images = min(recipe.pool_size(shape, bit_widths), images_that_fit(model))
    at_once = reconstructed_arrays(model, images)
    return need + max(sum(map(bytes_in_file, arrays)) for arrays in at_once)


def require_temporary_room(
    model: keras.Model, name: str, recipe: Recipe, bit_widths: Sequence[BitWidths]
) -> None:
    """Refuses a run whose intermediate results would find no room.

    Args:
      model: canonical.
      name: what messages call it.
      recipe: of the run.
      bit_widths: one for each student.

    Raises:
      UserError: there is less room.
    """
    need, directory = temporary_need(model, recipe, bit_widths), tempfile.gettempdir()
    free = shutil.disk_usage(directory).free
    if need > free:
        raise UserError(
            f"quantizing {shown(name)} takes up to {_megabytes(need)} for intermediate "
            f"results in {directory}, and {_megabytes(free)} are free; make room there "
            "or set TMPDIR to a folder that has some"
        )


def require_room(num_bytes: int, name: str, directory: Path, kept: Path) -> None:
    """Refuses a run that the disk does not hold, before it is begun.

    Args:
      num_bytes: see `disk_need`.
      name: of the classifier.
      directory: where the run is to be; it exists.
      kept: what an interrupted run has left of it, if there is any.

    Raises:
      UserError: there is less room.
    """
    left = sum(path.stat().st_size for path in kept.rglob("*") if path.is_file())
    free = shutil.disk_usage(directory).free
    if num_bytes - left > free:
        raise UserError(
            f"quantizing {shown(name)} takes up to {_megabytes(num_bytes - left)} of "
            f"disk in {directory}, and {_megabytes(free)} are free; make room there or "
            f"pass another {option('output_dir')}"
        )


def _megabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"
