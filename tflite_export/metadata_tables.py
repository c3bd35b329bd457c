"""TFLite's metadata as FlatBuffers: tables written, and read from anybody's bytes.

`FIELDS` has those tables of the public schema, version 1.1.0, that classifiers need. A
field's place is its number there; a union takes two, its type and its table.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping, Sequence

import flatbuffers
from flatbuffers import encode, number_types
from flatbuffers.table import Table as RawTable

IDENTIFIER = b"M001"
# What offsets out of damaged bytes raise.
DAMAGE = (struct.error, ValueError, TypeError, LookupError)
FIELDS: Mapping[str, Sequence[str]] = {
    "ModelMetadata": (
        "name",
        "description",
        "version",
        "subgraph_metadata",
        "author",
        "license",
        "associated_files",
        "min_parser_version",
    ),
    "SubGraphMetadata": (
        "name",
        "description",
        "input_tensor_metadata",
        "output_tensor_metadata",
    ),
    "TensorMetadata": (
        "name",
        "description",
        "dimension_names",
        "content",
        "process_units",
        "stats",
        "associated_files",
    ),
    "Content": ("content_properties_type", "content_properties"),
    "FeatureProperties": (),
    "ImageProperties": ("color_space", "default_size"),
    "ImageSize": ("width", "height"),
    "ProcessUnit": ("options_type", "options"),
    "NormalizationOptions": ("mean", "std"),
    "AssociatedFile": ("name", "description", "type"),
}
# Integer fields of one byte; all others have four.
_BYTES = frozenset({"content_properties_type", "options_type", "color_space", "type"})


@dataclasses.dataclass(frozen=True)
class Table:
    """A table to be written.

    Attributes:
      kind: a key of `FIELDS`.
      fields: by name; texts, integers, sequences of floats, tables or sequences of
        these. What is left out is absent.
    """

    kind: str
    fields: Mapping[str, Value]


Value = str | int | Table | Sequence["Table"] | Sequence[float]


def written(root: Table) -> bytes:
    """The FlatBuffer of a table with all that it holds."""
    builder = flatbuffers.Builder(256)
    builder.Finish(_write(builder, root), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _write(builder: flatbuffers.Builder, table: Table) -> int:
    # Whatever a table leads to is written before it.
    places = {name: _place(builder, value) for name, value in table.fields.items()}
    names = FIELDS[table.kind]
    builder.StartObject(len(names))
    for name, place in places.items():
        slot = names.index(name)
        value = table.fields[name]
        if not isinstance(value, int):
            builder.PrependUOffsetTRelativeSlot(slot, place, 0)
        elif name in _BYTES:
            builder.PrependInt8Slot(slot, value, 0)
        else:
            builder.PrependUint32Slot(slot, value, 0)
    return int(builder.EndObject())


def _place(builder: flatbuffers.Builder, value: Value) -> int:
    if isinstance(value, int):
        return 0
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, Table):
        return _write(builder, value)
    places = [_write(builder, entry) for entry in value if isinstance(entry, Table)]
    builder.StartVector(4, len(value), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    for number in reversed(value):
        if not isinstance(number, Table):
            builder.PrependFloat32(number)
    return int(builder.EndVector())


class View:
    """A table in bytes that may be anybody's; absent fields are empty or None.

    What is damaged raises one of `DAMAGE` when it is read.
    """

    def __init__(self, kind: str, table: RawTable) -> None:
        """Takes a table of a kind, a key of `FIELDS`."""
        self._names, self._table = FIELDS[kind], table

    @classmethod
    def of_root(cls, content: bytes) -> View:
        """The root table of metadata.

        Raises:
          ValueError: they do not begin as metadata do.
        """
        if content[4:8] != IDENTIFIER:
            raise ValueError(f"identifier {content[4:8]!r}")
        place = encode.Get(number_types.UOffsetTFlags.packer_type, content, 0)
        return cls("ModelMetadata", RawTable(content, place))

    def text(self, name: str) -> str:
        """A text field."""
        place = self._place(name)
        return "" if place is None else self._table.String(place).decode()

    def integer(self, name: str) -> int:
        """An integer field."""
        place = self._place(name)
        kind = number_types.Int8Flags if name in _BYTES else number_types.Uint32Flags
        return 0 if place is None else int(self._table.Get(kind, place))

    def table(self, name: str, kind: str) -> View | None:
        """A field that is one table."""
        place = self._place(name)
        if place is None:
            return None
        return View(kind, self._at(self._table.Indirect(place)))

    def tables(self, name: str, kind: str) -> list[View]:
        """A field that is several tables."""
        start, count = self._vector(name)
        places = range(start, start + 4 * count, 4)
        return [View(kind, self._at(self._table.Indirect(place))) for place in places]

    def floats(self, name: str) -> tuple[float, ...]:
        """A field that is several floats."""
        start, count = self._vector(name)
        kind = number_types.Float32Flags
        places = range(start, start + 4 * count, 4)
        return tuple(float(self._table.Get(kind, place)) for place in places)

    def _at(self, place: int) -> RawTable:
        return RawTable(self._table.Bytes, place)

    def _place(self, name: str) -> int | None:
        # Fields are addressed by their place in the table's list of offsets.
        offset = self._table.Offset(4 + 2 * self._names.index(name))
        return offset + self._table.Pos if offset else None

    def _vector(self, name: str) -> tuple[int, int]:
        """Where the entries, of four bytes each, start, and how many there are."""
        place = self._place(name)
        if place is None:
            return 0, 0
        start = place + self._table.Get(number_types.UOffsetTFlags, place)
        count = self._table.Get(number_types.UOffsetTFlags, start)
        if start + 4 + 4 * count > len(self._table.Bytes):
            raise ValueError(f"{count} entries of {name}")
        return start + 4, count
