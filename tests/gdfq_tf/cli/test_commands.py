"""The command lines, end to end, on a tiny classifier and inside this process."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from gdfq_tf.cli.flags import COMMANDS, RECIPE_COSTS
from gdfq_tf.config import RECIPES
from gdfq_tf.keras_compat import keras
from tests import ROOT
from tests.command import refusal, run_command
from tests.tiny import INPUT_SHAPE, NUM_CLASSES, build_tiny_classifier
from tflite_export.interpreter import TFLiteClassifier

_layers = keras.layers


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with models, right and wrong, and labelled images."""
    folder = tmp_path_factory.mktemp("inputs")
    build_tiny_classifier().save(folder / "tiny.keras")
    (folder / "corrupt.keras").write_bytes(b"PK\x03\x04 not a zip file")
    (folder / "text.h5").write_text("not HDF5")
    image = keras.Input(INPUT_SHAPE)
    normalization = _layers.BatchNormalization()
    maps = normalization(_layers.Conv2D(4, 3)(image))
    normalization.moving_variance.assign([0.1, 0.2, 0.3, 0.4])
    pooled = _layers.GlobalAveragePooling2D()(maps)
    keras.Model(image, maps).save(folder / "segmenter.keras")
    keras.Model(image, _layers.Dense(3, "sigmoid")(pooled)).save(
        folder / "sigmoid.keras"
    )
    unnormalised = _layers.GlobalAveragePooling2D()(_layers.Conv2D(4, 3)(image))
    keras.Model(image, _layers.Dense(3)(unnormalised)).save(folder / "folded.keras")
    attention = _layers.UnitNormalization()(maps)
    attention = _layers.Dense(3)(_layers.GlobalAveragePooling2D()(attention))
    keras.Model(image, attention).save(folder / "unsupported.keras")
    halved = _layers.Lambda(lambda x: x / 2, name="half")(image)
    keras.Model(image, build_tiny_classifier()(halved)).save(folder / "code.keras")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (30, *INPUT_SHAPE)).astype(np.uint8)
    labels = rng.integers(0, NUM_CLASSES, 30)
    np.savez(folder / "data.npz", x_test=pixels, y_test=labels)
    np.savez(folder / "small.npz", x_test=pixels[:, 1:], y_test=labels)
    np.savez(folder / "classes.npz", x_test=pixels, y_test=labels + 1)
    (folder / "file").write_text("")
    return folder


@pytest.fixture(scope="module")
def run(inputs):
    """The outcome of a run of `gdfq quantize`: (directory, stdout, stderr)."""
    directory = inputs.parent / "runs" / "tiny"
    code, stdout, stderr = run_command(
        "quantize",
        f"--model={inputs / 'tiny.keras'}",
        "--preprocessing=tf",
        "--bits=w8a8,w4a4/paper,w4a8",
        "--num_steps=2",
        f"--output_dir={directory}",
        f"--data={inputs / 'data.npz'}",
        "--num_images=20",
    )
    assert code == 0, stderr
    return directory, stdout, stderr


MODELS = ["tiny_float", "tiny_int8_noise", "tiny_w8a8", "tiny_w4a4_paper", "tiny_w4a8"]


def test_quantize_writes_a_complete_run(run):
    directory, stdout, stderr = run
    files = {f"{name}.tflite" for name in MODELS}
    files |= {f"{name}_student.npz" for name in MODELS[2:]}
    files |= {f"{name}_layers.csv" for name in MODELS[2:]}
    files |= {"summary.json", "synthetic.npz", "report.html", "events.out.tfevents"}
    files |= {"manifest.json"}
    assert {path.name for path in directory.iterdir()} == files
    assert list(directory.parent.iterdir()) == [directory]
    assert "tiny, 20 labelled test images" in stdout
    assert "int8 input: q = pixel - 128" in stdout
    assert "BatchNormalization" not in stdout
    assert f"written to {directory}" in stdout
    for stage in (
        "generator: 2 steps",
        "refinement: 2 steps",  # as much shorter as the generator, of 128 images
        "refinement: 14 steps",  # of 7 x 128 more, for kernels of few bits
        "reconstruction: 4 steps",  # one per kernel
        "evaluation: 5 steps",
    ):
        assert stage in stderr
    assert "Traceback" not in stderr


def test_a_run_for_phones(inputs, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"class {i}\n" for i in range(NUM_CLASSES)))
    directory = tmp_path / "run"
    code, stdout, stderr = run_command(
        "quantize",
        f"--model={inputs / 'tiny.keras'}",
        "--preprocessing=tf",
        "--recipe=calibrate",
        "--bits=w4a8",
        "--input_type=uint8",
        "--output_type=uint8",
        f"--labels={labels}",
        f"--data={inputs / 'data.npz'}",
        f"--output_dir={directory}",
    )
    assert code == 0, stderr
    assert "uint8 input: q = pixel, bytes of the image unchanged, for (" in stdout
    summary = json.loads((directory / "summary.json").read_text())
    file = TFLiteClassifier(directory / "tiny_w4a8.tflite")
    assert file.dtype == np.uint8
    assert summary["classifier"]["uint8_input_quantization"]["zero_point"] == 128
    ours = summary["models"][2]
    output = file.output_quantization
    assert ours["uint8_output"] == {
        "scale": output.scale,
        "zero_point": output.zero_point,
    }
    assert ours["verification"]["student_agreement"]["max_lsb"] == 0
    assert summary["class_names"] == [f"class {i}" for i in range(NUM_CLASSES)]
    with np.load(inputs / "data.npz") as arrays:
        pixels, classes = arrays["x_test"], arrays["y_test"]
    # Bytes as they are give the accuracy of the table.
    top1 = (file.run(pixels).argmax(axis=-1) == classes).mean()
    assert ours["top1"] == pytest.approx(top1)
    code, stdout, stderr = run_command("verify", f"--model={directory}")
    assert code == 0, stderr
    code, _, stderr = run_command(
        "evaluate", f"--model={directory}", f"--data={inputs / 'data.npz'}"
    )
    assert code == 0, stderr
    code, _, stderr = run_command(
        "benchmark", f"--model={directory / 'tiny_w4a8.tflite'}", "--num_runs=1"
    )
    assert code == 0, stderr


def test_the_summary_tells_the_whole_run(run):
    directory, _, _ = run
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["command"][:2] == ["gdfq", "quantize"]
    assert summary["seed"] == 0
    assert summary["recipe"]["name"] == "fast"
    assert summary["recipe"]["synthesis"]["num_steps"] == 2
    assert summary["recipe"]["refinement"]["num_steps"] == 2
    assert summary["classifier"]["input_shape"] == list(INPUT_SHAPE)
    assert summary["classifier"]["num_classes"] == NUM_CLASSES
    assert summary["classifier"]["bn_statistics_used"] is True
    assert [row["file"] for row in summary["models"]] == [f"{x}.tflite" for x in MODELS]
    for row in summary["models"]:
        assert row["size_bytes"] == (directory / row["file"]).stat().st_size
        assert row["num_images"] == 20
        assert 0 <= row["top1"] <= 1
        assert row["latency_ms"] > 0
    timed = [row.get("times_as_long_as_int8", 0) > 0 for row in summary["models"]]
    assert timed == [False, False, False, True, True]
    assert summary["target"] == "litert"
    assert summary["models"][0]["agreement_with_float"] == 1.0
    paper = summary["models"][3]
    assert paper["widths"] == {
        "weight_bits": 4,
        "activation_bits": 4,
        "protocol": "paper",
    }
    assert paper["verification"]["student_agreement"]["max_lsb"] <= 1
    file = TFLiteClassifier(directory / paper["file"])
    assert paper["int8_output"] == file.output_quantization.as_json()
    assert all(rule["passed"] for rule in paper["verification"]["rules"])
    assert summary["versions"]["tensorflow"]
    page = (directory / "report.html").read_text()
    assert "Top-1, measured" in page
    assert f"{100 * summary['models'][0]['top1']:.2f}" in page


def test_evaluate_finds_the_same_top1_in_the_run_directory(run, inputs, tmp_path):
    directory, _, _ = run
    results = tmp_path / "results.json"
    code, stdout, stderr = run_command(
        "evaluate",
        f"--model={directory}",
        f"--data={inputs / 'data.npz'}",
        "--num_images=20",
        f"--result_json={results}",
    )
    assert code == 0, stderr
    rows = {row["title"]: row for row in json.loads(results.read_text())}
    students = {f"{name}_student.npz" for name in MODELS[2:]}
    assert set(rows) == {f"{name}.tflite" for name in MODELS} | students
    summary = json.loads((directory / "summary.json").read_text())
    for row in summary["models"]:
        assert rows[row["file"]]["top1"] == row["top1"]
        assert row["file"] in stdout
    for name in MODELS[2:]:
        student = rows[f"{name}_student.npz"]["top1"]
        # One of 20 images may tip over with an output of 1 LSB.
        assert student == pytest.approx(rows[f"{name}.tflite"]["top1"], abs=0.051)


def test_evaluate_agrees_on_the_float_classifier_and_its_tflite(run, inputs, tmp_path):
    directory, _, _ = run
    lone = tmp_path / "lone.tflite"
    lone.write_bytes((directory / "tiny_float.tflite").read_bytes())
    top1 = []
    for model in (inputs / "tiny.keras", lone):
        results = tmp_path / "results.json"
        code, _, stderr = run_command(
            "evaluate",
            f"--model={model}",
            "--preprocessing=custom",
            "--mean=0.5",
            "--std=0.5,0.5,0.5",
            f"--data={inputs / 'data.npz'}",
            f"--result_json={results}",
        )
        assert code == 0, stderr
        (row,) = json.loads(results.read_text())
        assert row["num_images"] == 30
        top1.append(row["top1"])
    assert top1[0] == top1[1]


@pytest.fixture(scope="module")
def class_folders(tmp_path_factory):
    """The classes that the float model gives 30 images, 0 to 2, named c, b and a."""
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (30, *INPUT_SHAPE)).astype(np.uint8)
    logits = build_tiny_classifier()(pixels / np.float32(127.5) - 1)
    for index, label in enumerate(np.argmax(logits, axis=-1)):
        path = folder / "cba"[label] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        image.fromarray(pixels[index]).save(path)
    for name in "cba":
        (folder / name).mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize(
    ("labels", "order"), [([], "abc"), (["--labels=c,b,a"], "cba")]
)
def test_evaluate_numbers_class_folders_as_told(
    inputs, class_folders, tmp_path, labels, order
):
    code, stdout, stderr = run_command(
        "evaluate",
        f"--model={inputs / 'tiny.keras'}",
        "--preprocessing=tf",
        f"--data={class_folders}",
        f"--result_json={tmp_path / 'results.json'}",
        *labels,
    )
    assert code == 0, stderr
    (row,) = json.loads((tmp_path / "results.json").read_text())
    assert row["class_names"] == list(order)
    assert f"0 {order[0]}, 1 {order[1]}, 2 {order[2]}" in stdout
    assert (row["top1"] == 1.0) is (order == "cba")


def test_quantize_stores_the_numbers_of_class_folders(inputs, class_folders, tmp_path):
    (tmp_path / "labels.txt").write_text("c\nb\na\n")
    code, stdout, stderr = run_command(
        "quantize",
        f"--model={inputs / 'tiny.keras'}",
        "--preprocessing=tf",
        "--bits=w8a8",
        "--recipe=calibrate",
        f"--data={class_folders}",
        f"--labels={tmp_path / 'labels.txt'}",
        f"--output_dir={tmp_path / 'run'}",
    )
    assert code == 0, stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["class_names"] == ["c", "b", "a"]
    assert summary["models"][0]["top1"] == 1.0
    assert "0 c, 1 b, 2 a" in stdout


def test_names_that_are_no_class_folders_are_refused_early(inputs, class_folders):
    stderr = refusal(
        "evaluate",
        f"--model={inputs / 'tiny.keras'}",
        "--preprocessing=tf",
        f"--data={class_folders}",
        "--labels=c,b,x",
        folder=class_folders,
    )
    assert "--labels names c, b, x, and the class folders are a, b, c" in stderr


def test_evaluate_runs_the_code_of_a_file_if_allowed(inputs):
    code, stdout, stderr = run_command(
        "evaluate",
        f"--model={inputs / 'code.keras'}",
        "--preprocessing=tf",
        "--allow_unsafe",
        f"--data={inputs / 'data.npz'}",
    )
    assert code == 0, stderr
    assert "code.keras" in stdout


@pytest.mark.parametrize("name", MODELS[2:])
def test_convert_gives_the_runs_file_again(run, tmp_path, name):
    directory, _, _ = run
    output = tmp_path / "again.tflite"
    arguments = (
        f"--student={directory / f'{name}_student.npz'}",
        f"--output={output}",
        "--num_images=8",
    )
    code, stdout, stderr = run_command("convert", *arguments, "--quiet")
    assert (code, stderr) == (0, "")
    assert stdout.startswith(f"{output}: {output.stat().st_size:,} bytes")
    assert output.read_bytes() == (directory / f"{name}.tflite").read_bytes()
    message = refusal("convert", *arguments, folder=tmp_path)
    assert "--overwrite" in message
    code, _, stderr = run_command("convert", *arguments, "--overwrite")
    assert code == 0, stderr
    assert list(tmp_path.iterdir()) == [output]


def test_benchmark_times_every_file(run, tmp_path):
    directory, _, _ = run
    paths = [str(directory / f"{name}.tflite") for name in MODELS[:3:2]]
    results = tmp_path / "results.json"
    code, stdout, stderr = run_command(
        "benchmark",
        f"--model={','.join(paths)}",
        "--num_runs=3",
        "--warmup_runs=0",
        "--num_threads=2",
        "--profile",
        f"--result_json={results}",
    )
    assert code == 0, stderr
    rows = json.loads(results.read_text())
    assert [row["model"] for row in rows] == paths
    for row in rows:
        latency = row["latency"]
        assert latency["num_runs"] == 3
        assert row["num_threads"] == 2
        assert 0 < latency["min_ms"] <= latency["median_ms"] <= latency["p95_ms"]
        assert row["peak_memory_bytes"] >= 0
        assert {"CONV_2D", "DEPTHWISE_CONV_2D"} < {x["name"] for x in row["operators"]}
        assert pathlib.Path(row["model"]).name in stdout
    assert "2 thread(s), 3 runs after 0 warm-up runs" in stdout


def test_an_earlier_run_is_replaced_on_request_only(run, inputs):
    directory, _, _ = run
    arguments = (
        f"--model={inputs / 'tiny.keras'}",
        "--preprocessing=tf",
        "--bits=w4a8",
        "--num_steps=1",
        f"--output_dir={directory.parent / 'again'}",
    )
    shutil.copytree(directory, directory.parent / "again")
    assert "--overwrite" in refusal("quantize", *arguments, folder=directory.parent)
    code, stdout, stderr = run_command("quantize", *arguments, "--overwrite")
    assert code == 0, stderr
    again = directory.parent / "again"
    assert {path.name for path in again.iterdir()} == {
        "events.out.tfevents",
        "manifest.json",
        "report.html",
        "summary.json",
        "synthetic.npz",
        "tiny_float.tflite",
        "tiny_int8_noise.tflite",
        "tiny_w4a8.tflite",
        "tiny_w4a8_layers.csv",
        "tiny_w4a8_student.npz",
    }
    # Without data there is agreement with the classifier, and no accuracy.
    assert "512 synthetic images" in stdout
    rows = json.loads((again / "summary.json").read_text())["models"]
    assert not any("top1" in row for row in rows)
    assert rows[0]["agreement_with_float"] == 1.0


def unreachable(*args, **kwargs):
    raise AssertionError("work began before the flags had been checked")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--model={inputs}/none.keras"], "none.keras does not exist"),
        (["--model={inputs}/corrupt.keras"], "corrupt.keras is damaged"),
        (["--model={inputs}/text.h5"], "text.h5 is damaged"),
        (["--model={inputs}/data.npz"], "'.npz'"),
        (["--model={inputs}"], "is a directory"),
        (["--model=keras.applications.NoNet"], "keras.applications.NoNet"),
        (["--model={inputs}/segmenter.keras"], "classif"),
        (["--model={inputs}/folded.keras"], "no BatchNormalization layer"),
        (["--model={inputs}/unsupported.keras"], "UnitNormalization"),
        (["--model={inputs}/code.keras"], "--allow_unsafe"),
        (["--preprocessing=custom"], "--mean holds 0 values"),
        (["--preprocessing=custom", "--mean=0", "--std=0"], "--std must be positive"),
        (["--preprocessing=custom", "--mean=0,0", "--std=1"], "--mean holds 2"),
        (["--mean=0.5"], "--preprocessing=custom"),
        (["--weights=imagenet"], "--weights=imagenet"),
        (["--data={inputs}/none.npz"], "none.npz does not exist"),
        (["--data={inputs}/small.npz"], "(7, 8, 3)"),
        (["--data={inputs}/classes.npz"], "labels reach from 1 to 3"),
        (["--output_dir={inputs}"], "exists"),
        (["--output_dir={inputs}", "--overwrite"], "no summary.json"),
        (["--output_dir={inputs}/file/run"], "not a writable directory"),
    ],
)
def test_quantize_refuses_in_one_line_before_any_work(inputs, arguments, named):
    message = refusal(
        "quantize",
        f"--model={inputs / 'tiny.keras'}",
        "--preprocessing=tf",
        f"--output_dir={inputs / 'run'}",
        *(argument.format(inputs=inputs) for argument in arguments),
        folder=inputs,
        quantize=unreachable,
    )
    assert named in message


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--bits=w9a8"], "got 9"),
        (["--bits=w4a2"], "got 2"),
        (["--bits=foo"], "'foo'"),
        (["--bits="], "--bits="),
        (["--bits=w8a8,w8a8"], "once"),
        (["--num_steps=0"], "--num_steps=0"),
        (["--recipe=calibrate", "--num_steps=5"], "'calibrate' trains nothing"),
        (["--preprocessing=custom", "--mean=a", "--std=1"], "--mean=a must be num"),
        (["--model=embedded"], "--preprocessing does not go with --model=embedded"),
        (["--max_accuracy_loss=nan"], "--max_accuracy_loss=nan"),
        (["--max_latency_ratio=nan"], "--max_latency_ratio=nan"),
    ],
)
def test_flags_that_do_not_go_together_are_told_at_once(inputs, arguments, named):
    message = refusal(
        "quantize",
        f"--model={inputs / 'tiny.keras'}",
        "--preprocessing=tf",
        f"--output_dir={inputs / 'run'}",
        *arguments,
        folder=inputs,
        code=2,
    )
    assert named in message


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--model"),
        (["--model=m.keras"], "--output_dir"),
        (["--model=m", "--output_dir=o", "--preprocessing=foo"], "<tf|torch|caffe"),
        (
            ["--model=m", "--output_dir=o", "--recipe=b"],
            "<fast|balanced|best|calibrate|gdfq>",
        ),
        (["--model=m", "--output_dir=o", "--seed=-1"], "--seed=-1"),
        (
            ["--model=m", "--output_dir=o", "--max_accuracy_loss=-1"],
            "--max_accuracy_loss=-1",
        ),
        (
            ["--model=m", "--output_dir=o", "--max_accuracy_loss=x"],
            "--max_accuracy_loss=x",
        ),
        (["--model=m", "--output_dir=o", "--max_bytes=0"], "--max_bytes=0"),
        (
            ["--model=m", "--output_dir=o", "--max_latency_ratio=0.9"],
            "--max_latency_ratio=0.9",
        ),
        (["--model=m", "--output_dir=o", "--seed=10000000000"], "--seed"),
        (["--model=m", "--output_dir=o", "--num_images=0"], "--num_images=0"),
        (["--model=m", "--output_dir=o", "--bit=w8a8"], "'bit'"),
    ],
)
def test_wrong_flags_are_one_line(tmp_path, arguments, named):
    assert named in refusal("quantize", *arguments, folder=tmp_path, code=2)


def test_files_without_preprocessing_ask_for_it(inputs):
    message = refusal(
        "quantize",
        f"--model={inputs / 'folded.keras'}",
        "--without_bn_statistics",
        f"--output_dir={inputs / 'run'}",
        folder=inputs,
        quantize=unreachable,
    )
    assert "--preprocessing: one of tf, torch, caffe" in message


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--keep_layers=conv9"], "--keep_layers=conv9 matches no layer"),
        (["--keep_layers=conv1,relu1"], "--keep_layers=relu1 matches no layer"),
        (["--recipe=gdfq", "--max_accuracy_loss=1"], "recipe 'gdfq'"),
        (["--bits=w8a8", "--max_bytes=9999"], "such as w4a8 besides"),
    ],
)
def test_mixed_precision_that_does_not_fit_is_refused_in_one_line(
    inputs, arguments, named
):
    message = refusal(
        "quantize",
        f"--model={inputs / 'tiny.keras'}",
        "--preprocessing=tf",
        f"--output_dir={inputs / 'run'}",
        *arguments,
        folder=inputs,
    )
    assert named in message


def test_kept_layers_are_told_in_the_table_and_the_summary(inputs, tmp_path):
    directory = tmp_path / "mixed"
    code, stdout, stderr = run_command(
        "quantize",
        f"--model={inputs / 'tiny.keras'}",
        "--preprocessing=tf",
        "--bits=w8a8,w4a8/paper",
        "--recipe=calibrate",
        "--keep_layers=logits,conv?",
        f"--output_dir={directory}",
    )
    assert code == 0, stderr
    assert "kernels at 8 bits in w4a8_paper conv1, conv3, logits\n" in stdout
    assert "at 8 bits in w8a8" not in stdout
    summary = json.loads((directory / "summary.json").read_text())
    row = summary["models"][-1]
    assert row["layers_at_8_bits"] == ["conv1", "conv3", "logits"]
    assert row["estimate"]["num_images"] == 96  # a quarter of 384
    estimate = row["estimate"]
    agrees = f"agrees on {100 * estimate['agreement']:.1f} % of 96 synthetic images"
    assert f"w4a8_paper {agrees}" in stdout
    loss, largest = estimate["accuracy_loss"], estimate["largest_accuracy_loss"]
    assert f"loses about {loss:.1f} points ({largest:.1f} at worst," in stdout
    assert summary["recipe"]["name"] == "calibrate"
    # No step of any generator.
    assert "generator" not in stderr
    assert "recipe calibrate has no images but noise" in stdout
    assert "a longer --recipe" not in stdout


def test_a_run_without_statistics_says_so(inputs, tmp_path):
    directory = tmp_path / "folded"
    code, stdout, stderr = run_command(
        "quantize",
        f"--model={inputs / 'folded.keras'}",
        "--without_bn_statistics",
        "--preprocessing=tf",
        "--bits=w8a8",
        "--recipe=fast",
        "--num_steps=2",
        f"--output_dir={directory}",
    )
    assert code == 0, stderr
    assert "no BatchNormalization statistics were used" in stdout
    assert "a longer --recipe" not in stdout  # at 8 bits
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["classifier"]["bn_statistics_used"] is False


def test_multi_label_networks_are_compared_label_by_label(inputs, tmp_path):
    arguments = [
        "quantize",
        f"--model={inputs / 'sigmoid.keras'}",
        "--preprocessing=tf",
        "--bits=w8a8",
        "--recipe=calibrate",
        f"--output_dir={tmp_path / 'run'}",
    ]
    data = f"--data={inputs / 'data.npz'}"
    message = refusal(*arguments, data, folder=tmp_path, quantize=unreachable)
    assert "--data holds one class per image" in message
    code, stdout, stderr = run_command(*arguments)
    assert code == 0, stderr
    assert re.search(r"w8a8 agrees on \d+\.\d % of labels", stdout)
    assert "labels as in float" in stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    row = summary["models"][-1]
    assert 0.5 < row["estimate"]["label_agreement"] <= 1
    assert 0.5 < row["label_agreement_with_float"] <= 1
    assert summary["models"][0]["label_agreement_with_float"] == 1
    for model in (inputs / "sigmoid.keras", tmp_path / "run"):
        arguments = ["evaluate", f"--model={model}", "--preprocessing=tf", data]
        message = refusal(*arguments, folder=tmp_path)
        assert "--data holds one class per image" in message


def test_features_are_compared_by_their_error(inputs, tmp_path):
    directory = tmp_path / "run"
    code, stdout, stderr = run_command(
        "quantize",
        f"--model={inputs / 'segmenter.keras'}",
        "--task=features",
        "--preprocessing=tf",
        "--bits=w8a8",
        "--recipe=calibrate",
        f"--output_dir={directory}",
    )
    assert code == 0, stderr
    assert re.search(r"w8a8 signal \d+\.\d dB above error", stdout)
    assert "signal to error" in stdout
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["classifier"]["head"] == "features"
    row = summary["models"][-1]
    assert row["estimate"]["signal_to_noise_db"] > 20
    assert row["signal_to_noise_db"] > 20
    assert summary["models"][0]["signal_to_noise_db"] > 90


def test_a_training_that_breaks_leaves_nothing_behind(inputs, tmp_path):
    classifier = build_tiny_classifier()
    layer = classifier.get_layer("logits")
    layer.set_weights([1e30 * weight for weight in layer.get_weights()])
    classifier.save(tmp_path / "huge.keras")
    before = list(tmp_path.iterdir())
    code, stdout, stderr = run_command(
        "quantize",
        f"--model={tmp_path / 'huge.keras'}",
        "--preprocessing=uint8",
        "--num_steps=2",
        f"--output_dir={tmp_path / 'run'}",
    )
    assert (code, stdout) == (1, "")
    assert stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == before


@pytest.fixture
def damaged(run, tmp_path):
    """A folder of files that are cut short or something else."""
    directory, _, _ = run
    student = (directory / "tiny_w8a8_student.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(student[: len(student) // 2])
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.tflite").write_text("not a model")
    for name, text in (("bad", "{"), ("foreign", "{}"), ("list", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(text)
    lone = (directory / "tiny_w8a8.tflite").read_bytes()
    (tmp_path / "lone.tflite").write_bytes(lone)
    (tmp_path / "foreign" / "x.tflite").write_bytes(lone)
    return tmp_path


@pytest.mark.parametrize(
    ("model", "arguments", "named"),
    [
        ("none.tflite", [], "none.tflite"),
        ("none.npz", [], "none.npz does not exist"),
        ("none.keras", [], "none.keras does not exist"),
        ("text.tflite", [], "LiteRT refuses"),
        ("cut.npz", [], "cut.npz is not a student file or is damaged"),
        ("other.npz", [], "other.npz is not a student file"),
        ("array.npz", [], "array.npz is not a student file"),
        ("empty.npz", [], "empty.npz is not a student file"),
        ("bad", [], "summary.json is missing or damaged"),
        ("foreign", [], "summary.json is missing or damaged"),
        ("list", [], "summary.json is missing or damaged"),
        ("foreign/x.tflite", [], "pass --preprocessing"),
        (".", [], "summary.json is missing or damaged"),
        ("lone.tflite", [], "pass --preprocessing"),
        ("lone.tflite", ["--preprocessing=tf", "--mean=1"], "'custom' only"),
        (
            "lone.tflite",
            ["--preprocessing=tf", "--data={inputs}/classes.npz"],
            "labels up to 3",
        ),
        (
            "lone.tflite",
            ["--preprocessing=tf", "--data={inputs}/small.npz"],
            "(7, 8, 3)",
        ),
        (
            "lone.tflite",
            ["--preprocessing=tf", "--data={inputs}/none.npz"],
            "none.npz does not exist",
        ),
        (
            "lone.tflite",
            ["--preprocessing=tf", "--result_json={inputs}/none/x.json"],
            "x.json cannot be written",
        ),
    ],
)
def test_evaluate_refuses_in_one_line(damaged, inputs, model, arguments, named):
    message = refusal(
        "evaluate",
        f"--model={damaged / model}",
        f"--data={inputs / 'data.npz'}",
        *(argument.format(inputs=inputs) for argument in arguments),
        folder=damaged,
    )
    assert named in message


def test_evaluate_asks_for_data(inputs):
    model = f"--model={inputs / 'tiny.keras'}"
    message = refusal("evaluate", model, folder=inputs, code=2)
    assert "--data is missing" in message


@pytest.mark.parametrize(
    ("student", "output", "named"),
    [
        ("none.npz", "x.tflite", "none.npz does not exist"),
        ("cut.npz", "x.tflite", "cut.npz is not a student file"),
        ("other.npz", "x.tflite", "other.npz is not a student file"),
        ("lone.tflite", "x.tflite", "lone.tflite is not a student file"),
        ("cut.npz", "bad", "bad exists"),
        ("cut.npz", "lone.tflite", "--overwrite"),
    ],
)
def test_convert_refuses_in_one_line(damaged, student, output, named):
    message = refusal(
        "convert",
        f"--student={damaged / student}",
        f"--output={damaged / output}",
        folder=damaged,
    )
    assert named in message


@pytest.mark.parametrize("output", ["none/x.tflite", "lone.tflite/x.tflite", "bad"])
def test_convert_says_where_it_cannot_write(run, damaged, output):
    directory, _, _ = run
    message = refusal(
        "convert",
        f"--student={directory / 'tiny_w8a8_student.npz'}",
        f"--output={damaged / output}",
        "--num_images=1",
        "--overwrite",
        folder=damaged,
    )
    assert f"{damaged / output} cannot be written" in message


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--model={folder}/none.tflite"], 1, "none.tflite"),
        (["--model={folder}/text.tflite"], 1, "LiteRT refuses"),
        (["--model={folder}/bad"], 1, "cannot read"),
        (["--model="], 2, "--model"),
        ([], 2, "--model"),
        (["--model={folder}/lone.tflite", "--num_runs=0"], 2, "--num_runs=0"),
        (["--model={folder}/lone.tflite", "--num_threads=0"], 2, "--num_threads=0"),
        (
            ["--model={folder}/lone.tflite", "--result_json={folder}/none/x.json"],
            1,
            "x.json cannot be written",
        ),
    ],
)
def test_benchmark_refuses_in_one_line(damaged, arguments, code, named):
    message = refusal(
        "benchmark",
        *(argument.format(folder=damaged) for argument in arguments),
        folder=damaged,
        code=code,
    )
    assert named in message


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        (
            "quantize",
            "model weights input_size output_name constant_inputs allow_unsafe "
            "preprocessing mean std input_range task without_bn_statistics bits recipe "
            "num_steps keep_layers max_accuracy_loss max_bytes max_latency_ratio seed "
            "num_threads output_dir overwrite fresh from_manifest images distribution "
            "data labels num_images target input_type output_type",
        ),
        (
            "evaluate",
            "model weights input_size output_name constant_inputs allow_unsafe "
            "preprocessing mean std input_range task without_bn_statistics data labels "
            "num_images result_json",
        ),
        (
            "convert",
            "student output overwrite target input_type output_type labels num_images",
        ),
        (
            "benchmark",
            "model num_threads num_runs warmup_runs profile device result_json",
        ),
        ("verify", "model student target input_type output_type labels num_images"),
        ("report", "run"),
    ],
)
def test_help_lists_the_flags_of_a_command_and_no_others(name, flags):
    code, stdout, stderr = run_command(name, "--help")
    assert (code, stderr) == (0, "")
    expected = {*flags.split(), "verbosity", "quiet"}
    assert set(re.findall(r"^  --(\w+)", stdout, re.MULTILINE)) == expected
    assert f"gdfq {name} " in stdout
    assert max(map(len, stdout.splitlines())) <= 100


def test_help_tells_what_each_recipe_costs():
    assert RECIPE_COSTS.keys() == RECIPES.keys()
    _, stdout, _ = run_command("quantize", "--help")
    text = " ".join(stdout.split())
    for name, cost in RECIPE_COSTS.items():
        assert f"{name}: {cost}" in text


def test_a_path_needs_no_flag(run, tmp_path):
    directory, _, _ = run
    file = directory / "tiny_w8a8.tflite"
    other = directory / "tiny_w4a8.tflite"
    code, stdout, stderr = run_command("benchmark", file, "--num_runs=1", other)
    assert code == 0, stderr
    # What their names have in common is left out.
    assert re.findall(r"^ +(w\da\d) ", stdout, re.MULTILINE) == ["w8a8", "w4a8"]
    message = refusal("verify", file, other, folder=tmp_path, code=2)
    assert f"unexpected argument '{other}'" in message


def test_home_is_written_as_a_tilde(run, tmp_path, monkeypatch):
    directory, _, _ = run
    monkeypatch.setenv("HOME", str(tmp_path))
    student = directory / "tiny_w8a8_student.npz"
    code, _, stderr = run_command("convert", student, "--output=~/x.tflite")
    assert code == 0, stderr
    assert (tmp_path / "x.tflite").exists()


def gdfq(*arguments: str, **options) -> subprocess.CompletedProcess:
    program = "from gdfq_tf.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        **options,
    )


def test_the_console_command_lists_its_commands():
    done = gdfq("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{command.summary}$", done.stdout, re.MULTILINE)
    assert gdfq().stdout == done.stdout


def test_unknown_commands_are_one_line():
    done = gdfq("quantise", "x.keras")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: 'quantise' is no command; expected one of {', '.join(COMMANDS)}\n"
    )


def test_help_survives_a_reader_of_its_first_lines():
    done = subprocess.run(
        f"{sys.executable} tools/quantize.py --help | head -n 1",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{COMMANDS['quantize'].summary}\n"
    assert done.stderr == ""


def test_tools_run_as_programs():
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "tools/verify.py", "none.tflite", "--student=none.npz"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    # Nothing of TensorFlow's own.
    starting, started, *_, last = done.stderr.splitlines()
    assert starting == "starting TensorFlow"
    assert started.startswith("starting TensorFlow: ")
    assert last.startswith("error: ")
