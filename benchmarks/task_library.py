"""Holds files for phones against the library that Android apps take.

    python -m benchmarks.task_library runs/x/x_w8a8.tflite --python=python3.9

tflite-support, the Python form of Android's metadata and Task Library, is installed
from PyPI into an environment of its own (its last wheels are for Python 3.11 and
earlier). It reads a file's metadata and labels, and classifies random images, which it
is given as bytes; its best class, the name and the score of that must be those of
LiteRT's outputs.
The file needs RGB images, an input of uint8 and labels.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from absl import flags

from benchmarks import commands
from gdfq_tf.errors import UserError
from tflite_export.flatbuffer import read_model
from tflite_export.interpreter import TFLiteClassifier
from tflite_export.metadata import read_metadata

_TRIAL = Path(__file__).with_name("task_library_trial.py")
_REQUIREMENTS = ("tflite-support", "numpy<2")
_NUM_IMAGES = 32


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    defined.group("The benchmark")
    defined.string("model", "A .tflite file.", required=True)
    defined.string("python", "An interpreter of 3.9 to 3.11.", required=True)
    return defined


def main(values: flags.FlagValues) -> None:
    """Prints what agrees, and fails if something does not."""
    path = Path(values.model)
    tflite = path.read_bytes()
    interface = read_metadata(tflite, read_model(tflite))
    model = TFLiteClassifier(tflite)
    if model.dtype != np.uint8 or interface.meaning.content != "rgb":
        raise UserError(
            f"{path} takes {model.dtype} {interface.meaning.content}; expected RGB "
            "images as uint8: convert its student with --input_type=uint8"
        )
    shape = (_NUM_IMAGES, *model.input_shape[1:])
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with tempfile.TemporaryDirectory(prefix="task-library-") as folder:
        images = Path(folder, "images.npz")
        np.savez(images, pixels=pixels)
        environment = Path(folder, "environment")
        subprocess.run([values.python, "-m", "venv", environment], check=True)
        python = str(environment / "bin" / "python")
        subprocess.run(
            [python, "-m", "pip", "install", "-q", *_REQUIREMENTS], check=True
        )
        done = subprocess.run(
            [python, _TRIAL, path, images], check=True, capture_output=True, text=True
        )
    found = json.loads(done.stdout.splitlines()[-1])
    meaning = interface.meaning
    _require("name", found["metadata"]["name"], meaning.name)
    _require("labels", tuple(found["labels"]), meaning.labels)
    raw = model.run(pixels)
    scores = model.dequantize_output(raw)
    for image, outputs in enumerate(scores):
        index, name, score = found["scores"][image][0]
        _require(f"best score of image {image}", np.float32(score), outputs.max())
        _require(f"score of image {image}'s class", outputs[index], outputs.max())
        _require(f"class of image {image}", name, meaning.labels[index])
    print(
        f"{path}: metadata, {len(found['labels'])} labels, {_NUM_IMAGES} images agree"
    )


def _require(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise UserError(f"{what} is {found!r} in the library; expected {expected!r}")


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__)
