"""The whole program as one call, `quantize`, and its neighbours."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from gdfq_tf.config import (
    DEFAULT_RECIPE,
    BitWidths,
    Limits,
    Recipe,
    get_recipe,
    parse_bit_widths,
)
from gdfq_tf.distribution.strategies import Strategy, make_strategy
from gdfq_tf.errors import UserError, option
from gdfq_tf.file_interface import read_labels
from gdfq_tf.frontend.load import ModelLike, load_classifier
from gdfq_tf.job import Job
from gdfq_tf.manifest import read_manifest
from gdfq_tf.pipeline import make_images
from gdfq_tf.pipeline import quantize as run
from gdfq_tf.preprocessing import Preprocessing
from gdfq_tf.progress import ConsoleProgress, NullProgress, Progress, whole_stage
from gdfq_tf.provenance import (
    image_facts,
    make_manifest,
    require_same_classifier,
    run_facts,
)
from gdfq_tf.quiet_tensorflow import quiet_work
from gdfq_tf.result import Result
from gdfq_tf.run_directory import read_images
from gdfq_tf.state_directory import kept_in
from gdfq_tf.synthesis.image_pool import ImagePool
from tflite_export.interface import DEFAULT_END_TYPE
from tflite_export.quiet import quiet_stderr
from tflite_export.targets import DEFAULT_TARGET


def quantize(  # noqa: PLR0913 - each is an option of the command line
    model: ModelLike,
    *,
    bits: str | Sequence[str] = "w8a8,w4a8",
    recipe: str | Recipe = DEFAULT_RECIPE,
    preprocessing: Preprocessing | str | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    input_range: Sequence[float] = (),
    weights: str | None = None,
    input_size: int | None = None,
    output_name: str | None = None,
    constant_inputs: Mapping[str, npt.ArrayLike] | None = None,
    task: str = "classification",
    without_bn_statistics: bool = False,
    allow_unsafe: bool = False,
    num_steps: int | None = None,
    keep_layers: Sequence[str] = (),
    max_accuracy_loss: float | None = None,
    max_bytes: int | None = None,
    max_latency_ratio: float | None = None,
    pool: ImagePool | None = None,
    seed: int = 0,
    target: str = DEFAULT_TARGET,
    input_type: str = DEFAULT_END_TYPE,
    output_type: str = DEFAULT_END_TYPE,
    labels: str | Path | Sequence[str] = (),
    progress: bool | Progress = True,
    distribution: str | Strategy = "none",
    state_dir: str | Path | None = None,
) -> Result:
    """Quantizes a trained Keras classifier to integer TFLite, without any data.

    Every model of the result is verified: LiteRT computes what was trained. The same
    seed on the same machine gives the same bytes. Nothing that the process shares, such
    as seeds or determinism, is left changed.

    Args:
      model: a live model of Keras 3 or tf_keras, the path of a .keras, .h5 or .json
        file or of a SavedModel, "keras.applications.NAME", "embedded", or what
        `load_classifier` gave.
      bits: widths of weights and activations, w<bits>a<bits>, several with commas
        or as a list; with /paper (w4a4/paper) every layer gets them, with /pointwise
        only layers with INT4 kernels that LiteRT computes as fast as INT8.
      recipe: how much work: "calibrate", "fast", "balanced", "best" or "gdfq", or a
        `Recipe`.
      preprocessing: what the model was trained on: "tf" [-1, 1], "torch", "caffe",
        "unit" [0, 1], "uint8" [0, 255], "custom" with `mean` and `std`, or a
        `Preprocessing`; None: what graph or statistics tell, if they do.
      mean: for "custom", of pixel / 255, one value or one per channel.
      std: the deviation, likewise.
      input_range: for features that are no pixels, in place of `preprocessing`: the
        range they lie in, low and high, or both for each channel.
      weights: for applications and .json files.
      input_size: for applications: height and width of the images.
      output_name: the output to keep of a model that has several.
      constant_inputs: inputs that are no images, by name, and what they always are: a
        number, or an array that broadcasts to the input's shape without the batch.
      task: "classification", or "features" for outputs that stand for no class.
      without_bn_statistics: takes a classifier that never had BatchNormalization.
      allow_unsafe: takes Lambda layers and runs the code that the file holds for them.
      num_steps: generator steps instead of the recipe's.
      keep_layers: layers that stay at 8 bits, names or patterns.
      max_accuracy_loss: points of top-1; as many layers stay at 8 bits as that takes.
      max_bytes: of a file with INT4 kernels; the layers that lose most stay at 8 bits
        as far as that allows.
      max_latency_ratio: how many times as long it may take in LiteRT, on this machine,
        as with 8 bits in all kernels; layers stay at 8 bits accordingly.
      pool: images to work with instead of making some, such as those of another result.
      seed: of everything random, 0 to 2**32 - 1.
      target: what runs the files: "litert"; "tflm", TensorFlow Lite for
        Microcontrollers; "c99", what `gdfq firmware` writes; "ethos-u", NPUs by Vela.
      input_type: of the files' input: "int8", or "uint8", to which image bytes can be
        fed where the preprocessing lets them; the values are those of int8 plus 128.
      output_type: of the files' output, likewise.
      labels: names of the classes in the order of the outputs, or a text file with one
        in each line, to be packed into the files.
      progress: True shows it on standard error or in the notebook, False does not; a
        `Progress` is told.
      distribution: who shares the steps of training: "none"; "mirrored", all GPUs of
        this machine; "multi_worker", the processes of TF_CONFIG, all of which call
        this; or a `tf.distribute.Strategy`, made before TensorFlow computed anything.
      state_dir: a directory for what the call goes on from if its process is killed:
        the same call with the same directory ends with the same bytes. It is removed
        when the call returns. Of several processes the chief alone is given one.

    Returns:
      One verified model for each width: `result["w8a8"].save("classifier.tflite")`,
      `result.save("runs/classifier")`.

    Raises:
      UserError: the model cannot be taken or an option does not fit; says what to do.
      ExportError: the TFLite converter or the verification failed.
    """
    options = {k: v for k, v in locals().items() if k not in ("progress", "state_dir")}
    if isinstance(constant_inputs, Mapping):
        options["constant_inputs"] = _as_flags(constant_inputs)
    if isinstance(bits, str):
        bits = bits.split(",")
    bit_widths = tuple(parse_bit_widths(text) for text in bits)
    if isinstance(recipe, str):
        recipe = get_recipe(recipe, num_steps)
    elif num_steps is not None:
        raise UserError(
            f"{option('num_steps', num_steps)} is for recipes by name; expected a "
            "Recipe with the steps that it is to have"
        )
    if isinstance(keep_layers, str):
        keep_layers = keep_layers.split(",")
    progress = _progress(progress)
    with quiet_work():
        strategy = _start(distribution)
        with whole_stage(progress, "loading"):
            classifier = load_classifier(
                model,
                weights=weights,
                input_size=input_size,
                output_name=output_name,
                constant_inputs=constant_inputs,
                allow_unsafe=allow_unsafe,
                preprocessing=preprocessing,
                mean=mean,
                std=std,
                input_range=input_range,
                task=task,
                without_bn_statistics=without_bn_statistics,
            )
        job = Job(
            classifier,
            recipe,
            bit_widths,
            tuple(keep_layers),
            Limits(max_accuracy_loss, max_bytes, max_latency_ratio),
            seed,
            target,
            input_type,
            output_type,
            read_labels(labels),
            strategy,
        )
        with kept_in(state_dir, run_facts(job, pool)) as checkpoints:
            result = run(job, pool=pool, progress=progress, checkpoints=checkpoints)
        return dataclasses.replace(result, manifest=make_manifest(job, options))


def quantize_from_manifest(path: str | Path, **given: Any) -> Result:  # noqa: ANN401
    """Makes an earlier run again, with the same bytes on the same machine.

    Args:
      path: of the run's `manifest.json`, or of its directory.
      **given: options of `quantize` in place of the manifest's: files that have moved,
        objects that were given to the earlier run, `progress`, `state_dir`.

    Raises:
      UserError: the manifest cannot be read, the model is another, or an option is
        missing that was an object.
      ExportError: see `quantize`.
    """
    manifest = read_manifest(Path(path))
    missing = [name for name in manifest.from_program if name not in given]
    if missing:
        raise UserError(
            f"{path} does not hold {', '.join(missing)} of the earlier run, being "
            "objects of a program; pass them besides"
        )
    stored = {**manifest.options, **given}
    manifest.require_files(stored)
    known = inspect.signature(quantize).parameters
    options = {name: value for name, value in stored.items() if name in known}
    for name in ("mean", "std", "input_range"):
        options[name] = [float(value) for value in options.get(name) or ()]
    if isinstance(options.get("constant_inputs"), list):
        options["constant_inputs"] = dict(map(_constant, options["constant_inputs"]))
    if stored.get("images") is not None:
        options["pool"] = read_images(Path(stored["images"]))
    of_model = inspect.signature(load_classifier).parameters.keys() & options.keys()
    with quiet_work():
        options["distribution"] = _start(options.get("distribution", "none"))
        classifier = load_classifier(**{name: options.pop(name) for name in of_model})
    require_same_classifier(manifest, classifier)
    result = quantize(classifier, **options)
    for of_call in ("progress", "state_dir"):
        stored.pop(of_call, None)
    made = make_manifest(result.job, stored)
    if found := manifest.differences(made.versions, made.machine):
        warnings.warn(
            f"bytes may differ from the earlier run's: {'; '.join(found)}", stacklevel=2
        )
    return dataclasses.replace(result, manifest=made)


def _as_flags(constant_inputs: Mapping[str, npt.ArrayLike]) -> list[str] | object:
    """As flags have them; what is there unless all are numbers."""
    numbers = [x for x in constant_inputs.values() if isinstance(x, (int, float))]
    if len(numbers) < len(constant_inputs):
        return constant_inputs
    pairs = zip(constant_inputs, numbers, strict=True)
    return [f"{name}={value}" for name, value in pairs]


def _constant(entry: str) -> tuple[str, npt.ArrayLike]:
    """Name and value of a constant input, as flags have it."""
    name, _, text = entry.partition("=")
    return name, np.load(text) if text.endswith(".npy") else float(text)


def synthesize(  # noqa: PLR0913 - each is an option of the command line
    model: ModelLike,
    *,
    num_images: int = 512,
    recipe: str | Recipe = DEFAULT_RECIPE,
    preprocessing: Preprocessing | str | None = None,
    seed: int = 0,
    progress: bool | Progress = True,
    distribution: str | Strategy = "none",
    state_dir: str | Path | None = None,
) -> ImagePool:
    """Makes images that stand for the lost training data, for other tools too.

    Args:
      model: see `quantize`; one that needs more than its preprocessing told is loaded
        by `load_classifier` first.
      num_images: how many.
      recipe: how much work, see `quantize`.
      preprocessing: what the model was trained on, see `quantize`.
      seed: of everything random.
      progress: see `quantize`.
      distribution: see `quantize`.
      state_dir: see `quantize`.

    Raises:
      UserError: see `quantize`.
    """
    recipe = get_recipe(recipe) if isinstance(recipe, str) else recipe
    progress = _progress(progress)
    with quiet_work():
        strategy = _start(distribution)
        with whole_stage(progress, "loading"):
            classifier = load_classifier(model, preprocessing=preprocessing)
        job = Job(classifier, recipe, (BitWidths(8, 8),), seed=seed, strategy=strategy)
        with kept_in(state_dir, image_facts(job)) as checkpoints:
            return make_images(
                job, num_images, progress=progress, checkpoints=checkpoints
            )


def _progress(progress: bool | Progress) -> Progress:
    if isinstance(progress, bool):
        return ConsoleProgress() if progress else NullProgress()
    return progress


def _start(distribution: str | Strategy) -> Strategy:
    """The strategy of a name, or that given; TensorFlow has then started quietly.

    It finds its devices at its first operation, and notes what it found.
    """
    with quiet_stderr():
        if isinstance(distribution, str):
            distribution = make_strategy(distribution)
        tf.constant(0)
    return distribution
