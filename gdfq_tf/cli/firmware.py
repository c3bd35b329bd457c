"""`gdfq firmware`: a student as code for exactly one network, with its self-test."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
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
from tflite_export.c99.firmware import Description, make_firmware
from tflite_export.c99.layouts import DEFAULT_LAYOUT, LAYOUTS
from tflite_export.convert import convert_network
from tflite_export.integer_network import IntegerNetwork
from tflite_export.interface import DEFAULT_END_TYPE
from tflite_export.operator_forms import in_forms_of
from tflite_export.presentation import presented
from tflite_export.student_file import load_network
from tflite_export.target_rules import warnings_of
from tflite_export.targets import TARGETS
from tflite_export.tflm import package
from tflite_export.verification.verify import verify_file

_TFLM = "tflm"
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
    for given in ("name", "layout"):
        value = getattr(values, given)
        if value and values.target == _TFLM:
            raise UserError(
                f"{option(given, value)} is for firmware in C99; drop it, or take "
                f"{option('target', 'c99')}"
            )
    layout = values.layout or DEFAULT_LAYOUT
    student = path
    if path.suffix == ".tflite":
        student = Path(values.student or path.with_name(student_file(path.name)))
    directory = Path(values.output_dir).expanduser()
    foreign = functools.partial(_foreign, _files(values.target, layout, prefix))
    progress = CommandProgress(values)
    with claim(directory, overwrite=values.overwrite, foreign=foreign) as output:
        session.holds(output.lock, output.partial, output.removed)
        with whole_stage(progress, "loading"):
            network = load_network(student)
        description = _description(student, values, prefix)
        examples = _examples(network, student.parent, values.num_tests)
        make = _tflm if values.target == _TFLM else functools.partial(_c99, layout)
        with whole_stage(progress, "writing"):
            files, words = make(network, description, examples)
            output.publish(lambda folder: _write(folder, files))
    print(f"{directory}: {words}")


def _c99(
    layout: str,
    network: IntegerNetwork,
    description: Description,
    examples: np.ndarray,
) -> tuple[Mapping[str, str], str]:
    """Files, and how large their parts are, in words."""
    network = in_forms_of(TARGETS["c99"], network)
    made = make_firmware(network, description, examples, layout)
    plan = made.program.plan
    return made.files, (
        f"{made.num_weight_bytes:,} bytes of constants, {plan.size:,} of memory for "
        f"tensors ({plan.lower_bound:,} are needed at one time), {made.num_tests} "
        "inputs in the self-test: see README.md"
    )


def _tflm(
    network: IntegerNetwork, description: Description, examples: np.ndarray
) -> tuple[Mapping[str, str], str]:
    """The same for TFLM, of a file that is verified first."""
    # Firmware takes and gives what its own code reads: int8, as in C99.
    network = presented(
        in_forms_of(TARGETS[_TFLM], network),
        input_type=DEFAULT_END_TYPE,
        output_type=DEFAULT_END_TYPE,
        labels=(),
    )
    tflite = convert_network(network)
    agreement = verify_file(tflite, network).required()
    made = package.make_package(network, tflite, description, examples)
    doubts = warnings_of(network)
    at_8_bits = made.arena_at_8_bits
    if made.arena is not None and at_8_bits is not None and made.arena > at_8_bits:
        doubts.append(
            "TFLM unpacks INT4 kernels into its arena, which takes "
            f"{made.arena:,} bytes instead of {at_8_bits:,} with 8 bits; where memory "
            "is short take --bits=w8a8 or --target=c99, which unpacks on the way"
        )
    arena = "not measured" if made.arena is None else f"{made.arena:,} bytes"
    return made.files, (
        f"{made.num_bytes:,} bytes of model, arena {arena}, {made.num_tests} inputs in "
        f"the self-test; verified by {agreement.runtime}"
        + "".join(f"\n! {line}" for line in doubts)
    )


def _files(target: str, layout: str, prefix: str) -> tuple[str, ...]:
    """Names of all that a folder may hold, what make leaves there among them."""
    if target == _TFLM:
        return package.FILES
    return (*LAYOUTS[layout].names(prefix), f"test_{prefix}")


def _foreign(files: tuple[str, ...], path: Path) -> str | None:
    """What in a path shows that this command did not write it."""
    if not path.is_dir():
        return "it is a file"
    known = {path / x for name in files for x in (Path(name), *Path(name).parents)}
    strange = sorted(set(path.rglob("*")) - known)
    return f"it holds {strange[0].relative_to(path)}" if strange else None


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
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
        ours = network.examples(preprocessing.to_integers(pixels))
        images[: len(ours)] = ours
    return images
