"""`gdfq synthesize`: a classifier in, images out that stand for its training data."""

from __future__ import annotations

import contextlib
import functools
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from gdfq_tf.checkpoints import SavedCheckpoints
from gdfq_tf.classifier import Classifier
from gdfq_tf.cli import session
from gdfq_tf.cli.classifier_flags import load_classifier_from_flags
from gdfq_tf.cli.distributing import strategy_of, take_part
from gdfq_tf.cli.resuming import open_checkpoints
from gdfq_tf.cli.runner import CommandProgress
from gdfq_tf.config import BitWidths, get_recipe
from gdfq_tf.distribution.cluster import writes
from gdfq_tf.distribution.strategies import Strategy, wait_for_all
from gdfq_tf.errors import UserError, option
from gdfq_tf.input_format import InputFormat
from gdfq_tf.job import Job
from gdfq_tf.pipeline import make_images
from gdfq_tf.progress import whole_stage
from gdfq_tf.provenance import image_facts
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.system.file_system import LockedError, locked
from gdfq_tf.system.machine import fix_num_threads
from gdfq_tf.system.output_directory import claim
from gdfq_tf.system.output_files import write_whole

_NOISE = "noise"  # the folder of images that were asked to be of no class


def main(values: flags.FlagValues) -> None:
    """Loads, makes images, writes them."""
    if values.num_threads is not None:
        fix_num_threads(values.num_threads)
    if not writes(values.distribution):
        take_part(values, functools.partial(_train, values))
        return
    output = Path(values.output).expanduser()
    if output.exists() and not values.overwrite:
        raise UserError(
            f"{output} exists; pass {option('overwrite', True)} to replace it or "
            f"another {option('output')}"
        )
    with contextlib.ExitStack() as stack:
        stack.enter_context(_claimed(output))
        if values.png_dir is not None:
            folder = Path(values.png_dir)
            png_dir = stack.enter_context(
                claim(folder, overwrite=False, foreign=lambda path: "it exists")
            )
            session.holds(png_dir.lock, png_dir.partial)
        progress = CommandProgress(values)
        strategy = strategy_of(values, progress)
        with whole_stage(progress, "loading"):
            classifier = load_classifier_from_flags(values)
        if values.png_dir is not None:
            _require_pictures(classifier)
        job = _job(values, classifier, strategy)
        state = output.with_name(f".{output.name}.state")
        checkpoints = open_checkpoints(
            SavedCheckpoints(state, image_facts(job)), progress, fresh=values.fresh
        )
        images = make_images(
            job, values.num_images, progress=progress, checkpoints=checkpoints
        )
        write_whole(
            output,
            content_of(images, classifier.input_format),
            overwrite=values.overwrite,
            begin=session.holds,
        )
        if values.png_dir is not None:
            png_dir.publish(lambda directory: write_pngs(directory, images))
        shutil.rmtree(state, ignore_errors=True)
        wait_for_all(strategy)
    print(f"{output}: {len(images)} images, {classifier.input_format.in_words()}")


def _train(
    values: flags.FlagValues,
    classifier: Classifier,
    strategy: Strategy,
    progress: CommandProgress,
) -> None:
    job = _job(values, classifier, strategy)
    make_images(job, values.num_images, progress=progress)


def _job(values: flags.FlagValues, classifier: Classifier, strategy: Strategy) -> Job:
    recipe = get_recipe(values.recipe, values.num_steps)
    bit_widths = (BitWidths(8, 8),)
    return Job(classifier, recipe, bit_widths, seed=values.seed, strategy=strategy)


@contextlib.contextmanager
def _claimed(output: Path) -> Iterator[None]:
    """No other process makes images for the same file meanwhile."""
    try:
        with locked(output.with_name(f".{output.name}.lock")):
            yield
    except LockedError as error:
        raise UserError(
            f"images for {output} are being made by another process; wait for it or "
            f"pass another {option('output')}"
        ) from error


def _require_pictures(classifier: Classifier) -> None:
    if classifier.input_format.picture_shape is None:
        raise UserError(
            f"{option('png_dir')} holds pictures, and {classifier.name} takes "
            f"{classifier.input_format.in_words()}, which are none; drop it: "
            f"{option('output')} holds all of them"
        )


def content_of(images: ImagePool, taken: InputFormat) -> bytes:
    """An `.npz` of images: `pixels`, `labels` and, of features, `features` besides.

    Pixels of features are levels of 255 in their range; `features` are what they stand
    for, float32 (N, ...) as the model takes them.
    """
    arrays = images.arrays()
    if not taken.takes_pixels:
        arrays["features"] = taken.features(images.pixels)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def write_pngs(directory: Path, images: ImagePool) -> None:
    """Writes each image into the folder of its class, `00012.png` for number 12."""
    for number, (pixels, label) in enumerate(
        zip(images.pixels, images.labels, strict=True)
    ):
        folder = directory / (str(label) if label >= 0 else _NOISE)
        folder.mkdir(exist_ok=True)
        picture = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
        Image.fromarray(picture).save(folder / f"{number:05}.png")
