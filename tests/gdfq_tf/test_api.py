"""`gdfq_tf.quantize` as people call it, and what it does to their process."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import gdfq_tf
from gdfq_tf.keras_compat import import_keras_3, keras
from gdfq_tf.recording import times_resumed
from gdfq_tf.system.file_system import lock_directory
from tests import ROOT
from tests.checkpoints import KilledError
from tests.tiny import build_tiny_classifier

# What a library must not change: seeds, determinism, tf.keras, the environment,
# filters of warnings, levels of loggers.
_STATE = """
import os, random, sys, warnings, logging
import numpy as np
import tensorflow as tf
from tensorflow.python.framework import config
tf.random.set_seed(3); np.random.seed(3); random.seed(3)

def state():
    return [
        dict(os.environ), list(warnings.filters), random.getstate()[1][:5],
        np.random.get_state()[1][:5].tolist(), config.is_op_determinism_enabled(),
        tf.config.optimizer.get_experimental_options(), tf.keras.__version__,
        logging.getLogger("tensorflow").level, logging.getLogger("absl").level,
        logging.getLogger().handlers[:],
    ]

before = state()
import gdfq_tf
result = gdfq_tf.quantize(
    sys.argv[1], bits="w8a8", preprocessing="tf", recipe="calibrate", progress=False
)
now = state()
for then, after in zip(before, now):
    assert then == after, (then, after)
expected = tf.random.uniform(()), np.random.rand(), random.random()
tf.random.set_seed(3); np.random.seed(3); random.seed(3)
assert expected == (tf.random.uniform(()), np.random.rand(), random.random())
print(repr(result))
"""


FAST = gdfq_tf.RECIPES["fast"]


@pytest.fixture(scope="module")
def model():
    return build_tiny_classifier()


def quantize(model, **options):
    options = {"recipe": "calibrate", "bits": "w8a8", "progress": False, **options}
    return gdfq_tf.quantize(model, preprocessing="tf", **options)


def test_files_live_models_and_classifiers_give_the_same_bytes(model, tmp_path):
    model.save(tmp_path / "tiny.keras")
    of_file = quantize(tmp_path / "tiny.keras")["w8a8"]
    assert of_file.agreement.max_lsb <= 1
    assert quantize(model)["w8a8"].tflite == of_file.tflite
    classifier = gdfq_tf.load_classifier(model, preprocessing="tf")
    result = gdfq_tf.quantize(
        classifier, recipe="calibrate", bits=["w8a8"], progress=False
    )
    assert result["w8a8"].tflite == of_file.tflite


def test_live_keras_3_models_are_taken_and_left_as_they_were():
    k = import_keras_3()
    image = k.Input((8, 8, 3))
    x = k.layers.Conv2D(4, 3, name="conv")(image)
    x = k.layers.BatchNormalization(name="bn")(x)
    x = k.layers.GlobalAveragePooling2D()(k.layers.ReLU()(x))
    network = k.Model(image, k.layers.Dense(3, name="logits")(x))
    network.get_layer("bn").moving_variance.assign(np.array([0.1, 0.2, 0.3, 0.4]))
    before = [np.array(weight) for weight in network.get_weights()]
    config = network.get_config()
    result = quantize(network)
    assert result["w8a8"].layers[0].name == "conv"
    for now, then in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert network.get_config() == config


def test_options_mean_what_they_mean_on_the_command_line(model):
    result = quantize(model, bits=["w4a8/paper"], keep_layers="conv1,logits", seed=5)
    assert result["w4a8/paper"].layers_at_8_bits == {"conv1", "logits"}
    assert result.job.seed == 5
    tflm = quantize(model, bits="w4a8/paper", target="tflm")["w4a8/paper"]
    assert tflm.network.ops[-1].kind == "dense_convolution"
    pool = gdfq_tf.ImagePool(np.zeros((8, 8, 8, 3), np.uint8), np.zeros(8, np.int32))
    assert len(quantize(model, pool=pool).images) == 6


@pytest.mark.parametrize(
    ("options", "named", "option"),
    [
        ({"bits": "w9a8"}, "got 9", "bits"),
        ({"bits": []}, "at least one width", "bits"),
        ({"recipe": "slow"}, "recipe 'slow' is unknown", None),
        ({"num_steps": 0, "recipe": "fast"}, "num_steps", "num_steps"),
        ({"keep_layers": ["x"]}, "keep_layers='x' matches no layer", "keep_layers"),
        ({"max_accuracy_loss": -1.0}, "max_accuracy_loss=-1.0", "max_accuracy_loss"),
        ({"max_bytes": 0}, "max_bytes=0 must be a number of bytes, 1 or", "max_bytes"),
        (
            {"max_latency_ratio": 2.0, "bits": "w8a8,w5a8"},
            "max_latency_ratio is held by the choice between 4 and 8 bits",
            "max_latency_ratio",
        ),
        ({"target": "tpu"}, "target='tpu' is unknown; expected one of", "target"),
        (
            {"target": "ethos-u", "bits": "w8a8,w4a8"},
            "target='ethos-u' does not take bits='w4a8': Vela stops at INT4 kernels; "
            "take bits='w8a8'",
            "bits",
        ),
        (
            {"recipe": gdfq_tf.RECIPES["fast"], "num_steps": 3},
            "num_steps=3",
            "num_steps",
        ),
    ],
)
def test_mistakes_are_errors_that_name_the_option(model, options, named, option):
    with pytest.raises(gdfq_tf.UserError) as error:
        quantize(model, **options)
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    if option is not None:
        assert option in error.value.options


def test_a_layer_that_the_target_does_not_take_is_refused_at_once(monkeypatch):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.Activation("gelu", name="curve")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    network = keras.Model(inputs, keras.layers.Dense(3)(x))

    def work(*arguments):
        raise AssertionError

    monkeypatch.setattr("gdfq_tf.pipeline.make_baselines", work)
    with pytest.raises(gdfq_tf.UserError) as error:
        quantize(network, target="tflm", without_bn_statistics=True)
    assert (
        "target='tflm' with bits='w8a8': layer 'curve' is a gelu: it has no GELU"
        in str(error.value)
    )


STAGES = [
    "loading",
    "baselines",
    "calibration",
    "reconstruction",
    "conversion",
    "verification",
    "estimation",
]


def test_progress_is_shown_on_standard_error_and_nothing_else(model, capfd, caplog):
    with caplog.at_level(logging.INFO, logger="gdfq_tf"):
        quantize(model, progress=True)
    stdout, stderr = capfd.readouterr()
    assert stdout == ""
    names = [re.split("[:,]", line)[0] for line in stderr.splitlines()]
    assert names[::2] == names[1::2]
    # Others are too short to be shown, unless the machine is slow.
    assert names[::2] == [name for name in STAGES if name in names]
    assert {"loading", "baselines", "reconstruction"} <= {*names}
    assert "w8a8" in caplog.text
    quantize(model)
    assert capfd.readouterr() == ("", "")


def test_the_process_is_left_as_it_was(model, tmp_path):
    model.save(tmp_path / "tiny.keras")
    done = subprocess.run(
        [sys.executable, "-c", _STATE, str(tmp_path / "tiny.keras")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<tiny, recipe calibrate")


def test_importing_takes_half_a_second_at_most():
    program = (
        "import sys, time; start = time.monotonic(); import gdfq_tf; "
        "assert 'tensorflow' not in sys.modules; print(time.monotonic() - start)"
    )
    # The best of three: other tests run beside.
    took = min(
        float(
            subprocess.run(
                [sys.executable, "-c", program],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for _ in range(3)
    )
    assert took < 0.5


def test_public_names_are_all_there():
    for name in gdfq_tf.__all__:
        assert getattr(gdfq_tf, name).__doc__ or name == "RECIPES"
    assert set(dir(gdfq_tf)) == set(gdfq_tf.__all__)
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        gdfq_tf.quantise  # noqa: B018


def test_keras_2_is_not_the_callers_keras():
    assert keras.__version__.startswith("2.")
    assert import_keras_3().__version__.startswith("3.")


def test_a_saved_run_is_made_again_from_its_manifest(model, tmp_path):
    """Of what was an object the manifest has only the name and the digest."""
    result = quantize(model, bits="w8a8", seed=3)
    directory = result.save(tmp_path / "run")
    with pytest.raises(gdfq_tf.UserError, match="does not hold model of the earlier"):
        gdfq_tf.quantize_from_manifest(directory)
    again = gdfq_tf.quantize_from_manifest(directory, model=model, progress=False)
    assert again["w8a8"].tflite == result["w8a8"].tflite
    assert again.manifest == result.manifest
    with pytest.raises(gdfq_tf.UserError, match="made from a network of"):
        other = build_tiny_classifier(seed=1)
        gdfq_tf.quantize_from_manifest(directory, model=other, progress=False)


class KilledIn:
    """Progress that ends the process, as it were, where a stage begins."""

    def __init__(self, stage):
        self.stage_of_death = stage

    def expect(self, stages):
        pass

    @contextlib.contextmanager
    def stage(self, name, total, images_per_step=0.0):
        if name == self.stage_of_death:
            raise KilledError
        yield lambda n=1, **metrics: None


def test_a_call_goes_on_where_a_killed_one_was(model, tmp_path):
    unbroken, state = quantize(model), tmp_path / "state" / "tiny"
    with pytest.raises(KilledError):
        quantize(model, progress=KilledIn("verification"), state_dir=state)
    (kept,) = state.iterdir()
    made = sorted(path.name.partition("-")[0] for path in kept.glob("*.state"))
    assert made == ["baselines", "conversion", "reconstruction"]
    resumed = quantize(model, state_dir=str(state))
    assert resumed["w8a8"].tflite == unbroken["w8a8"].tflite
    assert times_resumed(resumed.stages) == 1
    assert resumed.manifest == unbroken.manifest
    assert not state.exists()


def test_images_go_on_too(model, tmp_path):
    state, recipe = tmp_path / "state", gdfq_tf.get_recipe("fast", num_steps=1)
    options = {"preprocessing": "tf", "recipe": recipe, "num_images": 8}
    with pytest.raises(KilledError):
        gdfq_tf.synthesize(
            model, **options, progress=KilledIn("refinement"), state_dir=state
        )
    assert len(list(state.glob("*/generator-*.state"))) == 1
    resumed = gdfq_tf.synthesize(model, **options, progress=False, state_dir=state)
    assert resumed.pixels.shape == (8, 8, 8, 3)
    assert not state.exists()


def test_a_state_directory_is_for_one_call_and_for_nothing_else(model, tmp_path):
    descriptor = lock_directory(tmp_path)
    with pytest.raises(gdfq_tf.UserError, match="is in use by another run; wait") as e:
        quantize(model, state_dir=tmp_path)
    assert e.value.options == ("state_dir",)
    os.close(descriptor)
    letter = tmp_path / "letter.txt"
    letter.write_text("private")
    with pytest.raises(gdfq_tf.UserError, match=r"holds letter\.txt, which no inter"):
        quantize(model, state_dir=tmp_path)
    with pytest.raises(gdfq_tf.UserError, match="no directory that can be written"):
        quantize(model, state_dir=letter)
    assert letter.read_text() == "private"


def test_images_are_made_alone(model):
    options = {"preprocessing": "tf", "recipe": "calibrate", "progress": False}
    images = gdfq_tf.synthesize(model, num_images=10, seed=1, **options)
    assert images.pixels.shape == (10, 8, 8, 3)
    again = gdfq_tf.synthesize(model, num_images=10, seed=1, **options)
    np.testing.assert_array_equal(images.pixels, again.pixels)
