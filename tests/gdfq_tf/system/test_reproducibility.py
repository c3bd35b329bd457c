"""What a process had before, it has afterwards; inside, a seed decides all."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config

from gdfq_tf.keras_compat import keras
from gdfq_tf.system.reproducibility import reproducible
from tests import ROOT


def draw() -> list[float]:
    """One number of each source that a process shares."""
    return [
        random.random(),
        float(np.random.rand()),
        float(tf.random.uniform(())),
        float(keras.initializers.GlorotUniform()((1, 1))[0, 0]),
    ]


def test_random_numbers_go_on_as_if_nothing_had_been():
    def numbers(between) -> list[list[float]]:
        keras.utils.set_random_seed(5)
        first = draw()
        between()
        return [first, draw()]

    def work():
        with reproducible(1):
            draw()

    assert numbers(work) == numbers(lambda: None)


def test_the_seed_decides():
    def drawn(seed: int) -> list[float]:
        with reproducible(seed):
            return draw()

    assert drawn(1) == drawn(1)
    assert not set(drawn(1)) & set(drawn(2))


@pytest.mark.parametrize("fails", [False, True])
def test_determinism_and_optimizer_options_are_put_back(fails):
    options = tf.config.optimizer.get_experimental_options()
    assert not config.is_op_determinism_enabled()
    try:
        with reproducible(0):
            assert config.is_op_determinism_enabled()
            inside = tf.config.optimizer.get_experimental_options()
            assert inside["disable_meta_optimizer"]
            if fails:
                raise ValueError("stopped")
    except ValueError:
        assert fails
    assert not config.is_op_determinism_enabled()
    after = tf.config.optimizer.get_experimental_options()
    assert after["disable_meta_optimizer"] == options.get(
        "disable_meta_optimizer", False
    )


def test_gpus_are_not_asked_for_what_they_lack(monkeypatch):
    """There, TensorFlow refuses gradients that every run needs."""
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [kind])
    with reproducible(0):
        assert not config.is_op_determinism_enabled()


def test_determinism_that_was_on_stays_on():
    """In a process that never drew a random number."""
    program = (
        "import tensorflow as tf\n"
        "from tensorflow.python.framework import config\n"
        "from gdfq_tf.system.reproducibility import reproducible\n"
        "tf.config.experimental.enable_op_determinism()\n"
        "with reproducible(0): pass\n"
        "assert config.is_op_determinism_enabled()\n"
        "with reproducible(0): pass\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
