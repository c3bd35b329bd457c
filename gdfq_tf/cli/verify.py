"""`gdfq verify`: `.tflite` files against the students they were made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import rich.box
import rich.console
import rich.table
import rich.text
from absl import flags

from gdfq_tf.cli import session
from gdfq_tf.cli.class_names import read_class_names
from gdfq_tf.errors import UserError, option
from gdfq_tf.run_directory import read_summary, student_file
from tflite_export.convert import convert_network
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import read_model
from tflite_export.integer_network import IntegerNetwork
from tflite_export.interpreter import read_tflite
from tflite_export.names import shown
from tflite_export.operator_forms import in_forms_of
from tflite_export.presentation import presented
from tflite_export.student_file import load_network
from tflite_export.targets import TARGETS
from tflite_export.verification.rules import Finding, finding
from tflite_export.verification.verify import expectation_of, verify_file


def main(values: flags.FlagValues) -> None:
    """Prints what each rule found; fails if one is broken."""
    path = Path(values.model).expanduser()
    if path.is_dir():
        _require_file(path, values)
        found = list(_verify_run(path, values.num_images))
    else:
        student = Path(values.student or path.with_name(student_file(path.name)))
        session.stage("loading")
        tflite = read_tflite(path)
        network = _as_file(load_network(student), values)
        findings = _verify(path, tflite, network, values.num_images)
        found = [(path.name, findings)]
    console = rich.console.Console()
    for title, findings in found:
        console.print(_table(title, findings))
    broken = [
        f"{title}: {f.rule}: found {f.detail}"
        for title, findings in found
        for f in findings
        if not f.passed
    ]
    if broken:
        rules = "1 rule is" if len(broken) == 1 else f"{len(broken)} rules are"
        raise ExportError(f"{path}: {rules} broken: {'; '.join(broken)}")


def _require_file(directory: Path, values: flags.FlagValues) -> None:
    """Refuses options that are one file's."""
    for name in ("student", "target", "input_type", "output_type", "labels"):
        if values[name].value:
            raise UserError(
                f"{option(name, values[name].value)} is one file's, and {directory} "
                f"is a directory; pass {option('model', 'a.tflite')} or drop "
                f"{option(name)}"
            )


def _as_file(network: IntegerNetwork, values: flags.FlagValues) -> IntegerNetwork:
    """The network as a file was made of it with those flags."""
    if values.target is not None:
        network = in_forms_of(TARGETS[values.target], network)
    return presented(
        network,
        input_type=values.input_type,
        output_type=values.output_type,
        labels=read_class_names(values.labels),
    )


def _verify(
    path: Path,
    tflite: bytes,
    network: IntegerNetwork,
    num_images: int,
    num_operators: int | None = None,
) -> Sequence[Finding]:
    session.stage("conversion")
    converted = convert_network(network)
    session.stage(f"verification of {path}")
    return verify_file(
        tflite,
        network,
        expectation_of(network, num_operators),
        converted=converted,
        num_random_images=num_images,
    ).findings


def _verify_run(
    directory: Path, num_images: int
) -> Iterator[tuple[str, Sequence[Finding]]]:
    """Every file of a run as its summary says, and each student's file."""
    summary = read_summary(directory)
    yield "files", [_same_bytes(directory, *entry) for entry in _digests(summary)]
    num_operators = _num_operators(directory, summary)
    for row in summary["models"]:
        path = directory / row["file"]
        if "widths" in row and path.exists():
            session.stage("loading")
            tflite = read_tflite(path)
            network = load_network(directory / student_file(row["file"]))
            findings = _verify(path, tflite, network, num_images, num_operators)
            yield path.name, findings


def _digests(summary: dict) -> list[tuple[str, str]]:
    """Files and their sha256; runs before `sha256` was told have those of models."""
    of_models = {row["file"]: row["sha256"] for row in summary["models"]}
    return list((of_models | summary.get("sha256", {})).items())


def _same_bytes(directory: Path, file: str, expected: str) -> Finding:
    offences = []
    try:
        found = hashlib.sha256((directory / file).read_bytes()).hexdigest()
        if found != expected:
            offences = [f"sha256 {found[:16]}... instead of {shown(expected[:16])}..."]
    except OSError as error:
        offences = [error.strerror or "no file"]
    return finding(f"{shown(file)} as the run wrote it", offences)


def _num_operators(directory: Path, summary: dict) -> int | None:
    """Of the converter's own quantization, if it can be read."""
    (file,) = (
        row["file"]
        for row in summary["models"]
        if row["file"].endswith("_int8_noise.tflite")
    )
    try:
        return len(read_model(read_tflite(directory / file)).operators)
    except ExportError:  # told by its sha256
        return None


def _table(title: str, findings: Sequence[Finding]) -> rich.table.Table:
    table = rich.table.Table(
        title=rich.text.Text(title), box=rich.box.SIMPLE_HEAVY, title_justify="left"
    )
    table.add_column("rule", ratio=3)
    table.add_column("found", ratio=2)
    for f in findings:
        table.add_row(
            rich.text.Text(f.rule), rich.text.Text("holds" if f.passed else f.detail)
        )
    return table
