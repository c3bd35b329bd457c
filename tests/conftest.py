"""Fixtures every test may use."""

from __future__ import annotations

import os
import pathlib

import pytest

# TensorFlow reads these once, when it is first imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
if "PYTEST_XDIST_WORKER" in os.environ:  # the other cores run other test files
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

from tests.tiny import build_tiny_classifier


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
    """The folder of development data and models; skips where there is none."""
    folder = os.environ.get("GDFQ_DATA_DIR")
    if not folder:
        pytest.skip("needs development data: GDFQ_DATA_DIR is not set")
    return pathlib.Path(folder)


@pytest.fixture
def tiny_classifier():
    """A fresh `tests.tiny.build_tiny_classifier(seed=0)`."""
    return build_tiny_classifier(seed=0)
