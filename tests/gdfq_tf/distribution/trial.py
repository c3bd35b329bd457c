"""Every training of a run, a few steps of each, on a strategy: losses and results.

A program, as devices and clusters are set up once in a process:

    python -m tests.gdfq_tf.distribution.trial mirrored images found.npz
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tensorflow as tf

from gdfq_tf.classifier import Classifier
from gdfq_tf.config import (
    DistillationConfig,
    FineTuningConfig,
    RefinementConfig,
    SynthesisConfig,
    parse_bit_widths,
)
from gdfq_tf.distribution import replicas
from gdfq_tf.distribution.strategies import make_strategy
from gdfq_tf.quantization.alternating import train_alternating
from gdfq_tf.quantization.calibration import calibrate
from gdfq_tf.quantization.distillation import distill
from gdfq_tf.quantization.plan import make_plan
from gdfq_tf.quantization.student import build_student
from gdfq_tf.synthesis import generator_training
from gdfq_tf.synthesis.generator_training import synthesize
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.synthesis.refinement import Refiner
from gdfq_tf.system.reproducibility import reproducible
from tests.tiny import Recorder, build_tiny_classifier, classifier_of

# Two replicas have five images each of it, or four and five of refinement's nine.
BATCH = 10
# Of five images, so that parts differ; far from 0, where E[x^2] - E[x]^2 would be off.
VALUES = np.random.default_rng(0).normal(300, 1, (5, 4)).astype(np.float32)
TO_MEAN = np.array([1, -2, 3, 0], np.float32)
TO_VARIANCE = np.array([0.5, 1, 0, -4], np.float32)


def main(distribution: str, what: str, path: str) -> None:
    """Trains for "images", or for "students" as well, and saves what came out."""
    if distribution == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
    strategy = make_strategy(distribution)
    with strategy.scope():
        np.savez(path, **found(what), **exchanged())


def exchanged() -> dict[str, np.ndarray]:
    """Moments of `VALUES` over two tensors' worth, and gradients through them."""

    def moments(values: tf.Tensor) -> tuple[tf.Tensor, ...]:
        part = replicas.own_part(values)
        with tf.GradientTape() as tape:
            tape.watch(part)
            own = tf.nn.moments(part, [0])
            first, second = replicas.global_moments([own, own], part)
            share = replicas.shared(
                {"loss": tf.reduce_sum(first[0] * TO_MEAN + second[1] * TO_VARIANCE)},
                part,
            )
        loss = replicas.summed(share)["loss"]
        return first[0], second[1], loss, tape.gradient(share["loss"], part)

    @tf.function(autograph=False)
    def step(values: tf.Tensor) -> tuple[replicas.PerReplica, ...]:
        return replicas.run(moments, values)

    mean, variance, loss, gradient = step(tf.constant(VALUES))
    return {
        "mean": replicas.from_any(mean).numpy(),
        "variance": replicas.from_any(variance).numpy(),
        "loss": replicas.from_any(loss).numpy(),
        "gradient": replicas.gathered(gradient).numpy(),
    }


def found(what: str) -> dict[str, np.ndarray]:
    """Losses of each stage, step by step; images; the students' weights."""
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch, reproducible(0):
        patch.setattr(generator_training, "REPORT_INTERVAL", 1)
        classifier = classifier_of(build_tiny_classifier())
        pool, made = images(classifier, recorder)
        if what == "students":
            made |= students(classifier, pool, recorder)
    losses = [value for step in recorder.metrics for value in step.values()]
    return {"losses": np.array(losses), **made}


def images(
    classifier: Classifier, recorder: Recorder
) -> tuple[ImagePool, dict[str, np.ndarray]]:
    """Refined images, and all to be compared."""
    pool = synthesize(
        classifier,
        SynthesisConfig(4, batch_size=BATCH, num_snapshots=2),
        38,
        seed=0,
        progress=recorder,
    )
    refined = Refiner(classifier, recorder).refine(
        pool, RefinementConfig(3, batch_size=BATCH), seed=0
    )
    return refined, {
        "labels": pool.labels,
        "generated": pool.pixels,
        "refined": refined.pixels,
    }


def students(
    classifier: Classifier, pool: ImagePool, recorder: Recorder
) -> dict[str, np.ndarray]:
    """Distilled from a pool, and fine-tuned in turn with a generator."""
    plan = make_plan(classifier.model, parse_bit_widths("w4a4/paper"))
    inputs = classifier.preprocessing.to_input(pool.pixels).numpy()
    student = build_student(classifier, plan, calibrate(classifier, plan, inputs))
    distill(
        student,
        classifier,
        pool,
        DistillationConfig(3, batch_size=BATCH),
        seed=0,
        progress=recorder,
    )
    fine_tuned, made = train_alternating(
        classifier,
        plan,
        SynthesisConfig(1, batch_size=BATCH, bn_weight=0.1, relative_bn_loss=False),
        FineTuningConfig(
            3,
            least_warm_up_steps=2,
            num_calibration_images=16,
            num_images=12,
        ),
        seed=0,
        progress=recorder,
    )
    return {
        "made": made.pixels,
        "distilled": flat(student.model.get_weights()),
        "fine_tuned": flat(fine_tuned.model.get_weights()),
    }


def flat(weights: list[np.ndarray]) -> np.ndarray:
    """All values one after the other."""
    return np.concatenate([np.ravel(weight) for weight in weights])


if __name__ == "__main__":
    main(*sys.argv[1:])
