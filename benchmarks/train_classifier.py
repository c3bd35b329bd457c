"""Trains a small keras.applications network: how the embedded model was made.

Writes to --output_dir: <name>_<network>.keras (Keras 3, no optimizer state),
<name>_<network>.json (accuracies, command, seconds) and <name>_test.npz
(--num_test_images labelled test images, a seeded random subset of the test
split; the test split takes no part in training or in any choice).

Keras may refuse a .keras file of a later release, so a file for others is best
saved with the oldest Keras in requirements.txt, the one for Python 3.10.

Example:
  python -m benchmarks.train_classifier --dataset=fashion_mnist --output_dir=runs/model
"""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Callable

import keras  # Keras 3: the embedded file is a Keras 3 one
import numpy as np
from absl import app, flags

from benchmarks import command
from gdfq_tf.cli import runner
from gdfq_tf.cli.labelled_images import read_split
from gdfq_tf.preprocessing import make_preprocessing

_NETWORKS = {
    "mobilenet_v2": keras.applications.MobileNetV2,
    "mobilenet": keras.applications.MobileNet,
}
_MIN_SIZE = 32  # keras.applications refuses smaller inputs
_MAX_SHIFT = 2  # pixels, each way
_NUM_VALIDATION = 5000  # training images left out, to compare settings with
_BN_BATCH_SIZE = 1000

Preprocess = Callable[[np.ndarray], np.ndarray]  # pixels -> model input

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "dataset", "fashion_mnist", "keras.datasets name, or folder of IDX files."
)
flags.DEFINE_string("name", "fashion_mnist", "Data set name used in file names.")
flags.DEFINE_enum("network", "mobilenet_v2", sorted(_NETWORKS), "Architecture.")
flags.DEFINE_float("alpha", 0.35, "Width multiplier.", lower_bound=0.1)
flags.DEFINE_integer("epochs", 25, "Passes over the training images.", lower_bound=1)
flags.DEFINE_integer("batch_size", 128, "Images a step.", lower_bound=2)
flags.DEFINE_float("learning_rate", 3e-3, "Peak AdamW learning rate.", lower_bound=0)
flags.DEFINE_float("weight_decay", 0.02, "AdamW weight decay.", lower_bound=0)
flags.DEFINE_float("label_smoothing", 0.05, "Of the training labels.", lower_bound=0)
flags.DEFINE_integer("num_test_images", 2000, "Test images to ship.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Of weights, batches, augmentation and subset.")
flags.DEFINE_string("output_dir", None, "Folder for the files.", required=True)


class AugmentedBatches(keras.utils.PyDataset):
    """Shuffled batches, randomly shifted and mirrored, preprocessed.

    Args:
      pixels: uint8 (N, H, W, C).
      labels: int64 (N,).
      num_classes: length of the one-hot labels.
      batch_size: images of a batch.
      preprocess: pixels -> model input.
      seed: of order, shifts and mirroring.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        labels: np.ndarray,
        num_classes: int,
        batch_size: int,
        preprocess: Preprocess,
        seed: int,
    ) -> None:
        """Takes the images, and how they are shown."""
        super().__init__()
        self._pixels, self._preprocess = pixels, preprocess
        self._one_hot = np.eye(num_classes, dtype=np.float32)[labels]
        self._batch_size = batch_size
        self._rng = np.random.default_rng(seed)
        self._order = self._rng.permutation(len(labels))

    def __len__(self) -> int:
        """Batches of an epoch."""
        # The last, smaller batch would give noisy batch statistics.
        return len(self._order) // self._batch_size

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Model inputs and one-hot labels of a batch."""
        start = index * self._batch_size
        chosen = self._order[start : start + self._batch_size]
        batch = augment(self._pixels[chosen], self._rng)
        return self._preprocess(batch), self._one_hot[chosen]

    def on_epoch_end(self) -> None:
        """Another order for the next epoch."""
        self._rng.shuffle(self._order)


def pad_to_min_size(pixels: np.ndarray) -> np.ndarray:
    """Images centred on zeros where smaller than 32 x 32, (N, H, W, C).

    Args:
      pixels: (N, H, W, C), or grey ones without a channel axis.
    """
    pixels = pixels.reshape(*pixels.shape[:3], -1)
    missing = [max(0, _MIN_SIZE - size) for size in pixels.shape[1:3]]
    before_after = [(m // 2, m - m // 2) for m in missing]
    return np.pad(pixels, [(0, 0), *before_after, (0, 0)])


def augment(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each image (N, H, W, C) shifted by up to 2 pixels, half of them mirrored."""
    count, height, width, _ = pixels.shape
    border = (_MAX_SHIFT, _MAX_SHIFT)
    padded = np.pad(pixels, [(0, 0), border, border, (0, 0)])
    top, left = rng.integers(0, 2 * _MAX_SHIFT + 1, (2, count, 1))
    mirrored = rng.random((count, 1)) < 0.5
    rows = top + np.arange(height)
    columns = left + np.where(mirrored, np.arange(width)[::-1], np.arange(width))
    image = np.arange(count)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]]


def reestimate_batch_norm(model: keras.Model, inputs: np.ndarray) -> None:
    """Sets every moving mean and variance to its mean over batches of `inputs`.

    The exponential averages of training lag behind the weights and describe
    augmented images; data-free quantization reads these numbers as the
    population's, so they are measured once more with the final weights.
    """
    layers = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in layers]
    for index, start in enumerate(range(0, len(inputs), _BN_BATCH_SIZE)):
        for layer in layers:
            layer.momentum = index / (index + 1)  # makes the average a plain mean
        model(inputs[start : start + _BN_BATCH_SIZE], training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def train(
    model: keras.Model,
    train_pixels: np.ndarray,
    train_labels: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray],
    preprocess: Preprocess,
) -> None:
    """Trains in place: AdamW, one cosine period after an epoch of warm-up."""
    num_classes = model.output_shape[-1]
    batches = AugmentedBatches(
        train_pixels,
        train_labels,
        num_classes,
        FLAGS.batch_size,
        preprocess,
        FLAGS.seed,
    )
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=len(batches) * max(1, FLAGS.epochs - 1),
        warmup_target=FLAGS.learning_rate,
        warmup_steps=len(batches),
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=FLAGS.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.99  # the default 0.999 averages over whole epochs
    model.compile(
        optimizer,
        loss=keras.losses.CategoricalCrossentropy(
            label_smoothing=FLAGS.label_smoothing
        ),
        metrics=["accuracy"],
        jit_compile=False,  # XLA is slower for these networks on CPUs
    )
    inputs, labels = validation
    model.fit(
        batches,
        epochs=FLAGS.epochs,
        validation_data=(inputs, keras.utils.to_categorical(labels, num_classes)),
        validation_batch_size=_BN_BATCH_SIZE,
        verbose=2,
    )
    reestimate_batch_norm(model, preprocess(train_pixels))


def accuracy(model: keras.Model, inputs: np.ndarray, labels: np.ndarray) -> float:
    """Share of `inputs` whose largest output is that of their label."""
    outputs = model.predict(inputs, batch_size=_BN_BATCH_SIZE, verbose=0)
    return float(np.mean(outputs.argmax(-1) == labels))


def main() -> None:
    """Trains, measures and writes the files."""
    started = time.monotonic()
    keras.utils.set_random_seed(FLAGS.seed)
    train_split = read_split(FLAGS.dataset, "train")
    test_split = read_split(FLAGS.dataset, "test")
    train_pixels = pad_to_min_size(train_split.pixels)
    test_pixels = pad_to_min_size(test_split.pixels)
    preprocessing = make_preprocessing("tf", train_pixels.shape[-1])

    def preprocess(pixels: np.ndarray) -> np.ndarray:
        return preprocessing.to_input(pixels).numpy()

    def build() -> keras.Model:
        return _NETWORKS[FLAGS.network](
            input_shape=train_pixels.shape[1:],
            alpha=FLAGS.alpha,
            weights=None,
            classes=int(train_split.labels.max()) + 1,
        )

    model = build()
    validation = (
        preprocess(train_pixels[-_NUM_VALIDATION:]),
        train_split.labels[-_NUM_VALIDATION:],
    )
    train(
        model,
        train_pixels[:-_NUM_VALIDATION],
        train_split.labels[:-_NUM_VALIDATION],
        validation,
        preprocess,
    )
    subset = np.sort(
        np.random.default_rng(FLAGS.seed).permutation(len(test_pixels))[
            : FLAGS.num_test_images
        ]
    )
    test_inputs = preprocess(test_pixels)
    facts = {
        "network": f"keras.applications {model.name}",
        "keras": keras.__version__,
        "parameters": model.count_params(),
        "input_shape": list(model.input_shape[1:]),
        "preprocessing": preprocessing.name,
        "validation_accuracy": accuracy(model, *validation),
        "test_accuracy": accuracy(model, test_inputs, test_split.labels),
        "test_images": len(test_inputs),
        "shipped_test_accuracy": accuracy(
            model, test_inputs[subset], test_split.labels[subset]
        ),
        "shipped_test_images": len(subset),
        "seconds": round(time.monotonic() - started, 1),
        "command": command("benchmarks.train_classifier"),
    }
    output_dir = pathlib.Path(FLAGS.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    stem = f"{FLAGS.name}_{FLAGS.network}"
    # A fresh model with the same weights carries no optimizer and no loss.
    trained = build()
    trained.set_weights(model.get_weights())
    trained.save(output_dir / f"{stem}.keras")
    np.savez_compressed(
        output_dir / f"{FLAGS.name}_test.npz",
        x_test=test_pixels[subset],
        y_test=test_split.labels[subset].astype(np.uint8),
    )
    text = json.dumps(facts, indent=2)
    (output_dir / f"{stem}.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    app.run(lambda _: runner.run(main))
