"""Proves that a `.tflite` file is fully integer and computes what was trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.flatbuffer import TFLiteModel, converter_version, read_model
from tflite_export.integer_network import IntegerNetwork
from tflite_export.interface import Interface
from tflite_export.metadata import read_metadata
from tflite_export.names import shown
from tflite_export.operator_forms import gated_layers, num_added_operators
from tflite_export.simulation import compute, is_exact
from tflite_export.verification.differences import differences
from tflite_export.verification.rules import (
    Expectation,
    Finding,
    finding,
    structural_findings,
)
from tflite_export.verification.runtimes import Runtime, runtime_for
from tflite_export.verification.student_rules import student_findings

NUM_RANDOM_IMAGES = 64
_READABLE = "a whole .tflite file"
_METADATA = "metadata and labels as the student's"
_AS_CONVERTED = "every byte as the converter makes it of the student"


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Student and `.tflite` outputs, compared in steps of the output scale (LSB).

    Attributes:
      num_images: images compared.
      max_lsb: largest difference of any output.
      exact_outputs: share of outputs without difference, 0..1.
      exact_images: share of images with all outputs without difference, 0..1.
      runtime: that computed those of the file, with its version and processor, and
        what is not proven by it.
    """

    num_images: int
    max_lsb: int
    exact_outputs: float
    exact_images: float
    runtime: str = ""


@dataclasses.dataclass(frozen=True)
class Verification:
    """What was found out about a file.

    Attributes:
      findings: one per rule.
      agreement: of outputs; None if they were not compared, because a rule about what
        the file holds is broken: LiteRT may crash on a damaged file.
    """

    findings: tuple[Finding, ...]
    agreement: Agreement | None

    def required(self) -> Agreement:
        """The agreement of the outputs, of a file that breaks no rule.

        Raises:
          ExportError: see `require`.
        """
        require(self.findings)
        if self.agreement is None:
            raise ExportError("the outputs of the .tflite file were not compared")
        return self.agreement

    @property
    def passed(self) -> bool:
        """Whether all rules hold."""
        return all(finding.passed for finding in self.findings)


def verify_file(
    tflite: bytes,
    network: IntegerNetwork,
    expectation: Expectation | None = None,
    *,
    images: np.ndarray | None = None,
    num_random_images: int = NUM_RANDOM_IMAGES,
    converted: bytes | None = None,
) -> Verification:
    """Checks a `.tflite` file, damaged or not, against the student it was made from.

    1. Its structure, by `rules.CHECKS`.
    2. Every stored integer, scale and option, by `student_rules.RULES`.
    3. All of its bytes, compared with those of another conversion.
    4. If all of that holds, its outputs on images, compared with the simulated ones:
       on the network's target, if it is on this machine, else in LiteRT.

    Whatever is wrong with the file is a finding; nothing is raised about it.

    Args:
      tflite: the file's bytes, whatever they are.
      network: the student, sound.
      expectation: for the structure; None: what follows from the network.
      images: (N, *input_shape), of the student's type, to compare outputs on, in
        addition to random ones.
      num_random_images: how many random ones.
      converted: what `convert_network` makes of the student now; None: bytes are not
        compared, for a file that it made a moment ago.
    """
    findings = list(
        _content_findings(tflite, network, expectation or expectation_of(network))
    )
    if converted is not None:
        findings.append(_conversion_finding(tflite, converted))
    if not all(f.passed for f in findings):
        return Verification(tuple(findings), None)
    inputs = random_inputs(network, num_random_images)
    if images is not None:
        inputs = np.concatenate([inputs, images])
    runtime = runtime_for(network)
    agreement, offences = None, []
    try:
        outputs = runtime.run(tflite, inputs)
        expected = compute(runtime.kernels, network, inputs)
        agreement = dataclasses.replace(
            compare_outputs(expected, outputs), runtime=runtime.in_words
        )
    except ExportError as error:
        offences = [str(error)]
    allowed = allowed_lsb(network, runtime)
    if agreement is not None and agreement.max_lsb > allowed:
        offences = [
            f"{agreement.max_lsb} LSB over {agreement.num_images} images, "
            f"{agreement.exact_outputs:.2%} of outputs exact"
        ]
    rule = runtime.rule(allowed)
    return Verification((*findings, finding(rule, offences)), agreement)


def random_inputs(network: IntegerNetwork, count: int) -> np.ndarray:
    """Inputs (count, *input_shape) of a network's own type, any value as likely."""
    quant_params = network.input_quant_params
    return np.random.default_rng(0).integers(
        quant_params.lowest,
        quant_params.highest,
        (count, *network.input_shape),
        quant_params.dtype,
        endpoint=True,
    )


def expectation_of(
    network: IntegerNetwork, num_operators: int | None = None
) -> Expectation:
    """What a file of that student must be.

    `num_operators`: of the converter's own quantization of the classifier, if known.
    """
    bits = {op.name: op.kernel.bits for op in network.ops if op.kernel is not None}
    at_8_bits = frozenset(name for name, width in bits.items() if width == 8)
    at_8_bits |= gated_layers(network)
    if num_operators is not None:
        num_operators += num_added_operators(network)
    return Expectation(
        min(bits.values(), default=8),
        num_operators,
        at_8_bits,
        input_type=network.interface.input_type.upper(),
        output_type=network.interface.output_type.upper(),
    )


def allowed_lsb(network: IntegerNetwork, runtime: Runtime) -> int:
    """By how much a runtime's outputs may differ from the simulated ones: 0 or 1.

    All kernels are simulated bit by bit, those of LiteRT as it runs them on x86-64 and,
    as far as an emulator shows, on arm64. Where a float32 function of the C library is
    called, its last bit may differ from ours.
    """
    return 0 if runtime.is_exact and is_exact(runtime.kernels, network) else 1


def _content_findings(
    tflite: bytes, network: IntegerNetwork, expectation: Expectation
) -> Iterator[Finding]:
    try:
        model = read_model(tflite)
    except ExportError as error:
        yield finding(_READABLE, [str(error)])
        return
    yield finding(_READABLE, [])
    yield from structural_findings(model, expectation)
    yield from student_findings(model, network)
    yield finding(_METADATA, list(_metadata_offences(tflite, model, network.interface)))


def _metadata_offences(
    tflite: bytes, model: TFLiteModel, expected: Interface
) -> Iterator[str]:
    try:
        found = read_metadata(tflite, model)
    except ExportError as error:
        yield str(error)
        return
    for ours, theirs in ((found, expected), (found.meaning, expected.meaning)):
        for field in dataclasses.fields(theirs):
            value, wanted = getattr(ours, field.name), getattr(theirs, field.name)
            if field.name in ("mean", "std"):
                wanted = tuple(float(np.float32(number)) for number in wanted)
            if field.name != "meaning" and value != wanted:
                yield f"{field.name} {value!r} instead of {wanted!r}"


def _conversion_finding(tflite: bytes, converted: bytes) -> Finding:
    offences = list(differences(tflite, converted))
    if offences:
        written_by, this = map(converter_version, (tflite, converted))
        if written_by is not None and written_by != this:
            offences.insert(
                0,
                f"TensorFlow {shown(written_by)} wrote it and this is {this}, which "
                "may write other bytes: verify with that version",
            )
    return finding(_AS_CONVERTED, offences)


def compare_outputs(student: np.ndarray, tflite: np.ndarray) -> Agreement:
    """Compares outputs (N, classes), both in steps of the output scale.

    Args:
      student: output / scale + zero_point; rounded to the nearest integer here,
        which takes off float noise.
      tflite: raw outputs, int8 or int16.

    Raises:
      ExportError: different or empty shapes, or values that are not finite.
    """
    student, tflite = np.asarray(student), np.asarray(tflite)
    if student.shape != tflite.shape or student.ndim != 2 or student.size == 0:
        raise ExportError(
            f"outputs have shapes {student.shape} and {tflite.shape}; expected the "
            "same (N, classes), not empty, of student and .tflite"
        )
    if tflite.dtype.kind != "i":
        raise ExportError(
            f".tflite outputs are {tflite.dtype}; expected integers, as "
            "`TFLiteClassifier.run_own` gives"
        )
    if not np.isfinite(student).all():
        raise ExportError("student outputs hold NaN or infinity; expected finite ones")
    lsb = np.abs(np.rint(student).astype(np.int64) - tflite)
    return Agreement(
        num_images=len(lsb),
        max_lsb=int(lsb.max()),
        exact_outputs=float((lsb == 0).mean()),
        exact_images=float((lsb == 0).all(axis=1).mean()),
    )


def require(findings: Iterable[Finding]) -> None:
    """Raises unless all rules hold.

    Raises:
      ExportError: one line with every failed rule and what was found.
    """
    failed = [f"{f.rule}: found {f.detail}" for f in findings if not f.passed]
    if failed:
        rules = "1 rule" if len(failed) == 1 else f"{len(failed)} rules"
        raise ExportError(f"the .tflite file breaks {rules}: {'; '.join(failed)}")
