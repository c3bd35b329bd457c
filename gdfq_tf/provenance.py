"""What the bytes of a run depend on, as facts that can be compared and stored."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import gdfq_tf
import tflite_export
from gdfq_tf.checkpoints import facts_digest
from gdfq_tf.classifier import Classifier
from gdfq_tf.errors import UserError, option
from gdfq_tf.job import Job
from gdfq_tf.manifest import Manifest, absolute, file_digests
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.system.machine import describe_machine

_PACKAGES = (
    "gdfq-tf",
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


def make_manifest(job: Job, options: Mapping[str, Any]) -> Manifest:
    """What a run was made from.

    Args:
      job: as it was carried out.
      options: of `gdfq quantize`, by name; what JSON does not have was an object of a
        Python program.
    """
    plain, from_program = {}, []
    for name, value in options.items():
        value = list(value) if isinstance(value, tuple) else value
        if _is_plain(value):
            plain[name] = value
        else:
            from_program.append(name)
    plain = absolute(plain)
    return Manifest(
        plain,
        from_program,
        file_digests(plain),
        classifier_digest(job.classifier),
        facts_digest(image_facts(job)),
        versions(),
        machine_facts(),
    )


def require_same_classifier(manifest: Manifest, classifier: Classifier) -> None:
    """Refuses another network than the run of the manifest was made from.

    Files are held against their own digests, and other versions of this program may
    read them otherwise.

    Raises:
      UserError: it is another one.
    """
    digest = classifier_digest(classifier)
    if "model" not in manifest.files and digest != manifest.classifier:
        raise UserError(
            f"{classifier.name} is SHA-256 {digest}, but the run of the manifest was "
            f"made from a network of {manifest.classifier}; pass that one as "
            f"{option('model')}"
        )


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, (str, bool, int, float))


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
        "versions": versions(),
        "source": _source_digest(),
        "machine": machine_facts(),
        "replicas": job.strategy.num_replicas_in_sync,
    }


def run_facts(job: Job, pool: ImagePool | None) -> dict[str, Any]:
    """All that the bytes of a run depend on besides its widths and the like.

    Args:
      job: the run.
      pool: that it works with in place of synthetic images.
    """
    facts = image_facts(job)
    return facts if pool is None else {**facts, "images": pool_digest(pool)}


def job_facts(job: Job) -> dict[str, Any]:
    """What all processes of a run are to have alike: machines may differ."""
    facts = image_facts(job)
    del facts["machine"]
    return {
        **facts,
        "bits": job.bit_widths,
        "keep_layers": job.keep_layers,
        "limits": job.limits,
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
