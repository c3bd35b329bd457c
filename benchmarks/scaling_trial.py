"""One cell of benchmarks/scaling.py: images of a network of some size are made.

    python -m benchmarks.scaling_trial '{"width": 16, "size": 32, "classes": 10}'

Prints a line of JSON: the network's parameters, seconds per step of generator and
refinement, and the memory at its peak, less that after loading.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.peak_memory import resident_mib
from gdfq_tf.classifier import Classifier, Head
from gdfq_tf.config import BitWidths, RefinementConfig, get_recipe
from gdfq_tf.distribution.strategies import make_strategy
from gdfq_tf.job import Job
from gdfq_tf.keras_compat import keras
from gdfq_tf.pipeline import make_images
from gdfq_tf.preprocessing import make_preprocessing
from gdfq_tf.progress import Advance, ExpectedStage
from gdfq_tf.system.machine import fix_num_threads

NUM_STEPS = 6
NUM_IMAGES = 128
# The first build graphs.
_UNTIMED_STEPS = 2


class StepTimer:
    """A `Progress` that takes the time of every step.

    Attributes:
      seconds: of the steps of each stage.
    """

    def __init__(self) -> None:
        """Begins with no stage."""
        self.seconds: dict[str, list[float]] = {}

    def expect(self, stages: Sequence[ExpectedStage]) -> None:
        """See `Progress.expect`."""

    @contextlib.contextmanager
    def stage(
        self, name: str, total: int, images_per_step: float = 0.0
    ) -> Iterator[Advance]:
        """See `Progress.stage`."""
        steps = self.seconds.setdefault(name, [])
        began = time.perf_counter()

        def advance(n: int = 1, **metrics: float) -> None:
            nonlocal began
            now = time.perf_counter()
            steps.append(now - began)
            began = now

        yield advance


def network(width: int, size: int, classes: int) -> Classifier:
    """Four convolutions with BatchNormalization, each but the first halving the image.

    Args:
      width: channels of the first; each later one has twice as many.
      size: height and width of the images.
      classes: how many.
    """
    layers = keras.layers
    inputs = x = keras.Input((size, size, 3))
    for level in range(4):
        stride = 2 if level else 1
        channels = width * 2**level
        x = layers.Conv2D(channels, 3, stride, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    outputs = layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))
    return Classifier(
        f"{width}x{size}x{classes}",
        keras.Model(inputs, outputs),
        make_preprocessing("tf", 3),
        Head.LOGITS,
        (size, size, 3),
    )


def main(cell: dict[str, int]) -> None:
    """Measures and prints."""
    fix_num_threads(1)
    strategy = make_strategy("multi_worker" if "TF_CONFIG" in os.environ else "none")
    keras.utils.set_random_seed(0)
    classifier = network(**cell)
    recipe = dataclasses.replace(
        get_recipe("fast", NUM_STEPS), refinement=RefinementConfig(NUM_STEPS)
    )
    timer = StepTimer()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_mib("VmRSS")
    job = Job(classifier, recipe, (BitWidths(8, 8),), strategy=strategy)
    make_images(job, NUM_IMAGES, progress=timer)
    seconds = {
        name: round(float(np.median(steps[_UNTIMED_STEPS:])), 4)
        for name, steps in timer.seconds.items()
    }
    row = {
        "parameters": classifier.model.count_params(),
        "seconds_per_step": seconds,
        "images_per_step": recipe.synthesis.images_per_step(classifier.input_shape),
        "peak_mib": round(resident_mib("VmHWM") - before),
    }
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
