from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from tests import tiny_tflite
from tests.tiny_tflite import convert
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import pack_model, read_model, unpack_model
from tflite_export.operator_files import operator_files


def interpreter_of(tflite: bytes) -> Interpreter:
    interpreter = Interpreter(model_content=tflite)
    interpreter.allocate_tensors()
    return interpreter


@pytest.mark.parametrize("bits", [4, 8])
def test_operators_alone_compute_what_they_do_in_the_file(bits):
    """One after the other, each fed what the ones before gave: the file's outputs."""
    tflite = convert(lambda x: tiny_tflite.classifier(x, bits=bits), (1, 8, 8, 3))
    whole, model = interpreter_of(tflite), read_model(tflite)
    (source,), (target,) = whole.get_input_details(), whole.get_output_details()
    image = np.random.default_rng(0).integers(-128, 128, source["shape"], np.int8)
    whole.set_tensor(source["index"], image)
    whole.invoke()
    values = {source["name"]: image}
    found = list(operator_files(tflite))
    assert [name for name, _, _ in found] == [x.name for x in model.operators]
    for _, output, content in found:
        alone = interpreter_of(content)
        for end in alone.get_input_details():
            alone.set_tensor(end["index"], values[end["name"]])
        alone.invoke()
        (end,) = alone.get_output_details()
        assert end["name"] == output
        values[output] = alone.get_tensor(end["index"])
    np.testing.assert_array_equal(
        values[target["name"]], whole.get_tensor(target["index"])
    )
    assert sum(len(content) for _, _, content in found) > len(tflite)


def test_what_is_no_file_is_refused():
    with pytest.raises(ExportError, match="not a \\.tflite file"):
        list(operator_files(b"x" * 64))


def test_operators_that_name_no_tensor_are_damage():
    tflite = convert(lambda x: x + 1.0, (1, 3), quantize=False)
    model = unpack_model(tflite)
    model.subgraphs[0].operators[0].inputs = [0, 99]
    with pytest.raises(ExportError, match="damaged"):
        list(operator_files(pack_model(model)))
