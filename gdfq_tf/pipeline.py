"""The whole way: a classifier in, verified integer TFLite models out. No data.

classifier -> teacher + BN statistics -> generator -> synthetic images -> refinement
-> equalize -> student -> reconstruct and distil, or fine-tune -> .tflite -> verify
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar, cast

import numpy as np
import tensorflow as tf

from gdfq_tf.baselines import Baselines, make_baselines
from gdfq_tf.checkpoints import (
    NO_CHECKPOINTS,
    Arrays,
    Checkpoints,
    as_array,
    from_array,
    once,
)
from gdfq_tf.classifier import Classifier
from gdfq_tf.config import BitWidths
from gdfq_tf.distribution.strategies import lost_processes_told, require_same
from gdfq_tf.errors import UserError, option
from gdfq_tf.expected_stages import expected_stages
from gdfq_tf.fitted_students import FittedStudent, fit_students, lowered
from gdfq_tf.job import Job
from gdfq_tf.keras_compat import computing_in_float32
from gdfq_tf.progress import NullProgress, Progress, whole_stage
from gdfq_tf.provenance import job_facts, pool_digest
from gdfq_tf.quantization.estimation import estimate, estimate_of_dict
from gdfq_tf.quantization.layer_figures import layer_figures
from gdfq_tf.recorded_checkpoints import RecordedCheckpoints
from gdfq_tf.recording import RecordingProgress, StageRecord
from gdfq_tf.result import QuantizedModel, Result
from gdfq_tf.shared_checkpoints import shared_checkpoints
from gdfq_tf.synthesis.generator_training import synthesize
from gdfq_tf.synthesis.growing_pool import GrowingPool, make_pool, refine_parts
from gdfq_tf.synthesis.image_pool import ImagePool
from gdfq_tf.system.memory import give_back
from gdfq_tf.system.reproducibility import reproducible
from tflite_export.convert import convert_network
from tflite_export.flatbuffer import read_model
from tflite_export.integer_network import IntegerNetwork
from tflite_export.operator_forms import gated_layers, num_added_operators
from tflite_export.student_file import network_digest
from tflite_export.verification.rules import Expectation, Finding
from tflite_export.verification.verify import Agreement, verify_file

_NUM_VERIFICATION_IMAGES = 64  # of each kind: random, synthetic
_FEWEST_IMAGES = 4  # a quarter of them is held out
_SYNTHESIS = ("generator", "refinement")  # stages
_logger = logging.getLogger(__name__)

# Called with widths, the student in integers and the pool that it was made from.
OnStudent = Callable[[BitWidths, IntegerNetwork, ImagePool], None]

_Function = TypeVar("_Function", bound=Callable[..., object])


def _without_autograph(function: _Function) -> _Function:
    """No layer of ours has control flow, which Keras else looks for in each."""
    return cast(_Function, tf.autograph.experimental.do_not_convert(function))


@_without_autograph
def quantize(
    job: Job,
    *,
    pool: ImagePool | GrowingPool | None = None,
    on_student: OnStudent | None = None,
    progress: Progress | None = None,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
    earlier: ImagePool | None = None,
) -> Result:
    """Quantizes a classifier to each of the job's widths without any data.

    Widths share one generator and one pool of images, unless the recipe trains
    generator and student in turn. The same seed on the same machine gives the same
    bytes. Nothing that the process shares, such as seeds, is left changed.

    Args:
      job: what to do.
      pool: images to reconstruct students from in place of synthetic ones: those of
        an earlier run, or real ones for a baseline.
      on_student: called with each width's student and the images it was made from,
        before the converter, which may crash, is called on it.
      progress: is told of every stage.
      checkpoints: keep what stages make, so that a run that is killed goes on where it
        was and ends with the same bytes.
      earlier: images that an earlier run made of the same; those that are missing are
        made.

    Raises:
      UserError: see `Job.checked`; a loss stopped being finite; there is a pool, and
        the recipe makes images in turn with the student, or it does not fit the model;
        of several processes, one is gone or does another job.
      ExportError: the converter refused, or an exported model broke a rule or
        differs from its student by more than 1 output LSB.
    """
    job, progress = job.checked(), RecordingProgress(progress or NullProgress())
    if pool is not None and job.alternates:
        raise UserError(
            f"recipe {job.recipe.name!r} makes its images in turn with the student; "
            f"expected no pool: take another {option('recipe')}"
        )
    facts: dict[str, object] = {}
    if isinstance(pool, ImagePool):
        pool = _fitting(pool, job.classifier)
        facts["images"] = pool_digest(pool)
    with _working(job, checkpoints, facts) as checkpoints:
        checkpoints = RecordedCheckpoints(checkpoints, progress)
        progress.expect(expected_stages(job, has_pool=pool is not None))
        if pool is None and not job.alternates:
            pool = make_pool(
                job.classifier,
                job.recipe,
                seed=job.seed,
                progress=progress,
                checkpoints=checkpoints,
                earlier=earlier,
            )
        with whole_stage(progress, "baselines"):
            baselines = make_baselines(job.classifier, job.seed, checkpoints)
        give_back()
        models, pools = [], []
        begun = first = progress.mark()
        for fitted in fit_students(job, pool, progress, checkpoints):
            started = time.monotonic()
            network = lowered(job, fitted.bit_widths, fitted.student)
            if on_student is not None:
                on_student(fitted.bit_widths, network, fitted.pool)
            model = _export(job, fitted, network, baselines, progress, checkpoints)
            seconds = fitted.seconds + time.monotonic() - started
            seconds += _earlier_seconds(progress.since(begun), synthesis=False)
            models.append(dataclasses.replace(model, seconds=seconds))
            pools.append(fitted.pool)
            _logger.info("%r", models[-1])
            give_back()
            begun = progress.mark()
    of_images = _earlier_seconds(progress.since(first), synthesis=True)
    return Result(
        job,
        fitted.images,
        max(pools, key=len),
        tuple(models),
        baselines,
        fitted.synthesis_seconds + of_images,
        tuple(progress.stages),
    )


def _earlier_seconds(stages: Sequence[StageRecord], *, synthesis: bool) -> float:
    """What killed processes have done of those that make images, or of the others."""
    chosen = (x for x in stages if (x.name in _SYNTHESIS) == synthesis)
    return sum(stage.earlier_seconds for stage in chosen)


@_without_autograph
def make_images(
    job: Job,
    num_images: int,
    *,
    progress: Progress | None = None,
    checkpoints: Checkpoints = NO_CHECKPOINTS,
) -> ImagePool:
    """Synthetic images of a classifier alone.

    Args:
      job: its widths, limits and the like do not matter.
      num_images: how many.
      progress: is told of every stage.
      checkpoints: see `quantize`.

    Raises:
      UserError: see `Job.checked`; a loss stopped being finite.
    """
    job, progress = job.checked(), progress or NullProgress()
    facts = {"num_images": num_images}
    with _working(job, checkpoints, facts) as checkpoints, job.strategy.scope():
        generated = synthesize(
            job.classifier,
            job.recipe.synthesis,
            num_images,
            seed=job.seed,
            progress=progress,
            checkpoints=checkpoints,
        )
        refine_part = refine_parts(
            job.classifier,
            job.recipe.refinement,
            seed=job.seed,
            progress=progress,
            checkpoints=checkpoints,
        )
        return refine_part(generated, 0)


@contextlib.contextmanager
def _working(
    job: Job, checkpoints: Checkpoints, facts: Mapping[str, object]
) -> Iterator[Checkpoints]:
    """What holds while a job is done, in all processes that do it.

    Args:
      job: checked.
      checkpoints: of this process.
      facts: that all processes are to have alike, besides the job's.

    Returns:
      The checkpoints to go on from.

    Raises:
      UserError: of several processes, one is gone or does another job.
    """
    strategy = job.strategy
    with (
        lost_processes_told(strategy),
        reproducible(job.seed),
        computing_in_float32(),
    ):
        require_same(strategy, {**job_facts(job), **facts})
        yield shared_checkpoints(checkpoints, strategy)


def _fitting(pool: ImagePool, classifier: Classifier) -> ImagePool:
    """Images in the shape that the classifier's are worked on.

    Raises:
      UserError: there are fewer than a split into two needs, or they have another
        shape.
    """
    taken, shape = classifier.input_format, pool.pixels.shape
    if len(pool) < _FEWEST_IMAGES or not taken.fits(shape[1:]):
        raise UserError(
            f"{option('images')} are {shape[0]} of {shape[1:]}; {classifier.name} "
            f"needs {_FEWEST_IMAGES} or more of {taken.shape}: take those of a run of "
            "this model, or make some with `gdfq synthesize`"
        )
    return ImagePool(pool.pixels.reshape(-1, *taken.image_shape), pool.labels)


def _export(
    job: Job,
    fitted: FittedStudent,
    network: IntegerNetwork,
    baselines: Baselines,
    progress: Progress,
    checkpoints: Checkpoints,
) -> QuantizedModel:
    """A student's `.tflite` file, verified, with all figures.

    Its seconds are those of the student alone.
    """
    student, kept = fitted.student, fitted.student.plan.layers_at_8_bits
    num_operators = len(read_model(baselines.noise_ptq).operators)
    expectation = Expectation(
        fitted.bit_widths.weight_bits,
        num_operators + num_added_operators(network),
        kept | gated_layers(network),
        network.interface.input_type.upper(),
        network.interface.output_type.upper(),
    )
    examples = network.examples(
        job.classifier.preprocessing.to_integers(
            fitted.images.pixels[:_NUM_VERIFICATION_IMAGES], network.activation_bits
        )
    )
    # What is in a file is told by its student, and what is kept of it by both.
    facts = {"network": network_digest(network), "expectation": expectation}

    def converted() -> Arrays:
        return {"tflite": np.frombuffer(convert_network(network), np.uint8)}

    def verified() -> Arrays:
        findings, agreement = verify(network, tflite, expectation, examples)
        return {
            "findings": as_array([dataclasses.asdict(x) for x in findings]),
            "agreement": as_array(dataclasses.asdict(agreement)),
        }

    def estimated() -> Arrays:
        found = estimate(student, job.classifier, fitted.held_out.pixels)
        return {"estimate": as_array(dataclasses.asdict(found))}

    give_back()  # what making the student leaves: the converter takes much itself
    with whole_stage(progress, "conversion"):
        made = once(checkpoints.of("conversion", **facts), converted)
        tflite = made["tflite"].tobytes()
    give_back()  # the converter's graphs
    with whole_stage(progress, "verification"):
        facts["tflite"] = hashlib.sha256(tflite).hexdigest()
        proof = once(checkpoints.of("verification", **facts), verified)
    with whole_stage(progress, "estimation"):
        facts["num_images"] = len(fitted.held_out)
        likeness = once(checkpoints.of("estimation", **facts), estimated)
    return QuantizedModel(
        name=job.classifier.name,
        bit_widths=fitted.bit_widths,
        layers_at_8_bits=kept,
        trade_off=fitted.trade_off,
        estimate=estimate_of_dict(from_array(likeness["estimate"])),
        network=network,
        tflite=tflite,
        findings=tuple(Finding(**x) for x in from_array(proof["findings"])),
        agreement=Agreement(**from_array(proof["agreement"])),
        seconds=fitted.seconds,
        measure_layers=functools.partial(
            layer_figures, network, student, fitted.teacher, fitted.held_out.pixels
        ),
    )


def verify(
    network: IntegerNetwork, tflite: bytes, expectation: Expectation, images: np.ndarray
) -> tuple[tuple[Finding, ...], Agreement]:
    """What the file holds and computes, against the student.

    Its bytes are the converter's of a moment ago, so they are not made again.

    Args:
      network: the student in integers.
      tflite: the file.
      expectation: of what it holds.
      images: inputs (N, *input_shape) to compare outputs on, besides random ones.

    Raises:
      ExportError: a rule is broken.
    """
    verification = verify_file(
        tflite,
        network,
        expectation,
        images=images,
        num_random_images=_NUM_VERIFICATION_IMAGES,
    )
    return verification.findings, verification.required()
