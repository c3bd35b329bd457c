"""What the bytes of a run depend on, as facts that can be compared and stored."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np

import gdfq_tf
import tflite_export
from gdfq_tf.classifier import Classifier
from gdfq_tf.job import Job
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.system.machine import describe_machine

_PACKAGES = (
    "tensorflow",
    "tf_keras",
    "keras",
    "tensorflow-model-optimization",
    "ai-edge-litert",
    "numpy",
)
# Told by the numbers of threads as far as bytes go.
_NOT_IN_BYTES = ("logical_cpus", "usable_cpus")


def versions() -> dict[str, str]:
    """Python's and those of all packages that compute."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def machine_facts() -> dict[str, Any]:
    """What of a machine decides how floats are rounded."""
    facts = describe_machine()
    return {name: x for name, x in facts.items() if name not in _NOT_IN_BYTES}


def image_facts(job: Job) -> dict[str, Any]:
    """All that the synthetic images of a run depend on; widths are not among it."""
    return {
        "model": classifier_digest(job.classifier),
        "recipe": job.recipe,
        "seed": job.seed,
        "versions": {**versions(), "gdfq-tf": _source_digest()},
        "machine": machine_facts(),
    }


def classifier_digest(classifier: Classifier) -> str:
    """SHA-256 of what a classifier computes, and from what."""
    config = classifier.model.get_config()
    config.pop("name")
    facts = {
        "layers": config,
        "preprocessing": classifier.preprocessing,
        "head": classifier.head.value,
        "example_shape": classifier.example_shape,
    }
    found = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for weights in classifier.model.get_weights():
        found.update(np.ascontiguousarray(weights).data)
    return found.hexdigest()


def pool_digest(pool: ImagePool) -> str:
    """SHA-256 of images and labels."""
    found = hashlib.sha256(np.ascontiguousarray(pool.pixels).data)
    found.update(np.ascontiguousarray(pool.labels).data)
    return found.hexdigest()


@functools.cache
def _source_digest() -> str:
    """SHA-256 of this program: a checkout changes without its version."""
    found = hashlib.sha256()
    for package in (gdfq_tf, tflite_export):
        folder = Path(str(package.__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            found.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return found.hexdigest()
