"""One run of the tiny classifier, for every test of what is told of it."""

from __future__ import annotations

import copy
import json
import pathlib

import numpy as np
import pytest

import gdfq_tf
from gdfq_tf.synthesis.image_pool import ImagePool
from tests.tiny import build_tiny_classifier

CLASS_NAMES = ("cat", "dog", "fish")


@pytest.fixture(scope="session")
def directory(tmp_path_factory) -> pathlib.Path:
    """A run directory as `Result.save` writes it."""
    result = gdfq_tf.quantize(
        build_tiny_classifier(),
        bits="w8a8,w4a8",
        preprocessing="tf",
        num_steps=2,
        labels=CLASS_NAMES,
        progress=False,
    )
    return result.save(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def _stored(directory):
    return json.loads((directory / "summary.json").read_text())


@pytest.fixture
def summary(_stored) -> dict:
    """Its summary, to be changed at will."""
    return copy.deepcopy(_stored)


@pytest.fixture(scope="session")
def images(directory) -> ImagePool:
    """Its synthetic images."""
    with np.load(directory / "synthetic.npz") as arrays:
        return ImagePool(arrays["pixels"], arrays["labels"])
