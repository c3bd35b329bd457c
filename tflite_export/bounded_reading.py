"""Bounds what reading a damaged or hostile `.tflite` file can cost.

Nothing keeps the offsets of such a file from leading many tables to the same bytes,
so that some kilobytes unfold to more than any memory holds. In a sound file each part
has bytes of its own: all parts together are no larger than the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tflite_export.errors import ExportError

# The fields that hold a string or one table more. Those that hold vectors can be read
# off the generated classes.
_SINGLE_FIELDS: dict[type, tuple[str, ...]] = {
    schema.Model: ("Description",),
    schema.OperatorCode: ("CustomCode",),
    schema.SubGraph: ("Name",),
    schema.Tensor: ("Name", "Quantization", "Sparsity"),
    schema.Metadata: ("Name",),
    schema.SignatureDef: ("SignatureKey",),
    schema.TensorMap: ("Name",),
    schema.ExternalBuffer: ("Packing",),
    schema.ExternalBufferGroup: ("Name",),
}
_VECTORS: dict[type, tuple[str, ...]] = {
    table: tuple(
        name.removesuffix("Length")
        for name in vars(table)
        if name.endswith("Length") and name != "Length"  # a field's own name
    )
    for table in vars(schema).values()
    if isinstance(table, type)
}
_Table = Any  # of the generated classes, which have no base
_TABLE_BYTES = 8  # at least: the offset that leads to it and its own first one


def check_bounded(model: schema.Model, num_bytes: int) -> None:
    """Refuses a model whose parts, read one by one, exceed the file's bytes.

    Raises:
      ExportError: they do, or operators have options that hold texts.
      struct.error, ValueError, TypeError: an offset leads out of the file.
    """
    total = 0
    for size in _sizes(model):
        total += size
        if total > num_bytes:
            raise ExportError(
                f"damaged .tflite file of {num_bytes} bytes (parts of it overlap); "
                "expected a complete one: copy or convert it again"
            )


def _sizes(table: _Table) -> Iterator[int]:
    """Bytes of the parts, each at least, as they are reached."""
    yield _TABLE_BYTES
    for name in _VECTORS[type(table)]:
        count = getattr(table, f"{name}Length")()
        if hasattr(table, f"{name}AsNumpy"):
            yield count
            continue
        for index in range(count):
            yield from _sizes(getattr(table, name)(index))
    for name in _SINGLE_FIELDS.get(type(table), ()):
        value = getattr(table, name)()
        if isinstance(value, bytes):
            yield len(value)
        elif value is not None:
            yield from _sizes(value)
    if isinstance(table, schema.Operator):
        _check_options(table)


def _check_options(operator: schema.Operator) -> None:
    holds_text = schema.BuiltinOptions.VarHandleOptions
    if operator.BuiltinOptions2Type() or operator.BuiltinOptionsType() == holds_text:
        raise ExportError(
            "the .tflite file holds operators with StableHLO or variable options; "
            "expected a classifier's: convert it without them"
        )
