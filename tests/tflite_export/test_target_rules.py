"""What targets do not take is refused in one line, with the way out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.tiny_network import NetworkBuilder
from tflite_export.convert import convert_network
from tflite_export.errors import ExportError, as_flag
from tflite_export.flatbuffer import read_model
from tflite_export.integer_network import IntegerNetwork
from tflite_export.interface import Interface
from tflite_export.operator_forms import in_forms_of
from tflite_export.operators.table import KINDS
from tflite_export.quantization_params import QuantParams
from tflite_export.runtimes import first_runtime
from tflite_export.target_kernels import KERNELS
from tflite_export.target_rules import require_taken, warnings_of
from tflite_export.targets import DEFAULT_TARGET, TARGETS


def dense(bits: int = 8, *, inputs: int = 256, outputs: int = 8) -> IntegerNetwork:
    b = NetworkBuilder()
    source = b.flatten("image")
    if inputs != 256:
        source = b.kernel("before", "dense", source, bits=8, outputs=inputs)
    b.kernel("logits", "dense", source, bits=bits, outputs=outputs)
    return b.build_ops()


def function(kind: str, quant_params: QuantParams | None = None, **fields):
    b = NetworkBuilder()
    b.flatten(b.op("function", kind, ["image"], (8, 8, 4), quant_params, **fields))
    return b.build_ops()


def joined(count: int) -> IntegerNetwork:
    b = NetworkBuilder()
    x = b.op("joined", "concatenate", ["image"] * count, (8, 8, 4 * count))
    b.flatten(x)
    return b.build_ops()


RELU6 = {"relu": True, "relu6": True}
WIDER = QuantParams(6 / 128, -128)
REFUSED = [
    ("ethos-u", dense(4), "'logits' has a kernel of 4 bits", "take --bits=w8a8"),
    ("ethos-u", function("gelu"), "'function' is a gelu", "train with hard_swish"),
    ("tflm", function("gelu"), "'function' is a gelu", "train with hard_swish or relu"),
    ("tflm", joined(11), "a concatenate of 11 tensors, and it takes 10", "join some"),
    ("tflm", function("relu", WIDER, **RELU6), "RELU6 ignores", "take a ReLU there"),
]


@pytest.mark.parametrize(("target", "network", "reason", "way_out"), REFUSED)
def test_what_is_refused(target, network, reason, way_out):
    made = in_forms_of(TARGETS[target], network)
    with pytest.raises(ExportError) as error:
        convert_network(made)
    message = error.value.render(as_flag)
    assert message.startswith(f"--target={target}: ")
    assert reason in message and way_out in message
    assert "\n" not in message
    for other in ("litert", "c99"):
        require_taken(in_forms_of(TARGETS[other], network))


@pytest.mark.parametrize(
    ("target", "network"),
    [
        ("ethos-u", dense(5)),
        ("tflm", dense(4)),
        ("tflm", joined(10)),
        ("tflm", function("relu", WIDER, relu=True)),
        ("tflm", function("relu", **RELU6)),
    ],
)
def test_what_is_taken(target, network):
    require_taken(in_forms_of(TARGETS[target], network))


@pytest.mark.parametrize(
    ("target", "inputs", "outputs", "named"),
    [
        ("tflm", 256, 8, []),
        ("tflm", 256, 10, ["256 to 10"]),
        ("tflm", 12, 8, ["256 to 12", "12 to 8"]),
        ("litert", 256, 10, []),
        ("ethos-u", 256, 10, []),
    ],
)
def test_dense_widths_are_warned_of(target, inputs, outputs, named):
    network = dense(inputs=inputs, outputs=outputs)
    found = warnings_of(in_forms_of(TARGETS[target], network))
    assert len(found) == len(named)
    for line, widths in zip(found, named, strict=True):
        assert widths in line and "multiples of 8" in line and "ESP-NN" in line
        assert "self-test" in line and "CONFIG_NN_ANSI_C=y" in line


def test_records_name_what_there_is():
    assert DEFAULT_TARGET in TARGETS
    for name, target in TARGETS.items():
        assert target.name == name
        assert (target.kernels, 8) in KERNELS
        assert (target.kernels, 16) in KERNELS or target.no_int16
        kinds = {target.int4_dense, target.int4_pointwise, *target.refused}
        assert kinds | target.refused_with_int16.keys() <= KINDS.keys()


def test_biases_are_the_targets_and_the_way_back_is_exact():
    b = NetworkBuilder()
    b.kernel("x", "conv", "image", bits=8, relu=True)
    b.flatten("x")
    network = b.build_ops()
    there = in_forms_of(TARGETS["tflm"], network)
    assert (there.target, network.target) == ("tflm", "litert")
    bias, other = (net.ops[0].kernel.bias for net in (network, there))
    # Between 1/2 and 1, for multipliers below 1/2.
    assert (bias - other == 1).all()
    back = in_forms_of(TARGETS["litert"], there)
    assert (back.ops[0].kernel.bias == bias).all()
    again = in_forms_of(TARGETS["tflm"], there)
    assert (again.ops[0].kernel.bias == other).all()
    assert dataclasses.asdict(again.ops[1]) == dataclasses.asdict(there.ops[1])


def wide_network(kind: str, *, bits: int = 8) -> IntegerNetwork:
    """One operation with int16 activations."""
    b = NetworkBuilder()
    if kind in ("conv", "depthwise"):
        b.kernel("x", kind, "image", bits=bits)
    else:
        b.op("x", kind, ["image"], (8, 8, 4))
    network = b.build_ops()
    wide = QuantParams(2.0**-10, 0, bits=16)
    ops = tuple(dataclasses.replace(op, quant_params=wide) for op in network.ops)
    return dataclasses.replace(network, input_quant_params=wide, ops=ops)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (wide_network("elu"), "layer 'x' is a elu: it has no int16 kernel"),
        (wide_network("prelu"), "train with leaky_relu"),
        (wide_network("depthwise", bits=4), "beside int16 activations those have 8"),
    ],
)
def test_what_has_no_int16_kernel_is_refused(network, message):
    with pytest.raises(ExportError, match=message) as error:
        require_taken(network)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("target", ["tflm", "c99", "ethos-u"])
def test_targets_that_take_no_int16(target):
    message = f"target='{target}' does not take .* 16 bits.*take bits='w8a8'"
    with pytest.raises(ExportError, match=message):
        in_forms_of(TARGETS[target], wide_network("conv"))


def test_layers_of_int16_keep_their_kind():
    assert in_forms_of(TARGETS["litert"], wide_network("conv", bits=4)).ops[0].kind == (
        "conv"
    )


def test_files_with_int16_tell_the_runtime_that_was_tried():
    network = wide_network("conv", bits=8)
    flat = dataclasses.replace(
        network.ops[0],
        name="flat",
        kind="reshape",
        inputs=("x",),
        kernel=None,
        attributes={"shape": [8 * 8 * 5]},
    )
    kernel = network.ops[0].kernel
    kernel = dataclasses.replace(kernel, bias=kernel.bias.astype(np.int64))
    ops = (dataclasses.replace(network.ops[0], kernel=kernel), flat)
    network = dataclasses.replace(
        network, ops=ops, interface=Interface("int16", "int16")
    )
    assert first_runtime(read_model(convert_network(network))) == "2.21.0"
