from __future__ import annotations

import os
from pathlib import Path

import pytest

from gdfq_tf.system import file_system
from gdfq_tf.system.file_system import (
    LockedError,
    exchange,
    lock_directory,
    locked,
    move_aside,
    rename_to_free_name,
)


@pytest.fixture(params=["renameat2", "rename"])
def system(request, monkeypatch):
    """With and without what Linux alone has."""
    if request.param == "rename":
        monkeypatch.setattr(file_system, "_libc_renameat2", lambda: None)
    return request.param


def make(path: Path, kind: str) -> Path:
    if kind == "file":
        path.write_text("content")
    elif kind == "link":
        path.symlink_to("nowhere")
    else:
        path.mkdir()
        if kind == "folder":
            (path / "file").write_text("content")
    return path


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_rename_to_a_free_name(tmp_path, system, kind):
    source, target = make(tmp_path / "source", kind), tmp_path / "target"
    rename_to_free_name(source, target)
    assert list(tmp_path.iterdir()) == [target]
    file = target if kind == "file" else target / "file"
    assert file.read_text() == "content"


@pytest.mark.parametrize("taken", ["file", "link", "folder", "empty"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_rename_replaces_nothing(tmp_path, system, kind, taken):
    if (system, kind, taken) == ("rename", "folder", "empty"):
        pytest.skip("an empty directory has nothing to lose")
    source, target = make(tmp_path / "source", kind), make(tmp_path / "target", taken)
    before = target.lstat().st_ino
    with pytest.raises(FileExistsError):
        rename_to_free_name(source, target)
    assert target.lstat().st_ino == before
    assert source.exists()


def test_what_is_missing_is_another_error(tmp_path, system):
    with pytest.raises(FileNotFoundError):
        rename_to_free_name(tmp_path / "source", tmp_path / "target")


@pytest.mark.parametrize("taken", ["file", "link", "folder", "empty"])
def test_the_next_free_name(tmp_path, system, taken):
    source = make(tmp_path / "source", "folder")
    make(tmp_path / "name-1", taken)
    assert move_aside(source, tmp_path / "name") == tmp_path / "name-2"
    assert (tmp_path / "name-2" / "file").exists()


def test_two_directories_are_exchanged(tmp_path):
    full, empty = make(tmp_path / "a", "folder"), make(tmp_path / "b", "empty")
    exchange(full, empty)
    assert list(full.iterdir()) == []
    assert list(empty.iterdir()) == [empty / "file"]
    with pytest.raises(FileNotFoundError):
        exchange(full, tmp_path / "none")


def test_systems_that_cannot_exchange_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(file_system, "_libc_renameat2", lambda: None)
    with pytest.raises(NotImplementedError):
        exchange(make(tmp_path / "a", "file"), make(tmp_path / "b", "file"))


def test_a_lock_is_held_once_and_leaves_nothing(tmp_path):
    path = tmp_path / "lock"
    with locked(path):
        with pytest.raises(LockedError), locked(path):
            pass
        assert path.exists()
    assert not path.exists()
    with locked(path):
        pass


def test_a_file_left_over_is_taken_over(tmp_path):
    path = make(tmp_path / "lock", "file")
    with locked(path) as descriptor:
        assert os.read(descriptor, 10) == b"content"
    assert not path.exists()


def test_a_locked_file_may_be_renamed(tmp_path):
    path, target = tmp_path / "partial", tmp_path / "target"
    with locked(path) as descriptor:
        os.write(descriptor, b"content")
        path.replace(target)
        make(path, "file")  # another process's
    assert target.read_bytes() == b"content"
    assert path.exists()


def test_a_lock_that_its_holder_removes_is_made_anew(tmp_path, monkeypatch):
    """Between the opening of the file and the locking."""
    path, flock = tmp_path / "lock", file_system.fcntl.flock
    first = []

    def lock(descriptor, operation):
        if not first:
            first.append(descriptor)
            path.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(file_system.fcntl, "flock", lock)
    with locked(path) as descriptor:
        assert os.path.samestat(os.fstat(descriptor), path.stat())


def test_directories_are_locked_and_stay(tmp_path):
    descriptor = lock_directory(tmp_path)
    with pytest.raises(LockedError):
        lock_directory(tmp_path)
    os.close(descriptor)
    os.close(lock_directory(tmp_path))
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(OSError, match="link"):
        lock_directory(link)
