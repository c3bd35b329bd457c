"""`load_classifier`: read, translate, prove equal -> `Classifier`."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from gdfq_tf import embedded
from gdfq_tf.classifier import Classifier, Head
from gdfq_tf.errors import UserError, option
from gdfq_tf.frontend.canonical import Canonical, canonicalize
from gdfq_tf.frontend.ends import trimmed
from gdfq_tf.frontend.layer_importers import check_layer
from gdfq_tf.frontend.preprocessing_choice import (
    check_preprocessing,
    choose_preprocessing,
    in_words,
    what_to_pass,
)
from gdfq_tf.frontend.soundness import (
    check_magnitudes,
    find_death,
    num_probes,
    observe_on_probes,
    probe_images,
    warn_of_silent_channels,
)
from gdfq_tf.graph.bn_statistics import (
    batch_normalization_layers,
    batch_statistics,
    is_untouched,
)
from gdfq_tf.keras_compat import KerasModel, Layer, computing_in_float32, keras
from gdfq_tf.memory_needs import require_memory_for_any_run
from gdfq_tf.model_files.model_inputs import (
    Constants,
    image_input,
    in_words_of_constants,
    outputs_on,
    read_constants,
)
from gdfq_tf.model_files.readers import ReadOptions, SourceModel, read_model
from gdfq_tf.preprocessing import (
    Preprocessing,
    make_preprocessing,
    preprocessing_of_features,
)
from gdfq_tf.system.reproducibility import random_states_kept
from tflite_export.names import shown

# Largest difference between the outputs of the source and of its canonical copy,
# relative to the largest output if that exceeds 1. The two sum in other orders,
# which costs about 1e-6, in deep networks 1e-5; a wrong padding or weight costs more
# than 1e-3.
TOLERANCE = 1e-4
_PROOF_IMAGES = 4
# Inputs of the right range give the first BatchNormalization a deviation within a
# factor of ten of the stored one, noise and smooth images alike; taking [0, 255] for
# [0, 1] or [-1, 1] is off by a hundred and more.
_LARGEST_RANGE_FACTOR = 30.0
# The widest range, [0, 255], is 255 times the narrowest, [0, 1].
_BEYOND_ANY_RANGE = 255 * _LARGEST_RANGE_FACTOR
_RANGE_IMAGES = 16

_OPTIONS_OF_EMBEDDED = ("task", "without_bn_statistics")

# Whatever `load_classifier` takes.
ModelLike: TypeAlias = "str | os.PathLike[str] | KerasModel | Classifier"


@dataclasses.dataclass(frozen=True)
class Interpretation:
    """What a model does not tell of its inputs and outputs.

    Attributes:
      preprocessing: what the model was trained with, a `Preprocessing` or one of
        `config.PREPROCESSINGS`; None: the one that applications come with, and for
        others what `choose_preprocessing` finds.
      mean, std: for preprocessing "custom" only, in units of 1, one value or one
        per channel.
      input_range: of features that are no pixels: low, high, or both per channel.
      task: "classification", or "features" for a network whose outputs stand for no
        class: an embedding, a regression, an image.
      without_bn_statistics: takes a classifier that has no BatchNormalization, and no
        other.
      constant_inputs: values by the names of inputs that are no images, see
        `read_constants`.
    """

    preprocessing: Preprocessing | str | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    input_range: tuple[float, ...] = ()
    task: str = "classification"
    without_bn_statistics: bool = False
    constant_inputs: Mapping[str, npt.ArrayLike] | None = None


@random_states_kept()
@computing_in_float32()
def load_classifier(  # noqa: PLR0913 - the front door: one keyword for each option
    model: ModelLike,
    *,
    weights: str | os.PathLike[str] | None = None,
    input_size: int | None = None,
    output_name: str | None = None,
    constant_inputs: Mapping[str, npt.ArrayLike] | None = None,
    allow_unsafe: bool = False,
    preprocessing: Preprocessing | str | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    input_range: Sequence[float] = (),
    task: str = "classification",
    without_bn_statistics: bool = False,
) -> Classifier:
    """The classifier of a model file, of a name or of a model in memory.

    Args:
      model: path of a .keras, .h5, .hdf5 or .json file or of a SavedModel that Keras 2
        wrote; "keras.applications.NAME"; "embedded", the classifier that comes with the
        package; a model of Keras 3 or tf_keras, which stays as it is; or a
        `Classifier`, which is returned.
      weights: for a .json file: the path of a weights file; for applications that or
        "imagenet".
      input_size: for applications only: height and width of the images, if not their
        own.
      output_name: of a model with several outputs: the one to keep.
      constant_inputs: of a model with several inputs: those that are no images, by
        name, and what they always are: a number, or an array that broadcasts to the
        input's shape without the batch.
      allow_unsafe: takes Lambda layers of a file and runs the code that it holds, which
        may do whatever this process may.
      preprocessing: what the model was trained on, a `Preprocessing` or one of tf,
        torch, caffe, unit, uint8 and custom; for applications known, and for others
        found out if graph or statistics tell.
      mean: for "custom" only, of pixel / 255, one value or one per channel.
      std: likewise, the deviation.
      input_range: for features that are no pixels, in place of `preprocessing`: the
        range they lie in, low and high, or both for each channel, one behind the other.
      task: "classification", or "features" for an embedding, a regression, an image.
      without_bn_statistics: takes a classifier that has no BatchNormalization, and no
        other.

    Raises:
      UserError: the model cannot be read, has a layer without counterpart, has no
        BatchNormalization with statistics and is to have some, or the reverse, or its
        copy computes something else; preprocessing is neither given nor known, or
        cannot be what it was trained on; an option does not go with such a model.

    Warns (UserWarning) if some BatchNormalization layers are without statistics, of a
    preprocessing that was found out, and of a given one that fits badly.
    """
    reading = ReadOptions(weights, input_size, output_name, allow_unsafe)
    interpretation = Interpretation(
        preprocessing,
        tuple(mean),
        tuple(std),
        tuple(np.ravel(input_range).tolist()),
        task,
        without_bn_statistics,
        constant_inputs or None,
    )
    given = [*_given(reading), *_given(interpretation)]
    if isinstance(model, Classifier):
        _refuse_options(given, "a Classifier, which is loaded already")
        return model
    if isinstance(model, str) and model == embedded.NAME:
        of_others = [name for name in given if name not in _OPTIONS_OF_EMBEDDED]
        what = f"{option('model', embedded.NAME)}, of which all is known"
        _refuse_options(of_others, what)
        model = embedded.MODEL_PATH
        interpretation = dataclasses.replace(
            interpretation, preprocessing=embedded.PREPROCESSING
        )
    source = read_model(model, reading, check_layer=check_layer)
    translation = translate_classifier(source, interpretation)
    classifier = translation.classifier
    if classifier.has_bn_statistics:
        _check_statistics(classifier)
    check_preprocessing(
        classifier.name, translation.canonical, translation.preprocessing
    )
    if classifier.has_bn_statistics:
        _check_input_range(classifier)
    _check_alive(classifier)
    return classifier


def _given(options: ReadOptions | Interpretation) -> list[str]:
    """Names of those options that are not as by default."""
    return [
        field.name
        for field in dataclasses.fields(options)
        if getattr(options, field.name) != field.default
    ]


def _refuse_options(names: Sequence[str], what: str) -> None:
    if names:
        raise UserError(f"{option(names[0])} does not go with {what}; drop it")


class Translation(NamedTuple):
    """A model in memory as a classifier.

    Attributes:
      classifier: what computes the same.
      difference: the largest of their outputs on random images, relative to the
        largest output if that exceeds 1.
      preprocessing: pixels -> input of the model as its author built it.
      canonical: what the classifier was made of.
    """

    classifier: Classifier
    difference: float
    preprocessing: Preprocessing
    canonical: Canonical


def translate_classifier(
    source: SourceModel, interpretation: Interpretation
) -> Translation:
    """The classifier of a model in memory. Errors as of `load_classifier`."""
    model = trimmed(source.model, interpretation.task)
    constants = read_constants(source.model, interpretation.constant_inputs or {})
    canonical = canonicalize(model, interpretation.task, constants)
    interpretation = dataclasses.replace(
        interpretation,
        preprocessing=interpretation.preprocessing or source.preprocessing,
    )
    preprocessing = _resolve(interpretation, source.name, canonical)
    classifier = Classifier(
        source.name,
        canonical.model,
        preprocessing.then(canonical.input_scale, canonical.input_offset),
        canonical.head,
        canonical.example_shape,
        in_words_of_constants(constants),
    )
    _check_normalization(classifier, interpretation.without_bn_statistics)
    _check_soundness(classifier)
    difference = _check_equal(
        model, classifier, preprocessing, canonical.resizing, constants
    )
    return Translation(classifier, difference, preprocessing, canonical)


def _check_normalization(classifier: Classifier, without_bn_statistics: bool) -> None:
    """Refuses to go without statistics unasked, and to leave them unused."""
    if not classifier.has_bn_statistics and not without_bn_statistics:
        raise UserError(
            f"{classifier.name} has no BatchNormalization layer; GDFQ makes its images "
            "from the statistics they store: pass the network as trained, before its "
            "batch normalization was folded away, or, if it never had any, "
            f"{option('without_bn_statistics', True)} for images made from class "
            "boundaries alone"
        )
    if classifier.has_bn_statistics and without_bn_statistics:
        raise UserError(
            f"{classifier.name} has BatchNormalization layers, whose statistics make "
            f"better images; drop {option('without_bn_statistics')}"
        )


def _resolve(
    interpretation: Interpretation, name: str, canonical: Canonical
) -> Preprocessing:
    channels = canonical.model.input_shape[-1]
    preprocessing = interpretation.preprocessing
    mean, std = interpretation.mean, interpretation.std
    if interpretation.input_range:
        if preprocessing is not None or mean or std:
            raise UserError(
                f"{option('input_range')} is of features, which take no preprocessing, "
                "mean or std; pass the one or the other"
            )
        return preprocessing_of_features(interpretation.input_range, channels)
    if preprocessing is None and (mean or std):
        raise UserError(
            f"mean and std were given without {option('preprocessing')}; pass "
            f"{option('preprocessing', 'custom')} with them"
        )
    if preprocessing is None:
        return choose_preprocessing(name, canonical)
    if isinstance(preprocessing, str):
        return make_preprocessing(preprocessing, channels, mean=mean, std=std)
    if len(preprocessing.scale) != channels or mean or std:
        raise UserError(
            f"the Preprocessing given is for {len(preprocessing.scale)} channels and "
            f"holds its own mean and std; expected one for {channels} channels and "
            "neither mean nor std beside it"
        )
    return preprocessing


def _check_equal(
    source: KerasModel,
    classifier: Classifier,
    preprocessing: Preprocessing,
    resizing: Layer | None,
    constants: Constants,
) -> float:
    """Refuses a translation that computes something else than its source.

    Args:
      source: the model as its author built it.
      classifier: the translation.
      preprocessing: pixels -> input of the source.
      resizing: see `Canonical`.
      constants: for the source's other inputs.

    Returns:
      The largest difference of the outputs, in the unit that `TOLERANCE` has.
    """
    # A source of fixed batch size may refuse any other number of images.
    num_images, *source_shape = image_input(source, constants).shape
    num_images = num_images or num_probes(classifier.input_shape, _PROOF_IMAGES)
    shape, source_shape = classifier.input_shape, tuple(source_shape)
    if resizing is not None:  # what takes other sizes, or any
        sides = zip(source_shape, shape, strict=True)
        shape = source_shape = tuple(theirs or own for theirs, own in sides)
    pixels = np.random.default_rng(0).integers(0, 256, (num_images, *shape))
    images = preprocessing.to_input(pixels).numpy().reshape(num_images, *source_shape)
    if resizing is not None:
        pixels = np.asarray(resizing(pixels.astype(np.float32)))
    expected = outputs_on(source, images, constants).reshape(num_images, -1)
    logits = classifier.model(classifier.preprocessing.to_input(pixels))
    outputs = classifier.head.outputs_of(logits)
    if classifier.head == Head.SIGMOID:
        outputs = outputs[:, 1:]
    elif classifier.head == Head.LOGIT:
        outputs = outputs[:, 1:] - outputs[:, :1]
    largest = max(1.0, np.abs(expected).max())
    difference = np.abs(outputs.numpy() - expected).max() / largest
    if not difference <= TOLERANCE:  # so that NaN is refused as well
        raise UserError(
            f"{classifier.name} cannot be reproduced: on random images its translated "
            f"copy differs by {difference:.3g} of the largest output, expected at most "
            f"{TOLERANCE:.3g}; look for layers that behave in a custom way or are "
            "called with training=True"
        )
    return float(difference)


def _check_soundness(classifier: Classifier) -> None:
    """Refuses what no preprocessing could make work, and what no memory holds."""
    model = classifier.model
    require_memory_for_any_run(model, classifier.name)
    observations = observe_on_probes(model, classifier.preprocessing.to_input)
    check_magnitudes(model, observations)
    death = find_death(model, observations)
    if death is not None and death.by_weights:
        raise UserError(
            f"{classifier.name} gives the same outputs for every image: "
            f"{death.reason}; pass the network as it was when it told images apart"
        )
    warn_of_silent_channels(model)


def _check_alive(classifier: Classifier) -> None:
    """Refuses what tells no images apart, be it for the preprocessing."""
    observations = observe_on_probes(
        classifier.model, classifier.preprocessing.to_input
    )
    death = find_death(classifier.model, observations)
    if death is not None:
        raise UserError(
            f"{classifier.name} gives the same outputs for every random image under "
            f"{in_words(classifier.preprocessing)}: {death.reason}; "
            f"{what_to_pass(classifier.preprocessing)}, or, if that was it, the "
            "network as it was when it told images apart"
        )


def _check_statistics(classifier: Classifier) -> None:
    """Refuses BatchNormalization that tells nothing of the training data."""
    layers = batch_normalization_layers(classifier.model)
    untouched = [layer.name for layer in layers if is_untouched(layer)]
    if not untouched:
        return
    message = (
        f"{len(untouched)} of {len(layers)} BatchNormalization layers of "
        f"{classifier.name} ({shown(untouched[0])} first) hold mean 0 and variance 1, "
        "as before training or after folding; GDFQ makes its images from the "
        "statistics they store: pass the network as trained, before anything was folded"
    )
    if len(untouched) == len(layers):
        raise UserError(message)
    warnings.warn(message, stacklevel=3)


def _check_input_range(classifier: Classifier) -> None:
    """Refuses a preprocessing that cannot be what the classifier was trained on."""
    layer = batch_normalization_layers(classifier.model)[0]
    probe = tf.function(
        keras.Model(classifier.model.input, layer.input), autograph=False
    )
    variances = np.stack(
        [
            batch_statistics(probe(classifier.preprocessing.to_input(pixels))).variance
            for pixels in probe_images(
                classifier.input_shape,
                num_probes(classifier.input_shape, _RANGE_IMAGES),
            )
        ]
    )
    # A kernel of zeros says nothing of its input.
    varying = variances.max(axis=0) > 0
    if not varying.any():
        return
    stored = layer.moving_variance.numpy()
    ratios = np.sqrt((variances + layer.epsilon) / (stored + layer.epsilon))
    factors = np.median(ratios[:, varying], axis=1)
    low, high = factors.min(), factors.max()
    if low <= _LARGEST_RANGE_FACTOR and high >= 1 / _LARGEST_RANGE_FACTOR:
        return
    if low > _BEYOND_ANY_RANGE or high < 1 / _BEYOND_ANY_RANGE:
        raise UserError(
            f"BatchNormalization {shown(layer.name)} is given activations "
            f"{np.median(factors):.3g} times as large as those it stored statistics "
            f"of, which no preprocessing explains: the statistics of {classifier.name} "
            "are not of its weights; pass both as they were saved together"
        )
    raise UserError(
        f"{in_words(classifier.preprocessing)} gives activations "
        f"{np.median(factors):.3g} times as large as {classifier.name} was trained "
        f"on (BatchNormalization {shown(layer.name)}); "
        f"{what_to_pass(classifier.preprocessing)}"
    )
