"""Tests of tflite_export.operator_forms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.tiny_network import INPUT_GRID, OUTPUT_GRID, NetworkBuilder, random_images
from tflite_export.convert import convert_network
from tflite_export.flatbuffer import read_model
from tflite_export.integer_network import IntegerNetwork
from tflite_export.litert.simulator import infer
from tflite_export.operator_forms import (
    at_8_bits,
    in_forms_of,
    is_pointwise,
    num_added_operators,
)
from tflite_export.operators.table import KINDS
from tflite_export.targets import TARGETS
from tflite_export.verification.verify import expectation_of, verify_file

LITERT, TFLM = TARGETS["litert"], TARGETS["tflm"]
TAKE_INT4 = [name for name, target in TARGETS.items() if not target.no_int4]


def network(kind: str, *, bits: int = 4, channels: int = 4, **options):
    """One operation "x" with a kernel, whose results are the output."""
    b = NetworkBuilder(seed=3)
    source = "image"
    if channels != 4:
        source = b.kernel("before", "conv", source, bits=8, outputs=channels)
    if kind == "dense":
        source = b.flatten(source)
    b.kernel("x", kind, source, bits=bits, outputs=6, **options)
    if kind != "dense":
        b.flatten("x")
    return b.build_ops()


def operation(of: IntegerNetwork):
    return next(op for op in of.ops if op.name == "x")


@pytest.mark.parametrize(
    ("made", "litert", "tflm"),
    [
        (network("conv", size=1), "pointwise", "conv"),
        (network("conv", size=1, padding="valid"), "pointwise", "conv"),
        (network("conv", size=1, bits=2, relu=True), "pointwise", "conv"),
        (network("pointwise"), "pointwise", "conv"),
        (network("dense"), "dense", "dense_convolution"),
        (network("conv", size=1, bits=5), "conv", "conv"),
        (network("conv", size=1, bits=8), "conv", "conv"),
        (network("dense", bits=5), "dense", "dense"),
        (network("conv", size=1, channels=3), "conv", "conv"),
        (network("conv", size=1, stride=2), "conv", "conv"),
        (network("conv", size=1, groups=2), "conv", "conv"),
        (network("conv"), "conv", "conv"),
        (network("depthwise", size=1), "depthwise", "depthwise"),
    ],
    ids=lambda value: value if isinstance(value, str) else operation(value).kind,
)
def test_the_form_is_the_targets(made, litert, tflm):
    assert operation(in_forms_of(LITERT, made)).kind == litert
    assert operation(in_forms_of(TFLM, made)).kind == tflm


def test_strides_of_one_direction_count():
    attributes = {"strides": [1, 2], "padding": "valid", "dilation": [1, 1]}
    assert not is_pointwise((1, 1, 4, 6), attributes)
    assert is_pointwise((1, 1, 4, 6), {**attributes, "strides": (1, 1)})


@pytest.mark.parametrize("kind", ["conv", "dense"])
def test_there_and_back_again_changes_no_integer(kind):
    here, there = (LITERT, TFLM) if kind == "dense" else (TFLM, LITERT)
    made = in_forms_of(here, network(kind, size=1))
    form = in_forms_of(there, made)
    back = in_forms_of(here, form)
    assert operation(form).kind != kind
    assert operation(back).kind == kind
    for field in ("values", "scale", "bias"):
        before, after = (getattr(operation(x).kernel, field) for x in (made, back))
        np.testing.assert_array_equal(before, after)
        assert before.dtype == after.dtype


@pytest.mark.parametrize("kind", ["conv", "dense"])
@pytest.mark.parametrize("target", TAKE_INT4)
def test_as_if_at_8_bits_a_network_is_as_large_and_has_the_same_operators(kind, target):
    few = in_forms_of(TARGETS[target], network(kind, size=1))
    eight = network(kind, size=1, bits=8)
    pretended = at_8_bits(few, ["x"])
    assert [op.kind for op in pretended.ops] == [op.kind for op in eight.ops]
    for op, other in zip(pretended.ops, eight.ops, strict=True):
        for name in ("strides", "dilation", "groups"):
            assert op.attributes.get(name) == other.attributes.get(name)
    sizes = [len(convert_network(x)) for x in (pretended, eight)]
    assert sizes[0] == pytest.approx(sizes[1], abs=64)
    assert at_8_bits(few, []).ops == few.ops


def test_biases_make_up_for_the_rounding_of_the_other_form():
    """By hand: TFLM rounds 3/4 * 2^-3 under a ReLU up by 1 / (2 * 3/4) = 2/3 units.

    What is rounded once gains nothing, as FULLY_CONNECTED in LiteRT.
    """
    made = in_forms_of(LITERT, network("conv", size=1))
    op = operation(made)
    scale = np.full(6, 3 / 32 * OUTPUT_GRID.scale / INPUT_GRID.scale, np.float32)
    kernel = dataclasses.replace(op.kernel, scale=scale)
    op = dataclasses.replace(op, kernel=kernel, relu=True)
    made = dataclasses.replace(made, ops=(op, *made.ops[1:]))
    form = operation(in_forms_of(TFLM, made)).kernel
    np.testing.assert_array_equal(form.bias, kernel.bias - 1)


@pytest.mark.parametrize("kind", ["conv", "dense"])
def test_outputs_of_both_forms_are_alike(kind):
    """They differ where results lie next to a tie."""
    made, images = network(kind, size=1), random_images(50)
    first, second = (infer(in_forms_of(x, made), images) for x in (LITERT, TFLM))
    difference = np.abs(first.astype(int) - second)
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.9


@pytest.mark.parametrize("options", [{}, {"relu": True}, {"relu6": True}])
@pytest.mark.parametrize("kind", ["conv", "dense"])
@pytest.mark.parametrize("target", TAKE_INT4)
def test_files_for_every_target_compute_what_the_network_says(target, kind, options):
    made = in_forms_of(TARGETS[target], network(kind, size=1, **options))
    verification = verify_file(convert_network(made), made)
    assert verification.required().max_lsb == 0


def without_bias(made: IntegerNetwork) -> IntegerNetwork:
    def changed(op):
        if op.kernel is None:
            return op
        kernel = dataclasses.replace(op.kernel, bias=np.zeros_like(op.kernel.bias))
        return dataclasses.replace(op, kernel=kernel)

    return dataclasses.replace(made, ops=tuple(map(changed, made.ops)))


def signal() -> IntegerNetwork:
    """A pointwise layer of a signal, which is an image of height 1."""
    b = NetworkBuilder()
    shape = {"shape": [1, 64, 4]}
    b.op("signal", "reshape", ["image"], (1, 64, 4), attributes=shape)
    b.kernel("x", "pointwise", "signal", bits=4, outputs=6, relu=True)
    b.flatten("x")
    return b.build_ops()


@pytest.mark.parametrize(
    "made", [without_bias(network("pointwise")), signal()], ids=["no_bias", "signal"]
)
def test_pointwise_layers_of_other_networks(made):
    tflite = convert_network(made)
    operators = read_model(tflite).operators
    assert [o.name for o in operators if o.name != "RESHAPE"] == ["FULLY_CONNECTED"]
    assert verify_file(tflite, made).required().max_lsb == 0


def test_a_file_for_tflm_has_no_int4_fully_connected():
    b = NetworkBuilder()
    hidden = b.kernel("hidden", "dense", b.flatten("image"), bits=4, outputs=6)
    b.kernel("logits", "dense", hidden, bits=8)
    made = in_forms_of(TFLM, b.build_ops())
    model = read_model(convert_network(made))
    kernels = {
        operator.name: model.tensors[operator.inputs[1]].dtype
        for operator in model.operators
        if operator.name != "RESHAPE"
    }
    assert kernels == {"CONV_2D": "INT4", "FULLY_CONNECTED": "INT8"}
    # One reshape in front of the convolution, at most one behind.
    added = num_added_operators(made)
    assert 2 + added >= len(model.operators) > 2
    assert expectation_of(made, 2).num_operators == 2 + added


def test_the_fastest_form_of_what_others_take_adds_no_operators():
    assert num_added_operators(in_forms_of(LITERT, network("dense"))) == 0


def test_targets_name_kinds_of_operations():
    for target in TARGETS.values():
        assert {target.int4_dense, target.int4_pointwise} <= KINDS.keys()
