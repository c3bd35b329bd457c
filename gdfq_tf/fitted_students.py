"""Students of a run, one for each width, from images made as they need them."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator

from gdfq_tf.checkpoints import NO_CHECKPOINTS, Checkpoints
from gdfq_tf.classifier import Classifier
from gdfq_tf.config import BitWidths, FineTuningConfig, ReconstructionConfig
from gdfq_tf.job import Job
from gdfq_tf.progress import Progress
from gdfq_tf.quantization.alternating import train_alternating
from gdfq_tf.quantization.distillation import distill
from gdfq_tf.quantization.estimation import blend
from gdfq_tf.quantization.lowering import lower
from gdfq_tf.quantization.mixed_precision import reconstruct_within
from gdfq_tf.quantization.plan import make_plan
from gdfq_tf.quantization.reconstruction import equalized, reconstruct
from gdfq_tf.quantization.student import Student
from gdfq_tf.quantization.trade_off import TradeOff
from gdfq_tf.synthesis.growing_pool import GrowingPool, make_pool
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.system.memory import give_back
from tflite_export.integer_network import IntegerNetwork
from tflite_export.targets import TARGETS


@dataclasses.dataclass(frozen=True, eq=False)
class FittedStudent:
    """A student and what it was made from.

    Attributes:
      bit_widths: asked for.
      student: trained.
      trade_off: what layers at 8 bits cost, if limits asked for it.
      teacher: the network that it imitates layer by layer.
      images: that it was fitted to; `held_out`: for the estimate; both are of
      pool: images as they were made.
      synthesis_seconds: that all images so far took, if students share them.
      seconds: that the student took.
    """

    bit_widths: BitWidths
    student: Student
    trade_off: TradeOff | None
    teacher: Classifier
    images: ImagePool
    held_out: ImagePool
    pool: ImagePool
    synthesis_seconds: float
    seconds: float


def fit_students(
    job: Job,
    pool: ImagePool | GrowingPool | None,
    progress: Progress,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> Iterator[FittedStudent]:
    """One student after the other, in the order of the job's widths.

    Args:
      job: checked.
      pool: images to make them from; None: synthetic ones.
      progress: told of every stage.
      checkpoints: keep what stages make.

    Raises:
      UserError: a loss stopped being finite.
    """
    config = job.recipe.student
    if isinstance(config, FineTuningConfig):
        return _alternate(job, config, progress, checkpoints)
    if pool is None:
        pool = make_pool(job.classifier, job.recipe, seed=job.seed, progress=progress)
    return _reconstruct(job, config, pool, progress, checkpoints)


def _reconstruct(
    job: Job,
    config: ReconstructionConfig,
    pool: ImagePool | GrowingPool,
    progress: Progress,
    checkpoints: Checkpoints,
) -> Iterator[FittedStudent]:
    """Students reconstructed from one pool of images, then trained if that helps."""
    keep_layers = frozenset(job.keep_layers)
    for bit_widths in job.bit_widths:
        budget = config.budgets.of(bit_widths)
        count = budget.images_of(job.classifier.input_shape)
        with job.strategy.scope():
            made = pool.first(count)
        give_back()  # the graphs of generator and refinement
        images, held_out = made.split()
        if job.recipe.refinement is not None:
            held_out = blend(held_out)
        started = time.monotonic()
        plan = make_plan(job.classifier.model, bit_widths, keep_layers)
        teacher = equalized(job.classifier, plan, images, config, progress)

        def student_with(
            extra: frozenset[str],
            teacher: Classifier = teacher,
            bit_widths: BitWidths = bit_widths,
            images: ImagePool = images,
        ) -> Student:
            plan = make_plan(teacher.model, bit_widths, keep_layers | extra)
            return reconstruct(teacher, plan, images, config, progress, checkpoints)

        student, trade_off = reconstruct_within(
            job.limits,
            student_with,
            functools.partial(lowered, job, bit_widths),
            teacher,
            images,
            held_out,
            checkpoints,
        )
        if budget.distillation is not None:
            with job.strategy.scope():
                distill(
                    student,
                    job.classifier,
                    images,
                    budget.distillation,
                    seed=job.seed,
                    progress=progress,
                    checkpoints=checkpoints,
                )
        seconds = time.monotonic() - started
        yield FittedStudent(
            bit_widths,
            student,
            trade_off,
            teacher,
            images,
            held_out,
            made,
            pool.seconds,
            seconds,
        )


def lowered(job: Job, bit_widths: BitWidths, student: Student) -> IntegerNetwork:
    """A student in integers, for the target and with the ends that a job asks for."""
    interface = job.interface(bit_widths)
    return lower(student, job.classifier, TARGETS[job.target], interface)


def _alternate(
    job: Job, config: FineTuningConfig, progress: Progress, checkpoints: Checkpoints
) -> Iterator[FittedStudent]:
    """Students trained in turn with a generator each, as published."""
    for bit_widths in job.bit_widths:
        started = time.monotonic()
        plan = make_plan(job.classifier.model, bit_widths, frozenset(job.keep_layers))
        with job.strategy.scope():
            student, made = train_alternating(
                job.classifier,
                plan,
                job.recipe.synthesis,
                config,
                seed=job.seed,
                progress=progress,
                checkpoints=checkpoints,
            )
        images, held_out = made.split()
        seconds = time.monotonic() - started
        yield FittedStudent(
            bit_widths,
            student,
            None,
            job.classifier,
            images,
            held_out,
            made,
            0.0,
            seconds,
        )
