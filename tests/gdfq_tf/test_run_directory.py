from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from gdfq_tf.errors import UserError
from gdfq_tf.preprocessing import make_preprocessing
from gdfq_tf.run_directory import (
    SUMMARY,
    claim_run_directory,
    preprocessing_of,
    read_summary,
    write_summary,
)
from gdfq_tf.system import file_system, output_directory


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(UserError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


RUN_FILES = {SUMMARY, "model.tflite", "model_student.npz"}


def make_run(path: Path, content: str = "old") -> Path:
    path.mkdir()
    fill(path, content)
    return path


def fill(path: Path, content: str) -> None:
    """What a run writes into its directory."""
    preprocessing = dataclasses.asdict(make_preprocessing("tf", 3))
    classifier = {"head": "logits", "preprocessing": preprocessing}
    models = [{"file": "model.tflite"}]
    write_summary(path, {"classifier": classifier, "models": models})
    (path / "model.tflite").write_text(content)
    (path / "model_student.npz").write_text(content)


def claim(path: Path, *, overwrite: bool = False) -> None:
    """A run that ends without having written anything."""
    with claim_run_directory(path, overwrite=overwrite):
        pass


def run(path: Path, content: str = "new", *, overwrite: bool = False) -> None:
    with claim_run_directory(path, overwrite=overwrite) as output:
        output.publish(writing(content))


def writing(content: str, count: list | None = None):
    """Writes the same files as `make_run`, and notes where."""

    def write(directory: Path) -> None:
        if count is not None:
            count.append(directory)
        fill(directory, content)

    return write


def content_of(path: Path) -> str:
    """Of a run, which is whole."""
    assert {file.name for file in path.iterdir()} == RUN_FILES
    assert read_summary(path)["models"] == [{"file": "model.tflite"}]
    model, student = path / "model.tflite", path / "model_student.npz"
    assert model.read_text() == student.read_text()
    return model.read_text()


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["new", "a/b/new"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_claim_leaves_nothing(tmp_path, name, overwrite):
    claim(tmp_path / name, overwrite=overwrite)
    assert entries(tmp_path) == set()


def test_relative_paths_are_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(Path("runs/new"))
    assert content_of(tmp_path / "runs/new") == "new"


def test_existing_directories_need_overwrite(tmp_path):
    path = make_run(tmp_path / "run")
    assert "overwrite=True" in refusal(claim, path)
    claim(path, overwrite=True)
    assert content_of(path) == "old"


def test_empty_directories_may_be_overwritten(tmp_path):
    path = tmp_path / "empty"
    path.mkdir()
    assert "exists" in refusal(claim, path)
    run(path, overwrite=True)
    assert content_of(path) == "new"


def test_other_directories_and_files_are_never_overwritten(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    assert SUMMARY in refusal(claim, folder, overwrite=True)
    file = folder / "thesis.txt"
    assert "is not overwritten" in refusal(claim, file, overwrite=True)
    assert entries(folder) == {"thesis.txt"}


def test_other_files_beside_a_run_are_never_overwritten(tmp_path):
    path = make_run(tmp_path / "run")
    (path / "thesis.txt").write_text("years of work")
    assert "it holds thesis.txt" in refusal(claim, path, overwrite=True)


def test_other_programs_have_summaries_too(tmp_path):
    path = tmp_path / "other"
    path.mkdir()
    (path / SUMMARY).write_text('{"models": 3}')
    message = refusal(claim, path, overwrite=True)
    assert f"its {SUMMARY} is no run's" in message


def test_what_a_link_leads_to_is_replaced(tmp_path):
    path, link = make_run(tmp_path / "run"), tmp_path / "link"
    link.symlink_to(path)
    run(link, overwrite=True)
    assert link.is_symlink()
    assert content_of(path) == "new"
    assert entries(tmp_path) == {"link", "run"}


def test_a_link_that_leads_nowhere_yet(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "new" / "run")
    run(link)
    assert content_of(tmp_path / "new" / "run") == "new"


def test_directories_that_only_seem_writable_are_refused():
    # Even root makes none there.
    message = refusal(claim, Path("/proc/run"))
    assert "/proc is not a writable directory" in message


@pytest.mark.parametrize("name", ["file/run", "file/a/b/run"])
def test_a_file_in_the_way_is_named(tmp_path, name):
    (tmp_path / "file").write_text("")
    message = refusal(claim, tmp_path / name)
    assert f"{tmp_path / 'file'} is not a writable directory" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_directories_without_permission_are_refused(tmp_path):
    tmp_path.chmod(0o500)
    assert "not a writable directory" in refusal(claim, tmp_path / "run")
    tmp_path.chmod(0o700)


def test_the_directory_appears_when_it_is_complete(tmp_path):
    path, seen = tmp_path / "deep" / "run", []
    with claim_run_directory(path, overwrite=False) as output:
        output.publish(writing("new", seen))
    assert content_of(path) == "new"
    assert seen == [output.partial]
    assert output.partial.parent == path.parent  # the same file system
    assert entries(path.parent) == {"run"}


@pytest.mark.parametrize("exchanging", [True, False])
def test_an_old_directory_is_replaced_as_a_whole(tmp_path, monkeypatch, exchanging):
    if not exchanging:
        forbid_exchange(monkeypatch)
    path = make_run(tmp_path / "run")
    with claim_run_directory(path, overwrite=True) as output:
        output.save_early(writing("new"))
        assert content_of(path) == "old"
        output.publish(writing("new"))
        assert content_of(path) == "new"
        assert entries(tmp_path) == {"run", ".run.lock"}
    assert entries(tmp_path) == {"run"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_leaves_everything_as_it_was(tmp_path, error, existing):
    path = tmp_path / "run"
    if existing:
        make_run(path)
    with pytest.raises(error), claim_run_directory(path, overwrite=True) as output:
        output.save_early(writing("new"))
        raise error
    assert entries(tmp_path) == ({"run"} if existing else set())
    assert not existing or content_of(path) == "old"


@pytest.mark.parametrize("existing", [False, True])
def test_a_second_run_for_one_directory_is_refused(tmp_path, existing):
    path = tmp_path / "run"
    if existing:
        make_run(path)
    with claim_run_directory(path, overwrite=True) as output:
        output.save_early(writing("new"))
        # Locks belong to the open file: another of this process is another holder.
        message = refusal(run, path, "second", overwrite=True)
        assert f"is being written by process {os.getpid()};" in message
        output.publish(writing("new"))
    assert content_of(path) == "new"
    assert entries(tmp_path) == {"run"}


@pytest.mark.parametrize("renaming", [True, False])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("what", ["folder", "empty", "file", "link", "run"])
def test_what_comes_while_a_run_works_stays(
    tmp_path, monkeypatch, what, overwrite, renaming
):
    if not renaming:
        monkeypatch.setattr(file_system, "_libc_renameat2", lambda: None)
    path = tmp_path / "run"
    with claim_run_directory(path, overwrite=overwrite) as output:
        if what == "run":
            make_run(path)
        elif what == "file":
            path.write_text("years of work")
        elif what == "link":
            path.symlink_to("nowhere")
        else:
            path.mkdir()
            if what == "folder":
                (path / "thesis.txt").write_text("years of work")
        if overwrite and what in {"run", "empty"}:  # may be replaced
            output.publish(writing("new"))
            assert content_of(path) == "new"
            assert entries(tmp_path) == {"run", ".run.lock"}
            return
        message = refusal(output.publish, writing("new"))
    kept = tmp_path / "run-1"
    assert message.endswith(f"the finished run is kept in {kept}")
    assert content_of(kept) == "new"
    assert entries(tmp_path) == {"run", "run-1"}
    if what == "run":
        assert content_of(path) == "old"
    if what == "folder":
        assert entries(path) == {"thesis.txt"}


@pytest.mark.parametrize("renaming", [True, False])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_comes_after_the_last_look_stays(
    tmp_path, monkeypatch, overwrite, renaming
):
    """Between the look at the directory and the rename."""
    if not renaming:
        monkeypatch.setattr(file_system, "_libc_renameat2", lambda: None)
    path = tmp_path / "run"
    if overwrite:
        make_run(path)
    with claim_run_directory(path, overwrite=overwrite) as output:
        look = output.check

        def check():
            look()
            if overwrite:
                path.rename(tmp_path / "elsewhere")
            path.mkdir()
            (path / "thesis.txt").write_text("years of work")

        monkeypatch.setattr(output, "check", check)
        refusal(output.publish, writing("new"))
    assert entries(path) == {"thesis.txt"}
    assert content_of(tmp_path / "run-1") == "new"
    elsewhere = {"elsewhere"} if overwrite else set()
    assert entries(tmp_path) == {"run", "run-1"} | elsewhere


def test_the_next_free_name_is_taken(tmp_path):
    (tmp_path / "run-1").mkdir()
    (tmp_path / "run-2").symlink_to("nowhere")
    with claim_run_directory(tmp_path / "run", overwrite=False) as output:
        make_run(tmp_path / "run")
        message = refusal(output.publish, writing("new"))
    assert message.endswith(str(tmp_path / "run-3"))
    assert content_of(tmp_path / "run-3") == "new"


def forbid_exchange(monkeypatch):
    def exchange(first, second):
        raise NotImplementedError

    monkeypatch.setattr(output_directory, "exchange", exchange)


def test_a_failed_replacement_keeps_the_old_directory(tmp_path, monkeypatch):
    forbid_exchange(monkeypatch)
    path = make_run(tmp_path / "run")
    rename = output_directory.rename_to_free_name

    def refuse(source, target):
        if ".partial-" in source.name:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(output_directory, "rename_to_free_name", refuse)
    message = refusal(run, path, overwrite=True)
    assert "No space left on device" in message
    assert content_of(path) == "old"
    assert entries(tmp_path) == {"run"}


def refusing(folder: Path):
    """As if the disk of `folder` were full, after the first file."""

    def write(directory: Path) -> None:
        fill(directory, "new")
        if folder in directory.parents:
            raise OSError(28, "No space left on device")

    return write


def test_a_full_disk_at_the_end_keeps_the_run(tmp_path):
    for name in ("full", "also_full", "room"):
        (tmp_path / name).mkdir()
    path = make_run(tmp_path / "full" / "run")

    def write(directory):
        for name in ("full", "also_full"):
            refusing(tmp_path / name)(directory)

    with claim_run_directory(path, overwrite=True) as output:
        message = refusal(
            output.publish,
            write,
            [tmp_path / "also_full", tmp_path / "none", tmp_path / "room"],
        )
    (kept,) = (tmp_path / "room").iterdir()
    assert f"{path} cannot be written: No space left on device" in message
    assert f"the finished run is kept in {kept}" in message
    assert content_of(kept) == "new"
    assert content_of(path) == "old"
    assert entries(path.parent) == {"run"}
    assert entries(tmp_path / "also_full") == set()


def test_a_disk_that_is_found_full_when_synchronized(tmp_path, monkeypatch):
    def fsync(descriptor):
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(output_directory.os, "fsync", fsync)
    (tmp_path / "room").mkdir()
    with claim_run_directory(tmp_path / "run", overwrite=False) as output:
        message = refusal(output.publish, writing("new"), [tmp_path / "room"])
    (kept,) = (tmp_path / "room").iterdir()
    assert f"Disk quota exceeded; the finished run is kept in {kept}" in message
    assert content_of(kept) == "new"
    assert entries(tmp_path) == {"room"}


def test_a_full_disk_without_fallback_is_one_line(tmp_path):
    path = tmp_path / "run"
    with claim_run_directory(path, overwrite=False) as output:
        message = refusal(output.publish, refusing(tmp_path), [tmp_path / "other"])
    assert f"{path} cannot be written: No space left on device" in message
    assert f"nor can {tmp_path / 'other'}" in message
    assert entries(tmp_path) == set()


def test_what_cannot_be_saved_early_is_a_warning(tmp_path):
    path = tmp_path / "run"
    with claim_run_directory(path, overwrite=False) as output:
        with pytest.warns(UserWarning, match="No space left on device"):
            output.save_early(refusing(tmp_path))
        assert not output.partial.exists()
        output.publish(writing("new"))
    assert content_of(path) == "new"


def test_leftovers_of_killed_runs_are_removed(tmp_path):
    for name in (".run.partial-12", ".run.replaced-12", ".run.partial-999999"):
        make_run(tmp_path / name, "left over")
    (tmp_path / ".run.lock").write_text("12")
    others = {"other", ".other.partial-12", ".run.partial-x", "x.run.partial-12"}
    for name in others:
        make_run(tmp_path / name)
    path = make_run(tmp_path / "run")
    claim(path, overwrite=True)
    assert content_of(path) == "old"
    assert entries(tmp_path) == {"run", *others}


@pytest.mark.parametrize("exchanging", [True, False])
def test_half_of_a_run_is_removed_by_the_next(tmp_path, monkeypatch, exchanging):
    if not exchanging:
        forbid_exchange(monkeypatch)
    path = make_run(tmp_path / "run")

    def killed(directory, ignore_errors):
        (directory / SUMMARY).unlink(missing_ok=True)

    with monkeypatch.context() as patch:
        patch.setattr(output_directory.shutil, "rmtree", killed)
        run(path, overwrite=True)
    (left,) = entries(tmp_path) - {"run"}
    assert left == f".run.removed-{os.getpid()}"
    claim(path, overwrite=True)
    assert content_of(path) == "new"
    assert entries(tmp_path) == {"run"}


def test_a_run_killed_between_two_renames_is_put_back(tmp_path):
    make_run(tmp_path / ".run.replaced-12", "older")
    make_run(tmp_path / ".run.replaced-13", "old")
    os.utime(tmp_path / ".run.replaced-12", (1, 1))
    make_run(tmp_path / ".run.partial-13", "new")
    with pytest.warns(UserWarning, match="is back"):
        assert "exists" in refusal(claim, tmp_path / "run")
    assert content_of(tmp_path / "run") == "old"
    assert entries(tmp_path) == {"run"}


def test_leftovers_that_are_no_runs_are_named(tmp_path):
    left = tmp_path / ".run.replaced-12"
    left.mkdir()
    (left / "thesis.txt").write_text("years of work")
    path = make_run(tmp_path / "run")
    with pytest.warns(UserWarning, match=f"left {left}, which is no run's"):
        claim(path, overwrite=True)
    assert entries(left) == {"thesis.txt"}


def test_summaries_come_back(tmp_path):
    preprocessing = make_preprocessing("caffe", 3)
    summary = {
        "models": [],
        "classifier": {
            "name": "x",
            "head": "logits",
            "preprocessing": dataclasses.asdict(preprocessing),
        },
    }
    write_summary(tmp_path, summary)
    again = read_summary(tmp_path)
    assert again == {**json.loads(json.dumps(summary)), "sha256": {}}
    assert preprocessing_of(again) == preprocessing


def test_summaries_hold_the_digests_of_what_lies_beside_them(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"abc")
    fill(tmp_path, "x")
    write_summary(tmp_path, read_summary(tmp_path))
    digests = read_summary(tmp_path)["sha256"]
    assert sorted(digests) == ["a.npz", "model.tflite", "model_student.npz"]
    # Of "abc", as in FIPS 180-2.
    assert digests["a.npz"].startswith("ba7816bf8f01cfea")


@pytest.mark.parametrize("name", ["../model.tflite", "/etc/passwd", "a/b", "."])
@pytest.mark.parametrize("place", ["models", "sha256"])
def test_summaries_name_no_files_elsewhere(tmp_path, name, place):
    fill(tmp_path, "x")
    summary = json.loads((tmp_path / SUMMARY).read_text())
    if place == "models":
        summary["models"][0]["file"] = name
    else:
        summary["sha256"][name] = ""
    (tmp_path / SUMMARY).write_text(json.dumps(summary))
    assert "is missing or damaged" in refusal(read_summary, tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe", b"{}", b"[]", b"3"])
def test_missing_and_damaged_summaries_are_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / SUMMARY).write_bytes(content)
    message = refusal(read_summary, tmp_path)
    assert str(tmp_path / SUMMARY) in message
    assert "`gdfq quantize`" in message
