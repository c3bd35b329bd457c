"""Images per second of each training step beside the bare step of the same network.

    python -m benchmarks.speed --model=classifier.keras --preprocessing=torch

The limit is forward and backward of the float classifier with plain SGD, measured in
the same run. Nothing else should run on the machine.
"""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import rich.box
import rich.console
import rich.table
import tensorflow as tf
from absl import flags

from benchmarks import commands
from gdfq_tf.classifier import Classifier
from gdfq_tf.config import (
    DistillationConfig,
    FineTuningConfig,
    RefinementConfig,
    SynthesisConfig,
    parse_bit_widths,
)
from gdfq_tf.graph.queries import multiply_adds
from gdfq_tf.keras_compat import keras
from gdfq_tf.progress import Advance, ExpectedStage
from gdfq_tf.quantization.alternating import make_student_step
from gdfq_tf.quantization.calibration import calibrate
from gdfq_tf.quantization.distillation import distill
from gdfq_tf.quantization.plan import make_plan
from gdfq_tf.quantization.student import build_student
from gdfq_tf.synthesis.generator import choose_shape
from gdfq_tf.synthesis.generator_training import noise_images, synthesize
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.synthesis.losses import classification_loss
from gdfq_tf.synthesis.refinement import Refiner

_WARM_UP_STEPS = 10


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    commands.define_classifier_flags(defined)
    defined.group("The benchmark")
    defined.integer("num_steps", 40, "Steps of each kind.", low=15)
    return defined


class Stopwatch:
    """A progress that notes when each step ended and the memory in use by then."""

    def __init__(self) -> None:
        """Begins with no step."""
        self.times: list[float] = []
        self.peak_memory: list[int] = []  # KiB

    def expect(self, stages: Sequence[ExpectedStage]) -> None:
        """See `gdfq_tf.progress.Progress.expect`."""

    @contextlib.contextmanager
    def stage(
        self, name: str, total: int, images_per_step: float = 0.0
    ) -> Iterator[Advance]:
        """See `gdfq_tf.progress.Progress.stage`."""
        yield lambda n=1, **metrics: self.tick()

    def tick(self) -> None:
        """Ends a step."""
        self.times.append(time.monotonic())
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.peak_memory.append(usage.ru_maxrss)

    def seconds_per_step(self) -> float:
        """Median, without the warm-up."""
        return float(np.median(np.diff(self.times[_WARM_UP_STEPS:])))

    def growth(self) -> float:
        """MiB that the peak rose by after the warm-up."""
        return (self.peak_memory[-1] - self.peak_memory[_WARM_UP_STEPS]) / 1024


def main(values: flags.FlagValues) -> None:
    """Measures and prints the table."""
    classifier = commands.load_classifier_from_flags(values)
    synthesis = SynthesisConfig(values.num_steps)
    batch_size = synthesis.images_per_step(classifier.input_shape)
    console = rich.console.Console(width=120)
    console.print(_table(measure(classifier, synthesis), batch_size))
    model = classifier.model
    budget = synthesis.compute_ratio * multiply_adds(model)
    shape = choose_shape(classifier.input_shape, classifier.num_labels, budget)
    share = shape.multiply_adds / multiply_adds(model)
    console.print(
        f"{batch_size} images a step; generator: {share:.2f} of the teacher's "
        "multiply-adds",
        highlight=False,
    )


def measure(classifier: Classifier, synthesis: SynthesisConfig) -> dict[str, Stopwatch]:
    """The times of each kind of step, `synthesis.num_steps` of them."""
    model, num_steps = classifier.model, synthesis.num_steps
    batch_size = synthesis.images_per_step(classifier.input_shape)
    images = noise_images(classifier.input_shape, batch_size, seed=0)
    labels = tf.zeros(batch_size, tf.int32)
    inputs = classifier.preprocessing.to_input(images.pixels)
    teacher = tf.function(lambda x: model(x, training=False))
    plan = make_plan(model, parse_bit_widths("w4a8"))
    calibration = calibrate(classifier, plan, inputs.numpy()[:32])
    student = build_student(classifier, plan, calibration)
    student_step = make_student_step(
        student,
        classifier,
        keras.optimizers.SGD(1e-4, momentum=0.9, nesterov=True),
        FineTuningConfig(1),
    )
    logits = teacher(inputs)
    float_step = _float_training_step(classifier)
    watches = {
        "teacher forward": _time(lambda: teacher(inputs), num_steps),
        "float training step": _time(lambda: float_step(inputs, labels), num_steps),
        "student step": _time(
            lambda: student_step(images.pixels, labels, logits), num_steps
        ),
        "distillation step": Stopwatch(),
        "generator step": Stopwatch(),
        "refinement step": Stopwatch(),
    }
    distill(
        student,
        classifier,
        images,
        DistillationConfig(num_steps),
        seed=0,
        progress=watches["distillation step"],
    )
    synthesize(classifier, synthesis, 8, seed=0, progress=watches["generator step"])
    Refiner(classifier, watches["refinement step"]).refine(
        ImagePool(images.pixels, labels.numpy()), RefinementConfig(num_steps), seed=0
    )
    return watches


def _table(watches: Mapping[str, Stopwatch], batch_size: int) -> rich.table.Table:
    table = rich.table.Table(box=rich.box.MARKDOWN)
    for name in ("step", "images/s", "of float training step", "peak memory grew by"):
        table.add_column(name, justify="left" if name == "step" else "right")
    limit = watches["float training step"].seconds_per_step()
    for name, watch in watches.items():
        seconds = watch.seconds_per_step()
        table.add_row(
            name,
            f"{batch_size / seconds:.0f}",
            f"{100 * limit / seconds:.0f} %",
            f"{watch.growth():.0f} MiB",
        )
    return table


def _float_training_step(classifier: Classifier) -> Callable:
    model = keras.models.clone_model(classifier.model)
    model.set_weights(classifier.model.get_weights())
    optimizer = keras.optimizers.SGD(1e-4, momentum=0.9)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(inputs: tf.Tensor, labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            loss = classification_loss(logits=logits, labels=labels)
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    return step


def _time(step: Callable[[], object], num_steps: int) -> Stopwatch:
    watch = Stopwatch()
    for _ in range(num_steps):
        step()
        watch.tick()
    return watch


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__)
