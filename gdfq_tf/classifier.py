"""The float network as the rest of the program works on it, and how it ends."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from gdfq_tf.graph.bn_statistics import batch_normalization_layers
from gdfq_tf.input_format import ExampleShape, InputFormat
from gdfq_tf.keras_compat import keras
from gdfq_tf.preprocessing import Preprocessing

_BATCH_SIZE = 64


class Head(str, enum.Enum):
    """How a network ends: what it gives of the logits that canonical ones end in.

    | head | the network gives | exported as |
    |---|---|---|
    | logits | one logit per class | the same |
    | softmax | their softmax | the same |
    | logit | one logit z, of class 1 where z > 0 | two logits, -z / 2 and z / 2 |
    | sigmoid | p of one sigmoid unit | the softmax of two logits, (1 - p, p) |
    | multi_label | a sigmoid per label, any number of which may be on | the same |
    | features | numbers of no class: embedding, regression, image | the same |
    """

    LOGITS = "logits"
    LOGIT = "logit"
    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    MULTI_LABEL = "multi_label"
    FEATURES = "features"

    @property
    def has_classes(self) -> bool:
        """Whether each image belongs to one of the classes."""
        return self in (Head.LOGITS, Head.LOGIT, Head.SOFTMAX, Head.SIGMOID)

    @property
    def ends_in_softmax(self) -> bool:
        """Whether the exported model does."""
        return self in (Head.SOFTMAX, Head.SIGMOID)

    def num_labels(self, num_outputs: int) -> int:
        """How many labels images can be asked to have; one where there are none."""
        return 1 if self is Head.FEATURES else num_outputs

    def outputs_of(self, logits: tf.Tensor) -> tf.Tensor:
        """What the exported model gives for canonical `logits` (N, C)."""
        if self.ends_in_softmax:
            return tf.nn.softmax(logits)
        if self is Head.MULTI_LABEL:
            return tf.sigmoid(logits)
        return logits


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A float network in the form the rest of the program works on.

    Attributes:
      name: file stem or lower-case application name, safe for file names.
      model: canonical (see `canonical.py`): preprocessed float32 (N, H, W, C) ->
        logits (N, num_classes), or features.
      preprocessing: pixels -> model input, together with the scaling layers that the
        original model began with.
      head: how the original model ended.
      example_shape: of one example as the original and the exported model take it: an
        image (height, width, channels), a picture (height, width), a signal (time,
        features) or values (count,); those of `input_shape`, in the same order.
      constant_inputs: what other inputs of the original were bound to, by name.
    """

    name: str
    model: keras.Model
    preprocessing: Preprocessing
    head: Head
    example_shape: ExampleShape
    constant_inputs: Mapping[str, float | str] = dataclasses.field(default_factory=dict)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels); of signals (time, 1, features)."""
        return tuple(self.model.input_shape[1:])

    @property
    def input_format(self) -> InputFormat:
        """How examples are given to the original, and to the exported model."""
        return InputFormat(self.example_shape, self.input_shape, self.preprocessing)

    @property
    def num_classes(self) -> int:
        """Length of the output: classes, labels or features."""
        return int(self.model.output_shape[-1])

    @property
    def num_labels(self) -> int:
        """How many labels images can be asked to have, see `Head.num_labels`."""
        return self.head.num_labels(self.num_classes)

    @property
    def has_bn_statistics(self) -> bool:
        """Whether BatchNormalization layers describe the training images."""
        return bool(batch_normalization_layers(self.model))


def predict_logits(
    model: keras.Model,
    pixels: npt.NDArray[np.uint8],
    to_input: Callable[[tf.Tensor], tf.Tensor],
) -> npt.NDArray[np.float32]:
    """Logits float32 (N, classes) of a model, a batch of images at a time.

    Args:
      model: a classifier's or a student's.
      pixels: uint8 (N, H, W, C).
      to_input: `Preprocessing.to_input` for a classifier, `to_student_input` for a
        student.
    """
    predict = tf.function(
        lambda batch: model(to_input(batch), training=False),
        reduce_retracing=True,
        autograph=False,
    )
    starts = range(0, len(pixels), _BATCH_SIZE)
    return np.concatenate(
        [predict(tf.constant(pixels[i : i + _BATCH_SIZE])).numpy() for i in starts]
    )
