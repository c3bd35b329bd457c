from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from gdfq_tf.config import DEFAULT_RECIPE, RECIPES, BitWidths
from gdfq_tf.errors import UserError
from gdfq_tf.estimation import AccuracyEstimate
from gdfq_tf.pipeline import Baselines, QuantizationResult, QuantizedModel
from gdfq_tf.preprocessing import make_preprocessing
from gdfq_tf.run_directory import (
    SUMMARY,
    SYNTHETIC_IMAGES,
    check_output_directory,
    model_files,
    preprocessing_of,
    read_summary,
    write_run,
    write_summary,
    written_at_once,
)
from gdfq_tf.synthesis import SyntheticImages
from tflite_export.affine_quantization import AffineQuantization
from tflite_export.integer_network import IntegerNetwork, load_network
from tflite_export.verify import Agreement


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(UserError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def make_run(path: Path, content: str = "old") -> Path:
    path.mkdir()
    preprocessing = dataclasses.asdict(make_preprocessing("tf", 3))
    classifier = {"head": "logits", "preprocessing": preprocessing}
    models = [{"file": "model.tflite"}]
    write_summary(path, {"classifier": classifier, "models": models})
    (path / "model.tflite").write_text(content)
    (path / "model_student.npz").write_text(content)
    return path


@pytest.mark.parametrize("name", ["new", "a/b/new"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_new_directories_may_be_written(tmp_path, name, overwrite):
    check_output_directory(tmp_path / name, overwrite=overwrite)
    assert list(tmp_path.iterdir()) == []  # only looks


def test_relative_paths_are_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_output_directory(Path("runs/new"), overwrite=False)
    with written_at_once(Path("runs/new")) as directory:
        (directory / "x").write_text("x")
    assert (tmp_path / "runs/new/x").read_text() == "x"


def test_existing_directories_need_overwrite(tmp_path):
    path = make_run(tmp_path / "run")
    assert "--overwrite" in refusal(check_output_directory, path, overwrite=False)
    check_output_directory(path, overwrite=True)


def test_empty_directories_may_be_overwritten(tmp_path):
    assert "exists" in refusal(check_output_directory, tmp_path, overwrite=False)
    check_output_directory(tmp_path, overwrite=True)


def test_other_directories_and_files_are_never_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    message = refusal(check_output_directory, tmp_path, overwrite=True)
    assert SUMMARY in message
    file = tmp_path / "thesis.txt"
    assert "is not overwritten" in refusal(check_output_directory, file, overwrite=True)


def test_other_files_beside_a_run_are_never_overwritten(tmp_path):
    path = make_run(tmp_path / "run")
    (path / "thesis.txt").write_text("years of work")
    message = refusal(check_output_directory, path, overwrite=True)
    assert "it holds thesis.txt" in message


def test_other_programs_have_summaries_too(tmp_path):
    (tmp_path / SUMMARY).write_text('{"models": 3}')
    message = refusal(check_output_directory, tmp_path, overwrite=True)
    assert f"its {SUMMARY} is no run's" in message


def test_what_a_link_leads_to_is_replaced(tmp_path):
    path, link = make_run(tmp_path / "run"), tmp_path / "link"
    link.symlink_to(path)
    check_output_directory(link, overwrite=True)
    with written_at_once(link) as directory:
        (directory / "model.tflite").write_text("new")
    assert link.is_symlink()
    assert (path / "model.tflite").read_text() == "new"
    assert sorted(tmp_path.iterdir()) == [link, path]


def test_a_link_that_leads_nowhere_yet(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "new" / "run")
    check_output_directory(link, overwrite=False)
    with written_at_once(link) as directory:
        (directory / "x").write_text("x")
    assert (tmp_path / "new" / "run" / "x").read_text() == "x"


def test_directories_that_only_seem_writable_are_refused():
    # Even root makes none there.
    message = refusal(check_output_directory, Path("/proc/run"), overwrite=False)
    assert "/proc is not a writable directory" in message


@pytest.mark.parametrize("name", ["file/run", "file/a/b/run"])
def test_a_file_in_the_way_is_named(tmp_path, name):
    (tmp_path / "file").write_text("")
    message = refusal(check_output_directory, tmp_path / name, overwrite=False)
    assert f"{tmp_path / 'file'} is not a writable directory" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_directories_without_permission_are_refused(tmp_path):
    tmp_path.chmod(0o500)
    message = refusal(check_output_directory, tmp_path / "run", overwrite=False)
    assert "not a writable directory" in message
    tmp_path.chmod(0o700)


def test_the_directory_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "deep" / "run"
    with written_at_once(path) as directory:
        (directory / "model.tflite").write_text("new")
        assert directory.parent == path.parent  # the same file system
        assert not path.exists()
    assert (path / "model.tflite").read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_an_old_directory_is_replaced_as_a_whole(tmp_path):
    path = make_run(tmp_path / "run")
    (path / "left_over").write_text("")
    with written_at_once(path) as directory:
        (directory / "model.tflite").write_text("new")
        assert (path / "model.tflite").read_text() == "old"
    assert [file.name for file in path.iterdir()] == ["model.tflite"]
    assert (path / "model.tflite").read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_leaves_everything_as_it_was(tmp_path, error, existing):
    path = tmp_path / "run"
    if existing:
        make_run(path)
    with pytest.raises(error), written_at_once(path) as directory:
        (directory / "model.tflite").write_text("new")
        raise error
    assert list(tmp_path.iterdir()) == ([path] if existing else [])
    if existing:
        assert (path / "model.tflite").read_text() == "old"


def test_a_failed_replacement_keeps_the_old_directory(tmp_path, monkeypatch):
    path = make_run(tmp_path / "run")
    rename = Path.rename

    def refuse(self, target):
        if ".partial-" in self.name:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)

    def write():
        with written_at_once(path) as directory:
            (directory / "model.tflite").write_text("new")

    assert "No space left on device" in refusal(write)
    assert (path / "model.tflite").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line(tmp_path):
    def write():
        with written_at_once(tmp_path / "run"):
            raise OSError(28, "No space left on device")

    message = refusal(write)
    assert "No space left on device" in message
    assert str(tmp_path / "run") in message
    assert list(tmp_path.iterdir()) == []


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
    assert again == json.loads(json.dumps(summary))
    assert preprocessing_of(again) == preprocessing


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe", b"{}", b"[]", b"3"])
def test_missing_and_damaged_summaries_are_one_line(tmp_path, content):
    if content is not None:
        (tmp_path / SUMMARY).write_bytes(content)
    message = refusal(read_summary, tmp_path)
    assert str(tmp_path / SUMMARY) in message
    assert "tools/quantize.py" in message


@pytest.fixture
def result():
    grid = AffineQuantization(0.5, 3)
    network = IntegerNetwork("image", (2, 2, 1), grid, (), True)
    agreement = Agreement(1, 0, 1.0, 1.0)
    estimate = AccuracyEstimate(1, 1.0, 0.0, 0.9)
    models = tuple(
        QuantizedModel(
            widths, frozenset(), estimate, network, tflite, (), agreement, 1.0
        )
        for widths, tflite in (
            (BitWidths(8, 8), b"eight"),
            (BitWidths(4, 4, "paper"), b"four"),
        )
    )
    images = SyntheticImages(
        np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1), np.array([1, 0], np.int32)
    )
    recipe = RECIPES[DEFAULT_RECIPE]
    baselines = Baselines(b"float", b"noise")
    return QuantizationResult(recipe, images, models, baselines, 1.0)


def test_model_files_have_names_titles_and_hashes(result):
    files = model_files("net", DEFAULT_RECIPE, result)
    assert [(x.title, x.file, x.tflite) for x in files] == [
        ("float", "net_float.tflite", b"float"),
        ("int8 PTQ on noise", "net_int8_noise.tflite", b"noise"),
        ("GDFQ w8a8", "net_w8a8.tflite", b"eight"),
        ("GDFQ w4a4_paper", "net_w4a4_paper.tflite", b"four"),
    ]
    assert files[0].sha256 == hashlib.sha256(b"float").hexdigest()
    assert model_files("net", "gdfq", result)[2].title == "gdfq recipe w8a8"


def test_everything_a_run_made_is_written(tmp_path, result):
    write_run(tmp_path, "net", model_files("net", DEFAULT_RECIPE, result), result)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "net_float.tflite",
        "net_int8_noise.tflite",
        "net_w4a4_paper.tflite",
        "net_w4a4_paper_student.npz",
        "net_w8a8.tflite",
        "net_w8a8_student.npz",
        SYNTHETIC_IMAGES,
    ]
    assert (tmp_path / "net_w4a4_paper.tflite").read_bytes() == b"four"
    network = load_network(tmp_path / "net_w8a8_student.npz")
    assert network.input_shape == (2, 2, 1)
    assert network.input_grid == AffineQuantization(0.5, 3)
    with np.load(tmp_path / SYNTHETIC_IMAGES) as arrays:
        np.testing.assert_array_equal(arrays["pixels"], result.images.pixels)
        np.testing.assert_array_equal(arrays["labels"], result.images.labels)
        assert arrays["pixels"].dtype == np.uint8
