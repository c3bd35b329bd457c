"""How long the stages of a run take, beside each other.

So a run can say how long is left of it. Seconds of two cores of a 2023 server CPU, as
measured on ResNet-20 (32x32), MobileNet 0.25 (224x224) and MobileNetV2 0.35 (32x32);
another machine is so much faster or slower in all of them.
"""

from __future__ import annotations

import functools
import math

from gdfq_tf.classifier import Classifier
from gdfq_tf.config import BitWidths, FineTuningConfig
from gdfq_tf.graph.queries import multiply_adds
from gdfq_tf.graph.traits import has_kernel
from gdfq_tf.job import Job
from gdfq_tf.memory_needs import NUM_RANGE_IMAGES
from gdfq_tf.progress import ExpectedStage

# Of one image forward and backward through the float network: for each of its
# multiply-adds, and for each value that its layers give.
_SECONDS_OF_MULTIPLY_ADD = 7.6e-11
_SECONDS_OF_VALUE = 2.3e-9
# Of one step, for each layer, whatever the batch.
_SECONDS_OF_LAYER = 4.5e-4
# In that unit, with the generator's own work and the student's.
_GENERATOR, _REFINEMENT, _DISTILLATION, _STUDENT = 1.45, 0.92, 1.3, 1.1
_RECONSTRUCTION = 6.0
# Of each kernel's reconstruction, however small.
_SECONDS_OF_KERNEL = 0.35
# Of each layer, and besides: Python, graphs, the converter.
_BASELINES, _CONVERSION, _VERIFICATION = (0.025, 1.5), (0.012, 1.0), (0.008, 1.5)
_EQUALIZATION, _CALIBRATION, _ESTIMATION = (0.025, 0.5), (0.06, 1.0), (0.01, 0.5)


def expected_stages(job: Job, *, has_pool: bool) -> list[ExpectedStage]:
    """All stages of a run, in order; of a search for layers to keep, the first try.

    Args:
      job: the run.
      has_pool: whether the images are there already.
    """
    classifier = job.classifier
    of_image = _seconds_of_image(classifier)
    stage = functools.partial(_stage_of_layers, len(classifier.model.layers))
    stages = [stage("baselines", _BASELINES, 100 * of_image)]
    synthesizes = not has_pool and not job.alternates
    if synthesizes:
        stages += _generator(job, of_image)
    refined = 0
    for bit_widths in job.bit_widths:
        pool_size = job.recipe.pool_size(classifier.input_shape, (bit_widths,))
        if synthesizes and pool_size > refined:
            stages += _refinement(job, pool_size - refined, of_image)
            refined = pool_size
        stages += _student(job, bit_widths, of_image)
        stages += [
            stage("conversion", _CONVERSION, 0.0),
            stage("verification", _VERIFICATION, 60 * of_image),
            stage("estimation", _ESTIMATION, 300 * of_image),
        ]
    evaluated = 128 * of_image * (3 + len(job.bit_widths))
    figures = 1 + 100 * of_image * len(job.bit_widths)
    return [
        *stages,
        ExpectedStage("evaluation", 1 + evaluated),
        ExpectedStage("layer figures", figures),
    ]


def _stage_of_layers(
    num_layers: int, name: str, seconds: tuple[float, float], more: float
) -> ExpectedStage:
    of_layer, besides = seconds
    return ExpectedStage(name, of_layer * num_layers + besides + more)


def _seconds_of_image(classifier: Classifier) -> float:
    values = sum(
        math.prod(layer.output_shape[1:]) for layer in classifier.model.layers[1:]
    )
    work = _SECONDS_OF_MULTIPLY_ADD * multiply_adds(classifier.model)
    return work + _SECONDS_OF_VALUE * values


def _seconds_of_trained_image(job: Job, of_image: float) -> float:
    """With its share of what a step takes for each layer, whatever the batch."""
    num_layers = len(job.classifier.model.layers)
    return of_image + _SECONDS_OF_LAYER * num_layers / _batch_size(job)


def _batch_size(job: Job) -> int:
    """Images of a generator step."""
    return job.recipe.synthesis.images_per_step(job.classifier.input_shape)


def _generator(job: Job, of_image: float) -> list[ExpectedStage]:
    images = job.recipe.synthesis.num_steps * _batch_size(job)
    if not images:
        return []
    seconds = _GENERATOR * images * _seconds_of_trained_image(job, of_image)
    return [ExpectedStage("generator", seconds)]


def _refinement(job: Job, num_images: int, of_image: float) -> list[ExpectedStage]:
    refinement = job.recipe.refinement
    if refinement is None:
        return []
    images = refinement.num_steps * num_images
    seconds = _REFINEMENT * images * _seconds_of_trained_image(job, of_image)
    return [ExpectedStage("refinement", seconds)]


def _student(job: Job, bit_widths: BitWidths, of_image: float) -> list[ExpectedStage]:
    recipe, student = job.recipe, job.recipe.student
    trained = _seconds_of_trained_image(job, of_image)
    if isinstance(student, FineTuningConfig):
        of_step = _batch_size(job) * trained
        warm_up = student.num_warm_up_steps
        return [
            ExpectedStage("warm-up", _GENERATOR * warm_up * of_step),
            ExpectedStage(
                "generator and student",
                (_GENERATOR + _STUDENT) * student.num_steps * of_step,
            ),
        ]
    layers = job.classifier.model.layers
    stage = functools.partial(_stage_of_layers, len(layers))
    kernels = sum(map(has_kernel, layers))
    images = recipe.pool_size(job.classifier.input_shape, (bit_widths,)) * 3 // 4
    range_images = min(NUM_RANGE_IMAGES, images)
    stages = []
    if student.equalizes and bit_widths.activation_bits < 8:
        stages.append(stage("equalization", _EQUALIZATION, range_images * of_image))
    stages += [
        stage("calibration", _CALIBRATION, range_images * of_image),
        ExpectedStage(
            "reconstruction",
            _SECONDS_OF_KERNEL * kernels + _RECONSTRUCTION * images * of_image,
        ),
    ]
    training = student.budgets.of(bit_widths).distillation
    if training is not None:
        batch = training.images_per_step(job.classifier.input_shape)
        images = training.num_steps * batch
        stages.append(ExpectedStage("distillation", _DISTILLATION * images * trained))
    return stages
