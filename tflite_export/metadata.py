"""What a file says of itself: TFLite's metadata, and the names of its classes.

Metadata are one more buffer of the model. The names are a text file in a ZIP archive
behind it, uncompressed, where Android's libraries look for it.
"""

from __future__ import annotations

import io
import zipfile

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.errors import ExportError
from tflite_export.flatbuffer import TFLiteModel
from tflite_export.integer_network import IntegerNetwork
from tflite_export.interface import Interface, Meaning
from tflite_export.metadata_tables import DAMAGE, Table, Value, View, written
from tflite_export.names import printable, shown

_ENTRY = "TFLITE_METADATA"
_LABELS_FILE = "labels.txt"
_OLDEST_PARSER = "1.0.0"  # of the fields that are used
# Numbers of the schema's enumerations and unions.
_FEATURES, _IMAGE = 1, 2
_COLOR_SPACES = {"image": 0, "rgb": 1, "gray": 2}
_NORMALIZATION = 1
_AXIS_LABELS = 2
# What damaged archives raise, or such as want a password.
_ARCHIVE_DAMAGE = (OSError, EOFError, RuntimeError, zipfile.BadZipFile)
_LONGEST = 2**22  # bytes of metadata, or of the archive, that are read


def add_metadata(model: schema.ModelT, network: IntegerNetwork) -> None:
    """Puts the metadata of a network's file into the file's object tree."""
    content = np.frombuffer(written(_model_table(network)), np.uint8)
    model.buffers.append(schema.BufferT(data=content))
    entry = schema.MetadataT(_ENTRY.encode(), len(model.buffers) - 1)
    model.metadata = [*(model.metadata or ()), entry]


def with_labels(tflite: bytes, labels: tuple[str, ...]) -> bytes:
    """The file with the names of its classes behind it; itself if there are none."""
    if not labels:
        return tflite
    stream = io.BytesIO()
    stream.write(tflite)
    # An entry's offset counts from the start of the file, and its date is always one.
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(_LABELS_FILE), _as_lines(labels))
    return stream.getvalue()


def read_metadata(tflite: bytes, model: TFLiteModel) -> Interface:
    """What a file's metadata say, together with its types.

    Args:
      tflite: the file's bytes.
      model: what they hold.

    Raises:
      ExportError: no metadata, or damaged ones; of more or fewer ends than one each.
    """
    content = model.metadata.get(_ENTRY)
    if content is None:
        raise ExportError("no metadata")
    try:
        if len(content) > _LONGEST:
            raise ValueError(f"{len(content):,} bytes")
        return _interface(tflite, model, View.of_root(content))
    except (*DAMAGE, *_ARCHIVE_DAMAGE) as error:
        if isinstance(error, ExportError):
            raise
        reason = printable(f"{type(error).__name__} {error}")
        raise ExportError(f"damaged metadata ({reason})") from error


def _interface(tflite: bytes, model: TFLiteModel, root: View) -> Interface:
    (graph,) = root.tables("subgraph_metadata", "SubGraphMetadata")
    (source,) = graph.tables("input_tensor_metadata", "TensorMetadata")
    (target,) = graph.tables("output_tensor_metadata", "TensorMetadata")
    mean, std = _normalization(source)
    files = target.tables("associated_files", "AssociatedFile")
    (first,), (last,) = model.inputs, model.outputs
    return Interface(
        model.tensors[first].dtype.lower(),
        model.tensors[last].dtype.lower(),
        source.text("name"),
        target.text("name"),
        Meaning(
            root.text("name"),
            root.text("description"),
            source.text("description"),
            _content(source),
            mean,
            std,
            _labels(tflite, files[0]) if files else (),
        ),
    )


def _normalization(source: View) -> tuple[tuple[float, ...], tuple[float, ...]]:
    units = source.tables("process_units", "ProcessUnit")
    if not units:
        return (), ()
    (unit,) = units
    options = unit.table("options", "NormalizationOptions")
    if options is None or unit.integer("options_type") != _NORMALIZATION:
        raise ValueError("an input that is not only normalized")
    return options.floats("mean"), options.floats("std")


def _content(source: View) -> str:
    content = source.table("content", "Content")
    if content is None:
        raise ValueError("an input without content")
    kind = content.integer("content_properties_type")
    properties = content.table("content_properties", "ImageProperties")
    if kind == _FEATURES:
        return "features"
    if kind != _IMAGE or properties is None:
        raise ValueError(f"content {kind}")
    color_space = properties.integer("color_space")
    names = {number: name for name, number in _COLOR_SPACES.items()}
    return names[color_space]


def _labels(tflite: bytes, file: View) -> tuple[str, ...]:
    name = file.text("name")
    if (name, file.integer("type")) != (_LABELS_FILE, _AXIS_LABELS):
        raise ValueError(f"a file {shown(name)}")
    # A long list of files, or one that is compressed, may unfold to more than any
    # memory holds.
    with zipfile.ZipFile(io.BytesIO(tflite[-_LONGEST:])) as archive:
        entry = archive.getinfo(name)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{shown(name)} compressed")
        return tuple(archive.read(entry).decode().split("\n")[:-1])


def _as_lines(labels: tuple[str, ...]) -> str:
    return "".join(f"{label}\n" for label in labels)


def _model_table(network: IntegerNetwork) -> Table:
    meaning = network.interface.meaning
    graph = Table(
        "SubGraphMetadata",
        {
            "input_tensor_metadata": [_input_table(network)],
            "output_tensor_metadata": [_output_table(network.interface)],
        },
    )
    return Table(
        "ModelMetadata",
        {
            "name": meaning.name,
            "description": meaning.description,
            "subgraph_metadata": [graph],
            "min_parser_version": _OLDEST_PARSER,
        },
    )


def _input_table(network: IntegerNetwork) -> Table:
    interface, meaning = network.interface, network.interface.meaning
    fields: dict[str, Value] = {
        "name": interface.input_name,
        "description": meaning.input_description,
        "content": _content_table(meaning.content, network.input_shape),
    }
    if meaning.mean:
        options = Table(
            "NormalizationOptions", {"mean": meaning.mean, "std": meaning.std}
        )
        unit: dict[str, Value] = {"options_type": _NORMALIZATION, "options": options}
        fields["process_units"] = [Table("ProcessUnit", unit)]
    return Table("TensorMetadata", fields)


def _content_table(content: str, shape: tuple[int, ...]) -> Table:
    if content == "features":
        kind, properties = _FEATURES, Table("FeatureProperties", {})
    else:
        fields: dict[str, Value] = {"color_space": _COLOR_SPACES[content]}
        if len(shape) == 3:
            height, width, _ = shape
            size = Table("ImageSize", {"width": width, "height": height})
            fields["default_size"] = size
        kind, properties = _IMAGE, Table("ImageProperties", fields)
    return Table(
        "Content", {"content_properties_type": kind, "content_properties": properties}
    )


def _output_table(interface: Interface) -> Table:
    fields: dict[str, Value] = {
        "name": interface.output_name,
        "content": _content_table("features", ()),
    }
    if interface.meaning.labels:
        file: dict[str, Value] = {
            "name": _LABELS_FILE,
            "description": "Names of the outputs, one in each line.",
            "type": _AXIS_LABELS,
        }
        fields["associated_files"] = [Table("AssociatedFile", file)]
    return Table("TensorMetadata", fields)
