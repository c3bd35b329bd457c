"""Damaged and hostile model files: read or refused in one line, in time, no code run.

GDFQ_NUM_DAMAGED_FILES sets how many of each kind; the suite reads few.
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import signal
import zipfile

import h5py
import keras
import numpy as np
import pytest

from gdfq_tf.errors import UserError
from gdfq_tf.frontend.layer_importers import check_layer
from gdfq_tf.keras_compat import keras as tf_keras
from gdfq_tf.model_files.file_cell import Reader, inspect_file
from gdfq_tf.model_files.readers import read_file

pytestmark = [
    # Keras itself says that HDF5 is a legacy format.
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5"),
    pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer"),
]

NUM_FILES = int(os.environ.get("GDFQ_NUM_DAMAGED_FILES", "10"))
SECONDS_ALLOWED = 90  # more than what is allowed for opening one
FILES = [
    pytest.param(k, suffix, id=f"{name}{suffix}")
    for name, k in (("keras3", keras), ("tf_keras", tf_keras))
    for suffix in (".keras", ".h5")
]


def write_model(k, path: pathlib.Path, *extra) -> None:
    lay = k.layers
    layers = [lay.Input((8, 8, 3)), lay.Conv2D(4, 3), lay.BatchNormalization(), *extra]
    k.Sequential([*layers, lay.Flatten(), lay.Dense(3)]).save(path)


def bitten(content: bytes, rng: np.random.Generator) -> bytes:
    """A copy with bytes changed, cut out, put in or moved, or with its end gone."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        start = int(rng.integers(0, max(1, len(data))))
        length = int(rng.choice([1, 4, 64, 1000]))
        noise = rng.bytes(length)
        match rng.integers(5):
            case 0:
                data[start : start + length] = noise
            case 1:
                data[start : start + length] = b""
            case 2:
                data[start:start] = noise
            case 3:
                data[start:start] = data[-length:]
            case 4:
                data = data[:start]
    return bytes(data)


def nodes(value, parent=None, key=None):
    """(parent, key) of everything inside a JSON value."""
    if parent is not None:
        yield parent, key
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, item in list(items):
        if isinstance(item, (dict, list)):
            yield from nodes(item, value, name)
        else:
            yield value, name


def odd_values(path: pathlib.Path) -> list:
    function = {"class_name": "function", "module": "os", "config": "system"}
    return [
        None, -1, 2**62, float("nan"), "", "Lambda", "io.write_file", [], {}, [[]] * 3,
        {"class_name": "Lambda", "config": {"function": ["4wEA", None, None]}},
        {"class_name": "TFOpLambda", "config": {"function": "io.write_file"}},
        {"class_name": "__lambda__", "config": {"code": "4wEA"}},
        {"module": "builtins", "class_name": "open", "config": [str(path), "w"]},
        function, {"module": "pathlib", "class_name": "Path", "config": {}},
    ]  # fmt: skip


def rewritten_config(text: str, rng: np.random.Generator, path: pathlib.Path) -> str:
    config = json.loads(text)
    for _ in range(rng.integers(1, 4)):
        places = list(nodes(config))
        parent, key = places[rng.integers(len(places))]
        values = odd_values(path)
        parent[key] = values[rng.integers(len(values))]
    return json.dumps(config)


def with_config(content: bytes, suffix: str, edit) -> bytes:
    """A model file with `edit` applied to the text of its configuration."""
    if suffix == ".h5":
        file = io.BytesIO(content)
        with h5py.File(file, "a") as model:
            model.attrs["model_config"] = edit(model.attrs["model_config"])
        return file.getvalue()
    copy = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(copy, "w") as target,
    ):
        for name in source.namelist():
            part = source.read(name)
            if name == "config.json":
                part = edit(part.decode()).encode()
            target.writestr(name, part)
    return copy.getvalue()


def check_read(path: pathlib.Path, before: set) -> bool:
    """Whether the file could still be read; anything but a refusal is an error."""

    def too_late(*_):
        raise AssertionError(f"reading took more than {SECONDS_ALLOWED} s")

    previous = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(SECONDS_ALLOWED)
    try:
        read_file(path, check_layer=check_layer)
        return True
    except UserError as error:
        assert "\n" not in str(error)
        return False
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        assert set(path.parent.iterdir()) == before, "reading left a file behind"


def test_hdf5_that_never_ends(tmp_path):
    """The library loops on some damage; what is allowed is set to less than a start."""
    path = tmp_path / "net.h5"
    write_model(keras, path)
    assert check_read(path, {path})
    with pytest.raises(UserError, match=r"net\.h5 is damaged.*took too long"):
        inspect_file(path, "hdf5", Reader(seconds=0.001))


@pytest.mark.slow
@pytest.mark.parametrize(("k", "suffix"), FILES)
def test_damaged_bytes(tmp_path, k, suffix):
    path = tmp_path / f"net{suffix}"
    write_model(k, path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    readable = 0
    for _ in range(NUM_FILES):
        path.write_bytes(bitten(content, rng))
        readable += check_read(path, {path})
    assert readable < NUM_FILES


@pytest.mark.slow
@pytest.mark.parametrize(("k", "suffix"), FILES)
def test_odd_configurations(tmp_path, k, suffix):
    path = tmp_path / f"net{suffix}"
    write_model(k, path)
    content = path.read_bytes()
    rng = np.random.default_rng(1)
    sentinel = tmp_path / "sentinel"
    for _ in range(NUM_FILES):
        path.write_bytes(
            with_config(
                content, suffix, lambda text: rewritten_config(text, rng, sentinel)
            )
        )
        check_read(path, {path})


@pytest.mark.slow
@pytest.mark.parametrize(("k", "suffix"), FILES)
def test_damaged_files_with_code(tmp_path, k, suffix):
    path, sentinel = tmp_path / f"net{suffix}", tmp_path / "sentinel"

    def code(x, name=str(sentinel)):
        open(name, "w").close()  # noqa: PTH123 - it can name builtins alone
        return x

    write_model(k, path, k.layers.Lambda(code, name="code"))
    content = path.read_bytes()
    sentinel.unlink()
    rng = np.random.default_rng(2)
    for _ in range(NUM_FILES):
        path.write_bytes(
            with_config(
                content, suffix, lambda text: rewritten_config(text, rng, sentinel)
            )
        )
        check_read(path, {path})
