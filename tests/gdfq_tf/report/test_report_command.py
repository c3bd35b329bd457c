"""`gdfq report`: the same files once more, from what a run has left."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.command import refusal, run_command


@pytest.fixture
def copied(directory, tmp_path):
    return shutil.copytree(directory, tmp_path / "tiny")


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_what_was_removed_or_spoilt_is_as_the_run_wrote_it(copied):
    before = contents(copied)
    (copied / "events.out.tfevents").unlink()
    (copied / "tiny_w4a8_layers.csv").unlink()
    (copied / "report.html").write_text("an old one")
    code, stdout, stderr = run_command("report", copied)
    assert (code, stderr) == (0, "")
    assert stdout == f"{copied}/report.html is made again, and the figures beside it\n"
    assert contents(copied) == before
    assert list(copied.parent.iterdir()) == [copied]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": 9}, "its summary.json has version 9, and this program"),
        ({"bn_gaps": None}, "lacks what a report needs ('bn_gaps'); take the version"),
    ],
)
def test_a_summary_of_another_version_is_refused(copied, changes, words):
    summary = json.loads((copied / "summary.json").read_text()) | changes
    kept = {name: value for name, value in summary.items() if value is not None}
    (copied / "summary.json").write_text(json.dumps(kept))
    assert words in refusal("report", copied, folder=copied)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    assert "summary.json is missing" in refusal("report", tmp_path, folder=tmp_path)
