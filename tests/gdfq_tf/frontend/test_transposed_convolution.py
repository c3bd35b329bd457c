from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gdfq_tf.frontend.canonical import canonicalize
from gdfq_tf.frontend.transposed_convolution import Phases, phase_kernel, phases
from gdfq_tf.keras_compat import keras


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # One kernel row for each phase.
        ((3, 2, 2, 6), Phases(2, 1, 0, (0, 0), (0, 0))),
        # Outputs 0..7 in full, of which the last is cut: four blocks on x[q - 1], x[q].
        ((3, 3, 2, 6), Phases(2, 2, 0, (1, 0), (0, 0))),
        ((3, 3, 2, 7), Phases(2, 2, 0, (1, 1), (0, 1))),
        # 8 in full; one cut at each end halves the first and the last block.
        ((3, 4, 2, 6), Phases(2, 2, 0, (1, 1), (1, 1))),
        # 9 in full, one cut before: with a zero in front of five kernel rows, two,
        # a whole block.
        ((3, 5, 2, 6), Phases(2, 3, 1, (1, 1), (0, 0))),
        # A kernel shorter than the stride leaves gaps, also at the end.
        ((3, 2, 3, 9), Phases(3, 1, 0, (0, 0), (0, 0))),
        # Output padding of 0 leaves out the gap at the end.
        ((3, 2, 3, 8), Phases(3, 1, 0, (0, 0), (0, 1))),
        ((3, 3, 2, 5), Phases(2, 2, 1, (0, 1), (0, 1))),
        # Stride 1: a convolution.
        ((4, 3, 1, 6), Phases(1, 3, 0, (2, 2), (0, 0))),
        ((4, 2, 1, 4), Phases(1, 2, 0, (1, 0), (0, 0))),
        ((1, 1, 1, 1), Phases(1, 1, 0, (0, 0), (0, 0))),
    ],
)
def test_phases_by_hand(arguments, expected):
    assert phases(*arguments) == expected


def test_phase_kernel_by_hand():
    # Rows 1, 2, 3 at stride 2: phase 0 has 3 on the input before and 1, phase 1 has 2.
    down, across = phases(3, 3, 2, 6), phases(3, 1, 1, 3)
    kernel = np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1)
    found = phase_kernel(kernel, (down, across))
    np.testing.assert_array_equal(found[:, 0, 0], [[3, 0], [1, 2]])
    # Across, and with two outputs: phases outside, outputs inside.
    kernel = np.array([[1, 2, 3], [10, 20, 30]]).T.reshape(1, 3, 2, 1)
    found = phase_kernel(kernel, (across, down))
    np.testing.assert_array_equal(found[0, :, 0], [[3, 30, 0, 0], [1, 10, 2, 20]])
    # Both: the phase of the row comes first.
    kernel = np.arange(4.0).reshape(2, 2, 1, 1)
    two = phases(3, 2, 2, 6)
    np.testing.assert_array_equal(
        phase_kernel(kernel, (two, two)).ravel(), [0, 1, 2, 3]
    )


def test_a_leading_zero_by_hand():
    down, across = phases(3, 5, 2, 6), phases(1, 1, 1, 1)
    kernel = np.arange(1.0, 6).reshape(5, 1, 1, 1)
    found = phase_kernel(kernel, (down, across))
    np.testing.assert_array_equal(found[:, 0, 0], [[4, 5], [2, 3], [0, 1]])


pairs = st.tuples(st.integers(1, 7), st.integers(1, 4))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    size=pairs,
    channels=st.integers(1, 3),
    arguments=st.fixed_dictionaries(
        {
            "filters": st.integers(1, 3),
            "kernel_size": pairs.map(lambda x: x[::-1]) | pairs,
            "strides": st.tuples(st.integers(1, 4), st.integers(1, 4)),
            "padding": st.sampled_from(["same", "valid"]),
            "output_padding": st.none()
            | st.tuples(st.integers(0, 3), st.integers(0, 3)),
            "use_bias": st.booleans(),
        }
    ),
)
def test_equals_the_layer_of_tf_keras(size, channels, arguments):
    strides, output_padding = arguments["strides"], arguments["output_padding"]
    if output_padding is not None:
        assume(all(p < s for p, s in zip(output_padding, strides, strict=True)))
    layer = keras.layers.Conv2DTranspose(**arguments)
    image = keras.Input((*size, channels))
    output = layer(image)
    if arguments["padding"] == "same":
        # Shorter outputs belong to fewer inputs, which TensorFlow refuses.
        lengths = zip(output.shape[1:3], strides, size, strict=True)
        assume(all(-(-length // s) == n for length, s, n in lengths))
    source = keras.Model(image, output)
    rng = np.random.default_rng(0)
    source.set_weights([rng.normal(0, 1, w.shape) for w in source.get_weights()])
    images = rng.normal(0, 1, (2, *size, channels)).astype(np.float32)
    expected = source(images).numpy()
    model = canonicalize(source, "features").model
    found = model(images).numpy().reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    (conv,) = (x for x in model.layers if isinstance(x, keras.layers.Conv2D))
    sizes = zip(arguments["kernel_size"], strides, strict=True)
    taps = tuple(-(-size // stride) for size, stride in sizes)
    assert conv.kernel_size == taps
    keras.backend.clear_session()
