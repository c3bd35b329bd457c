"""What is fused, grouped, and how wide."""

from __future__ import annotations

import pytest

from gdfq_tf.config import BitWidths
from gdfq_tf.errors import UserError
from gdfq_tf.graph.layers import ChannelMean, DepthToSpace, L2Normalization
from gdfq_tf.graph.queries import (
    consumers,
    input_layers,
    is_depthwise,
    join,
    output_layer,
)
from gdfq_tf.keras_compat import keras
from gdfq_tf.quantization.plan import end_layers, make_plan, match_kernel_layers
from tests.tiny import build_tiny_classifier
from tflite_export.quantization_params import QuantParams

layers = keras.layers
EDGE, PAPER = BitWidths(4, 4), BitWidths(4, 4, "paper")


def bits(plan) -> dict[str, int]:
    return {name: group.bits for name, group in plan.groups.items()}


def test_tiny_classifier_edge_and_paper():
    model = build_tiny_classifier()
    plan = make_plan(model, EDGE)
    # Edge: the first and the last kernel keep 8 bits, and so do depthwise ones.
    assert plan.weight_bits == {"conv1": 8, "dw2": 8, "conv3": 4, "logits": 8}
    assert plan.layers_at_8_bits == {"conv1", "dw2", "logits"}
    kernels = ("conv1", "dw2", "conv3", "logits")
    paper = make_plan(model, PAPER)
    assert paper.weight_bits == dict.fromkeys(kernels, 4)
    assert paper.layers_at_8_bits == frozenset()
    assert end_layers(model) == {"conv1", "logits"}
    # Convolutions, their BatchNormalization and the Add in front of a ReLU have no
    # tensor of their own; conv3's branch (bn3) enters the Add as it is.
    image = model.layers[0].name
    ends = {"relu1", "relu2", "bn3", "relu3", "pool", "logits"}
    assert set(plan.tensor_groups) == {image, *ends}
    assert all(name == group for name, group in plan.tensor_groups.items())
    assert set(plan.outputs) == ends
    assert plan.input_group == image
    assert plan.output_group == "logits"
    # Edge: relu1 enters the Add and relu3 the pooling, relu2 is a depthwise layer's.
    assert bits(plan) == {
        image: 8, "relu1": 8, "relu2": 8, "bn3": 8, "relu3": 8, "pool": 8, "logits": 8
    }  # fmt: skip
    # Paper: every ReLU.
    assert bits(make_plan(model, PAPER)) == {
        image: 8, "relu1": 4, "relu2": 4, "bn3": 8, "relu3": 4, "pool": 8, "logits": 8
    }  # fmt: skip


def test_by_protocol_pointwise_kernels_alone_have_few_bits():
    image = keras.Input((8, 8, 4), name="image")
    x = layers.Conv2D(6, 1, name="first")(image)
    x = layers.Conv2D(5, 1, name="pointwise")(x)
    x = layers.Conv2D(6, 1, name="odd")(x)
    x = layers.Conv2D(6, 1, strides=(1, 2), name="strided")(x)
    x = layers.Conv2D(6, 1, groups=2, name="grouped")(x)
    x = layers.Conv2D(6, (1, 3), name="window")(x)
    x = layers.DepthwiseConv2D(1, name="depthwise")(x)
    x = layers.ReLU(name="relu")(layers.Conv2D(6, 1, name="behind")(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(5, name="dense")(x)
    x = layers.Dense(4, name="odd_dense")(x)
    model = keras.Model(image, layers.Dense(3, name="last")(x))
    plan = make_plan(model, BitWidths(4, 8, "pointwise"))
    low = {name for name, width in plan.weight_bits.items() if width == 4}
    assert low == {"pointwise", "behind", "dense"}
    assert plan.layers_at_8_bits == plan.weight_bits.keys() - low


def test_signs_and_bounds():
    groups = make_plan(build_tiny_classifier(), PAPER).groups
    non_negative = {name for name, group in groups.items() if group.non_negative}
    # An average of ReLU outputs is non-negative as well.
    assert non_negative == {"relu1", "relu2", "relu3", "pool"}
    assert {name: g.upper_bound for name, g in groups.items() if g.upper_bound} == {
        "relu2": 6.0
    }


@pytest.mark.parametrize("activation_bits", [3, 5, 8])
@pytest.mark.parametrize("weight_bits", [2, 6])
def test_widths_are_taken_over(weight_bits, activation_bits):
    plan = make_plan(
        build_tiny_classifier(), BitWidths(weight_bits, activation_bits, "paper")
    )
    assert set(plan.weight_bits.values()) == {weight_bits}
    assert plan.groups["relu2"].bits == activation_bits
    assert plan.groups["logits"].bits == 8


def test_pooling_reshaping_padding_and_concatenation_share_one_scale():
    image = keras.Input((8, 8, 3), name="image")
    first = layers.Conv2D(4, 3, padding="same", name="first")(image)
    first = layers.ReLU(name="first_relu")(first)
    pooled = layers.MaxPooling2D(2, name="pooled")(first)
    second = layers.Conv2D(4, 3, strides=2, padding="same", name="second")(first)
    second = layers.ReLU(6.0, name="second_relu")(second)
    joined = layers.Concatenate(name="joined")([pooled, second])
    padded = layers.ZeroPadding2D(1, name="padded")(joined)
    averaged = layers.AveragePooling2D(2, name="averaged")(padded)
    thinned = layers.AveragePooling2D(1, strides=2, name="thinned")(averaged)
    flat = layers.Flatten(name="flat")(thinned)
    model = keras.Model(image, layers.Dense(2, name="logits")(flat))
    plan = make_plan(model, PAPER)
    shared = (
        "first_relu", "pooled", "second_relu", "joined", "padded", "averaged",
        "thinned", "flat",
    )  # fmt: skip
    assert {n for n, g in plan.tensor_groups.items() if g == "first_relu"} == {*shared}
    # Only who computes new values rounds; an average over one position does not.
    rounded = {n for n, group in plan.outputs.items() if group == "first_relu"}
    assert rounded == {"first_relu", "second_relu", "averaged"}
    group = plan.groups["first_relu"]
    # One of the two ReLUs has no bound, so the group has none.
    assert (group.bits, group.non_negative, group.upper_bound) == (4, True, None)
    assert make_plan(model, EDGE).groups["first_relu"].bits == 8


@pytest.mark.parametrize(
    ("interpolation", "rounded", "edge_bits"),
    [
        ("nearest", {"relu"}, 4),
        # Blends fall between the levels of a narrow grid.
        ("bilinear", {"relu", "enlarged"}, 8),
    ],
)
def test_enlarging_shares_one_scale(interpolation, rounded, edge_bits):
    image = keras.Input((4, 4, 3), name="image")
    x = layers.Conv2D(8, 1, name="middle")(layers.Conv2D(3, 1)(image))
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(x))
    x = DepthToSpace((2, 2), name="phases")(x)
    x = layers.UpSampling2D(3, interpolation=interpolation, name="enlarged")(x)
    model = keras.Model(image, layers.Conv2D(2, 1, name="last")(x))
    plan = make_plan(model, PAPER)
    shared = {n for n, group in plan.tensor_groups.items() if group == "relu"}
    assert shared == {"relu", "phases", "enlarged"}
    assert {n for n, group in plan.outputs.items() if group == "relu"} == rounded
    assert "middle" not in plan.tensor_groups and "bn" not in plan.tensor_groups
    assert plan.groups["relu"].bits == 4
    assert make_plan(model, EDGE).groups["relu"].bits == edge_bits


def test_the_largest_bound_of_a_group_counts():
    image = keras.Input((4, 4, 2))
    first = layers.Conv2D(2, 1)(image)
    ends = [layers.ReLU(bound)(layers.Conv2D(2, 1)(first)) for bound in (6.0, 9.0, 6.0)]
    flat = layers.Flatten()(layers.Concatenate()(ends))
    plan = make_plan(keras.Model(image, layers.Dense(2)(flat)), EDGE)
    (group,) = (g for g in plan.groups.values() if g.non_negative)
    assert group.upper_bound == 9.0
    assert group.bits == 4


def test_a_signed_member_keeps_its_group_signed_and_8_bits():
    image = keras.Input((4, 4, 2))
    positive = layers.ReLU(6.0, name="positive")(layers.Conv2D(2, 1)(image))
    signed = layers.Conv2D(2, 1, name="signed")(image)
    joined = layers.Concatenate(name="joined")([positive, signed])
    flat = layers.Flatten()(joined)
    plan = make_plan(keras.Model(image, layers.Dense(2)(flat)), PAPER)
    group = plan.groups[plan.tensor_groups["joined"]]
    assert plan.tensor_groups["positive"] == plan.tensor_groups["signed"] == group.name
    assert (group.bits, group.non_negative, group.upper_bound) == (8, False, None)


def test_pooled_input_belongs_to_the_inputs_group():
    image = keras.Input((4, 4, 2), name="image")
    pooled = layers.MaxPooling2D(2, name="pooled")(image)
    flat = layers.Flatten(name="flat")(pooled)
    plan = make_plan(keras.Model(image, layers.Dense(2, name="logits")(flat)), PAPER)
    assert plan.input_group == "image"
    assert {n for n, g in plan.tensor_groups.items() if g == "image"} == {
        "image", "pooled", "flat"
    }  # fmt: skip
    assert set(plan.outputs) == {"logits"}
    assert plan.groups["image"].bits == 8


def test_nothing_is_fused_that_others_read_too():
    image = keras.Input((4, 4, 2))
    conv = layers.Conv2D(2, 1, name="conv")(image)
    relu = layers.ReLU(name="relu")(conv)
    total = layers.Add(name="total")([conv, relu])
    kept = layers.ReLU(name="kept")(total)
    both = layers.Add(name="both")([total, kept])
    flat = layers.GlobalAveragePooling2D(name="flat")(both)
    plan = make_plan(keras.Model(image, layers.Dense(2, name="logits")(flat)), EDGE)
    assert set(plan.outputs) == {
        "conv", "relu", "total", "kept", "both", "flat", "logits"
    }  # fmt: skip
    # Signed averages are signed.
    assert not plan.groups["flat"].non_negative


def gate(sigmoid_end):
    """A swish, and what `sigmoid_end` makes of its sigmoid and product."""
    image = keras.Input((4, 4, 2), name="image")
    conv = layers.Conv2D(2, 1, name="conv")(image)
    sigmoid = layers.Activation("sigmoid", name="sigmoid")(conv)
    product = layers.Multiply(name="product")([conv, sigmoid])
    flat = layers.Flatten(name="flat")(sigmoid_end(sigmoid, product))
    return make_plan(keras.Model(image, layers.Dense(2, name="logits")(flat)), PAPER)


def test_a_sigmoid_has_tflites_quant_params_and_a_product_its_own():
    plan = gate(lambda sigmoid, product: layers.ReLU(name="relu")(product))
    assert plan.groups["sigmoid"].fixed_quant_params == QuantParams(1 / 256, -128)
    assert plan.groups["sigmoid"].bits == 8
    assert plan.is_fixed("sigmoid") and plan.is_fixed("image")
    assert not plan.is_fixed("conv")
    assert "product" not in plan.tensor_groups


def test_directions_have_tflites_quant_params_and_what_they_are_of_its_own():
    image = keras.Input((4, 4, 2), name="image")
    conv = layers.ReLU(name="relu")(layers.Conv2D(3, 1)(image))
    mean = ChannelMean(name="mean")(conv)
    centered = layers.Subtract(name="centered")([conv, mean])
    unit = L2Normalization(1.0, name="unit")(centered)
    flat = layers.Flatten(name="flat")(unit)
    plan = make_plan(keras.Model(image, layers.Dense(2)(flat)), EDGE)
    assert plan.groups["unit"].fixed_quant_params == QuantParams(1 / 128, 0)
    assert plan.tensor_groups["flat"] == "unit"
    for name in ("mean", "centered"):
        assert plan.tensor_groups[name] == name
        group = plan.groups[name]
        assert (group.bits, group.non_negative, group.fixed_quant_params) == (
            8,
            False,
            None,
        )


def test_reshaped_sigmoids_keep_the_quant_params_and_joined_ones_are_refused():
    plan = gate(lambda sigmoid, product: layers.Reshape((8, 4))(sigmoid))
    assert plan.tensor_groups["flat"] == "sigmoid"
    with pytest.raises(UserError, match="'sigmoid' and 'product' are joined"):
        gate(lambda *both: layers.Concatenate()(both))


def test_kernels_at_the_ends_that_only_scale_stand_for_no_layer():
    image = keras.Input((8, 8, 3))
    x = layers.DepthwiseConv2D(1, name="carrier")(image)
    x = layers.Conv2D(4, 3, name="stem")(x)
    x = layers.DepthwiseConv2D(1, name="between")(x)
    x = layers.Conv2D(4, 1, name="middle")(x)
    x = layers.Dense(1, name="probability")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, layers.Dense(2, name="two_classes")(x))
    assert end_layers(model) == {"carrier", "stem", "probability", "two_classes"}


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], "abcde"),
        ([("d", "b")], "abcbe"),
        ([("e", "d"), ("c", "b"), ("b", "e")], "abbbb"),  # through others
        ([("a", "b"), ("b", "a"), ("c", "c")], "aacde"),
    ],
)
def test_joined_names_by_hand(pairs, expected):
    assert join("abcde", pairs) == dict(zip("abcde", expected, strict=True))


def test_graph_helpers():
    model = build_tiny_classifier()
    consumed_by = consumers(model)
    assert [x.name for x in consumed_by["relu1"]] == ["dw2", "add3"]
    assert consumed_by["logits"] == []
    assert [x.name for x in input_layers(model.get_layer("add3"))] == ["bn3", "relu1"]
    assert input_layers(model.layers[0]) == []
    assert output_layer(model).name == "logits"
    assert is_depthwise(model.get_layer("dw2"))
    assert not is_depthwise(model.get_layer("conv1"))


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], set()),
        (["conv1"], {"conv1"}),
        (["conv*"], {"conv1", "conv3"}),
        (["conv[0-2]", "logits"], {"conv1", "logits"}),
        (["*"], {"conv1", "dw2", "conv3", "logits"}),
        (["???2", "dw?"], None),
        (["dw?", "dw2"], {"dw2"}),
    ],
)
def test_layers_to_keep_are_found_by_shell_patterns(patterns, expected):
    classifier = build_tiny_classifier()
    if expected is None:
        with pytest.raises(UserError):
            match_kernel_layers(classifier, patterns)
    else:
        assert match_kernel_layers(classifier, patterns) == expected


@pytest.mark.parametrize(
    "pattern",
    ["conv2", "relu1", "bn1", "", "conv", "Conv1x", "add*"],
)
def test_patterns_without_a_layer_are_refused_in_one_line(pattern):
    with pytest.raises(UserError) as error:
        match_kernel_layers(build_tiny_classifier(), ["conv1", pattern])
    message = str(error.value)
    assert "\n" not in message
    assert f"keep_layers={pattern!r} matches no layer" in message
    assert "conv1, dw2, conv3, logits" in message


@pytest.mark.parametrize(
    ("keep", "low"),
    [
        ((), {"relu1", "relu2", "relu3"}),
        (("conv1",), {"relu2", "relu3"}),
        (("dw2",), {"relu1", "relu3"}),
        # relu3 finishes the Add, which is none of conv3's: its output is bn3.
        (("conv3",), {"relu1", "relu2", "relu3"}),
        (("logits",), {"relu1", "relu2", "relu3"}),
        (("conv1", "dw2", "logits"), {"relu3"}),
    ],
)
def test_kept_layers_have_8_bits_in_kernel_and_output(keep, low):
    model = build_tiny_classifier()
    plan = make_plan(model, PAPER, frozenset(keep))
    assert plan.weight_bits == {
        name: 8 if name in keep else 4 for name in ("conv1", "dw2", "conv3", "logits")
    }
    assert {name for name, width in bits(plan).items() if width < 8} == low
    # Nothing but widths differs.
    other = make_plan(model, PAPER)
    assert plan.tensor_groups == other.tensor_groups
    assert plan.outputs == other.outputs


def test_one_kept_layer_keeps_its_whole_group():
    image = keras.Input((4, 4, 2))
    ends = [
        layers.ReLU(name=f"relu_{name}")(layers.Conv2D(2, 1, name=name)(image))
        for name in ("one", "two")
    ]
    flat = layers.Flatten()(layers.Concatenate()(ends))
    model = keras.Model(image, layers.Dense(2, name="logits")(flat))
    assert make_plan(model, PAPER).groups["relu_one"].bits == 4
    plan = make_plan(model, PAPER, ["two"])
    assert plan.groups["relu_one"].bits == 8  # which relu_two shares
    assert plan.tensor_groups["relu_two"] == "relu_one"
    assert plan.weight_bits == {"one": 4, "two": 8, "logits": 4}


def test_the_logits_group_is_named():
    image = keras.Input((4, 4, 2), name="image")
    conv = layers.Conv2D(3, 1, name="conv")(image)
    end = layers.Flatten(name="end")(layers.GlobalAveragePooling2D(name="pool")(conv))
    plan = make_plan(keras.Model(image, end), EDGE)
    # Flattening works on integers as they are: the group is the average's.
    assert plan.output_group == plan.tensor_groups["end"] == "pool"
