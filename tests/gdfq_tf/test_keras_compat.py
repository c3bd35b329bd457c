"""What importing the library leaves of the process, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests import ROOT

_LIBRARY = "from gdfq_tf.quantization.student import build_student"
_KERAS_2 = "tf_keras.src.engine.training"
_KERAS_3 = "keras.src.models.model"


def run(program: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("TF_USE_LEGACY_KERAS", "KERAS_BACKEND")
    }
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**clean, **environment, "CUDA_VISIBLE_DEVICES": "-1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "expected", "first"),
    [
        ({}, _KERAS_3, ""),
        ({}, _KERAS_3, "tensorflow.keras.Model"),
        ({"KERAS_BACKEND": "tensorflow"}, _KERAS_3, ""),
        ({"KERAS_BACKEND": "tensorflow"}, _KERAS_3, "tensorflow.keras.Model"),
        ({"TF_USE_LEGACY_KERAS": "1"}, _KERAS_2, ""),
        ({"TF_USE_LEGACY_KERAS": "1"}, _KERAS_2, "tensorflow.keras.Model"),
    ],
)
def test_tf_keras_is_what_the_caller_asked_for(environment, expected, first):
    done = run(
        "import os, warnings\n"
        "import tensorflow, tf_keras, scipy.special\n"
        f"{first}\n"
        "environment, filters = dict(os.environ), list(warnings.filters)\n"
        f"{_LIBRARY}\n"
        "assert dict(os.environ) == environment\n"
        "assert warnings.filters == filters\n"
        "import tensorflow as tf\n"
        "from tensorflow_model_optimization.python.core.keras import compat\n"
        "print(tf.keras.Model.__module__, compat.keras.Model.__module__)",
        **environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [expected, _KERAS_2]


_JAX = """
import sys, types
sys.modules["keras"] = keras = types.ModuleType("keras")
class Model: pass
keras.Model, keras.__version__ = Model, "3.15.1"
keras.config = types.SimpleNamespace(backend=lambda: "jax")
"""
_REFUSED = """
from gdfq_tf.errors import UserError
from gdfq_tf.keras_compat import import_keras_3, library_of_model
try:
    {call}
except UserError as error:
    print(error)
"""


def test_keras_3_on_another_backend_is_refused():
    calls = ["import_keras_3()", "library_of_model(Model())"]
    done = run(_JAX + "".join(_REFUSED.format(call=call) for call in calls))
    assert done.stdout == 2 * (
        "the model needs Keras 3 on TensorFlow, and here it works on jax: set "
        "KERAS_BACKEND=tensorflow before Keras is imported\n"
    )


def test_keras_3_with_a_backend_that_is_not_installed_is_refused():
    done = run(_REFUSED.format(call="import_keras_3()"), KERAS_BACKEND="jax")
    assert done.stdout.startswith("Keras 3 cannot be imported, which the model needs: ")
    assert done.stdout.count("\n") == 1
