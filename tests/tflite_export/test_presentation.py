"""Files with uint8 ends, names that people read, and labels."""

from __future__ import annotations

import copy
import dataclasses
import functools

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.tiny_network import INPUT_GRID, NetworkBuilder, random_images
from tflite_export.benchmark import benchmark
from tflite_export.convert import convert_network
from tflite_export.errors import ExportError
from tflite_export.flatbuffer import pack_model, read_model, unpack_model
from tflite_export.integer_network import IntegerNetwork
from tflite_export.interface import Interface
from tflite_export.interpreter import TFLiteClassifier, load_interpreter
from tflite_export.litert.simulator import infer
from tflite_export.operator_forms import num_added_operators
from tflite_export.presentation import presented, require_end_type
from tflite_export.verification.rules import no_float_or_conversion_operators
from tflite_export.verification.verify import verify_file

IMAGES = random_images(16)


def make_network(*, softmax: bool = False) -> IntegerNetwork:
    b = NetworkBuilder(seed=3)
    x = b.kernel("conv", "conv", "image", bits=8, outputs=4, stride=2, relu=True)
    b.kernel("logits", "dense", b.flatten(x), bits=4)
    return dataclasses.replace(b.build_ops(), softmax=softmax)


@functools.cache
def file_of(input_type: str, output_type: str, softmax: bool):
    network = presented(
        make_network(softmax=softmax),
        input_type=input_type,
        output_type=output_type,
        labels=(),
    )
    return network, convert_network(network)


ENDS = [
    ("uint8", "int8", False),
    ("int8", "uint8", True),
    ("uint8", "uint8", False),
]


@pytest.mark.parametrize("ends", ENDS)
def test_uint8_values_are_int8_ones_plus_128(ends):
    network, tflite = file_of(*ends)
    expected = infer(network, IMAGES).astype(int)
    interpreter = load_interpreter(tflite)
    (source,) = interpreter.get_input_details()
    (target,) = interpreter.get_output_details()
    assert (source["dtype"], target["dtype"]) == tuple(map(np.dtype, ends[:2]))
    offsets = [128 if end == "uint8" else 0 for end in ends[:2]]
    for image, outputs in zip(IMAGES, expected, strict=True):
        raw = image.astype(int) + offsets[0]
        interpreter.set_tensor(source["index"], raw[np.newaxis].astype(ends[0]))
        interpreter.invoke()
        found = interpreter.get_tensor(target["index"])[0].astype(int)
        np.testing.assert_array_equal(found - offsets[1], outputs)
    scale, zero_point = source["quantization"]
    assert scale == np.float32(INPUT_GRID.scale)
    assert zero_point == INPUT_GRID.zero_point + offsets[0]


@pytest.mark.parametrize("ends", ENDS)
def test_uint8_ends_are_verified(ends):
    network, tflite = file_of(*ends)
    found = verify_file(tflite, network, images=IMAGES, converted=tflite)
    assert [f for f in found.findings if not f.passed] == []
    assert found.required().max_lsb == 0
    quantize = [o for o in read_model(tflite).operators if o.name == "QUANTIZE"]
    assert len(quantize) == ends[:2].count("uint8") == num_added_operators(network)


def test_another_type_is_another_file():
    network, tflite = file_of("uint8", "uint8", False)
    other = presented(network, input_type="int8", output_type="int8", labels=())
    failed = {f.rule: f.detail for f in verify_file(tflite, other).findings if f.detail}
    assert "input UINT8 instead of INT8" in "".join(failed.values())
    rule = no_float_or_conversion_operators.rule
    assert failed[rule].startswith("QUANTIZE as operator 0, QUANTIZE as operator ")
    failed = verify_file(convert_network(other), network).findings
    assert any("input INT8 instead of UINT8" in f.detail for f in failed)


def move_zero_point(graph):
    graph.tensors[graph.inputs[0]].quantization.zeroPoint[0] -= 1


def change_scale(graph):
    graph.tensors[graph.outputs[0]].quantization.scale[0] *= 2


def convert_inside(graph):
    """uint8 to int8 as it should be, but a second time where nothing needs it."""
    first = graph.operators[0]
    spare = copy.copy(graph.tensors[first.outputs[0]])
    graph.tensors.append(spare)
    graph.operators.append(
        schema.OperatorT(first.opcodeIndex, first.inputs, [len(graph.tensors) - 1])
    )


def skip_the_conversion(graph):
    """The convolution reads bytes."""
    source, target = graph.operators[0].inputs[0], graph.operators[0].outputs[0]
    del graph.operators[0]
    for operator in graph.operators:
        operator.inputs = [source if i == target else i for i in operator.inputs]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (move_zero_point, "zero point"),
        (change_scale, "scale"),
        (convert_inside, "QUANTIZE as operator"),
        (skip_the_conversion, "no QUANTIZE for 'image'"),
    ],
)
def test_wrong_conversions_are_found(edit, message):
    network, tflite = file_of("uint8", "uint8", False)
    model = copy.deepcopy(unpack_model(tflite))
    edit(model.subgraphs[0])
    found = verify_file(pack_model(model), network)
    assert found.agreement is None
    assert message in "; ".join(f.detail for f in found.findings)


def test_uint8_files_are_run_as_others():
    _, tflite = file_of("uint8", "uint8", False)
    model = TFLiteClassifier(tflite)
    real = np.float32([[-9.0, 0.0, 9.0]])
    assert model.quantize_input(real).dtype == np.uint8
    zero_point = INPUT_GRID.zero_point + 128
    assert model.quantize_input(real).tolist() == [[0, zero_point, 255]]
    assert model.dequantize_output(np.uint8([0, 255])).dtype == np.float32
    assert model.logits(np.zeros((2, 8, 8, 4))).shape == (2, 5)
    assert benchmark(tflite, num_runs=1, warmup_runs=0).latency.num_runs == 1


def test_int8_values_of_float_files_are_refused():
    from tflite_export.convert import convert_float

    tflite = convert_float(lambda x: x * 2.0, (3,))
    with pytest.raises(ExportError, match="takes float32 and gives float32"):
        TFLiteClassifier(tflite).run_own(np.zeros((1, 3), np.int8))


def test_tensors_are_named_after_layers():
    _, tflite = file_of("uint8", "int8", True)
    model = read_model(tflite)
    names = [tensor.name for tensor in model.tensors]
    assert len(set(names)) == len(names)
    assert [model.tensors[i].name for i in (*model.inputs, *model.outputs)] == [
        "image", "scores"
    ]  # fmt: skip
    assert {"image_1", "conv", "conv/kernel", "conv/bias"} <= set(names)
    assert {"logits", "logits/kernel", "logits/bias"} <= set(names)
    (signature,) = model.signatures
    assert dict(signature.inputs) == {"image": model.inputs[0]}
    assert dict(signature.outputs) == {"scores": model.outputs[0]}


def test_signatures_run_by_the_names():
    network, tflite = file_of("int8", "int8", False)
    interpreter = load_interpreter(tflite)
    run = interpreter.get_signature_runner("serving_default")
    found = run(image=IMAGES[:1])["scores"]
    np.testing.assert_array_equal(found, infer(network, IMAGES[:1]))


def test_other_names_are_found():
    network, tflite = file_of("int8", "int8", False)
    model = copy.deepcopy(unpack_model(tflite))
    tensors = model.subgraphs[0].tensors
    (kernel,) = (t for t in tensors if t.name == b"conv/kernel")
    kernel.name = b"conv/kernle"
    (broken,) = (
        f for f in verify_file(pack_model(model), network).findings if f.detail
    )
    assert broken.rule == "tensors named after the student's layers"
    assert "'conv/kernle' instead of 'conv/kernel'" in broken.detail


def test_ends_that_are_not_given_stay():
    network, _ = file_of("uint8", "int8", False)
    same = presented(network, input_type=None, output_type=None, labels=())
    assert same.interface == network.interface
    named = presented(network, input_type=None, output_type=None, labels=list("abcde"))
    assert named.interface.meaning.labels == tuple("abcde")
    assert Interface().num_conversions == 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (list("abc"), "labels has 3 names, and the network has 5 outputs"),
        (["a", "b", "c", "d", "e\nf"], r"labels holds 'e\\nf'; expected names"),
        (["a", "b", " ", "d", "e"], "labels holds ' '"),
        (["a", "b", "c", "d", "\ud800"], "labels holds"),
        (["a", "b", "c", "d", 5], "labels holds 5"),
    ],
)
def test_labels_that_are_refused(labels, message):
    with pytest.raises(ExportError, match=message) as error:
        presented(make_network(), input_type=None, output_type=None, labels=labels)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["float32", "INT8", "", None, 8])
def test_types_that_are_refused(value):
    with pytest.raises(ExportError, match=r"input_type.*expected int8 or uint8"):
        require_end_type("input_type", value, 8)
