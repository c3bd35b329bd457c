from __future__ import annotations

from pathlib import Path

import pytest

from gdfq_tf.errors import UserError
from gdfq_tf.system.file_system import locked
from gdfq_tf.system.output_files import write_whole


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "x.tflite"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_is_written_and_replaced(path):
    write_whole(path, b"first")
    write_whole(path, b"2nd")
    assert content(path.parent) == {"x.tflite": b"2nd"}


def test_what_is_there_is_looked_at_when_it_would_be_replaced(path):
    write_whole(path, b"first", overwrite=False)
    with pytest.raises(UserError, match=r"x\.tflite exists; pass overwrite=True"):
        write_whole(path, b"2nd", overwrite=False)
    assert content(path.parent) == {"x.tflite": b"first"}


def test_what_a_killed_process_left_is_taken_over(path):
    partial = path.with_name(".x.tflite.partial")
    partial.write_bytes(b"longer than the content")
    write_whole(path, b"content")
    assert content(path.parent) == {"x.tflite": b"content"}


def test_one_process_at_a_time_writes_a_file(path):
    with locked(path.with_name(".x.tflite.partial")):
        with pytest.raises(UserError, match="being written by another process"):
            write_whole(path, b"content")
        assert not path.exists()


@pytest.mark.parametrize("name", ["none/x", "file/x", "folder"])
def test_what_the_file_system_refuses_is_one_line(tmp_path, name):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=f"{tmp_path / name} cannot be written: "):
        write_whole(tmp_path / name, b"content")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}
