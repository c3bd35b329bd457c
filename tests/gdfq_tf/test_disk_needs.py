"""Room on disk, by hand, and refused where there is less."""

from __future__ import annotations

import shutil
import tempfile

import pytest

from gdfq_tf import disk_needs
from gdfq_tf.config import RECIPES, parse_bit_widths
from gdfq_tf.disk_needs import (
    disk_need,
    require_room,
    require_temporary_room,
    temporary_need,
)
from gdfq_tf.errors import UserError, as_flag
from gdfq_tf.keras_compat import keras

WIDTHS = tuple(map(parse_bit_widths, ("w8a8", "w4a8")))


def test_by_hand(tiny_classifier):
    # 1,024 images are made, of which 128 are for students of 8 bits: 192 bytes each.
    params = tiny_classifier.count_params()
    need = disk_need(tiny_classifier, RECIPES["fast"], WIDTHS[:1])
    assert need == 2 * (1024 + 128) * 192 + (10 + 35) * params
    need = disk_need(tiny_classifier, RECIPES["fast"], WIDTHS)
    assert need == 2 * (1024 + 1024) * 192 + (10 + 2 * 35) * params


def test_a_run_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=3_000_000)
    monkeypatch.setattr(disk_needs.shutil, "disk_usage", lambda path: usage)
    kept = tmp_path / ".run.state"
    require_room(3_000_000, "net", tmp_path, kept)
    with pytest.raises(UserError) as error:
        require_room(3_100_000, "net", tmp_path, kept)
    assert error.value.render(as_flag) == (
        f"quantizing 'net' takes up to 3.1 MB of disk in {tmp_path}, and 3.0 MB are "
        "free; make room there or pass another --output_dir"
    )
    # What is there already takes no more room.
    (kept / "a").mkdir(parents=True)
    (kept / "a" / "x.state").write_bytes(bytes(100_000))
    require_room(3_100_000, "net", tmp_path, kept)


def network(size: int) -> keras.Model:
    """Two branches of 8 and 16 channels, joined."""
    image = keras.Input((size, size, 3))
    layers = keras.layers
    few = layers.Conv2D(8, 3, padding="same")(image)
    many = layers.Conv2D(16, 3, padding="same")(image)
    joined = layers.Concatenate()([few, many])
    features = layers.GlobalAveragePooling2D()(joined)
    return keras.Model(image, layers.Dense(3)(features))


def test_intermediate_results_by_hand():
    fast = RECIPES["fast"]
    # All of it is in memory: 1,024 images of 32x32, and 128 images' outputs.
    assert temporary_need(network(32), fast, WIDTHS[:1]) == 0
    # 512 images of 512x512 are made, half as many as of small ones. 42 of them fit
    # into reconstruction, whose largest layer has 24 channels. The image's three
    # channels for all of them are below 128 MiB; when the branches are joined, teacher
    # and student have 8, 16 and 24 channels each.
    values = 512 * 512
    fitting = 2**28 // (24 * values)
    assert fitting == 42
    need = temporary_need(network(512), fast, WIDTHS)
    assert need == 10 * 512 * 3 * values + 2 * 4 * fitting * (8 + 16 + 24) * values


def test_intermediate_results_without_room_are_refused(monkeypatch):
    args = network(512), "net", RECIPES["fast"], WIDTHS
    need = temporary_need(*args[:1], *args[2:])
    usage = shutil.disk_usage("/")._replace(free=need)
    monkeypatch.setattr(disk_needs.shutil, "disk_usage", lambda path: usage)
    require_temporary_room(*args)
    usage = usage._replace(free=3_000_000)
    with pytest.raises(UserError) as error:
        require_temporary_room(*args)
    assert error.value.render(as_flag) == (
        f"quantizing 'net' takes up to {need / 1e6:,.1f} MB for intermediate results "
        f"in {tempfile.gettempdir()}, and 3.0 MB are free; make room there or set "
        "TMPDIR to a folder that has some"
    )
