"""`--constant_inputs`: what it takes, and that runs and evaluations heed it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gdfq_tf.cli.flags import COMMANDS
from gdfq_tf.errors import UserError
from gdfq_tf.keras_compat import keras
from tests.command import refusal, run_command

_layers = keras.layers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network with a mask and a temperature, images, and values for the mask."""
    folder = tmp_path_factory.mktemp("inputs")
    image, mask, temperature = (
        keras.Input(shape, name=name)
        for name, shape in (("image", (8, 8, 3)), ("mask", (8, 8, 1)), ("heat", (1,)))
    )
    normalization = _layers.BatchNormalization()
    x = normalization(_layers.Conv2D(4, 3, padding="same")(image))
    normalization.moving_variance.assign([0.1, 0.2, 0.3, 0.4])
    x = _layers.Multiply()([mask, _layers.ReLU()(x)])
    x = _layers.Dense(3)(_layers.GlobalAveragePooling2D()(x)) / temperature
    model = keras.Model([image, mask, temperature], _layers.Softmax()(x))
    model.save(folder / "net.keras")
    rng = np.random.default_rng(0)
    np.save(folder / "mask.npy", rng.random((8, 8, 1)) > 0.5)
    np.save(folder / "objects.npy", np.array([{}]), allow_pickle=True)
    (folder / "text.npy").write_text("no array")
    np.savez(
        folder / "data.npz",
        x_test=rng.integers(0, 256, (12, 8, 8, 3)).astype(np.uint8),
        y_test=np.arange(12) % 3,
    )
    return folder


def arguments(folder, constants):
    return (
        f"--model={folder / 'net.keras'}",
        "--preprocessing=unit",
        f"--constant_inputs={constants}",
    )


def test_a_run_states_what_was_bound_and_evaluate_binds_the_same(folder, tmp_path):
    bound = arguments(folder, f"mask={folder / 'mask.npy'},heat=2")
    data = f"--data={folder / 'data.npz'}"
    code, _, stderr = run_command(
        "quantize",
        *bound,
        data,
        "--bits=w8a8",
        "--recipe=calibrate",
        f"--output_dir={tmp_path / 'run'}",
    )
    assert code == 0, stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["classifier"]["constant_inputs"] == {
        "mask": "(8, 8, 1) of 0 to 1",
        "heat": 2.0,
    }
    result = tmp_path / "result.json"
    code, _, stderr = run_command("evaluate", *bound, data, f"--result_json={result}")
    assert code == 0, stderr
    (row,) = json.loads(result.read_text())
    assert row["top1"] == summary["models"][0]["top1"]


def test_the_advice_works_as_it_stands(folder):
    command = (f"--model={folder / 'net.keras'}", "--preprocessing=unit")
    data = f"--data={folder / 'data.npz'}"
    text = refusal("evaluate", *command, data, folder=folder)
    assert "as in --constant_inputs=mask=1,heat=1, or" in text
    advised = "--constant_inputs=mask=1,heat=1"
    assert run_command("evaluate", *command, data, advised)[0] == 0


@pytest.mark.parametrize(
    ("constants", "reason"),
    [
        ("mask={}/none.npy,heat=1", "none.npy, of --constant_inputs, cannot be read: "),
        ("mask={}/text.npy,heat=1", "cannot be read: "),
        ("mask={}/objects.npy,heat=1", "expected an array that np.save wrote"),
        ("mask=1,heat=nan", "input 'heat' values that are not finite"),
    ],
)
def test_values_that_are_none_are_refused_in_one_line(folder, constants, reason):
    given = arguments(folder, constants.format(folder))
    data = f"--data={folder / 'data.npz'}"
    assert reason in refusal("evaluate", *given, data, folder=folder)


@pytest.mark.parametrize("constants", ["mask", "mask=", "=1", "mask=one", "a=1,a=2"])
def test_what_is_no_name_and_value_is_told_at_once(constants):
    flags = ["--model=net.keras", "--data=x", f"--constant_inputs={constants}"]
    with pytest.raises(UserError, match="must be names of inputs, each once with a"):
        COMMANDS["evaluate"].parse(flags)


def test_the_embedded_classifier_has_no_other_inputs():
    flags = ["--model=embedded", "--constant_inputs=mask=1"]
    with pytest.raises(UserError, match="constant_inputs does not go with model='emb"):
        COMMANDS["evaluate"].parse(flags)
