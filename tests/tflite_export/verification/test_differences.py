"""What differs, by field."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests import tiny_tflite
from tflite_export.flatbuffer import pack_model, unpack_model
from tflite_export.verification.differences import differences


@pytest.fixture(scope="module")
def tflite() -> bytes:
    raw = tiny_tflite.convert(lambda x: tiny_tflite.classifier(x, bits=8), (1, 8, 8, 3))
    return pack_model(unpack_model(raw))


def found(tflite: bytes, edit) -> list[str]:
    model = copy.deepcopy(unpack_model(tflite))  # arrays that can be written
    edit(model, model.subgraphs[0])
    return list(differences(pack_model(model), tflite))


def test_equal_files_have_none(tflite):
    assert list(differences(tflite, tflite)) == []


def rename(model, graph):
    graph.tensors[3].name = b"a\x1b"


def rename_far_behind(model, graph):
    model.description = b"a" * 100 + b"b"


def rescale(model, graph):
    scale = graph.tensors[graph.inputs[0]].quantization.scale
    scale[0] = np.float32(0.25)


def not_a_number(model, graph):
    graph.tensors[graph.inputs[0]].quantization.scale[0] = np.nan


def drop_operator(model, graph):
    graph.operators.pop()


def drop_description(model, graph):
    model.description = None


def other_options(model, graph):
    graph.operators[0].builtinOptionsType = schema.BuiltinOptions.AddOptions
    graph.operators[0].builtinOptions = schema.AddOptionsT()


def other_shape(model, graph):
    graph.tensors[graph.inputs[0]].shape = [1, 8, 8]


def set_variable(model, graph):
    graph.tensors[0].isVariable = True


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (rename, r"model.subgraphs[0].tensors[3].name is 'a\x1b' instead of"),
        (rename_far_behind, "model.description is 'aaaa"),
        (rescale, "quantization.scale[0] is 0.25 instead of 0.00"),
        (not_a_number, "quantization.scale[0] is nan instead of 0.00"),
        (drop_operator, "model.subgraphs[0].operators has"),
        (drop_description, "model.description is None instead of 'MLIR Converted.'"),
        (other_options, "operators[0].builtinOptions is AddOptionsT instead of Conv2D"),
        (other_shape, ".shape has 3 entries instead of 4"),
        (set_variable, "tensors[0].isVariable is True instead of False"),
    ],
)
def test_differences_are_named_by_their_place(tflite, edit, expected):
    assert any(expected in text for text in found(tflite, edit))
    assert not any("\x1b" in text for text in found(tflite, edit))


def test_names_are_shown_where_they_differ(tflite):
    model = copy.deepcopy(unpack_model(tflite))
    model.description = b"a" * 100
    long = pack_model(model)
    assert found(long, rename_far_behind) == [
        f"model.description is '{'a' * 20}b' instead of '{'a' * 20}' from byte 80 on"
    ]


def test_bytes_that_no_field_holds(tflite):
    assert list(differences(tflite + b"\0", tflite)) == [
        f"{len(tflite) + 1} bytes instead of {len(tflite)}"
    ]


@pytest.mark.parametrize("length", [0, 1, 8, 100])
def test_files_that_cannot_be_read(tflite, length):
    assert list(differences(tflite[:length], tflite)) == [
        f"{length} bytes instead of {len(tflite)}"
    ]
    garbage = b"\xff" * length + tflite[length:]
    if length:
        expected = [f"byte 0 is 0xff instead of {tflite[0]:#04x}"]
        assert list(differences(garbage, tflite)) == expected


def test_no_bit_is_missed(tflite):
    """One of each byte of the file, at random."""
    rng = np.random.default_rng(0)
    for position in rng.choice(len(tflite), 200, replace=False):
        damaged = bytearray(tflite)
        damaged[position] ^= 1 << rng.integers(8)
        (first, *_) = differences(bytes(damaged), tflite)
        assert "instead of" in first
