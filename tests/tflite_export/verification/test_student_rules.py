"""What is stored, held against the student."""

from __future__ import annotations

import copy
import dataclasses
import functools

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.tiny_network import (
    INPUT_GRID,
    INPUT_SHAPE,
    OUTPUT_GRID,
    NetworkBuilder,
    coarse,
)
from tflite_export.convert import convert_network
from tflite_export.flatbuffer import (
    operator_name,
    pack_model,
    read_model,
    unpack_model,
)
from tflite_export.integer_network import IntegerNetwork
from tflite_export.operators.table import FIXED_QUANT_PARAMS, KINDS
from tflite_export.quantization_params import QuantParams
from tflite_export.verification.expected_graph import expected_graph
from tflite_export.verification.student_rules import RULES, student_findings

WIDE = QuantParams(float(coarse(0.09)), -3)
FAR = QuantParams(float(coarse(0.0613)), -100)
POINT = {"strides": [1, 1], "padding": "valid", "dilation": [1, 1]}
POSITIVE = QuantParams(float(coarse(2.5 / 255)), -128)


def kernel(kind, *, pads=None, **options):
    def build(b):
        source = "image"
        if pads:
            shape = (8 + sum(pads[0]), 8 + sum(pads[1]), 4)
            source = b.op("pad", "pad", ["image"], shape, attributes={"pads": pads})
        return b.kernel("x", kind, source, **options)

    return build


def op(kind, shape=INPUT_SHAPE, quant_params=None, **fields):
    return lambda b: b.op("x", kind, ["image"], shape, quant_params, **fields)


def pool(kind, **options):
    return lambda b: b.pool("x", kind, "image", **options)


def two_dense(b):
    first = b.kernel("first", "dense", b.flatten("image"), bits=4, relu=True)
    return b.kernel("second", "dense", first, bits=8)


def pointwise_twice(b):
    """Of one tensor, then of one of them, alone and beside another kind."""
    first = b.kernel("first", "pointwise", "image", bits=4, outputs=4)
    second = b.kernel("second", "pointwise", "image", bits=4, outputs=4)
    third = b.kernel("third", "pointwise", first, bits=4, outputs=4)
    b.op("joined", "add", [second, third], (8, 8, 4), WIDE)
    return b.kernel("conv", "conv", "joined", bits=4)


def pointwise_twins(b):
    """The converter makes one of them."""
    first = b.kernel("first", "pointwise", "image", bits=4, outputs=4)
    kernel = b._ops[-1].kernel
    second = b.op(
        "second", "pointwise", ["image"], INPUT_SHAPE, OUTPUT_GRID, kernel=kernel
    )
    return b.op("x", "add", [first, second], INPUT_SHAPE, WIDE)


def dense_between_images(kind):
    """The converter takes out the reshapes, and an image is what there is to read."""

    def build(b):
        pooled = b.op("means", "global_average", ["image"], (4,), WIDE)
        gates = b.kernel("gates", kind, pooled, bits=4, outputs=4)
        shape = {"shape": [1, 1, 4]}
        gates = b.op("image_of_gates", "reshape", [gates], (1, 1, 4), attributes=shape)
        return b.op("x", "multiply", [gates, "image"], INPUT_SHAPE, WIDE)

    return build


def bounded_dense(b):
    options = {"bits": 8, "relu": True, "quant_params": FAR}
    first = b.kernel("first", "dense", b.flatten("image"), **options)
    return b.op("bounded", "minimum", [first], (5,), attributes={"level": -70})


def arithmetic(kind, quant_params=WIDE, **fields):
    def build(b):
        other = b.kernel("other", "conv", "image", bits=8, outputs=4)
        return b.op("x", kind, [other, "image"], INPUT_SHAPE, quant_params, **fields)

    return build


def joining(kind):
    """Of tensors of one scale."""

    def build(b):
        other = b.kernel(
            "other", "conv", "image", bits=8, outputs=4, quant_params=INPUT_GRID
        )
        return b.op("x", kind, [other, "image"], INPUT_SHAPE)

    return build


def transpose(shape, permutation):
    def build(b):
        source = b.kernel("conv", "conv", "image", bits=8, outputs=4)
        attributes = {"shape": list(shape)}
        source = b.op("shaped", "reshape", [source], shape, attributes=attributes)
        permuted = tuple(shape[dimension - 1] for dimension in permutation)
        attributes = {"permutation": permutation}
        return b.op("x", "transpose", [source], permuted, attributes=attributes)

    return build


def squeeze_and_excitation(b):
    options = {"attributes": {"keepdims": True}}
    means = b.op("means", "global_average", ["image"], (1, 1, 4), WIDE, **options)
    gates = b.op("gates", "sigmoid", [means], (1, 1, 4), FIXED_QUANT_PARAMS["sigmoid"])
    return b.op("x", "multiply", [gates, "image"], INPUT_SHAPE, WIDE)


def global_average(b):
    means = b.op("means", "global_average", ["image"], (4,), WIDE)
    return b.kernel("logits", "dense", means, bits=8)


def layer_normalization(num_constants):
    def build(b):
        mean = b.op("mean", "channel_mean", ["image"], (8, 8, 1), WIDE)
        centered = b.op("centered", "subtract", ["image", mean], INPUT_SHAPE, FAR)
        attributes = {"constant_level": 17, "num_constants": num_constants}
        unit = FIXED_QUANT_PARAMS["l2_normalize"]
        return b.op(
            "unit", "l2_normalize", [centered], INPUT_SHAPE, unit, attributes=attributes
        )

    return build


def twins(b):
    options = {"size": 3, "stride": 1, "padding": "same"}
    first, second = (
        b.pool(f"p{i}", "average_pool", "image", **options) for i in (0, 1)
    )
    return b.op("x", "add", [first, second], INPUT_SHAPE, WIDE)


def joined(b):
    return b.op("x", "concatenate", ["image", "image", "image"], (8, 8, 12))


def blocks(size, crops, shape):
    return op("depth_to_space", shape, attributes={"block_size": size, "crops": crops})


def pads_of_one_tensor(b):
    """NASNet's: the converter keeps the second, whose kernel pads otherwise."""
    flat = []
    for name, pads in (("same", [[1, 1], [1, 1]]), ("other", [[2, 0], [1, 1]])):
        attributes = {"pads": pads}
        source = b.op(
            f"pad_{name}", "pad", ["image"], (10, 10, 4), attributes=attributes
        )
        x = b.kernel(name, "depthwise", source, bits=8, padding="valid")
        flat.append(b.flatten(x))
    return b.op("x", "concatenate", flat, (512,))


NO_CROPS = [[0, 0], [0, 0]]
NETWORKS = {
    "conv": kernel("conv", bits=8, stride=2),
    "conv_int4": kernel("conv", bits=3, dilation=2),
    "conv_grouped": kernel("conv", bits=8, groups=2, outputs=6),
    "conv_relu6": kernel("conv", bits=4, relu=True, relu6=True, quant_params=FAR),
    # The converter makes one operator of the first two, not of the third.
    "pad_same": kernel("conv", bits=8, padding="valid", pads=[[1, 1], [1, 1]]),
    "pad_same_strided": kernel(
        "depthwise", bits=8, stride=2, padding="valid", pads=[[0, 1], [0, 1]]
    ),
    "pad": kernel("conv", bits=8, padding="valid", pads=[[2, 0], [1, 1]]),
    "pads_of_one_tensor": pads_of_one_tensor,
    "depthwise": kernel("depthwise", bits=8, multiplier=2),
    "depthwise_int4": kernel("depthwise", bits=4, stride=2, padding="valid"),
    "pointwise": kernel("pointwise", bits=4, relu=True, quant_params=POSITIVE),
    "pointwise_int8": kernel("pointwise", bits=8, relu6=True, quant_params=FAR),
    "pointwise_padded": kernel("pointwise", bits=4, pads=[[1, 1], [0, 2]]),
    "pointwise_twice": pointwise_twice,
    "two_dense": two_dense,
    "dense_between_images": dense_between_images("dense"),
    "dense_convolution": dense_between_images("dense_convolution"),
    "bounded_dense": bounded_dense,
    "add": arithmetic("add"),
    "add_relu6": arithmetic("add", FAR, relu=True, relu6=True),
    "subtract": arithmetic("subtract"),
    "multiply": arithmetic("multiply"),
    "squeeze_and_excitation": squeeze_and_excitation,
    "global_average": global_average,
    "layer_normalization": layer_normalization(0),
    "layer_normalization_epsilon": layer_normalization(2),
    "relu": op("relu", quant_params=POSITIVE, relu=True),
    "relu6": op("relu", quant_params=FAR, relu=True, relu6=True),
    "leaky_relu": op("leaky_relu", quant_params=WIDE, attributes={"slope": 0.1}),
    "prelu": op(
        "prelu",
        quant_params=WIDE,
        attributes={"slopes": [127, -50, 0, 3], "slope_scale": 0.0078125},
    ),
    "prelu_of_values": op(
        "prelu",
        quant_params=WIDE,
        attributes={"slopes": [127, *range(-127, 128)], "slope_scale": 0.0078125},
    ),
    "sigmoid": op("sigmoid", quant_params=FIXED_QUANT_PARAMS["sigmoid"]),
    "tanh": op("tanh", quant_params=FIXED_QUANT_PARAMS["tanh"]),
    "gelu": op("gelu", quant_params=WIDE),
    "elu": op("elu", quant_params=WIDE),
    "hard_swish": op("hard_swish", quant_params=WIDE),
    "average_pool": pool("average_pool", size=3, stride=2, padding="same"),
    "max_pool": pool("max_pool", size=2, stride=1),
    "crop": op("crop", (5, 7, 4), attributes={"crops": [[1, 2], [0, 1]]}),
    "transpose": transpose((8, 8, 4), [2, 1, 3]),
    "transpose_5d": transpose((8, 8, 2, 2), [1, 2, 4, 3]),
    # A reshape: only a dimension of 1 changes its place.
    "transpose_of_1": transpose((1, 64, 4), [2, 1, 3]),
    "maximum": joining("elementwise_maximum"),
    "minimum": joining("elementwise_minimum"),
    "twins": twins,
    "pointwise_twins": pointwise_twins,
    "joined": joined,
    "nearest": op("resize_nearest", (16, 24, 4), attributes={"size": [2, 3]}),
    "bilinear": op("resize_bilinear", (8, 16, 4), attributes={"size": [1, 2]}),
    "blocks": blocks([2, 2], NO_CROPS, (16, 16, 1)),
    "blocks_cropped": blocks([2, 2], [[1, 2], [0, 3]], (13, 13, 1)),
    "blocks_of_rows": blocks([2, 1], [[1, 0], [0, 0]], (15, 8, 2)),
    "blocks_of_columns": blocks([1, 4], [[0, 1], [1, 1]], (7, 30, 1)),
}


def network_of(build) -> IntegerNetwork:
    b = NetworkBuilder(seed=7)
    last = build(b)
    if len(b._shapes[last]) > 1:
        b.flatten(last)
    return b.build_ops()


def broken(tflite: bytes, network: IntegerNetwork) -> dict[str, str]:
    """Detail by key of `RULES`, of the rules that do not hold."""
    findings = student_findings(read_model(tflite), network)
    assert [f.rule for f in findings] == list(RULES.values())
    pairs = zip(RULES, findings, strict=True)
    return {key: found.detail for key, found in pairs if not found.passed}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_as_converted_has_nothing_broken(name):
    network = network_of(NETWORKS[name])
    assert broken(convert_network(network), network) == {}


def test_every_kind_is_among_them():
    used = {op.kind for build in NETWORKS.values() for op in network_of(build).ops}
    assert used == set(KINDS)


def small(b):
    """conv (relu) -> depthwise -> mean -> dense, then a softmax."""
    x = b.kernel(
        "conv", "conv", "image", bits=8, outputs=6, relu=True, quant_params=POSITIVE
    )
    x = b.kernel("depthwise", "depthwise", x, bits=4, padding="valid")
    x = b.op("means", "global_average", [x], (6,), WIDE)
    return b.kernel("logits", "dense", x, bits=4)


@functools.cache
def small_network() -> tuple[IntegerNetwork, bytes]:
    network = dataclasses.replace(network_of(small), softmax=True)
    return network, convert_network(network)


def edited(edit) -> dict[str, str]:
    """What is broken after `edit(graph, model)` changed the small network's file."""
    network, tflite = small_network()
    model = copy.deepcopy(unpack_model(tflite))  # arrays that can be written
    edit(model.subgraphs[0], model)
    return broken(pack_model(model), network)


def test_the_small_network_is_sound():
    network, tflite = small_network()
    assert [o.name for o in read_model(tflite).operators] == [
        "CONV_2D", "DEPTHWISE_CONV_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX"
    ]  # fmt: skip
    assert broken(tflite, network) == {}


def constant(graph, model, operator: int, position: int):
    tensor = graph.tensors[graph.operators[operator].inputs[position]]
    return tensor, model.buffers[tensor.buffer].data


@pytest.mark.parametrize(
    ("operator", "position", "byte", "flip", "key", "message"),
    [
        (0, 1, 7, 1, "kernel", "kernel of CONV_2D for 'conv' differs in 1 of 216"),
        (
            1,
            1,
            3,
            0x10,
            "kernel",
            "kernel of DEPTHWISE_CONV_2D for 'depthwise' differs",
        ),
        (3, 1, 14, 8, "kernel", "kernel of FULLY_CONNECTED for 'logits' differs in 1"),
        (0, 2, 0, 1, "bias", "bias of CONV_2D for 'conv' differs in 1 of 6 values"),
        (3, 2, 19, 0x80, "bias", "bias of FULLY_CONNECTED for 'logits' differs in 1"),
        (2, 1, 0, 2, "operators", "axes of MEAN for 'means' differs in 1 of 2 values"),
    ],
)
def test_every_stored_bit_counts(operator, position, byte, flip, key, message):
    def edit(graph, model):
        constant(graph, model, operator, position)[1][byte] ^= flip

    found = edited(edit)
    assert list(found) == [key]
    assert message in found[key]


def edit_kernel_scale(graph, model):
    scale = constant(graph, model, 0, 1)[0].quantization.scale
    scale[2] = np.nextafter(scale[2], np.float32(1))


def edit_kernel_dimension(graph, model):
    constant(graph, model, 3, 1)[0].quantization.quantizedDimension = 1


@pytest.mark.parametrize("edit", [edit_kernel_scale, edit_kernel_dimension])
def test_kernel_scales_to_the_last_bit(edit):
    found = edited(edit)
    assert list(found) == ["scale"]
    assert "scales of kernel of" in found["scale"]


def activation(name: str, change):
    """Changes the output tensor of the first operator of that name."""

    def edit(graph, model):
        for operator in graph.operators:
            if operator_name(model.operatorCodes[operator.opcodeIndex]) == name:
                change(graph.tensors[operator.outputs[0]])

    return edit


def next_scale(tensor):
    scale = tensor.quantization.scale
    scale[0] = np.nextafter(scale[0], np.float32(1))


def next_zero_point(tensor):
    tensor.quantization.zeroPoint[0] += 1


def other_type(tensor):
    tensor.type = schema.TensorType.UINT8


def other_shape(tensor):
    tensor.shape = tensor.shape[::-1]


@pytest.mark.parametrize("name", ["CONV_2D", "MEAN", "FULLY_CONNECTED"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (next_scale, "has scale"),
        (next_zero_point, "has zero point"),
        (other_type, "is UINT8 instead of INT8"),
        (other_shape, "has shape"),
    ],
)
def test_activations(name, change, message):
    found = edited(activation(name, change))
    assert list(found) == ["activation"]
    assert message in found["activation"]


@pytest.mark.parametrize("change", [next_scale, next_zero_point, other_shape])
@pytest.mark.parametrize("end", ["inputs", "outputs"])
def test_ends(end, change):
    found = edited(lambda graph, model: change(graph.tensors[getattr(graph, end)[0]]))
    assert "ends" in found


def test_zero_points_of_constants():
    def edit(graph, model):
        constant(graph, model, 0, 1)[0].quantization.zeroPoint[3] = 1

    found = edited(edit)
    assert found == {"scale": "zero points of kernel of CONV_2D for 'conv' are not 0"}
    network = network_of(NETWORKS["bounded_dense"])
    model = copy.deepcopy(unpack_model(convert_network(network)))
    (bound,) = (t for t in model.subgraphs[0].tensors if len(t.shape) == 0)
    bound.quantization.zeroPoint[0] += 1
    (detail,) = broken(pack_model(model), network).values()
    assert detail == "zero points of bound of MINIMUM for 'bounded' are not -100"


def test_an_output_from_elsewhere():
    def edit(graph, model):
        graph.outputs = graph.operators[3].outputs

    found = edited(edit)
    assert "an output that is not the student's 'logits/softmax'" in found["ends"]


@pytest.mark.parametrize(
    ("operator", "field", "value"),
    [
        (0, "padding", 1),
        (0, "strideW", 2),
        (0, "strideH", 2),
        (0, "dilationWFactor", 2),
        (0, "dilationHFactor", 2),
        (0, "fusedActivationFunction", 0),
        (0, "quantizedBiasType", 4),
        (1, "depthMultiplier", 2),
        (1, "fusedActivationFunction", 3),
        (2, "keepDims", False),
        (3, "fusedActivationFunction", 1),
        (3, "weightsFormat", 1),
        (3, "keepNumDims", True),
        (3, "asymmetricQuantizeInputs", True),
        (4, "beta", 0.5),
    ],
)
def test_every_option_counts(operator, field, value):
    found = edited(
        lambda graph, model: setattr(
            graph.operators[operator].builtinOptions, field, value
        )
    )
    assert "operators" in found
    assert field in found["operators"]


@pytest.mark.parametrize(
    ("kind", "attributes", "other"),
    [("pointwise", POINT, "conv"), ("dense_convolution", {}, "dense")],
)
def test_the_other_operator_of_the_same_sums_is_another(kind, attributes, other):
    def build(b):
        source = "image" if kind == "pointwise" else b.flatten("image")
        return b.kernel("x", kind, source, bits=4)

    network = network_of(build)
    ops = list(network.ops)
    place = next(i for i, op in enumerate(ops) if op.name == "x")
    op = ops[place]
    values = op.kernel.values[None, None] if attributes else op.kernel.values
    ops[place] = dataclasses.replace(
        op,
        kind=other,
        attributes=attributes,
        kernel=dataclasses.replace(op.kernel, values=values),
    )
    tflite = convert_network(dataclasses.replace(network, ops=tuple(ops)))
    found = broken(tflite, network)["operators"]
    assert "for 'x'" in found


def test_options_of_another_type():
    def edit(graph, model):
        graph.operators[2].builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
        graph.operators[2].builtinOptions = schema.Conv2DOptionsT()

    assert "MEAN for 'means' has Conv2DOptions" in edited(edit)["operators"]


def test_one_code_serves_convolutions_of_all_widths():
    """Also where the one of INT4 is a dense layer's, which has another operator."""

    def build(b):
        x = b.kernel("conv", "conv", "image", bits=8)
        return b.kernel("dense", "dense", b.flatten(x), bits=4)

    network = network_of(build)
    tflite = convert_network(network)
    versions = {o.name: o.version for o in read_model(tflite).operators}
    assert versions == {"CONV_2D": 7, "RESHAPE": 1, "FULLY_CONNECTED": 10}
    assert broken(tflite, network) == {}


@pytest.mark.parametrize("code", range(4))
@pytest.mark.parametrize("change", [-1, 1, 64])
def test_versions(code, change):
    def edit(graph, model):
        model.operatorCodes[code].version += change

    assert list(edited(edit)) == ["version"]


def test_an_operator_of_another_kind():
    def edit(graph, model):
        code = next(c for c in model.operatorCodes if operator_name(c) == "MEAN")
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.SUM

    found = edited(edit)
    assert "no MEAN for 'means', SUM as operator 2 besides" in found["operators"]


def test_an_operator_without_its_bias():
    def edit(graph, model):
        graph.operators[0].inputs = graph.operators[0].inputs[:2]

    assert (
        "CONV_2D for 'conv' has 1 constants instead of 2" in edited(edit)["operators"]
    )

    def mark_absent(graph, model):
        graph.operators[0].inputs[2] = -1

    assert "CONV_2D for 'conv' has no bias" in edited(mark_absent)["operators"]


def rename_key(graph, model):
    model.signatureDefs[0].signatureKey = "serving\x1b[31m"


def rename_input(graph, model):
    model.signatureDefs[0].inputs[0].name = "imagf"


def point_elsewhere(graph, model):
    model.signatureDefs[0].outputs[0].tensorIndex -= 1


def drop(graph, model):
    model.signatureDefs = None


def double(graph, model):
    model.signatureDefs *= 2


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (rename_key, r"'serving\x1b[31m' with 'image' tensor"),
        (rename_input, "'imagf'"),
        (point_elsewhere, "'scores' tensor"),
        (drop, "0 signatures"),
        (double, "2 signatures"),
    ],
)
def test_signature(edit, message):
    found = edited(edit)
    assert list(found) == ["signature"]
    assert message in found["signature"]


@pytest.mark.parametrize(
    ("edit", "key"),
    [
        (lambda graph, data: data.__setitem__(4, 1), "operators"),
        (lambda graph, data: next_scale(graph.tensors[graph.outputs[0]]), "activation"),
    ],
)
def test_reshapes(edit, key):
    network = network_of(NETWORKS["max_pool"])
    model = copy.deepcopy(unpack_model(convert_network(network)))
    graph = model.subgraphs[0]
    (reshape,) = (o for o in graph.operators if len(o.inputs) == 2)
    edit(graph, model.buffers[graph.tensors[reshape.inputs[1]].buffer].data)
    assert key in broken(pack_model(model), network)


def test_the_student_of_another_file():
    network, _ = small_network()
    other = network_of(NETWORKS["two_dense"])
    found = broken(convert_network(other), network)
    assert "no CONV_2D for 'conv'" in found["operators"]


def test_sources_are_followed_through_reshapes():
    b = NetworkBuilder()
    first = b.flatten("image")
    attributes = {"shape": [16, 16]}
    b.op("square", "reshape", [first], (16, 16), attributes=attributes)
    b.op("row", "reshape", ["square"], (256,), attributes={"shape": [256]})
    graph = expected_graph(b.build_ops())
    assert (graph.source("row"), graph.steps) == ("image", ())
    assert graph.shapes["row"] == (1, 256)
