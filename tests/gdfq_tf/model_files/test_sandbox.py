from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from gdfq_tf.model_files import sandbox


def run(code: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def has_landlock() -> bool:
    code = "from gdfq_tf.model_files.sandbox import forbid_files; print(forbid_files())"
    return run(code).stdout.strip() == "True"


needs_landlock = pytest.mark.skipif(
    not has_landlock(), reason="this kernel has no Landlock"
)


@needs_landlock
def test_no_file_can_be_opened_but_those_that_are_open(tmp_path):
    (tmp_path / "open").write_text("known")
    (tmp_path / "other").write_text("secret")
    done = run(
        """
        import os, sys
        from pathlib import Path
        from gdfq_tf.model_files.sandbox import forbid_files
        folder = Path(sys.argv[1])
        file = (folder / "open").open()
        assert forbid_files()
        print(file.read())
        for attempt in (
            lambda: (folder / "other").read_text(),
            lambda: (folder / "new").write_text(""),
            lambda: os.listdir(folder),
            lambda: (folder / "open").unlink(),
            lambda: os.execv("/bin/sh", ["sh", "-c", "echo started"]),
        ):
            try:
                attempt()
                print("done")
            except OSError as error:
                print(type(error).__name__)
        """,
        tmp_path,
    )
    assert done.stdout.split() == ["known", *["PermissionError"] * 5], done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"open", "other"}


@needs_landlock
def test_one_directory_may_stay_readable(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "file").write_text("known")
    (tmp_path / "outside").write_text("secret")
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "outside")
    done = run(
        """
        import sys
        from pathlib import Path
        from gdfq_tf.model_files.sandbox import forbid_files
        folder = Path(sys.argv[1], "inside")
        assert forbid_files(readable=folder)
        print((folder / "file").read_text())
        for attempt in (
            lambda: (folder / "link").read_text(),
            lambda: (folder / "new").write_text(""),
        ):
            try:
                attempt()
                print("done")
            except PermissionError:
                print("refused")
        """,
        tmp_path,
    )
    assert done.stdout.split() == ["known", "refused", "refused"], done.stderr


@needs_landlock
def test_no_connection_can_be_made():
    done = run(
        """
        import socket
        from gdfq_tf.model_files.sandbox import forbid_files
        with socket.create_server(("127.0.0.1", 0)) as server:
            assert forbid_files()
            try:
                socket.create_connection(server.getsockname(), 1)
                print("connected")
            except PermissionError:
                print("refused")
        """
    )
    # Kernels before 6.7 cannot forbid it.
    assert done.stdout.split() in (["refused"], ["connected"]), done.stderr


def test_memory_is_bounded():
    done = run(
        """
        from gdfq_tf.model_files.sandbox import limit_resources
        limit_resources(2**26, 60)
        bytearray(2**25)
        try:
            bytearray(2**27)
        except MemoryError:
            print("refused")
        """
    )
    assert done.stdout.split() == ["refused"], done.stderr


def test_time_is_bounded():
    done = run(
        """
        from gdfq_tf.model_files.sandbox import limit_resources
        limit_resources(2**30, 1)
        while True:
            pass
        """
    )
    assert done.returncode < 0


def test_what_the_platform_lacks_is_left_out(monkeypatch):
    monkeypatch.setattr(sandbox.sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)
    sandbox.limit_resources(1, 1)
    assert not sandbox.forbid_files()
