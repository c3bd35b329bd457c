"""What a file says of itself, read by another reader than ours."""

from __future__ import annotations

import dataclasses
import functools
import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny_network import NetworkBuilder, random_images
from tflite_export import metadata
from tflite_export.convert import convert_network
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import (
    TFLiteModel,
    pack_model,
    read_model,
    unpack_model,
)
from tflite_export.integer_network import IntegerNetwork
from tflite_export.interface import CONTENTS, Interface, Meaning
from tflite_export.interpreter import TFLiteClassifier
from tflite_export.litert.simulator import infer
from tflite_export.metadata import read_metadata
from tflite_export.student_file import load_network, save_network
from tflite_export.verification.verify import verify_file

LABELS = ("cat", "Hund, groß", "crane", "crane", "a/b")
MEANING = Meaning(
    "net", "A network.", "How.", "rgb", (127.5, 128.0, 0.25), (58.0, 57.0, 1.0), LABELS
)
RULE = "metadata and labels as the student's"


def network_with(meaning: Meaning) -> IntegerNetwork:
    b = NetworkBuilder(seed=3)
    b.kernel("logits", "dense", b.flatten("image"), bits=8)
    interface = Interface("uint8", "int8", meaning=meaning)
    return dataclasses.replace(b.build_ops(), interface=interface)


NETWORK = network_with(MEANING)


@functools.cache
def sound() -> bytes:
    return convert_network(NETWORK)


@functools.cache
def sound_model() -> TFLiteModel:
    return read_model(sound())


class Raw:
    """A FlatBuffer's table, by numbers of fields as the format defines them."""

    def __init__(self, data: bytes, position: int | None = None) -> None:
        self.data = data
        self.position = self.number("<I", 0) if position is None else position

    def number(self, kind: str, position: int):
        return struct.unpack_from(kind, self.data, position)[0]

    def place(self, field: int) -> int:
        fields = self.position - self.number("<i", self.position)
        assert self.number("<H", fields) > 4 + 2 * field, f"no field {field}"
        offset = self.number("<H", fields + 4 + 2 * field)
        assert offset, f"no field {field}"
        return self.position + offset

    def target(self, field: int) -> int:
        place = self.place(field)
        return place + self.number("<I", place)

    def table(self, field: int) -> Raw:
        return Raw(self.data, self.target(field))

    def text(self, field: int) -> str:
        start = self.target(field)
        length = self.number("<I", start)
        assert self.data[start + 4 + length] == 0  # C strings for those who want them
        return self.data[start + 4 : start + 4 + length].decode()

    def only(self, field: int) -> Raw:
        start = self.target(field)
        assert self.number("<I", start) == 1
        return Raw(self.data, start + 4 + self.number("<I", start + 4))

    def floats(self, field: int) -> list[float]:
        start = self.target(field)
        return list(
            struct.unpack_from(f"<{self.number('<I', start)}f", self.data, start + 4)
        )

    def byte(self, field: int) -> int:
        return self.number("<b", self.place(field))


def buffer_of(tflite: bytes) -> bytes:
    model = unpack_model(tflite)
    (index,) = (m.buffer for m in model.metadata if m.name == b"TFLITE_METADATA")
    return bytes(model.buffers[index].data)


def test_another_reader_finds_everything():
    data = buffer_of(sound())
    assert data[4:8] == b"M001"
    root = Raw(data)
    assert (root.text(0), root.text(1), root.text(7)) == ("net", "A network.", "1.0.0")
    graph = root.only(3)
    source, target = graph.only(2), graph.only(3)
    assert (source.text(0), source.text(1)) == ("image", "How.")
    content = source.table(3)
    assert content.byte(0) == 2  # an image
    assert content.table(1).byte(0) == 1  # RGB
    size = content.table(1).table(1)
    assert [size.number("<I", size.place(i)) for i in (0, 1)] == [8, 8]
    unit = source.only(4)
    assert unit.byte(0) == 1  # a normalization
    assert unit.table(1).floats(0) == [127.5, 128.0, 0.25]
    assert unit.table(1).floats(1) == [58.0, 57.0, 1.0]
    assert target.text(0) == "scores"
    assert target.table(3).byte(0) == 1  # numbers
    file = target.only(6)
    assert (file.text(0), file.byte(2)) == ("labels.txt", 2)  # labels along an axis


def test_labels_are_a_stored_file_behind_the_model():
    with zipfile.ZipFile(io.BytesIO(sound())) as archive:
        (entry,) = archive.infolist()
        assert archive.read(entry).decode().splitlines() == list(LABELS)
    assert (entry.filename, entry.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
    # Readers in C take the offset from the file's start.
    assert sound()[entry.header_offset :][:4] == b"PK\3\4"
    assert convert_network(NETWORK) == sound()


def test_litert_takes_the_file():
    images = random_images(3)
    outputs = TFLiteClassifier(sound()).run_own(images)
    np.testing.assert_array_equal(outputs, infer(NETWORK, images))
    found = verify_file(sound(), NETWORK, converted=sound(), num_random_images=4)
    assert found.passed


def test_what_is_written_is_read():
    assert read_metadata(sound(), read_model(sound())) == NETWORK.interface


@pytest.mark.parametrize("content", CONTENTS)
def test_little_is_known_of_some(content):
    network = network_with(Meaning(content=content))
    tflite = convert_network(network)
    assert read_metadata(tflite, read_model(tflite)) == network.interface
    assert not zipfile.is_zipfile(io.BytesIO(tflite))


def test_students_keep_the_interface(tmp_path):
    save_network(NETWORK, tmp_path / "student.npz")
    assert load_network(tmp_path / "student.npz").interface == NETWORK.interface


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_type": "float32"}, "input_type of the interface is 'float32'"),
        ({"input_name": ""}, "input_name"),
        ({"output_name": "a\nb"}, "output_name"),
        ({"input_name": "\ud800"}, "input_name"),
        ({"meaning": Meaning(content="smell")}, "content"),
        ({"meaning": Meaning(mean=(1.0,))}, "a mean without std"),
        ({"meaning": Meaning(mean=(1.0,), std=(0.0,))}, "std"),
        ({"meaning": Meaning(labels=("a", "b"))}, "2 labels for 5 outputs"),
        ({"meaning": Meaning(labels=("a", "b\n", "c", "d", "e"))}, "labels"),
    ],
)
def test_students_with_other_interfaces_are_refused(change, message, tmp_path):
    interface = dataclasses.replace(NETWORK.interface, **change)
    network = dataclasses.replace(NETWORK, interface=interface)
    save_network(network, tmp_path / "student.npz")
    with pytest.raises(ExportError, match=message):
        load_network(tmp_path / "student.npz")


def offences(tflite: bytes) -> str:
    findings = verify_file(tflite, NETWORK).findings
    return "; ".join(f.detail for f in findings if f.rule == RULE)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "ten", "name 'net' instead of 'ten'"),
        ("mean", (127.5, 127.0, 0.25), "mean (127.5, 128.0, 0.25) instead of"),
        ("content", "gray", "content 'rgb' instead of 'gray'"),
        ("labels", LABELS[::-1], "labels ('cat', "),
    ],
)
def test_metadata_of_another_student_are_found(field, value, message):
    network = network_with(dataclasses.replace(MEANING, **{field: value}))
    (broken,) = (f for f in verify_file(sound(), network).findings if not f.passed)
    assert broken.rule == RULE
    assert message in broken.detail


def without_metadata() -> bytes:
    model = unpack_model(sound())
    model.metadata = [m for m in model.metadata if m.name != b"TFLITE_METADATA"]
    return pack_model(model)


def test_labels_are_found_behind_a_large_model(monkeypatch):
    monkeypatch.setattr(metadata, "_LONGEST", 1500)
    assert len(sound()) > 3000
    assert read_metadata(sound(), sound_model()) == NETWORK.interface
    monkeypatch.setattr(metadata, "_LONGEST", 100)
    with pytest.raises(ExportError, match=r"damaged metadata .* bytes"):
        read_metadata(sound(), sound_model())


def with_compressed_labels() -> bytes:
    stream = io.BytesIO()
    stream.write(pack_model(unpack_model(sound())))
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.txt", "a\n" * 1000)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (without_metadata, "no metadata"),
        (lambda: pack_model(unpack_model(sound())), "damaged metadata (BadZipFile"),
        (with_compressed_labels, "'labels.txt' compressed"),
        (lambda: sound().replace(b"crane\n", b"cranf\n", 1), "Bad CRC-32"),
        (lambda: sound()[:-5], "damaged metadata"),
    ],
)
def test_damage_is_one_line(make, message):
    found = offences(make())
    assert message in found
    assert "\n" not in found


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_whatever_the_bytes_reading_ends_in_facts_or_one_line(data):
    content = bytearray(sound_model().metadata["TFLITE_METADATA"])
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    content = bytes(content if data.draw(st.booleans()) else content[:cut])
    read = dataclasses.replace(sound_model(), metadata={"TFLITE_METADATA": content})
    try:
        found = read_metadata(sound(), read)
    except ExportError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(found, Interface)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_the_archive_reading_ends_in_facts_or_one_line(data):
    start = sound().rindex(b"PK\3\4")
    content = bytearray(sound())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(start, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    try:
        read_metadata(bytes(content), sound_model())
    except ExportError as error:
        assert "\n" not in str(error)
