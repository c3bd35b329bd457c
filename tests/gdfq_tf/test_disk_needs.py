"""Room on disk, by hand, and refused where there is less."""

from __future__ import annotations

import shutil

import pytest

from gdfq_tf import disk_needs
from gdfq_tf.config import RECIPES, parse_bit_widths
from gdfq_tf.disk_needs import disk_need, require_room
from gdfq_tf.errors import UserError, as_flag

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
