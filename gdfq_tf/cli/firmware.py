"""`gdfq firmware`: a student as C99 for exactly one network, with its self-test."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
from absl import flags

from gdfq_tf.cli import session
from gdfq_tf.cli.class_names import read_class_names
from gdfq_tf.cli.runner import CommandProgress
from gdfq_tf.errors import UserError, option
from gdfq_tf.progress import whole_stage
from gdfq_tf.run_directory import (
    SUMMARY,
    SYNTHETIC_IMAGES,
    preprocessing_of,
    read_summary,
    student_file,
)
from gdfq_tf.system.output_directory import claim
from tflite_export.c99.firmware import (
    Description,
    Firmware,
    file_names,
    make_firmware,
)
from tflite_export.integer_network import IntegerNetwork
from tflite_export.student_file import load_network

_PREFIX = re.compile(r"[A-Za-z]\w*", re.ASCII)


def main(values: flags.FlagValues) -> None:
    """Writes the folder and says how large its parts are."""
    path = Path(values.model).expanduser()
    if path.is_dir():
        raise UserError(
            f"{option('model', path)} is a directory; expected one .tflite file of a "
            "run, or its *_student.npz"
        )
    prefix = values.name or "model"
    if not _PREFIX.fullmatch(prefix):
        raise UserError(
            f"{option('name', prefix)} cannot begin names in C; expected letters, "
            "digits and underscores, a letter first"
        )
    student = path
    if path.suffix == ".tflite":
        student = Path(values.student or path.with_name(student_file(path.name)))
    directory = Path(values.output_dir).expanduser()
    foreign = functools.partial(_foreign, prefix=prefix)
    progress = CommandProgress()
    with claim(directory, overwrite=values.overwrite, foreign=foreign) as output:
        session.holds(output.lock, output.partial, output.removed)
        with whole_stage(progress, "loading"):
            network = load_network(student)
        with whole_stage(progress, "writing"):
            made = make_firmware(
                network,
                _description(student, values, prefix),
                _examples(network, student.parent, values.num_tests),
            )
            output.publish(lambda folder: _write(folder, made))
    plan = made.program.plan
    print(
        f"{directory}: {made.num_weight_bytes:,} bytes of constants, {plan.size:,} of "
        f"memory for tensors ({plan.lower_bound:,} are needed at one time), "
        f"{made.num_tests} inputs in the self-test: make -C {directory} test"
    )


def _foreign(path: Path, prefix: str) -> str | None:
    """What in a path shows that this command did not write it."""
    if not path.is_dir():
        return "it is a file"
    ours = {*file_names(prefix), f"test_{prefix}"}
    strange = sorted({entry.name for entry in path.iterdir()} - ours)
    return f"it holds {strange[0]}" if strange else None


def _write(folder: Path, made: Firmware) -> None:
    for name, text in made.files.items():
        (folder / name).write_text(text)


def _description(student: Path, values: flags.FlagValues, prefix: str) -> Description:
    """The network's name and, from the run it lies in, how its input is made."""
    name = student.name.removesuffix(".npz").removesuffix("_student")
    names = read_class_names(values.labels)
    if not (student.parent / SUMMARY).is_file():
        return Description(name, class_names=names, prefix=prefix)
    summary = read_summary(student.parent)
    classifier = summary["classifier"]
    return Description(
        name,
        f"{classifier['int8_input']}, for {classifier['input']}",
        names or tuple(summary.get("class_names") or ()),
        prefix,
    )


def _examples(network: IntegerNetwork, folder: Path, count: int) -> np.ndarray:
    """Inputs of the self-test: half of them the run's synthetic images, if it has any.

    The others are random.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(-128, 128, (count, *network.input_shape)).astype(np.int8)
    archive = folder / SYNTHETIC_IMAGES
    if archive.is_file() and (folder / SUMMARY).is_file():
        preprocessing = preprocessing_of(read_summary(folder))
        with np.load(archive) as arrays:
            pixels = arrays["pixels"][: count // 2]
        ours = network.examples(preprocessing.to_int8(pixels))
        images[: len(ours)] = ours
    return images
