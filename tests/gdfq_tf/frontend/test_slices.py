"""What indexing a tensor means, written as Python writes it."""

from __future__ import annotations

import math
import re

import keras
import numpy as np
import pytest

from gdfq_tf.errors import UserError
from gdfq_tf.frontend.canonical import canonicalize
from gdfq_tf.frontend.layer_importers import check_layer
from gdfq_tf.keras_compat import keras as tf_keras
from gdfq_tf.model_files.readers import read_model

# Keras itself says that HDF5 is a legacy format.
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")

KERASES = pytest.mark.parametrize("k", [keras, tf_keras], ids=["keras3", "tf_keras"])
IMAGE, SIGNAL, UNITS = (6, 5, 8), (7, 4), (9,)
PLAIN = {
    "first channels": (IMAGE, np.s_[..., :3]),
    "last channels": (IMAGE, np.s_[..., -3:]),
    "a middle": (IMAGE, np.s_[:, 1:5, ..., 2:4]),
    "every second row": (IMAGE, np.s_[:, ::2, ...]),
    "all": (IMAGE, np.s_[..., :]),
    "all, once more": (IMAGE, np.s_[:, ..., :, :, :]),
    "one row": (IMAGE, np.s_[:, 2]),
    "the last column": (IMAGE, np.s_[:, :, -1]),
    "one channel": (IMAGE, np.s_[..., 3]),
    "one position": (IMAGE, np.s_[:, 0, -1]),
    "one channel as a map": (IMAGE, np.s_[..., 3, None]),
    "numbers of numpy": (IMAGE, np.s_[..., np.int64(1) : np.int64(4)]),
    "samples": (SIGNAL, np.s_[:, 1:-1]),
    "features": (SIGNAL, np.s_[..., 1:3]),
    "last sample": (SIGNAL, np.s_[:, -1]),
    "units": (UNITS, np.s_[:, 2:7]),
    "units as an image": (UNITS, np.s_[:, None, None, :]),
    "units, fewer, as an image": (UNITS, np.s_[:, None, None, 1:4]),
}
OTHERS = {
    "backwards": (IMAGE, np.s_[:, ::-1], "positive steps"),
    "channels apart": (IMAGE, np.s_[..., ::2], "none over channels"),
    "nothing": (IMAGE, np.s_[..., 3:3], "something left"),
    "images": (IMAGE, np.s_[1:, ...], "of every image the same"),
}


def network(k, shape, index):
    """The indexed tensor behind weights, in front of weights."""
    image = k.Input((6, 5, 3))
    x = k.layers.Conv2D(8, 1)(image)
    if shape != IMAGE:
        x = k.layers.Dense(math.prod(shape))(k.layers.Flatten()(x))
        x = k.layers.Reshape(shape)(x) if len(shape) > 1 else x
    x = k.layers.Flatten()(x[index])
    return k.Model(image, k.layers.Dense(4, name="classes")(x))


def values(model):
    images = np.random.default_rng(0).normal(size=(2, 6, 5, 3)).astype(np.float32)
    return np.asarray(model(images))


@KERASES
@pytest.mark.parametrize("case", PLAIN)
def test_plain_indices_keep_the_function(k, case):
    source = network(k, *PLAIN[case])
    expected = values(source)
    np.testing.assert_allclose(
        values(canonicalize(source).model), expected, atol=1e-5 * np.abs(expected).max()
    )


@KERASES
@pytest.mark.parametrize("case", OTHERS)
def test_other_indices_are_refused(k, case):
    shape, index, reason = OTHERS[case]
    if (k, case) == (tf_keras, "nothing"):
        pytest.skip("of nothing tf_keras makes no Dense")
    with pytest.raises(UserError) as error:
        canonicalize(network(k, shape, index))
    assert re.search(rf"it takes \[.*\] of .*; expected .*{reason}", str(error.value))


@KERASES
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("case", ["a middle", "one channel as a map", "last sample"])
def test_indices_are_read_from_files(tmp_path, k, suffix, case):
    if (k, suffix) == (tf_keras, ".keras") and Ellipsis in PLAIN[case][1]:
        pytest.skip("tf_keras cannot write ... into such a file")
    path, source = tmp_path / f"net{suffix}", network(k, *PLAIN[case])
    source.save(path)
    copy = read_model(path, check_layer=check_layer).model
    np.testing.assert_allclose(values(copy), values(source), rtol=1e-6)
    canonicalize(copy)
