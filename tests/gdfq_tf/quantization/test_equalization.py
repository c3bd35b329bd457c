"""Equal functions, factors by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdfq_tf.config import parse_bit_widths
from gdfq_tf.graph.queries import consumers
from gdfq_tf.keras_compat import keras
from gdfq_tf.quantization import equalization
from gdfq_tf.quantization.equalization import channel_factors, channel_ranges, equalize
from gdfq_tf.quantization.plan import make_plan
from tests.tiny import INPUT_SHAPE, build_tiny_classifier

layers = keras.layers
INPUTS = np.random.default_rng(0).normal(size=(32, *INPUT_SHAPE)).astype(np.float32)


def relus(model: keras.Model) -> dict[str, np.ndarray]:
    """Name of each ReLU -> its output for `INPUTS`, a row per position."""
    named = [layer for layer in model.layers if isinstance(layer, layers.ReLU)]
    probe = keras.Model(model.input, [layer.output for layer in named])
    outputs = probe(INPUTS, training=False)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    return {
        layer.name: output.numpy().reshape(-1, output.shape[-1])
        for layer, output in zip(named, outputs, strict=True)
    }


def with_random_weights(model: keras.Model, seed: int = 0) -> keras.Model:
    """Channels of very unlike sizes; variances positive."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        weights = [rng.normal(0, 0.5, w.shape) for w in layer.get_weights()]
        if isinstance(layer, layers.BatchNormalization):
            weights[0] *= np.exp(rng.normal(0, 1.5, weights[0].shape))
            weights[3] = np.exp(weights[3])
        layer.set_weights(weights)
    return model


def block(x, channels: int, **kwargs):
    x = layers.Conv2D(channels, 3, padding="same", use_bias=False, **kwargs)(x)
    return layers.BatchNormalization()(x)


def residual() -> keras.Model:
    """Sums of sums; a stem that a kernel and a sum read; pooling between."""
    image = keras.Input(INPUT_SHAPE)
    stem = layers.ReLU(name="stem")(block(image, 8))
    inner = layers.ReLU(name="inner")(block(stem, 12))
    total = layers.Add()([block(inner, 8), stem])
    total = layers.ReLU(name="total")(total)
    more = layers.Add()([block(total, 8), total])
    more = layers.ReLU(name="more")(more)
    x = layers.MaxPooling2D(2)(more)
    x = layers.ReLU(name="branch")(block(x, 8))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(3)(x))


def biases_and_groups() -> keras.Model:
    """Kernels that have biases; grouped, depthwise with a multiplier, dense behind a
    reshape, moves between."""
    image = keras.Input(INPUT_SHAPE)
    x = layers.ReLU(name="first")(layers.Conv2D(8, 3, name="own_bias")(image))
    x = layers.ReLU(name="grouped")(layers.Conv2D(12, 3, groups=4)(x))
    x = layers.ZeroPadding2D(1)(layers.UpSampling2D(2, interpolation="bilinear")(x))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
    x = layers.Cropping2D(1)(layers.ReLU(name="depthwise")(x))
    x = layers.AveragePooling2D(2)(x)
    x = layers.Dense(10)(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU(name="dense")(x))
    x = layers.Flatten()(layers.Reshape((1, 1, 10))(x))
    return keras.Model(image, layers.Dense(3)(x))


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (residual, {"stem", "inner", "total", "more", "branch"}),
        (biases_and_groups, {"first", "grouped", "depthwise", "dense"}),  # and moves
    ],
)
def test_the_same_is_computed_and_ranges_are_nearer(build, names):
    classifier = with_random_weights(build())
    originals = [weights.copy() for weights in classifier.get_weights()]
    plan = make_plan(classifier, parse_bit_widths("w4a4/paper"))
    ranges = channel_ranges(classifier, plan, INPUTS)
    assert ranges.keys() >= names
    copy = equalize(classifier, ranges)
    expected = classifier(INPUTS, training=False).numpy()
    found = copy(INPUTS, training=False).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    for now, then in zip(classifier.get_weights(), originals, strict=True):
        np.testing.assert_array_equal(now, then)
    old, new = relus(classifier), relus(copy)

    def spread(values: np.ndarray, live: np.ndarray) -> float:
        largest = values.max(axis=0)[live]
        return largest.std() / largest.mean()

    # Of tensors that share factors, one may lose what the others gain.
    lives = {name: old[name].max(axis=0) > 0.1 * old[name].max() for name in names}
    before = np.mean([spread(old[name], lives[name]) for name in names])
    after = np.mean([spread(new[name], lives[name]) for name in names])
    assert after < 0.8 * before


def test_what_is_added_has_the_same_factors():
    classifier = with_random_weights(residual())
    plan = make_plan(classifier, parse_bit_widths("w4a4/paper"))
    copy = equalize(classifier, channel_ranges(classifier, plan, INPUTS))
    old, new = relus(classifier), relus(copy)
    live = old["stem"].any(axis=0)
    ratios = [
        new[name].sum(axis=0)[live] / old[name].sum(axis=0)[live]
        for name in ("stem", "total", "more")
    ]
    assert np.ptp(ratios[0]) > 0.1
    np.testing.assert_allclose(ratios[1], ratios[0], rtol=1e-3)
    np.testing.assert_allclose(ratios[2], ratios[0], rtol=1e-3)


@pytest.mark.parametrize(
    "end",
    [
        lambda x: layers.Concatenate()([x, x]),
        lambda x: layers.Multiply()([x, x]),
        lambda x: layers.Activation("sigmoid")(x),
        lambda x: layers.ReLU(6.0)(x),
        lambda x: layers.Flatten()(x),
        lambda x: layers.Reshape((4, 4, 32))(x),
    ],
)
def test_what_lets_no_factor_pass_is_left_alone(end):
    image = keras.Input(INPUT_SHAPE)
    x = end(layers.ReLU(name="relu")(block(image, 8)))
    if len(x.shape) == 4:
        x = layers.GlobalAveragePooling2D()(x)
    classifier = with_random_weights(keras.Model(image, layers.Dense(3)(x)))
    copy = equalize(classifier, {"relu": np.arange(1.0, 9.0)})
    for now, then in zip(copy.get_weights(), classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_output_itself_is_left_alone():
    image = keras.Input(INPUT_SHAPE)
    x = layers.GlobalAveragePooling2D()(block(image, 8))
    classifier = with_random_weights(keras.Model(image, layers.ReLU(name="relu")(x)))
    copy = equalize(classifier, {"relu": np.arange(1.0, 9.0)})
    np.testing.assert_array_equal(copy(INPUTS), classifier(INPUTS))


def test_only_tensors_of_few_bits_are_measured(tiny_classifier):
    def measured(bits: str) -> set[str]:
        plan = make_plan(tiny_classifier, parse_bit_widths(bits))
        return set(channel_ranges(tiny_classifier, plan, INPUTS))

    assert measured("w4a8") == set()
    assert measured("w4a4/paper") == {"relu1", "relu2", "relu3"}
    # First and last kernel layer, depthwise layers, sums and pooled tensors stay at 8.
    assert measured("w4a4") == set()


def test_nothing_to_equalize_is_a_copy(tiny_classifier):
    copy = equalize(tiny_classifier, {})
    assert copy is not tiny_classifier
    for now, then in zip(
        copy.get_weights(), tiny_classifier.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(now, then)


def test_relu6_keeps_its_channels():
    """Its bound would move with them."""
    classifier = build_tiny_classifier()
    plan = make_plan(classifier, parse_bit_widths("w4a4"))
    copy = equalize(classifier, channel_ranges(classifier, plan, INPUTS))
    for now, then in zip(copy.get_weights(), classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("most", [2**26, 8 * 8 * 8 * 7, 1])
def test_ranges_by_hand(tiny_classifier, most, monkeypatch):
    """The 8th moment, over all images and positions, whatever the batches."""
    monkeypatch.setattr(equalization, "MAX_EQUALIZED_VALUES", most)
    plan = make_plan(tiny_classifier, parse_bit_widths("w4a4/paper"))
    inputs = np.concatenate([INPUTS] * 3)[:70]  # more than one batch, one not full
    found = channel_ranges(tiny_classifier, plan, inputs)
    probe = keras.Model(
        tiny_classifier.input, tiny_classifier.get_layer("relu3").output
    )
    values = probe(inputs, training=False).numpy().astype(np.float64)
    expected = np.mean(values.reshape(-1, 8) ** 8, axis=0) ** 0.125
    np.testing.assert_allclose(found["relu3"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([[1.0, 1.0]], [1.0, 1.0]),
        # 0.6 of the way: 16 ** 0.6 = 5.278 between the two, 2.2974 = its root.
        ([[1.0, 16.0]], [2.2974, 1 / 2.2974]),
        # A silent channel counts as a twentieth of the largest: 20 ** 0.3.
        ([[0.0, 3.0]], [2.4565, 1 / 2.4565]),
        ([[0.0, 0.0]], [1.0, 1.0]),
        # Each tensor counts alike, whatever its size; means are 1 and 0.375.
        ([[1.0, 0.5], [100.0, 25.0]], [0.375**0.3, 0.375**-0.3]),
        ([[0.0, 0.0], [1.0, 16.0]], [2.2974, 1 / 2.2974]),
    ],
)
def test_factors_by_hand(ranges, expected):
    found = channel_factors([np.array(r) for r in ranges])
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    ranges=st.lists(
        st.lists(st.floats(0, 1e20), min_size=5, max_size=5), min_size=1, max_size=3
    )
)
def test_factors_are_positive_and_bounded_and_order_channels(ranges):
    arrays = [np.array(r) for r in ranges]
    factors = channel_factors(arrays)
    assert np.isfinite(factors).all()
    assert factors.min() > 0
    assert factors.max() / factors.min() <= 20**0.6 * (1 + 1e-9)
    assert np.prod(factors) == pytest.approx(1.0)
    if len(arrays) == 1:
        assert (np.diff(factors[np.argsort(arrays[0], kind="stable")]) <= 1e-12).all()


def test_consumers_outside_the_tied_tensors_are_untouched():
    """Kernels change only in front of and behind tensors that are equalized."""
    classifier = with_random_weights(residual())
    ranges = {"inner": np.arange(1.0, 13.0)}
    copy = equalize(classifier, ranges)
    consumed_by = consumers(classifier)
    behind = consumed_by["inner"][0].name
    changed = {
        layer.name
        for layer in classifier.layers
        if any(
            not np.array_equal(a, b)
            for a, b in zip(
                layer.get_weights(),
                copy.get_layer(layer.name).get_weights(),
                strict=True,
            )
        )
    }
    (front,) = {
        layer.name
        for layer in classifier.layers
        if any(c.name == "inner" for c in consumed_by[layer.name])
    }
    assert changed == {front, behind}
