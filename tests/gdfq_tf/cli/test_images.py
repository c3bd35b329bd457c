"""Images as files of their own: made alone, and taken from earlier runs."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from gdfq_tf.cli.synthesize import content_of, write_pngs
from gdfq_tf.errors import UserError
from gdfq_tf.input_format import InputFormat
from gdfq_tf.preprocessing import make_preprocessing, preprocessing_of_features
from gdfq_tf.run_directory import MANIFEST, SYNTHETIC_IMAGES, read_images
from gdfq_tf.synthesis.image_pool import ImagePool
from tests.command import refusal, run_command
from tests.tiny import INPUT_SHAPE, build_tiny_classifier

FLAGS = ("--preprocessing=tf", "--num_steps=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    build_tiny_classifier().save(path / "tiny.keras")
    return path


@pytest.fixture(scope="module")
def run(folder):
    """A run directory and what its command wrote to standard error."""
    code, _, stderr = run_command(
        "quantize",
        folder / "tiny.keras",
        *FLAGS,
        "--bits=w8a8",
        f"--output_dir={folder / 'run'}",
    )
    assert code == 0, stderr
    return folder / "run"


def test_images_alone(folder, tmp_path):
    output, pngs = tmp_path / "x.npz", tmp_path / "pngs"
    arguments = (folder / "tiny.keras", *FLAGS, "--num_images=20", f"--output={output}")
    code, stdout, stderr = run_command("synthesize", *arguments, f"--png_dir={pngs}")
    assert code == 0, stderr
    assert stdout.startswith(f"{output}: 20 images, (8, 8, 3)")
    pool = read_images(output)
    assert pool.pixels.shape == (20, *INPUT_SHAPE)
    for number, (pixels, label) in enumerate(
        zip(pool.pixels, pool.labels, strict=True)
    ):
        with Image.open(pngs / str(label) / f"{number:05}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), pixels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pngs", "x.npz"]
    assert "x.npz exists; pass --overwrite" in refusal(
        "synthesize", *arguments, folder=tmp_path
    )


def test_pngs_of_one_channel_and_of_noise(tmp_path):
    pixels = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
    write_pngs(tmp_path, ImagePool(pixels, np.array([-1, 3], np.int32)))
    with Image.open(tmp_path / "noise" / "00000.png") as picture:
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.asarray(picture), [[0, 1], [2, 3]])
    assert (tmp_path / "3" / "00001.png").exists()


def test_features_are_there_as_the_model_takes_them(tmp_path):
    preprocessing = preprocessing_of_features([-1.0, 4.1], 3)
    taken = InputFormat((2, 3), (2, 1, 3), preprocessing)
    levels = np.array([0, 255, 50, 100, 150, 200], np.uint8).reshape(1, 2, 1, 3)
    images = ImagePool(levels, np.zeros(1, np.int32))
    path = tmp_path / "x.npz"
    path.write_bytes(content_of(images, taken))
    with np.load(path) as arrays:
        assert arrays["features"].dtype == np.float32
        np.testing.assert_allclose(
            arrays["features"], [[[-1, 4.1, 0], [1, 2, 3]]], atol=1e-6
        )
        np.testing.assert_array_equal(arrays["pixels"], levels)
    np.testing.assert_allclose(taken.images(taken.features(levels)), levels, atol=1e-3)
    with pytest.raises(ValueError, match="takes pixels"):
        make_preprocessing("tf", 3).features(levels)


def test_pngs_of_features_are_refused(folder, tmp_path):
    line = refusal(
        "synthesize",
        folder / "tiny.keras",
        "--input_range=-1,1",
        "--num_steps=1",
        f"--output={tmp_path / 'x.npz'}",
        f"--png_dir={tmp_path / 'pngs'}",
        folder=tmp_path,
    )
    assert "--png_dir" in line
    assert "features, which are none; drop it: --output holds all" in line


def test_the_same_students_from_the_images_of_a_run(folder, run, tmp_path):
    code, _, stderr = run_command(
        "quantize",
        folder / "tiny.keras",
        *FLAGS,
        "--bits=w8a8",
        f"--images={run}",
        f"--output_dir={tmp_path / 'again'}",
    )
    assert code == 0, stderr
    assert f"note: works with the 128 images of {run}\n" in stderr
    assert "generator" not in stderr
    for name in ("tiny_w8a8.tflite", "tiny_w8a8_student.npz", SYNTHETIC_IMAGES):
        assert (tmp_path / "again" / name).read_bytes() == (run / name).read_bytes()


def test_a_manifest_makes_the_same_bytes(folder, run, tmp_path):
    model = folder / "tiny.keras"
    code, _, stderr = run_command(
        "quantize",
        f"--from_manifest={run / MANIFEST}",
        f"--output_dir={tmp_path / 'again'}",
    )
    assert code == 0, stderr
    assert "warning" not in stderr
    for path in run.glob("*.tflite"):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    changed = tmp_path / "changed.keras"
    changed.write_bytes(model.read_bytes() + b"\0")
    line = refusal(
        "quantize",
        changed,
        f"--from_manifest={run}",
        f"--output_dir={tmp_path / 'other'}",
        folder=tmp_path,
    )
    assert "changed.keras is SHA-256" in line
    assert "pass that file as --model" in line


def test_images_of_the_run_that_is_replaced_are_taken(folder, run, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(run, directory)
    arguments = (folder / "tiny.keras", *FLAGS, f"--output_dir={directory}")
    before = (directory / SYNTHETIC_IMAGES).read_bytes()
    code, _, stderr = run_command(
        "quantize", *arguments, "--bits=w8a4", "--recipe=fast", "--overwrite"
    )
    assert code == 0, stderr
    assert "note: takes the 128 images of the earlier run" in stderr
    # Those that were there are the first of those that students of w8a4 take.
    (directory / "before.npz").write_bytes(before)
    now, then = read_images(directory), read_images(directory / "before.npz")
    assert len(now) > len(then) == 128
    np.testing.assert_array_equal(now.pixels[:128], then.pixels)


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"pixels": np.zeros((8, 4, 4, 3), np.uint8)}, r"labels.*expected an \.npz"),
        (
            {"pixels": np.zeros((8, 4, 4, 3)), "labels": np.zeros(8, np.int32)},
            "pixels float64",
        ),
        (
            {"pixels": np.zeros((8, 4, 4), np.uint8), "labels": np.zeros(8, np.int32)},
            r"expected uint8 \(N, H, W, C\)",
        ),
        (
            {
                "pixels": np.zeros((8, 4, 4, 3), np.uint8),
                "labels": np.zeros(7, np.int32),
            },
            r"labels int32 \(7,\)",
        ),
        (
            {"pixels": np.zeros((0, 4, 4, 3), np.uint8), "labels": np.zeros(0, "i4")},
            r"\(0, 4, 4, 3\)",
        ),
    ],
)
def test_files_of_other_arrays_are_refused(tmp_path, arrays, complaint):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError, match=complaint):
        read_images(tmp_path / "x.npz")


def test_damaged_images_are_refused(tmp_path):
    pool = ImagePool(np.zeros((8, 4, 4, 3), np.uint8), np.zeros(8, np.int32))
    path = pool.save(tmp_path / "x.npz")
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            found = read_images(path)
        except UserError:
            continue
        np.testing.assert_array_equal(found.pixels, pool.pixels)
        np.testing.assert_array_equal(found.labels, pool.labels)


def test_images_of_another_shape_are_refused(folder, tmp_path):
    pool = ImagePool(np.zeros((8, 4, 4, 3), np.uint8), np.zeros(8, np.int32))
    line = refusal(
        "quantize",
        folder / "tiny.keras",
        "--preprocessing=tf",
        f"--images={pool.save(tmp_path / 'x.npz')}",
        f"--output_dir={tmp_path / 'run'}",
        folder=tmp_path,
    )
    assert "--images are 8 of (4, 4, 3); tiny needs 4 or more of (8, 8, 3)" in line
