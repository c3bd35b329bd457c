r"""Whether statistics tell the right preprocessing: networks trained with each of them.

    python -m benchmarks.preprocessing_fit --data=cifar10_test.npz --models=MODELS \
        --folder=runs/fit --output=docs/results/preprocessing_fit.json

Trains small networks on CIFAR-10's test images or the embedded Fashion-MNIST ones, each
with another preprocessing, and asks of each, of the embedded classifier and of those of
the accuracy tables in MODELS what it was. Networks that --folder holds are not trained
again. A row has the misfit of every candidate and of the right one, see
`gdfq_tf/frontend/preprocessing_fit.py`.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras  # Keras 3: what most people bring
import numpy as np
from absl import flags

from benchmarks import commands
from gdfq_tf import embedded
from gdfq_tf.errors import UserError
from gdfq_tf.frontend.canonical import Canonical, canonicalize
from gdfq_tf.frontend.layer_importers import check_layer
from gdfq_tf.frontend.preprocessing_choice import (
    check_preprocessing,
    choose_preprocessing,
)
from gdfq_tf.frontend.preprocessing_fit import candidates, rank
from gdfq_tf.model_files.readers import ReadOptions, read_model
from gdfq_tf.preprocessing import Preprocessing, make_preprocessing
from gdfq_tf.system.output_files import write_whole

_STEPS = 600
_BATCH_SIZE = 64
_layers = keras.layers


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network that was trained, or is to be.

    Attributes:
      images: a kind of `images_of`, or what others were trained on.
      preprocessing: what it is trained with; `mean`, `std`: of "custom".
      stem: one of `_STEMS`.
    """

    images: str
    preprocessing: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    stem: str = "plain"

    def contract(self, num_channels: int) -> Preprocessing:
        """Pixels -> input."""
        return make_preprocessing(
            self.preprocessing, num_channels, mean=self.mean, std=self.std
        )


SUBJECTS = {
    "unit": Subject("photographs", "unit"),
    "tf": Subject("photographs", "tf"),
    "torch": Subject("photographs", "torch"),
    "caffe": Subject("photographs", "caffe"),
    "uint8": Subject("photographs", "uint8"),
    "own": Subject("photographs", "custom", (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)),
    "half": Subject("photographs", "custom", (0.5,), (0.25,)),
    "unit_biased": Subject("photographs", "unit", stem="biased"),
    "unit_late": Subject("photographs", "unit", stem="late"),
    "tf_late": Subject("photographs", "tf", stem="late"),
    "unit_separable": Subject("photographs", "unit", stem="separable"),
    "uint8_normalized": Subject("photographs", "uint8", stem="normalized"),
    "uint8_rescaled": Subject("photographs", "uint8", stem="rescaled"),
    "grey_unit": Subject("grey", "unit"),
    "grey_tf": Subject("grey", "tf"),
    "grey_uint8": Subject("grey", "uint8"),
    "dark_unit": Subject("dark", "unit"),
    "dark_tf": Subject("dark", "tf"),
    "dark_uint8": Subject("dark", "uint8"),
    "dark_own": Subject("dark", "custom", (0.286,), (0.353,)),
    "bright_unit": Subject("bright", "unit"),
    "bright_tf": Subject("bright", "tf"),
}


# By file, in the folder of classifiers.
OTHERS = {
    "resnet20_cifar10": Subject("CIFAR-10", "torch"),
    "resnet20w_cifar100": Subject(
        "CIFAR-100", "custom", (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)
    ),
    "mobilenet_v1_0.25_224_imagenet": Subject("ImageNet", "tf"),
}


def _conv(
    x: keras.KerasTensor, filters: int, *, use_bias: bool = False
) -> keras.KerasTensor:
    x = _layers.Conv2D(filters, 3, 2, "same", use_bias=use_bias)(x)
    return _layers.ReLU()(_layers.BatchNormalization(momentum=0.98)(x))


def _separable(x: keras.KerasTensor) -> keras.KerasTensor:
    x = _layers.SeparableConv2D(16, 3, padding="same", use_bias=False)(x)
    return _layers.ReLU()(_layers.BatchNormalization(momentum=0.98)(x))


# What networks begin with.
_STEMS: Mapping[str, Callable[[keras.KerasTensor], keras.KerasTensor]] = {
    "plain": lambda x: _conv(x, 16),
    "biased": lambda x: _conv(x, 16, use_bias=True),
    "late": lambda x: _conv(_layers.Conv2D(12, 3, activation="relu")(x), 16),
    "separable": _separable,
    "normalized": lambda x: _conv(_layers.BatchNormalization(momentum=0.98)(x), 16),
    "rescaled": lambda x: _conv(_layers.Rescaling(1 / 255)(x), 16),
}


def train(subject: Subject, pixels: np.ndarray, labels: np.ndarray) -> keras.Model:
    """A network of four convolutions."""
    keras.utils.set_random_seed(0)
    image = keras.Input(pixels.shape[1:])
    x = _STEMS[subject.stem](image)
    for filters in (32, 48):
        x = _conv(x, filters)
    x = _layers.Dense(10)(_layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, x)
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    inputs = subject.contract(pixels.shape[-1]).to_input(pixels).numpy()
    epochs = round(_STEPS * _BATCH_SIZE / len(inputs))
    model.fit(inputs, labels, _BATCH_SIZE, epochs, verbose=0)
    return model


def images_of(cifar10: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Kind -> pixels uint8 (N, 32, 32, C) and labels."""
    with np.load(cifar10) as data:
        photographs, labels = data["x_test"][:8000], data["y_test"][:8000].ravel()
    with np.load(embedded.TEST_IMAGES_PATH) as data:
        dark, dark_labels = data["x_test"], data["y_test"]
    grey = np.round(photographs.mean(-1, keepdims=True)).astype(np.uint8)
    return {
        "photographs": (photographs, labels),
        "grey": (grey, labels),
        "dark": (dark, dark_labels),
        "bright": (255 - dark, dark_labels),
    }


def define_flags() -> commands.Flags:
    """Those of this benchmark."""
    defined = commands.Flags()
    defined.group("The benchmark")
    defined.string("data", "CIFAR-10's test images, an .npz.", required=True)
    defined.string("models", "The folder of trained classifiers.", required=True)
    defined.string("folder", "Where trained networks are kept.", required=True)
    defined.string("output", "The JSON file.", required=True)
    return defined


def main(values: flags.FlagValues) -> None:
    """Trains what is missing, measures all and writes --output."""
    folder, models = Path(values.folder), Path(values.models)
    folder.mkdir(parents=True, exist_ok=True)
    subjects = {folder / f"{name}.keras": subject for name, subject in SUBJECTS.items()}
    images = images_of(Path(values.data))
    for path, subject in subjects.items():
        if not path.exists():
            train(subject, *images[subject.images]).save(path)
    subjects |= {models / f"{name}.keras": subject for name, subject in OTHERS.items()}
    subjects[embedded.MODEL_PATH] = Subject("Fashion-MNIST", embedded.PREPROCESSING)
    rows = [measure(path, subject) for path, subject in subjects.items()]
    write_whole(Path(values.output), (json.dumps(rows, indent=1) + "\n").encode())


def measure(path: Path, subject: Subject) -> dict[str, Any]:
    """One network's row."""
    source = read_model(path, ReadOptions(), check_layer=check_layer)
    canonical = canonicalize(source.model)
    channels = canonical.model.input_shape[-1]
    right, named = subject.contract(channels), candidates(channels)
    fits = rank(
        canonical.model,
        [*named, *([] if right in named else [right])],
        canonical.input_scale,
        canonical.input_offset,
    )
    return {
        "network": path.stem,
        "images": subject.images,
        "right": right.name,
        "misfits": {fit.preprocessing.name: fit.misfit for fit in fits},
        "chosen": _chosen(canonical),
        "refused": [
            fit.preprocessing.name
            for fit in fits
            if _refuses(canonical, fit.preprocessing)
        ],
    }


def _chosen(canonical: Canonical) -> str | None:
    """What is taken where none is given; None if that is asked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return choose_preprocessing("network", canonical).name
        except UserError:
            return None


def _refuses(canonical: Canonical, preprocessing: Preprocessing) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check_preprocessing("network", canonical, preprocessing)
        except UserError:
            return True
    return False


if __name__ == "__main__":
    commands.run(main, define_flags(), __doc__)
