"""Random small networks of the supported vocabulary go all the way, as their own
integers compute it.

GDFQ_NUM_RANDOM_NETWORKS sets how many; the suite runs few.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st

from gdfq_tf.classifier import Head
from gdfq_tf.config import BitWidths
from gdfq_tf.errors import UserError
from gdfq_tf.frontend.load import Interpretation, translate_classifier
from gdfq_tf.keras_compat import keras as tf_keras
from gdfq_tf.model_files.readers import SourceModel
from gdfq_tf.quantization.calibration import calibrate
from gdfq_tf.quantization.equalization import channel_ranges, equalize
from gdfq_tf.quantization.layer_figures import layer_figures
from gdfq_tf.quantization.lowering import lower
from gdfq_tf.quantization.plan import make_plan
from gdfq_tf.quantization.student import build_student
from tests.tiny import operations
from tflite_export.convert import convert_network
from tflite_export.verification.rules import Expectation
from tflite_export.verification.verify import require, verify_file

pytestmark = pytest.mark.slow
NUM_NETWORKS = int(os.environ.get("GDFQ_NUM_RANDOM_NETWORKS", "3"))
# A hard sigmoid beside wider tensors; outputs that are next to nothing beside inputs,
# as of a network all of whose features are zero.
NOT_KEPT_BY_INTEGERS = ("wider range", "by more than 8 bits hold")
# fmt: off
ACTIVATIONS = (
    "linear", "relu", "relu6", "leaky_relu", "swish", "hard_sigmoid", "sigmoid", "gelu",
    "elu", "selu",
)
# fmt: on


def activate(lay, rng, x):
    name = str(rng.choice(ACTIVATIONS))
    if name == "leaky_relu":  # Keras 2 has no function of that name
        return lay.LeakyReLU(float(rng.choice([0.01, 0.1, 0.3])))(x)
    return lay.Activation(name)(x)


def normalize(lay, rng, x):
    if rng.random() < 0.3:
        return x
    return lay.BatchNormalization(scale=rng.random() < 0.7, center=rng.random() < 0.7)(
        x
    )


def conv(lay, rng, x):
    strides, dilation = [(1, 1), (2, 1), (1, 2)][rng.integers(3)]
    x = lay.Conv2D(
        int(rng.integers(1, 4)) * 4,
        int(rng.choice([1, 3])),
        strides=strides,
        dilation_rate=dilation,
        padding="same",
        groups=int(rng.choice([1, 1, 2])) if x.shape[-1] % 2 == 0 else 1,
        use_bias=rng.random() < 0.5,
    )(x)
    return activate(lay, rng, normalize(lay, rng, x))


def depthwise(lay, rng, x):
    multiplier = int(rng.integers(1, 3)) if x.shape[-1] < 12 else 1
    options = {"depth_multiplier": multiplier, "padding": "same"}
    x = lay.DepthwiseConv2D(3, strides=int(rng.integers(1, 3)), **options)(x)
    return activate(lay, rng, normalize(lay, rng, x))


def separable(lay, rng, x):
    x = lay.SeparableConv2D(4, 3, padding="same", activation="relu")(x)
    return normalize(lay, rng, x)


def residual(lay, rng, x):
    y = lay.Conv2D(x.shape[-1], 3, padding="same")(x)
    x = lay.Add()([x, normalize(lay, rng, y)])
    return activate(lay, rng, x)


def dense_block(lay, rng, x):
    y = lay.ReLU(6.0)(lay.BatchNormalization()(x))
    return lay.Concatenate()([x, lay.Conv2D(4, 3, padding="same")(y)])


def squeeze_and_excitation(lay, rng, x):
    y = lay.GlobalAveragePooling2D(keepdims=True)(x)
    y = lay.Conv2D(x.shape[-1], 1, activation="sigmoid")(y)
    return lay.Multiply()([x, y])


def pool(lay, rng, x):
    if min(x.shape[1:3]) < 2:
        return x
    kind = (lay.MaxPooling2D, lay.AveragePooling2D)[rng.integers(2)]
    return kind(2, strides=int(rng.integers(1, 3)), padding="same")(x)


def pad_and_crop(lay, rng, x):
    x = lay.ZeroPadding2D(((1, 0), (0, 2)))(x)
    return lay.Cropping2D(((0, 1), (1, 0)))(x)


def is_large(x):
    return max(x.shape[1:3]) > 16


def resize_by(lay, rng, x):
    if is_large(x):
        return x
    size = [(2, 2), (1, 3), (2, 1)][rng.integers(3)]
    return lay.UpSampling2D(size, interpolation=rng.choice(["nearest", "bilinear"]))(x)


def conv_transpose(lay, rng, x):
    if is_large(x):
        return x
    strides = [(1, 1), (2, 2), (3, 2), (1, 2)][rng.integers(4)]
    padding = str(rng.choice(["same", "valid"]))
    options = {"padding": padding, "use_bias": rng.random() < 0.5}
    x = lay.Conv2DTranspose(4, int(rng.integers(1, 6)), strides, **options)(x)
    return activate(lay, rng, normalize(lay, rng, x))


def arithmetic(lay, rng, x):
    return 1.5 - (x + 0.5) * float(rng.uniform(0.2, 2.0)) / 3.0


def twins(lay, rng, x):
    """NASNet's cells: ReLUs, and pools, of one tensor; one of the ReLUs is joined."""
    left = lay.Conv2D(4, 1)(lay.Concatenate()([x, lay.ReLU()(x)]))
    right = lay.Conv2D(4, 3, padding="same")(lay.ReLU()(x))
    pools = [lay.AveragePooling2D(3, 1, "same")(x) for _ in range(2)]
    return lay.Concatenate()([lay.Add()([left, right]), lay.Add()(pools)])


def layer_norm(lay, rng, x):
    options = {"scale": rng.random() < 0.7, "center": rng.random() < 0.7}
    x = lay.LayerNormalization(epsilon=float(rng.choice([1e-6, 1e-3])), **options)(x)
    return activate(lay, rng, x)


def convnext(lay, rng, x):
    channels = x.shape[-1]
    y = lay.Conv2D(channels, 3, padding="same", groups=channels)(x)
    y = lay.LayerNormalization(epsilon=1e-6)(y)
    y = lay.Dense(channels)(lay.Dense(2 * channels, activation="gelu")(y))
    return lay.LayerNormalization()(lay.Add()([x, y]))


def bounded(lay, rng, x):
    y = lay.ReLU(float(rng.choice([0.3, 1.0, 6.0])))(lay.Conv2D(4, 1)(x))
    return lay.Concatenate()([x, y])


def normalized_branches(lay, rng, x):
    """Pre-activation: one tensor, normalized by each branch for itself."""
    branches = [
        lay.Conv2D(4, kernel, padding="same")(lay.ReLU()(lay.BatchNormalization()(x)))
        for kernel in (1, 3)
    ]
    return lay.Add()(branches)


def relu_alone(lay, rng, x):
    return lay.ReLU((None, 1.0, 6.0)[rng.integers(3)])(x)


def channel_shuffle(lay, rng, x):
    height, width, channels = x.shape[1:]
    if channels % 2:
        return x
    x = lay.Reshape((height, width, 2, channels // 2))(x)
    x = lay.Permute((1, 2, 4, 3))(x)
    return activate(lay, rng, lay.Reshape((height, width, channels))(x))


def transposed(lay, rng, x):
    order = [(2, 1, 3), (3, 1, 2), (1, 3, 2)][rng.integers(3)]
    y = lay.Permute(tuple(order.index(i) + 1 for i in (1, 2, 3)))(
        activate(lay, rng, lay.Permute(order)(x))
    )
    return lay.Add()([lay.Conv2D(4, 1)(x), lay.Conv2D(4, 1)(y)])


def extremes(lay, rng, x):
    """Of one scale, whatever they are."""
    others = [activate(lay, rng, lay.Conv2D(x.shape[-1], 1)(x)) for _ in range(2)]
    largest = lay.Maximum()([x, *others])
    return lay.Minimum()([largest, lay.Conv2D(x.shape[-1], 3, padding="same")(x)])


def average(lay, rng, x):
    others = [activate(lay, rng, lay.Conv2D(x.shape[-1], 1)(x)) for _ in range(2)]
    return lay.Average()([x, *others])


def operations_beside(lay):
    return operations(keras if lay is keras.layers else tf_keras)


def attention(lay, rng, x):
    """CBAM's, of positions."""
    ops = operations_beside(lay)
    ends = [f(x, axis=-1, keepdims=True) for f in (ops.mean, ops.max)]
    gate = lay.Conv2D(1, 3, padding="same", activation="sigmoid")(
        lay.Concatenate()(ends)
    )
    return lay.Multiply()([x, gate])


def coordinate_attention(lay, rng, x):
    gates = [
        lay.Conv2D(x.shape[-1], 1, activation="sigmoid")(
            operations_beside(lay).mean(x, axis=axis, keepdims=True)
        )
        for axis in (1, 2)
    ]
    return lay.Multiply()([x, *gates])


def parted(lay, rng, x):
    if x.shape[-1] % 2:
        return x
    left, right = operations_beside(lay).split(x, 2, axis=-1)
    return lay.Concatenate()([left, activate(lay, rng, lay.Conv2D(4, 1)(right))])


def prelu(lay, rng, x):
    x = normalize(lay, rng, lay.Conv2D(4, 3, padding="same")(x))
    slopes = lay.PReLU(
        alpha_initializer=lambda shape, dtype=None: rng.uniform(-0.3, 1.5, shape),
        shared_axes=[[1, 2], [1, 2, 3], None][rng.integers(3)],
    )
    return slopes(x)


def exponential_linear(lay, rng, x):
    x = normalize(lay, rng, lay.Conv2D(4, 3, padding="same")(x))
    return lay.ELU(float(rng.choice([0.5, 1.0, 2.0])))(x)


def clipped(lay, rng, x):
    low = float(rng.choice([0.0, -1.0, 0.2]))
    return operations_beside(lay).clip(x, low, low + float(rng.choice([0.5, 6.0])))


BLOCKS = (
    conv, depthwise, separable, residual, dense_block, squeeze_and_excitation, pool,
    pad_and_crop, arithmetic, twins, layer_norm, convnext, bounded, resize_by,
    conv_transpose, relu_alone, normalized_branches, channel_shuffle, transposed,
    extremes, average, attention, coordinate_attention, parted, clipped,
    prelu, exponential_linear,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Network:
    """What a random network is made of; the blocks see the image, too, if `joined`."""

    blocks: Sequence[Callable]
    channels: int = 3
    nested: bool = False
    joined: bool = False
    head: str | None = None
    seed: int = 0


def build(k, network: Network):
    """A network with normalised activations, its BatchNormalization settled."""
    rng = np.random.default_rng(network.seed)
    k.utils.set_random_seed(network.seed)
    lay = k.layers
    image = k.Input((9, 8, network.channels))
    x = lay.BatchNormalization()(lay.Conv2D(4, 3, padding="same")(image))
    if network.joined:
        x = lay.Concatenate()([x, image])
    before = x
    for block in network.blocks:
        x = block(lay, rng, x)
    if network.nested and k is keras and x is not before:
        x = k.Model(before, x)(before)
    x = lay.Dropout(0.1)(lay.GlobalAveragePooling2D()(x))
    model = k.Model(image, lay.Dense(3, activation=network.head)(x))
    normalizations = [
        x for x in model.layers if type(x).__name__ == "BatchNormalization"
    ]
    for layer in normalizations:
        layer.momentum = 0.0
    images = rng.uniform(-1, 1, (16, *model.input_shape[1:])).astype(np.float32)
    model(images, training=True)
    return model


@pytest.mark.parametrize("k", [keras, tf_keras], ids=["keras3", "tf_keras"])
@settings(
    max_examples=NUM_NETWORKS,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # the blocks tell enough
    suppress_health_check=list(HealthCheck),
    derandomize=NUM_NETWORKS < 10,
)
@given(
    network=st.builds(
        Network,
        blocks=st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=5),
        channels=st.sampled_from([1, 3]),
        nested=st.booleans(),
        joined=st.booleans(),
        head=st.sampled_from([None, "softmax"]),
        seed=st.integers(0, 2**16),
    ),
    bit_widths=st.builds(BitWidths, st.sampled_from([8, 4]), st.sampled_from([8, 4])),
)
def test_random_network(k, network, bit_widths):
    source = build(k, network)
    try:
        check_all_the_way(source, network.head, bit_widths, network.seed)
    except UserError as error:
        if not any(reason in str(error) for reason in NOT_KEPT_BY_INTEGERS):
            raise
        reject()


@pytest.mark.parametrize(
    "block",
    [
        twins,
        convnext,
        resize_by,
        conv_transpose,
        normalized_branches,
        channel_shuffle,
        transposed,
        extremes,
        attention,
        coordinate_attention,
        parted,
        prelu,
        exponential_linear,
    ],
)
def test_one_block(block):
    source = build(keras, Network([block]))
    check_all_the_way(source, None, BitWidths(8, 8), seed=0)


def test_a_mean_of_nothing_but_rounding():
    """Over channels that are normalized already."""
    source = build(keras, Network([convnext, layer_norm]))
    check_all_the_way(source, None, BitWidths(8, 8), seed=0)


def test_transpositions_in_a_row():
    source = build(keras, Network([clipped, transposed, transposed, twins], channels=1))
    check_all_the_way(source, None, BitWidths(8, 8), seed=0)


@pytest.mark.parametrize(
    "move",
    [
        pytest.param(lambda lay, x: lay.Cropping2D(((0, 1), (1, 0)))(x), id="crop"),
        pytest.param(lambda lay, x: lay.ZeroPadding2D(((0, 1), (1, 0)))(x), id="pad"),
        pytest.param(lambda lay, x: lay.Reshape((8, 9, 4))(x), id="reshape"),
        pytest.param(lambda lay, x: x[..., 1:3], id="slice"),
    ],
)
def test_maxima_of_what_was_moved(move):
    """The converter left what the move's other readers give in float."""

    def block(lay, rng, x):
        return extremes(lay, rng, move(lay, x))

    source = build(keras, Network([block], seed=3))
    check_all_the_way(source, None, BitWidths(8, 8), seed=3)


def test_shuffles_in_a_row():
    """Of which the second undoes the first, and the converter finds that."""
    source = build(keras, Network([channel_shuffle] * 2, nested=True, seed=65536))
    check_all_the_way(source, None, BitWidths(8, 8), seed=0)


def test_transpositions_of_several_ranks():
    """Which one operator code serves."""
    source = build(keras, Network([channel_shuffle, transposed]))
    check_all_the_way(source, None, BitWidths(8, 8), seed=0)


@pytest.mark.parametrize("pool", ["MaxPooling2D", "AveragePooling2D"])
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("bound", [None, 0.5, 6.0])
def test_relu_behind_a_pool(pool, size, bound):
    """Into which the converter would fuse it, with one scale for both."""

    def block(lay, rng, x):
        x = lay.Conv2D(8, 3, padding="same")(x)
        return lay.Conv2D(4, 1)(lay.ReLU(bound)(getattr(lay, pool)(size)(x)))

    source = build(keras, Network([block]))
    check_all_the_way(source, None, BitWidths(8, 8), seed=0)


@pytest.mark.parametrize("k", [keras, tf_keras], ids=["keras3", "tf_keras"])
@pytest.mark.parametrize("shape", [(15, 4), (15, 4, 1)])
def test_signals(k, shape):
    """(time, features), and the same as images of one channel."""
    k.utils.set_random_seed(0)
    lay = k.layers
    conv, pool = lay.Conv1D, lay.GlobalAveragePooling1D
    if len(shape) == 3:
        conv, pool = lay.Conv2D, lay.GlobalAveragePooling2D
    signal = k.Input(shape)
    norm = lay.BatchNormalization(momentum=0.0)
    x = lay.ReLU()(norm(conv(4, 3, strides=2, padding="same")(signal)))
    if len(shape) == 2:
        x = lay.MaxPooling1D(2)(conv(6, 3, dilation_rate=2, padding="causal")(x))
        x = lay.DepthwiseConv1D(3, padding="same", strides=2)(x)
        x = lay.SeparableConv1D(6, 2, activation="relu")(x)
        x = lay.Conv1DTranspose(4, 3, 2, padding="same")(x)
        x = lay.UpSampling1D(2)(lay.BatchNormalization(momentum=0.0)(x))
    model = k.Model(signal, lay.Dense(3)(pool()(x)))
    signals = np.random.default_rng(0).uniform(-1, 1, (16, *shape))
    model(signals.astype(np.float32), training=True)
    check_all_the_way(model, None, BitWidths(8, 8), seed=0)


def check_all_the_way(source, head, bit_widths, seed):
    translation = translate_classifier(
        SourceModel("random", source), Interpretation(preprocessing="tf")
    )
    classifier = translation.classifier
    assert translation.difference <= 1e-4
    assert classifier.head is Head(head or Head.LOGITS)
    shape = (24, *classifier.input_shape)
    pixels = np.random.default_rng(seed).integers(0, 256, shape)
    plan = make_plan(classifier.model, bit_widths)
    preprocessing = classifier.preprocessing
    inputs = preprocessing.to_input(pixels).numpy()
    ranges = channel_ranges(classifier.model, plan, inputs)
    equalized = dataclasses.replace(
        classifier, model=equalize(classifier.model, ranges)
    )
    logits = classifier.model(inputs, training=False).numpy()
    np.testing.assert_allclose(
        equalized.model(inputs, training=False),
        logits,
        atol=1e-4 * np.abs(logits).max(),
    )
    student = build_student(equalized, plan, calibrate(equalized, plan, inputs))
    network = lower(student, classifier)
    figures = layer_figures(network, student, equalized, pixels)
    assert np.all(np.isfinite([row.rmse_over_scale for row in figures]))
    tflite = convert_network(network)
    levels = network.examples(preprocessing.to_integers(pixels))
    expectation = Expectation(
        bit_widths.weight_bits, layers_at_8_bits=plan.layers_at_8_bits
    )
    require(verify_file(tflite, network, expectation, images=levels).findings)
    tf_keras.backend.clear_session()
    tf.compat.v1.reset_default_graph()
