"""Whatever the file, findings."""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib.metadata
import os
import platform
import time

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.lite.python import (
    conversion_metadata_schema_py_generated as conversion_schema,
)

from tests.tiny_network import NetworkBuilder, random_images
from tflite_export.convert import convert_network
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import (
    converter_version,
    pack_model,
    read_model,
    unpack_model,
)
from tflite_export.integer_network import IntegerNetwork
from tflite_export.litert.simulator import LITERT, LITERT_ON_ARM64
from tflite_export.operator_forms import in_forms_of
from tflite_export.targets import TARGETS
from tflite_export.tflm.runtime import is_installed
from tflite_export.verification import runtimes, verify
from tflite_export.verification.rules import CHECKS, Expectation
from tflite_export.verification.runtimes import runtime_for
from tflite_export.verification.student_rules import RULES
from tflite_export.verification.verify import (
    Verification,
    allowed_lsb,
    expectation_of,
    verify_file,
)

NUM_DAMAGED = int(os.environ.get("GDFQ_NUM_DAMAGED_FILES", "10")) * 10


def build(*, softmax: bool = False, kind: str | None = None) -> IntegerNetwork:
    b = NetworkBuilder(seed=3)
    x = b.kernel("conv", "conv", "image", bits=8, outputs=4, stride=2, relu=True)
    if kind:
        x = b.op("function", kind, [x], (4, 4, 4))
    b.kernel("logits", "dense", b.flatten(x), bits=4)
    return dataclasses.replace(b.build_ops(), softmax=softmax)


def build_of_8_bits() -> IntegerNetwork:
    b = NetworkBuilder(seed=4)
    x = b.kernel("conv", "conv", "image", bits=8, outputs=4, stride=2, relu=True)
    b.kernel("logits", "dense", b.flatten(x), bits=8)
    return b.build_ops()


NETWORK = build()


@functools.cache
def sound() -> bytes:
    return convert_network(NETWORK)


def check(tflite: bytes) -> Verification:
    return verify_file(tflite, NETWORK, converted=sound(), num_random_images=4)


def failed(tflite: bytes) -> dict[str, str]:
    return {f.rule: f.detail for f in check(tflite).findings if not f.passed}


def test_a_sound_file():
    found = check(sound())
    assert found.passed
    litert = f"LiteRT {importlib.metadata.version('ai-edge-litert')} with XNNPACK on "
    runtime = f"{litert}{platform.machine()}"
    assert found.agreement == verify.Agreement(4, 0, 1.0, 1.0, runtime)
    assert [f.rule for f in found.findings] == [
        "a whole .tflite file",
        *(check.rule for check in CHECKS),
        *RULES.values(),
        "metadata and labels as the student's",
        "every byte as the converter makes it of the student",
        f"outputs within 0 LSB of the student's, by {runtime}",
    ]


def test_without_another_conversion_and_with_images():
    images = random_images(3)
    found = verify_file(sound(), NETWORK, images=images, num_random_images=2)
    assert found.passed
    assert found.agreement is not None
    assert found.agreement.num_images == 5
    assert len(found.findings) == 2 + len(CHECKS) + len(RULES) + 1


def test_outputs_that_differ(monkeypatch):
    compute = verify.compute

    def off_by_one(kernels, network, images):
        outputs = compute(kernels, network, images)
        outputs[0, 0] += 1 if outputs[0, 0] < 127 else -1
        return outputs

    monkeypatch.setattr(verify, "compute", off_by_one)
    found = check(sound())
    assert not found.passed
    assert found.agreement is not None
    (finding,) = (f for f in found.findings if not f.passed)
    assert finding.rule.startswith("outputs within 0 LSB of the student's, by LiteRT")
    assert finding.detail == "1 LSB over 4 images, 95.00% of outputs exact"


@pytest.mark.parametrize(
    ("network", "machine", "expected"),
    [
        (build(), "x86_64", 0),
        (build(), "AMD64", 0),
        (build(), "aarch64", 1),
        (build(softmax=True), "x86_64", 1),
        (build(kind="gelu"), "x86_64", 1),
        (build(kind="sigmoid"), "x86_64", 1),
        (build(kind="hard_swish"), "x86_64", 0),
    ],
)
def test_what_outputs_may_differ_by(network, machine, expected, monkeypatch):
    monkeypatch.setattr(runtimes.platform, "machine", lambda: machine)
    assert allowed_lsb(network, runtime_for(network)) == expected


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (build(), 0),
        (build(softmax=True), 0),
        (build(kind="sigmoid"), 0),
        (build(kind="elu"), 1),
    ],
)
def test_what_outputs_of_tflm_may_differ_by(network, expected, monkeypatch):
    monkeypatch.setattr(runtimes, "is_installed", lambda: True)
    monkeypatch.setattr(runtimes, "tflm_version", lambda: "1.2")
    made = in_forms_of(TARGETS["tflm"], network)
    runtime = runtime_for(made)
    assert runtime.title.startswith("tflite-micro 1.2, reference kernels on ")
    assert allowed_lsb(made, runtime) == expected


@pytest.mark.parametrize("target", ["tflm", "ethos-u"])
def test_without_tflm_the_rule_says_what_is_not_proven(target, monkeypatch):
    monkeypatch.setattr(runtimes, "is_installed", lambda: False)
    made = in_forms_of(TARGETS[target], build_of_8_bits())
    found = verify_file(convert_network(made), made, num_random_images=4)
    assert found.passed
    rule = found.findings[-1].rule
    assert rule.startswith("outputs within 0 LSB of the simulation of LiteRT's kernels")
    assert "nothing was run on " + TARGETS[target].title in rule
    assert "pip install 'gdfq-tf[tflm]'" in rule


@pytest.mark.skipif(not is_installed(), reason="tflite-micro is not installed")
@pytest.mark.parametrize("target", ["tflm", "ethos-u"])
def test_with_tflm_it_runs_the_file(target):
    made = in_forms_of(TARGETS[target], build_of_8_bits())
    found = verify_file(convert_network(made), made, num_random_images=20)
    assert found.required().max_lsb == 0
    assert "by tflite-micro" in found.findings[-1].rule
    assert TARGETS[target].unproven in found.findings[-1].rule


@pytest.mark.parametrize(
    ("machine", "expected"),
    [("x86_64", LITERT), ("aarch64", LITERT_ON_ARM64), ("arm64", LITERT_ON_ARM64)],
)
def test_outputs_are_held_against_those_of_this_machine(machine, expected, monkeypatch):
    taken, compute = [], verify.compute

    def simulated(kernels, network, images):
        taken.append(kernels)
        return compute(LITERT, network, images)

    monkeypatch.setattr(runtimes.platform, "machine", lambda: machine)
    monkeypatch.setattr(verify, "compute", simulated)
    assert check(sound()).passed
    assert taken == [expected]


def test_expectation_of_a_network():
    assert expectation_of(NETWORK, 7) == Expectation(4, 7, frozenset({"conv"}))
    b = NetworkBuilder()
    b.flatten("image")
    assert expectation_of(b.build_ops()) == Expectation(8)


def test_litert_runs_only_what_the_file_holds_rightly(monkeypatch):
    def crash(*arguments):
        raise AssertionError

    monkeypatch.setattr(runtimes, "TFLiteClassifier", crash)
    model = copy.deepcopy(unpack_model(sound()))
    model.subgraphs[0].tensors[0].name = b"other"
    found = check(pack_model(model))
    assert found.agreement is None
    with pytest.raises(AssertionError):
        check(sound())


def test_a_file_that_litert_refuses(monkeypatch):
    def refuse(tflite):
        raise ExportError("no")

    monkeypatch.setattr(runtimes, "TFLiteClassifier", refuse)
    ((rule, detail),) = failed(sound()).items()
    assert rule.startswith("outputs within 0 LSB of the student's")
    assert detail == "no"


def with_version(version: bytes | None) -> bytes:
    model = copy.deepcopy(unpack_model(sound()))
    (entry,) = (x for x in model.metadata if x.name == b"CONVERSION_METADATA")
    if version is None:
        entry.name = b"other"
        return pack_model(model)
    data = bytes(model.buffers[entry.buffer].data)
    read = conversion_schema.ConversionMetadataT.InitFromPackedBuf(data)
    read.environment.tensorflowVersion = version
    builder = flatbuffers.Builder()
    builder.Finish(read.Pack(builder))
    model.buffers[entry.buffer].data = np.frombuffer(builder.Output(), np.uint8)
    return pack_model(model)


def test_a_file_of_another_converter():
    tflite = with_version(b"1.2\x1b3")
    assert converter_version(tflite) == "1.2\x1b3"
    (detail,) = failed(tflite).values()
    this = converter_version(sound())
    assert detail.startswith(
        rf"TensorFlow '1.2\x1b3' wrote it and this is {this}, which may write other"
    )
    assert "verify with that version" in detail
    assert converter_version(with_version(None)) is None


@pytest.mark.parametrize("tflite", [b"", b"\0" * 1000, b"\0\0\0\0TFL3", b"\xff" * 99])
def test_no_tflite_file(tflite):
    found = failed(tflite)
    assert list(found) == [
        "a whole .tflite file",
        "every byte as the converter makes it of the student",
    ]
    assert ".tflite file" in found["a whole .tflite file"]


def check_damaged(tflite: bytes) -> None:
    started = time.monotonic()
    found = check(tflite)
    assert time.monotonic() - started < 5
    assert found.passed == (tflite == sound())
    for finding in found.findings:
        assert finding.detail.isprintable()
        assert len(finding.detail) < 1000


@settings(max_examples=NUM_DAMAGED, deadline=None)
@given(data=st.data())
def test_damaged_bytes(data):
    damaged = bytearray(sound())
    for _ in range(data.draw(st.integers(1, 8))):
        position = data.draw(st.integers(0, len(damaged) - 1))
        noise = data.draw(st.binary(min_size=1, max_size=8))
        damaged[position : position + len(noise)] = noise
    check_damaged(bytes(damaged))


@settings(max_examples=NUM_DAMAGED, deadline=None)
@given(position=st.integers(0, len(sound()) * 8 - 1))
def test_single_bits(position):
    damaged = bytearray(sound())
    damaged[position // 8] ^= 1 << position % 8
    check_damaged(bytes(damaged))


@settings(max_examples=NUM_DAMAGED // 2, deadline=None)
@given(
    start=st.integers(0, len(sound())),
    length=st.integers(0, 400),
    noise=st.binary(max_size=40),
)
def test_pieces_lost_or_put_in(start, length, noise):
    tflite = sound()
    check_damaged(tflite[:start] + noise + tflite[start + length :])
    check_damaged(tflite[:start])


@settings(max_examples=NUM_DAMAGED, deadline=None)
@given(data=st.data())
def test_offsets_and_lengths(data):
    """Words that could be offsets or lengths, made others that could be."""
    words = np.frombuffer(sound()[: len(sound()) // 4 * 4], "<u4").copy()
    small = np.flatnonzero((words > 0) & (words < len(sound())))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.sampled_from(small.tolist()))
        value = data.draw(
            st.sampled_from([0, 1, 4, 2**16, 2**31 - 1, 2**32 - 1, len(sound())])
            | st.integers(0, len(sound()))
        )
        words[place] = value
    check_damaged(words.tobytes())


def test_parts_that_overlap_are_not_unfolded():
    """A file of 2 MB, of whose tensors each has a name of 1 MB, all of them one."""
    model = copy.deepcopy(unpack_model(sound()))
    graph = model.subgraphs[0]
    graph.tensors[0].name = "n" * 2**20
    index = schema.TensorT([1], schema.TensorType.INT8, 0, "short")
    graph.tensors += [copy.copy(index) for _ in range(2**13)]
    tflite = bytearray(pack_model(model))
    long = tflite.index(b"n" * 2**20) - 4
    found = tflite.find(b"\x05\0\0\0short")
    moved = 0
    while found >= 0:
        # The offset that leads here: the word whose value is the way to it.
        words = np.frombuffer(bytes(tflite[found % 4 : found]), "<u4")
        places = np.arange(len(words)) * 4 + found % 4
        for place in places[words == found - places]:
            if long > place:
                tflite[place : place + 4] = (long - int(place)).to_bytes(4, "little")
                moved += 1
        found = tflite.find(b"\x05\0\0\0short", found + 1)
    assert moved > 0
    with pytest.raises(ExportError, match="parts of it overlap"):
        read_model(bytes(tflite))
