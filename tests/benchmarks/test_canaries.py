"""Nothing that stands in a model's JSON is ever called; see benchmarks/canaries.py."""

from __future__ import annotations

import sys

import pytest

from benchmarks import canaries
from benchmarks.canaries import Canary, check_silence, in_files, in_memory, install

# Keras itself says that HDF5 is a legacy format.
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of which the canary is reachable, by every loader of this process."""
    monkeypatch.setattr(Canary, "calls", 0)
    monkeypatch.setattr(sys, "path", [*sys.path])
    install(tmp_path)
    yield tmp_path
    for module in ("canary", "canary_by_import"):
        sys.modules.pop(module, None)
    for library in canaries.LIBRARIES.values():
        for name in canaries.REGISTERED_NAMES:
            del library.utils.get_custom_objects()[name]


@pytest.mark.parametrize("library", canaries.LIBRARIES)
def test_the_canary_sings_in_keras_own_loaders(folder, library):
    module = canaries.LIBRARIES[library]
    reached = {"module": "canary", "class_name": "Canary", "config": {}}
    module.saving.deserialize_keras_object(reached)
    assert Canary.calls == 1
    with pytest.raises(AssertionError, match="called"):
        check_silence(folder)


@pytest.mark.parametrize("library", canaries.LIBRARIES)
def test_places_of_a_json(folder, library):
    counts = in_memory(library, folder, share=0.01)
    assert counts.total() > 300
    assert min(counts["refused"], counts["same"]) > 50


@pytest.mark.parametrize(
    ("library", "suffix"),
    [
        # Reading a SavedModel imports TensorFlow.
        pytest.param(*reader, marks=[] if reader[1] else pytest.mark.slow)
        for reader in canaries.READERS
    ],
)
def test_places_in_files(folder, library, suffix):
    counts = in_files(library, suffix, folder, 2 if suffix else 1)
    assert counts.total() == (2 if suffix else 1)
