"""The flags that name a float classifier, shared by the tools that take one."""

from __future__ import annotations

from absl import flags

from gdfq_tf import embedded
from gdfq_tf.classifier import Classifier, Head
from gdfq_tf.errors import UserError
from gdfq_tf.frontend.canonical import TASKS
from gdfq_tf.frontend.load import load_classifier
from gdfq_tf.preprocessing import NAMES, Preprocessing, make_preprocessing

EMBEDDED = "embedded"
_OF_OTHER_MODELS = (
    "weights",
    "input_size",
    "output_name",
    "allow_unsafe",
    "preprocessing",
    "mean",
    "std",
)

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "model",
    None,
    "A .keras, .h5, .hdf5 or .json file, a SavedModel, keras.applications.NAME, "
    "or `embedded`: the Fashion-MNIST classifier that comes with the package.",
    required=True,
)
flags.DEFINE_string(
    "weights",
    None,
    "For keras.applications names and .json files: a .weights.h5 or .h5 file; for the "
    "names also imagenet.",
)
flags.DEFINE_integer(
    "input_size",
    None,
    "For keras.applications names: height and width of the images, if not their own.",
    lower_bound=1,
)
flags.DEFINE_string(
    "output_name", None, "The output to keep of a model file that has several."
)
flags.DEFINE_bool(
    "allow_unsafe",
    False,
    "Take Lambda layers and run the code that the model file holds for them, which may "
    "do whatever you may: only for files from whom you trust.",
)
flags.DEFINE_enum(
    "preprocessing",
    None,
    list(NAMES),
    "What the classifier was trained on: tf [-1, 1]; torch, caffe: as in "
    "keras.applications; unit [0, 1]; uint8 [0, 255]; custom: --mean and --std.",
)
flags.DEFINE_list("mean", [], "For custom: mean of pixel / 255, one or per channel.")
flags.DEFINE_list("std", [], "For custom: deviation of pixel / 255, likewise.")
flags.DEFINE_enum(
    "task",
    "classification",
    list(TASKS),
    "What the outputs are: classification, also labels beside each other; features: "
    "an embedding, a regression, an image.",
)
flags.DEFINE_bool(
    "without_bn_statistics",
    False,
    "Take a classifier that was trained without BatchNormalization: images are then "
    "made from class boundaries and smoothness alone.",
)


def load_classifier_from_flags() -> Classifier:
    """The classifier that the flags name.

    Raises:
      UserError: see `load_classifier`; or a flag that does not fit.
    """
    if FLAGS.model == EMBEDDED:
        given = [name for name in _OF_OTHER_MODELS if FLAGS[name].value]
        if given:
            raise UserError(
                f"--{given[0]} does not go with --model={EMBEDDED}, of which all is "
                "known; drop it"
            )
        return load_classifier(
            str(embedded.MODEL_PATH),
            preprocessing=embedded.PREPROCESSING,
            task=FLAGS.task,
            without_bn_statistics=FLAGS.without_bn_statistics,
        )
    return load_classifier(
        FLAGS.model,
        weights=FLAGS.weights,
        input_size=FLAGS.input_size,
        output_name=FLAGS.output_name,
        allow_unsafe=FLAGS.allow_unsafe,
        preprocessing=FLAGS.preprocessing,
        mean=_numbers("mean"),
        std=_numbers("std"),
        task=FLAGS.task,
        without_bn_statistics=FLAGS.without_bn_statistics,
    )


def require_classes(name: str, head: Head) -> None:
    """Refuses labelled images for a network that gives no class.

    Raises:
      UserError: it gives labels or features.
    """
    if not head.has_classes:
        raise UserError(
            f"--data holds one class per image, and the head of {name} is "
            f"{head.value!r}; run tools/quantize.py without --data: it compares outputs with the float "
            "network's"
        )


def preprocessing_from_flags(num_channels: int) -> Preprocessing:
    """The input contract that the flags name, for a model without a classifier."""
    return make_preprocessing(
        FLAGS.preprocessing, num_channels, mean=_numbers("mean"), std=_numbers("std")
    )


def _numbers(flag: str) -> tuple[float, ...]:
    try:
        return tuple(float(text) for text in FLAGS[flag].value)
    except ValueError as error:
        raise UserError(
            f"--{flag}={','.join(FLAGS[flag].value)} must be numbers separated by "
            "commas, such as 0.485,0.456,0.406"
        ) from error
